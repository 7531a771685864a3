"""Rows of the work list: everything a row shows, for many studies at once, in a fixed number of queries."""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from dicom_io.result_codes import UNTRAINED_NOTICE
from node import lifecycle, studies
from node.completion import Received, Verdict, judge
from node.config import Settings
from node.lifecycle import DeliveryState, RunState, StudyState
from node.models import Activity, Delivery, ImageResult, Instance, Peer, Run, Study
from node.views.status import with_newest_run
from node.views.waiting import Facts, why


@dataclass(frozen=True)
class BreastScore:
    """The highest scores, in [0, 1], of the images of one breast (`R` or `L`; `?` where the header does not say)."""

    laterality: str
    benign: float
    malignant: float
    images: int


@dataclass(frozen=True)
class StudyRow:
    """One study in the work list. `run_*`, scores and model are of the newest run, which may be of an earlier
    generation while more images arrive; `trained` is None before a run has ended well."""

    id: uuid.UUID
    study_uid: str
    received_at: datetime
    last_activity_at: datetime
    status: str
    why: str
    generation: int
    views: tuple[str, ...]
    missing_views: tuple[str, ...]
    images: int
    instances: int
    size_bytes: int
    calling_aes: tuple[str, ...]
    run_id: uuid.UUID | None
    run_state: str | None
    run_generation: int | None
    model_version: str | None
    trained: bool | None
    caveat: str | None
    scores: tuple[BreastScore, ...]
    failed_deliveries: tuple[uuid.UUID, ...]

    @property
    def scores_outdated(self) -> bool:
        """Whether the scores are of an earlier generation than what was received."""
        return bool(self.scores) and self.run_generation != self.generation


def study_rows(
    session: Session, ids: Sequence[uuid.UUID], settings: Settings, at: datetime
) -> tuple[StudyRow, ...]:
    """Rows of these studies, in this order; a fixed number of queries however many they are."""
    query = with_newest_run(select(Study, Run).select_from(Study)).where(Study.id.in_(ids))
    found: dict[uuid.UUID, tuple[Study, Run | None]] = {
        study.id: (study, run) for study, run in session.execute(query)
    }
    run_ids = [run.id for _, run in found.values() if run is not None]
    holdings = _holdings(session, ids)
    verdicts = _verdicts(session, [study for study, _ in found.values()], holdings, settings, at)
    deliveries = _deliveries(session, run_ids)
    scores = _scores(session, run_ids)
    ahead = _queue_positions(session, at)
    rows = []
    for study, run in (found[study_id] for study_id in ids if study_id in found):
        sent = deliveries[run.id] if run else []
        status = lifecycle.status(
            study.state, run.state if run else None, [d.state for d, _ in sent]
        )
        before = ahead.get(run.id, 0) if run else 0
        facts = Facts(status, study, verdicts.get(study.id), run, sent, before)
        rows.append(_row(facts, holdings[study.id], scores[run.id] if run else (), settings, at))
    return tuple(rows)


@dataclass
class _Holding:
    """What was received of one study, added up."""

    views: set[str]
    images: int = 0
    instances: int = 0
    size_bytes: int = 0
    calling_aes: tuple[str, ...] = ()


def _row(
    facts: Facts,
    holding: _Holding,
    scores: tuple[BreastScore, ...],
    settings: Settings,
    at: datetime,
) -> StudyRow:
    study, run = facts.study, facts.run
    views = sorted(view for view in holding.views if "None" not in view)
    missing = sorted(set(settings.expected_views) - holding.views)
    return StudyRow(
        id=study.id,
        study_uid=study.study_uid,
        received_at=study.received_at,
        last_activity_at=study.last_activity_at,
        status=facts.status,
        why=why(facts, settings, at),
        generation=study.generation,
        views=tuple(views),
        missing_views=tuple(missing),
        images=holding.images,
        instances=holding.instances,
        size_bytes=holding.size_bytes,
        calling_aes=holding.calling_aes,
        run_id=run.id if run else None,
        run_state=run.state if run else None,
        run_generation=run.generation if run else None,
        model_version=run.model_version if run else None,
        trained=trained(run) if run else None,
        caveat=caveat(run) if run else None,
        scores=scores,
        failed_deliveries=tuple(
            delivery.id
            for delivery, _ in facts.deliveries
            if delivery.state == DeliveryState.FAILED
        ),
    )


def trained(run: Run) -> bool | None:
    """Whether the run's weights were trained; None before it has a result. What does not say so is not."""
    return None if run.model is None else run.model.get("trained") is True


