"""Runs: claim, heartbeat, finish, fail. Fenced by `attempt`: a worker that lost its lease changes nothing."""

from __future__ import annotations

import random
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session, aliased

from node import destinations, inputs, leases, outbox, timeline
from node.blobs import BlobStore
from node.catalogue import rows
from node.catalogue.described import Header
from node.config import Settings
from node.db import Database, now, transition
from node.inputs import Input
from node.lifecycle import RunEvent, RunState
from node.models import Artifact, Delivery, ImageResult, Run, Study
from node.results import DOCUMENTS, TWIN, USUAL


@dataclass(frozen=True)
class Claim:
    """A run that this worker holds until its lease ends."""

    run_id: uuid.UUID
    attempt: int
    study_id: uuid.UUID
    study_uid: str
    generation: int
    model_version: str
    shadow: bool  # its results are kept and never delivered
    created_at: datetime
    inputs: tuple[Input, ...]
    unread: tuple[Input, ...]  # images that no model is asked to read, for the report's library
    kinds: tuple[str, ...] = USUAL  # what it shall make (`node.results`)
    predecessors: Mapping[str, Earlier] = field(default_factory=dict)


@dataclass(frozen=True)
class Earlier:
    """A document of an earlier run, which this run's document of the same kind replaces."""

    sop_uid: str
    sop_class_uid: str
    sha256: str


@dataclass(frozen=True)
class ImageOutcome:
    """What a run says of one image; either scores or the reason why it was left out.

    The last five are those of `node.input_quality.Measured`.
    """

    sop_uid: str
    laterality: str | None = None
    view: str | None = None
    frames: int | None = None
    score_benign: float | None = None
    score_malignant: float | None = None
    segments: int = 0
    regions: Sequence[Mapping[str, Any]] = ()
    excluded_reason: str | None = None
    notes: Sequence[str] = ()
    pixel_spacing_mm: float | None = None
    slice_spacing_mm: float | None = None
    intensity_p05: float | None = None
    intensity_p50: float | None = None
    intensity_p95: float | None = None


@dataclass(frozen=True)
class ArtifactFile:
    """A file that a run made and that lies in the blob store already."""

    kind: str
    name: str
    sha256: str
    size_bytes: int
    source_sop_uid: str | None = None
    sop_uid: str | None = None
    sop_class_uid: str | None = None


@dataclass(frozen=True)
class Outcome:
    """All that a run found."""

    model: Mapping[str, Any]
    images: Sequence[ImageOutcome]
    artifacts: Sequence[ArtifactFile]
    stage_seconds: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Failure:
    """Why work ended without success: a stable word, one line without data set values, and whether it may pass.

    `outage`: the node's own surroundings failed (disk, database), so no study is to blame and no attempt is used up.
    """

    code: str
    message: str
    transient: bool
    outage: bool = False


def back_off(attempt: int, settings: Settings) -> timedelta:
    """Exponential, capped, with full jitter in its upper half, so that many failures do not come back as one."""
    ceiling = min(settings.retry_cap_s, settings.retry_base_s * 2 ** max(0, attempt - 1))
    return timedelta(seconds=ceiling * random.uniform(0.5, 1.0))


def claim(db: Database, run_id: uuid.UUID, worker: str, settings: Settings) -> Claim | None:
    """Take a queued run that is due. None: somebody else has it, it is not due, or it is no longer wanted."""
    with db.transaction() as session:
        at = now(session)
        changed = transition(
            session,
            Run,
            RunEvent.CLAIM,
            [Run.id == run_id, Run.not_before <= at, _its_turn(at)],
            attempt=Run.attempt + 1,
            worker=worker,
            lease_until=at + timedelta(seconds=settings.lease_s),
            started_at=at,
            error=None,
            error_code=None,
        )
        if not changed:
            return None
        run = session.get_one(Run, run_id)
        study = session.get_one(Study, run.study_id)
        timeline.add(
            session,
            study.id,
            at,
            "running",
            f"{_called(run)} attempt {run.attempt} on {worker}",
        )
        return Claim(
            run_id=run.id,
            attempt=run.attempt,
            study_id=study.id,
            study_uid=study.study_uid,
            generation=run.generation,
            model_version=run.model_version,
            shadow=run.shadow,
            created_at=run.created_at,
            inputs=inputs.of_run(session, run),
            unread=inputs.unread_of_run(session, run),
            kinds=destinations.wanted(session, run),
            predecessors={
                kind: earlier
                for kind in DOCUMENTS
                if (earlier := _predecessor(session, run, kind)) is not None
            },
        )


