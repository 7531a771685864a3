"""Arriving objects: the row of each, its study's, and what becomes of one that is here already or comes late."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum

from sqlalchemy import select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from node import pulls, timeline
from node.catalogue import rows
from node.catalogue.described import Described, OfStudy
from node.db import transition
from node.lifecycle import StudyEvent, StudyState
from node.models import Instance, Quarantined, Study


class Recorded(StrEnum):
    """What became of an arriving object."""

    NEW = "NEW"
    DUPLICATE = "DUPLICATE"  # same UID, same bytes: success, nothing new
    CONFLICT = "CONFLICT"  # same UID, other bytes: the first stays, the second is kept aside


@dataclass(frozen=True)
class Arrival:
    """An object that lies durably in the blob store, and what its header says."""

    study_uid: str
    series_uid: str
    sop_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    is_image: bool
    sha256: str
    size_bytes: int
    laterality: str | None
    view: str | None
    frames: int | None
    patient_id: str | None
    accession_number: str | None
    study_date: str | None
    calling_ae: str
    volume_uid: str | None = None  # its series, where it is one slice of a volume
    kept_aside: str | None = None  # why it is kept and never read
    # what else it says of the study, and of itself, for queries
    of_study: OfStudy = field(default_factory=OfStudy)
    described: Described = field(default_factory=Described)


def record(session: Session, arrival: Arrival, at: datetime) -> Recorded:
    """Write the row of an arriving object and touch its study, in the caller's transaction.

    A new image of a study that was closed opens its next generation; other objects (reports, our own results coming
    back) are filed and change nothing. What is new is listed in the catalogue, for queries.
    """
    _ensure_study(session, arrival, at)
    study = session.execute(
        select(Study).where(Study.study_uid == arrival.study_uid).with_for_update()
    ).scalar_one()
    known = session.execute(
        select(Instance.sha256).where(Instance.sop_uid == arrival.sop_uid)
    ).scalar_one_or_none()
    if known is not None:
        if known == arrival.sha256:
            _touch(session, study, at)
            return Recorded.DUPLICATE
        _quarantine(session, study, arrival, at)
        return Recorded.CONFLICT
    generation = study.generation
    if arrival.is_image and study.state != StudyState.RECEIVING:
        generation = _reopen(session, study, at)
    pulls.note_arrival(session, study, arrival.calling_ae, arrival.is_image, at)
    instance = _instance(study, arrival, generation, at)
    session.add(instance)
    session.flush()
    rows.fill_study(session, study, _of_study(arrival))
    rows.add_instance(session, instance, arrival.described)
    if arrival.kept_aside is not None:
        said = f"{arrival.sop_uid} is kept aside: {arrival.kept_aside}"
        timeline.add(session, study.id, at, "quarantined", said)
    _touch(session, study, at)
    return Recorded.NEW


def _ensure_study(session: Session, arrival: Arrival, at: datetime) -> None:
    insert = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    session.execute(
        insert(Study)
        .values(
            id=uuid.uuid4(),
            study_uid=arrival.study_uid,
            state=StudyState.RECEIVING.value,
            generation=1,
            received_at=at,
            generation_at=at,
            last_activity_at=at,
        )
        .on_conflict_do_nothing(index_elements=["study_uid"])
    )


def _of_study(arrival: Arrival) -> OfStudy:
    return replace(
        arrival.of_study,
        patient_id=arrival.patient_id,
        accession_number=arrival.accession_number,
        study_date=arrival.study_date,
    )


def _instance(study: Study, arrival: Arrival, generation: int, at: datetime) -> Instance:
    return Instance(
        study_id=study.id,
        sop_uid=arrival.sop_uid,
        sop_class_uid=arrival.sop_class_uid,
        series_uid=arrival.series_uid,
        transfer_syntax_uid=arrival.transfer_syntax_uid,
        is_image=arrival.is_image,
        generation=generation,
        sha256=arrival.sha256,
        size_bytes=arrival.size_bytes,
        laterality=arrival.laterality,
        view=arrival.view,
        frames=arrival.frames,
        volume_uid=arrival.volume_uid,
        kept_aside=arrival.kept_aside,
        calling_ae=arrival.calling_ae,
        received_at=at,
    )


def _touch(session: Session, study: Study, at: datetime) -> None:
    session.execute(update(Study).where(Study.id == study.id).values(last_activity_at=at))


def _reopen(session: Session, study: Study, at: datetime) -> int:
    generation = study.generation + 1
    transition(
        session,
        Study,
        StudyEvent.IMAGE_ARRIVED,
        [Study.id == study.id],
        generation=generation,
        generation_at=at,
        completed_at=None,
        completed_because=None,
        excluded_reason=None,
    )
    timeline.add(
        session, study.id, at, "reopened", f"an image arrived late: generation {generation}"
    )
    return generation


def _quarantine(session: Session, study: Study, arrival: Arrival, at: datetime) -> None:
    twin = select(Quarantined.id).where(
        Quarantined.sop_uid == arrival.sop_uid, Quarantined.sha256 == arrival.sha256
    )
    if session.execute(twin).first() is None:
        session.add(
            Quarantined(
                sop_uid=arrival.sop_uid,
                study_uid=arrival.study_uid,
                sha256=arrival.sha256,
                size_bytes=arrival.size_bytes,
                reason="same SOP Instance UID as a stored object, other bytes; the first was kept",
                calling_ae=arrival.calling_ae,
                received_at=at,
            )
        )
        timeline.add(
            session,
            study.id,
            at,
            "quarantined",
            f"{arrival.sop_uid} came again with other bytes: kept aside",
        )