def _holdings(session: Session, ids: Sequence[uuid.UUID]) -> Mapping[uuid.UUID, _Holding]:
    rows = session.execute(
        select(
            Instance.study_id,
            Instance.laterality,
            Instance.view,
            Instance.is_image,
            Instance.calling_ae,
            func.count().label("instances"),
            func.count(func.distinct(func.coalesce(Instance.volume_uid, Instance.sop_uid))).label(
                "images"  # slices of one volume are one
            ),
            func.sum(Instance.size_bytes).label("size_bytes"),
        )
        .where(Instance.study_id.in_(ids))
        .group_by(
            Instance.study_id,
            Instance.laterality,
            Instance.view,
            Instance.is_image,
            Instance.calling_ae,
        )
    )
    out: dict[uuid.UUID, _Holding] = defaultdict(lambda: _Holding(set()))
    for row in rows:
        holding = out[row.study_id]
        if row.is_image:
            holding.views.add(f"{row.laterality}-{row.view}")
            holding.images += row.images
        holding.instances += row.instances
        holding.size_bytes += int(row.size_bytes)
        holding.calling_aes = tuple(sorted({*holding.calling_aes, row.calling_ae}))
    return out


def _verdicts(
    session: Session,
    found: Sequence[Study],
    holdings: Mapping[uuid.UUID, _Holding],
    settings: Settings,
    at: datetime,
) -> dict[uuid.UUID, Verdict]:
    """What `studies.verdict` says of each receiving study, asked for all of them in one query."""
    receiving = [study for study in found if study.state == StudyState.RECEIVING]
    flags: dict[str, list[bool]] = defaultdict(list)
    if receiving:
        carrying = session.execute(
            select(Activity.study_uid, Activity.in_flight)
            .where(Activity.study_uid.in_([study.study_uid for study in receiving]))
            .where(Activity.seen_at >= studies.fresh_after(settings, at))
        )
        for row in carrying:
            flags[row.study_uid].append(row.in_flight)
    return {
        study.id: judge(
            Received(
                generation_at=study.generation_at,
                last_activity_at=study.last_activity_at,
                views=holdings[study.id].views,
                open_associations=len(flags[study.study_uid]),
                in_flight=sum(flags[study.study_uid]),
            ),
            studies.rule_of(settings),
            at,
        )
        for study in receiving
    }


def _deliveries(
    session: Session, run_ids: Sequence[uuid.UUID]
) -> Mapping[uuid.UUID, list[tuple[Delivery, Peer]]]:
    out: dict[uuid.UUID, list[tuple[Delivery, Peer]]] = defaultdict(list)
    query = select(Delivery, Peer).join(Peer, Peer.id == Delivery.peer_id)
    for delivery, peer in session.execute(query.where(Delivery.run_id.in_(run_ids))):
        out[delivery.run_id].append((delivery, peer))
    return out


def _scores(
    session: Session, run_ids: Sequence[uuid.UUID]
) -> Mapping[uuid.UUID, tuple[BreastScore, ...]]:
    """Scores a breast; right before left, as the images hang."""
    out: dict[uuid.UUID, tuple[BreastScore, ...]] = defaultdict(tuple)
    side = func.coalesce(ImageResult.laterality, "?")
    rows = session.execute(
        select(
            ImageResult.run_id,
            side.label("side"),
            func.max(ImageResult.score_benign).label("benign"),
            func.max(ImageResult.score_malignant).label("malignant"),
            func.count().label("images"),
        )
        .where(ImageResult.run_id.in_(run_ids), ImageResult.excluded_reason.is_(None))
        .group_by(ImageResult.run_id, "side")
        .order_by(side.desc())
    )
    for row in rows:
        out[row.run_id] += (BreastScore(row.side, row.benign, row.malignant, row.images),)
    return out


def _queue_positions(session: Session, at: datetime) -> dict[uuid.UUID, int]:
    """How many due runs are queued before each due run."""
    due = session.execute(
        select(Run.id)
        .where(Run.state == RunState.QUEUED, Run.not_before <= at, Run.shadow.is_(False))
        .order_by(Run.created_at)
    ).scalars()
    return {run_id: position for position, run_id in enumerate(due)}


def caveat(run: Run) -> str | None:
    """What a reader must know of the run's weights, "" if nothing; None before it has a result."""
    return None if run.model is None else caveat_of(run.model)


def caveat_of(model: Mapping[str, Any]) -> str:
    """The same of a run's `model`. What does not say that it was trained was not."""
    said = model.get("caveat")
    if said is not None:
        return str(said)
    return "" if model.get("trained") is True else UNTRAINED_NOTICE
