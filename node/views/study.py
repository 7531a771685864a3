"""One study with all that is known of it: what came in, every run with its results, deliveries, history."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from pydicom.uid import UID
from sqlalchemy import select
from sqlalchemy.orm import Session

from node import studies
from node.config import Settings
from node.models import Instance, Quarantined, Study, TimelineEvent
from node.views.exchange import CommitmentView, PullView, commitments_of, pulls_of
from node.views.rows import StudyRow, study_rows
from node.views.run import RunView, run_views


@dataclass(frozen=True)
class InstanceView:
    """One received object; `sop_class` and `transfer_syntax` are names.

    Slices of one volume that came one an object are one line: `slices` objects, the UID of the first, their size
    together, `frames` as many. 0 for others.
    """

    sop_uid: str
    slices: int
    sop_class: str
    transfer_syntax: str
    is_image: bool
    laterality: str | None
    view: str | None
    frames: int | None
    size_bytes: int
    generation: int
    calling_ae: str
    received_at: datetime


@dataclass(frozen=True)
class EventView:
    """One line of the history."""

    at: datetime
    kind: str
    message: str


@dataclass(frozen=True)
class QuarantinedView:
    """An object that is kept aside and never read: it came under a known UID with other bytes, or is of a form that
    only its maker's software reads. `conflict` tells which."""

    sop_uid: str
    sha256: str
    size_bytes: int
    reason: str
    calling_ae: str
    received_at: datetime
    conflict: bool


@dataclass(frozen=True)
class StudyPage:
    """All of one study; the only view with patient attributes. Runs are newest first, history is oldest first.

    `shadow_runs` are of models that read beside the one that answers: never delivered, never the study's status.
    """

    row: StudyRow
    state: str
    completed_at: datetime | None
    completed_because: str | None
    patient_id: str | None
    accession_number: str | None
    study_date: str | None
    instances: tuple[InstanceView, ...]
    runs: tuple[RunView, ...]
    shadow_runs: tuple[RunView, ...]
    quarantined: tuple[QuarantinedView, ...]
    commitments: tuple[CommitmentView, ...]  # of its results, by our peers
    pulls: tuple[PullView, ...]  # by which it came, and of its priors
    timeline: tuple[EventView, ...]


def study_page(session: Session, study_uid: str, settings: Settings, at: datetime) -> StudyPage:
    """One study by its UID or the node's own id, in a fixed number of queries.

    Raises:
        NotFound: no such study.
    """
    study = studies.find(session, study_uid)
    (row,) = study_rows(session, [study.id], settings, at)
    all_runs = run_views(session, study, settings, at)
    return StudyPage(
        row=row,
        state=study.state,
        completed_at=study.completed_at,
        completed_because=study.completed_because,
        patient_id=study.patient_id,
        accession_number=study.accession_number,
        study_date=study.study_date,
        instances=_instances(session, study),
        runs=tuple(run for run in all_runs if not run.shadow),
        shadow_runs=tuple(run for run in all_runs if run.shadow),
        quarantined=_quarantined(session, study),
        commitments=commitments_of(session, study, at),
        pulls=pulls_of(session, study, at),
        timeline=_timeline(session, study),
    )


def _instances(session: Session, study: Study) -> tuple[InstanceView, ...]:
    query = select(Instance).where(Instance.study_id == study.id).order_by(Instance.received_at)
    lines: dict[tuple[str, int], list[Instance]] = {}
    for instance in session.execute(query).scalars():
        line = (instance.volume_uid or instance.sop_uid, instance.generation)
        lines.setdefault(line, []).append(instance)
    return tuple(
        InstanceView(
            sop_uid=instance.sop_uid,
            slices=1 + len(others) if instance.volume_uid else 0,
            sop_class=UID(instance.sop_class_uid).name,
            transfer_syntax=UID(instance.transfer_syntax_uid).name,
            is_image=instance.is_image,
            laterality=instance.laterality,
            view=instance.view,
            frames=1 + len(others) if instance.volume_uid else instance.frames,
            size_bytes=sum(each.size_bytes for each in (instance, *others)),
            generation=instance.generation,
            calling_ae=instance.calling_ae,
            received_at=instance.received_at,
        )
        for instance, *others in lines.values()
    )


def _quarantined(session: Session, study: Study) -> tuple[QuarantinedView, ...]:
    """Both kinds, in the order in which they came."""
    shared = ("sop_uid", "sha256", "size_bytes", "calling_ae", "received_at")
    conflicts = select(Quarantined).where(Quarantined.study_uid == study.study_uid)
    aside = select(Instance).where(Instance.study_id == study.id, Instance.kept_aside.is_not(None))
    found = [(row, row.reason, True) for row in session.execute(conflicts).scalars()] + [
        (row, row.kept_aside or "", False) for row in session.execute(aside).scalars()
    ]
    views = [
        QuarantinedView(
            **{name: getattr(row, name) for name in shared}, reason=reason, conflict=conflict
        )
        for row, reason, conflict in found
    ]
    return tuple(sorted(views, key=lambda view: (view.received_at, view.sop_uid)))


def _timeline(session: Session, study: Study) -> tuple[EventView, ...]:
    query = (
        select(TimelineEvent).where(TimelineEvent.study_id == study.id).order_by(TimelineEvent.id)
    )
    return tuple(
        EventView(event.at, event.kind, event.message) for event in session.execute(query).scalars()
    )