def _called(run: Run) -> str:
    """A run as the history calls it."""
    return f"run {run.id} in shadow" if run.shadow else f"run {run.id}"


def _its_turn(at: datetime) -> ColumnElement[bool]:
    """A run in shadow waits until no other run does."""
    other = aliased(Run)
    waiting = select(other.id).where(
        other.shadow.is_(False), other.state == RunState.QUEUED, other.not_before <= at
    )
    return Run.shadow.is_(False) | ~waiting.exists()


def _predecessor(session: Session, run: Run, kind: str) -> Earlier | None:
    """The nearest earlier run's document of a kind, if an earlier run made one."""
    predecessor_id = run.predecessor_id
    while predecessor_id is not None:
        row = session.execute(
            select(Artifact.sop_uid, Artifact.sop_class_uid, Artifact.sha256).where(
                Artifact.run_id == predecessor_id, Artifact.kind == kind
            )
        ).first()
        if row is not None:
            return Earlier(row.sop_uid, row.sop_class_uid, row.sha256)
        predecessor_id = session.get_one(Run, predecessor_id).predecessor_id
    return None


def heartbeat(db: Database, run_id: uuid.UUID, attempt: int, settings: Settings) -> bool:
    """Prolong the lease. False: the run is no longer ours; stop."""
    return leases.prolong(db, Run, RunState.RUNNING, run_id, attempt, settings)


def succeed(db: Database, held: Claim, outcome: Outcome, settings: Settings) -> bool:
    """One transaction: results, artifacts and their rows in the catalogue, SUCCEEDED, a delivery to each of its
    destinations, their messages.

    False: the lease was lost, or a newer generation superseded the run; nothing was written.

    Raises:
        DatabaseUnavailable: nothing is known to be written.
        BlobStoreUnavailable: an artifact is not on this host, and the shared store does not answer.
    """
    headers = {} if held.shadow else _headers(outcome, settings)
    with db.transaction() as session:
        at = now(session)
        changed = transition(
            session,
            Run,
            RunEvent.SUCCEED,
            [Run.id == held.run_id, Run.attempt == held.attempt],
            lease_until=None,
            finished_at=at,
            model=dict(outcome.model),
            stage_seconds=dict(outcome.stage_seconds),
        )
        if not changed:
            return False
        run = session.get_one(Run, held.run_id)
        for image in outcome.images:
            values = {**vars(image), "regions": [dict(region) for region in image.regions]}
            values["notes"] = list(image.notes)
            session.add(ImageResult(run_id=held.run_id, **values))
        made = [Artifact(run_id=held.run_id, **vars(artifact)) for artifact in outcome.artifacts]
        session.add_all(made)
        timeline.add(
            session,
            held.study_id,
            at,
            "succeeded",
            f"{_called(run)}: {len(outcome.artifacts)} files",
        )
        session.flush()
        for artifact in made:
            if artifact.sha256 in headers:
                rows.add_artifact(session, held.study_id, artifact, headers[artifact.sha256])
        if not held.shadow:
            _queue_deliveries(session, run, settings, at)
        return True


def _headers(outcome: Outcome, settings: Settings) -> dict[str, Header]:
    objects = [
        one.sha256 for one in outcome.artifacts if one.sop_uid is not None and one.kind != TWIN
    ]
    return rows.headers(BlobStore.of(settings), objects)


