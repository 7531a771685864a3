"""What a worker does with a training that it holds."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, CursorResult, func, or_, select, update
from sqlalchemy.orm import Session

from node.config import Settings
from node.db import Database, now, transition
from node.learning_models import Dataset, DatasetItem, ModelVersion, TrainingEpoch, TrainingRun
from node.lifecycle import RunState, TrainingEvent, TrainingState
from node.models import Run
from node.runs import Failure, back_off
from node.trainings.ending import end, locked


@dataclass(frozen=True)
class Holder:
    """Who claims. `processes`: how many it can run at once, a device each; None: as many as are asked for."""

    name: str
    host: str
    processes: int | None = None


@dataclass(frozen=True)
class Image:
    """One image to learn from or to validate with; `birads` is the category."""

    sop_uid: str
    sha256: str
    study_uid: str
    patient: str
    laterality: str
    split: str
    benign: bool
    malignant: bool
    birads: int | None


@dataclass(frozen=True)
class Base:
    """The weights to start from: a version's name, and their digest in the blob store."""

    version: str
    sha256: str


@dataclass(frozen=True)
class Claim:
    """A training that this worker holds until its lease ends."""

    run_id: uuid.UUID
    attempt: int
    dataset_id: uuid.UUID
    dataset_name: str
    dataset_hash: str
    base: Base | None
    recipe: str
    config: Mapping[str, Any]
    seed: int
    request_hash: str
    code_version: str
    requested_by: str
    used_s: float
    time_limit_s: float
    disk_limit_mb: int
    images: tuple[Image, ...]


@dataclass(frozen=True)
class Standing:
    """What the database says between two batches."""

    ours: bool
    wanted: str | None = None
    inference_waits: bool = False


def claim(db: Database, run_id: uuid.UUID, holder: Holder, settings: Settings) -> Claim | None:
    """Take a queued training that is due. None: it is not due, no longer wanted, with another, or too large for us."""
    with db.transaction() as session:
        at = now(session)
        training = session.get(TrainingRun, run_id, with_for_update=True)
        if training is None or not _fits(session, training, holder):
            return None
        changed = transition(
            session,
            TrainingRun,
            TrainingEvent.CLAIM,
            [TrainingRun.id == run_id, TrainingRun.not_before <= at],
            attempt=TrainingRun.attempt + 1,
            worker=holder.name,
            host=holder.host,
            lease_until=at + timedelta(seconds=settings.lease_s),
            started_at=func.coalesce(TrainingRun.started_at, at),
            wanted=None,
            error=None,
            error_code=None,
        )
        return _claimed(session, session.get_one(TrainingRun, run_id)) if changed else None


def _fits(session: Session, training: TrainingRun, holder: Holder) -> bool:
    """Whether the worker has a device for each process; says so in the row where it has not."""
    wanted = training.config.get("processes", 1)
    if holder.processes is None or wanted <= holder.processes:
        return True
    message = f"needs {wanted} GPUs; worker {holder.name} has {holder.processes}"
    row = [TrainingRun.id == training.id, TrainingRun.state == TrainingState.QUEUED]
    session.execute(
        update(TrainingRun).where(*row).values(error=message, error_code="TooFewDevices")
    )
    return False


def _claimed(session: Session, row: TrainingRun) -> Claim:
    dataset = session.get_one(Dataset, row.dataset_id)
    base = session.execute(
        select(ModelVersion.version, ModelVersion.sha256).where(
            ModelVersion.version == row.base_version
        )
    ).first()
    columns = [getattr(DatasetItem, name) for name in Image.__dataclass_fields__]
    wanted = [DatasetItem.dataset_id == row.dataset_id, DatasetItem.split != "test"]
    items = [Image(*item) for item in session.execute(select(*columns).where(*wanted))]
    return Claim(
        run_id=row.id,
        dataset_name=dataset.name,
        dataset_hash=dataset.content_hash,
        base=Base(base.version, base.sha256) if base else None,
        # sorted here: databases do not agree on the order of texts, and the order decides the weights
        images=tuple(sorted(items, key=lambda image: image.sop_uid)),
        **{
            name: getattr(row, name)
            for name in (
                "attempt", "dataset_id", "recipe", "config", "seed", "request_hash", "code_version",
                "requested_by", "used_s", "time_limit_s", "disk_limit_mb",
            )
        },
    )  # fmt: skip


def _mine(held: Claim) -> list[ColumnElement[bool]]:
    return [
        TrainingRun.id == held.run_id,
        TrainingRun.attempt == held.attempt,
        TrainingRun.state == TrainingState.RUNNING,
    ]