def _queue_deliveries(session: Session, run: Run, settings: Settings, at: datetime) -> None:
    peers, absent = destinations.of_run(session, run.route)
    if absent:
        names = ", ".join(absent)
        said = f"{_called(run)}: no peer {names} takes results, which the routing rules name"
        timeline.add(session, run.study_id, at, "not sent", said)
    for peer in peers:
        delivery = Delivery(
            id=uuid.uuid4(),
            run_id=run.id,
            peer_id=peer.id,
            not_before=at,
            dispatched_at=at,
            deadline_at=at + timedelta(seconds=settings.delivery_deadline_s),
            created_at=at,
        )
        session.add(delivery)
        outbox.post(session, outbox.DELIVER, delivery.id, at)


def fail(db: Database, held: Claim, failure: Failure, settings: Settings) -> str | None:
    """A run did not succeed: queued again after a while if the cause may pass and attempts are left, else FAILED.

    Returns the state it went to; None if the lease was lost before.
    """
    with db.transaction() as session:
        at = now(session)
        mine = [Run.id == held.run_id, Run.attempt == held.attempt]
        run = session.get_one(Run, held.run_id)
        # `attempt` fences, so it always grows; an outage raises the limit with it
        limit = run.max_attempts + failure.outage
        again = failure.transient and run.attempt < limit
        event = RunEvent.REQUEUE if again else RunEvent.FAIL
        delay = back_off(held.attempt, settings) if again else timedelta(0)
        changed = transition(
            session,
            Run,
            event,
            mine,
            max_attempts=limit,
            lease_until=None,
            error=failure.message,
            error_code=failure.code,
            finished_at=None if again else at,
            not_before=at + delay,
            dispatched_at=None,
        )
        if not changed:
            return None
        next_step = f"again in {delay.total_seconds():.0f} s" if again else "failed"
        timeline.add(
            session,
            held.study_id,
            at,
            "error",
            f"{_called(run)} attempt {held.attempt}: {failure.message} ({next_step})",
        )
        return RunState.QUEUED if again else RunState.FAILED


def reap(session: Session, at: datetime) -> int:
    """Runs whose worker stopped prolonging its lease go back to the queue, or fail when attempts are used up."""
    expired = (
        session.execute(select(Run).where(Run.state == RunState.RUNNING, Run.lease_until < at))
        .scalars()
        .all()
    )
    for run in expired:
        again = run.attempt < run.max_attempts
        message = (
            f"worker {run.worker} stopped answering in attempt {run.attempt} of {run.max_attempts}"
        )
        changed = transition(
            session,
            Run,
            RunEvent.REQUEUE if again else RunEvent.FAIL,
            [Run.id == run.id, Run.attempt == run.attempt, Run.lease_until < at],
            lease_until=None,
            error=message,
            error_code="WorkerLost",
            finished_at=None if again else at,
            not_before=at,
            dispatched_at=None,
        )
        if changed:
            timeline.add(session, run.study_id, at, "error", f"{_called(run)}: {message}")
    return len(expired)


def dispatch_due(session: Session, settings: Settings, at: datetime) -> int:
    """Write a message for every queued run that is due and has none on its way.

    Of the runs in shadow one message is on its way at a time, so that a study that closes now waits for one at most.
    """
    queued = select(Run.id).where(Run.state == RunState.QUEUED, Run.not_before <= at)
    unsent = leases.without_message(Run, settings, at)
    query = queued.where(Run.shadow.is_(False), unsent)
    due = list(session.execute(query.order_by(Run.created_at)).scalars())
    on_its_way = queued.where(Run.shadow, ~unsent).limit(1)
    if session.execute(on_its_way).first() is None:
        next_one = queued.where(Run.shadow, unsent, _its_turn(at)).order_by(Run.created_at)
        due += session.execute(next_one.limit(1)).scalars()
    for run_id in due:
        leases.send(session, Run, run_id, outbox.INFER, at)
    return len(due)