def _write(session: Session, held: Claim, **values: object) -> bool:
    result = session.execute(update(TrainingRun).where(*_mine(held)).values(**values))
    assert isinstance(result, CursorResult)
    return result.rowcount == 1


def heartbeat(db: Database, held: Claim, used_s: float, settings: Settings) -> bool:
    """Prolong the lease and note the computing time over all attempts. False: no longer ours; stop."""
    with db.transaction() as session:
        until = now(session) + timedelta(seconds=settings.lease_s)
        return _write(session, held, lease_until=until, used_s=used_s)


def standing(db: Database, held: Claim, devices: Sequence[str], settings: Settings) -> Standing:
    """Whether the training is still ours, what is wanted of it, and whether inference waits for one of `devices`.

    `devices` end the names of the inference workers that share ours; none: nobody does.
    """
    with db.reading() as session:
        row = session.execute(select(TrainingRun.wanted).where(*_mine(held))).first()
        if row is None:
            return Standing(ours=False)
        waits = bool(devices) and inference_waits(session, devices, settings, now(session))
        return Standing(True, row.wanted, waits)


def inference_waits(
    session: Session, devices: Sequence[str], settings: Settings, at: datetime
) -> bool:
    """Whether a run is on one of `devices`, or is due and may come to it: one that nobody took for long will not."""
    lately = at - timedelta(seconds=settings.redispatch_s)
    named = or_(*(Run.worker.endswith(device, autoescape=True) for device in devices))
    on_it = (Run.state == RunState.RUNNING) & named
    due = (Run.state == RunState.QUEUED) & (Run.not_before <= at) & (Run.not_before > lately)
    return session.execute(select(Run.id).where(or_(on_it, due)).limit(1)).first() is not None


def epochs_done(db: Database, run_id: uuid.UUID) -> dict[str, int]:
    """How many epochs of each stage are kept."""
    query = select(TrainingEpoch.stage, func.count()).group_by(TrainingEpoch.stage)
    with db.reading() as session:
        rows = session.execute(query.where(TrainingEpoch.training_run_id == run_id)).all()
    return {row[0]: row[1] for row in rows}


def record_epoch(
    db: Database, held: Claim, stage: str, metrics: Mapping[str, Any], seconds: float
) -> bool:
    """Keep the figures of an epoch (`metrics["epoch"]`, from 1); one that was done again replaces its row."""
    with db.transaction() as session:
        epoch = int(metrics["epoch"])
        if not _write(session, held, epoch=epoch):
            return False
        session.merge(
            TrainingEpoch(
                training_run_id=held.run_id, stage=stage, epoch=epoch, metrics=dict(metrics),
                seconds=seconds, at=now(session),
            )
        )  # fmt: skip
        return True


def still_held(session: Session, held: Claim) -> bool:
    """Inside a writing transaction: whether the training is ours, and stays so until the commit."""
    return _write(session, held, attempt=held.attempt)


def succeed(db: Database, held: Claim, used_s: float, note: str | None = None) -> bool:
    """The training made its model; `note` says what could not be done besides. False: no longer ours."""
    with db.transaction() as session:
        at = now(session)
        changed = transition(
            session, TrainingRun, TrainingEvent.SUCCEED, _mine(held),
            lease_until=None, wanted=None, finished_at=at, used_s=used_s, error=note,
        )  # fmt: skip
        return changed == 1


def fail(
    db: Database, held: Claim, failure: Failure, used_s: float, settings: Settings
) -> str | None:
    """It did not succeed: queued again if the cause may pass and attempts are left, else FAILED. What an operator
    asked for meanwhile comes before another attempt. Returns the state; None: no longer ours."""
    with db.transaction() as session:
        at = now(session)
        row = locked(session, held.run_id)
        limit = row.max_attempts + failure.outage  # an outage uses up no attempt
        again = failure.transient and row.attempt < limit
        values = {"max_attempts": limit, "used_s": used_s, "error_code": failure.code}
        wait = back_off(held.attempt, settings) if again else timedelta(0)
        return end(session, row, _mine(held), again, at, wait, error=failure.message, **values)


def release(db: Database, held: Claim, used_s: float) -> str | None:
    """Give it back before its end: paused or cancelled if that was asked, else to another worker. Uses up no attempt.

    Returns the state it went to; None: no longer ours.
    """
    with db.transaction() as session:
        row = locked(session, held.run_id)
        values = {"max_attempts": row.max_attempts + 1, "used_s": used_s}
        return end(session, row, _mine(held), True, now(session), timedelta(0), **values)
