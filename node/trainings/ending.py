"""How trainings end, pause and go on: by the relay, or as an operator wants."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, select, update
from sqlalchemy.orm import Session

from node import outbox
from node.config import Settings
from node.db import transition
from node.errors import Conflict, NotFound
from node.learning_models import TrainingRun
from node.lifecycle import TrainingEvent, TrainingState
from node.trainings.launch import LIVE, same

PAUSE, CANCEL = "pause", "cancel"
# Messages for waiting trainings at a time: a training may hold its worker for days.
_ON_THEIR_WAY = 4


def end(
    session: Session,
    row: TrainingRun,
    where: Sequence[ColumnElement[bool]],
    again: bool,
    at: datetime,
    wait: timedelta,
    **values: object,
) -> str | None:
    """An attempt is over without success: what an operator asked for meanwhile comes before another attempt.

    Args:
        session: of a writing transaction.
        row: the training, locked.
        where: what must still hold, so that nobody else ended it.
        again: whether another attempt may follow.
        at: now.
        wait: until the next attempt.
        **values: other columns to set.

    Returns:
        The state it went to; None: somebody else was first.
    """
    event = TrainingEvent.REQUEUE if again else TrainingEvent.FAIL
    if row.wanted == CANCEL:
        event = TrainingEvent.CANCEL
    elif again and row.wanted == PAUSE:
        event = TrainingEvent.PAUSE
    over = event in (TrainingEvent.CANCEL, TrainingEvent.FAIL)
    changed = transition(
        session, TrainingRun, event, where,
        lease_until=None, wanted=None, not_before=at + wait, dispatched_at=None,
        finished_at=at if over else None, **values,
    )  # fmt: skip
    return session.get_one(TrainingRun, row.id).state if changed else None


def reap(session: Session, at: datetime) -> int:
    """Trainings whose worker stopped prolonging its lease go on with another, or fail when attempts are used up."""
    expired = [TrainingRun.state == TrainingState.RUNNING, TrainingRun.lease_until < at]
    rows = session.execute(select(TrainingRun).where(*expired).with_for_update()).scalars().all()
    for row in rows:
        message = (
            f"worker {row.worker} stopped answering in attempt {row.attempt} of {row.max_attempts}"
        )
        end(
            session, row, [TrainingRun.id == row.id, TrainingRun.attempt == row.attempt, *expired],
            row.attempt < row.max_attempts, at, timedelta(0), error=message, error_code="WorkerLost",
        )  # fmt: skip
    return len(rows)


def dispatch_due(session: Session, settings: Settings, at: datetime) -> int:
    """Write messages for the first queued trainings that are due and have none on their way."""
    stale = at - timedelta(seconds=settings.redispatch_s)
    due = session.execute(
        select(TrainingRun.id, TrainingRun.dispatched_at)
        .where(TrainingRun.state == TrainingState.QUEUED, TrainingRun.not_before <= at)
        .order_by(TrainingRun.created_at)
        .limit(_ON_THEIR_WAY)
    ).all()
    ready = [row.id for row in due if row.dispatched_at is None or row.dispatched_at < stale]
    for run_id in ready:
        outbox.post(session, outbox.TRAIN, run_id, at)
        session.execute(
            update(TrainingRun).where(TrainingRun.id == run_id).values(dispatched_at=at)
        )
    return len(ready)


def find(session: Session, name: str) -> TrainingRun:
    """A training by its id.

    Raises:
        NotFound: no such training.
    """
    try:
        training = session.get(TrainingRun, uuid.UUID(name))
    except ValueError:
        training = None
    if training is None:
        raise NotFound(f"no training {name!r}; `tomonode train list` shows what is here")
    return training


def locked(session: Session, run_id: uuid.UUID) -> TrainingRun:
    """A training that nobody else changes until the commit. Raises NotFound."""
    row = session.get(TrainingRun, run_id, with_for_update=True, populate_existing=True)
    if row is None:
        raise NotFound(f"no training {run_id}; `tomonode train list` shows what is here")
    return row


def pause(session: Session, run_id: uuid.UUID, at: datetime) -> str:
    """Pause a queued training at once, a running one after its batch; returns its state now.

    Raises:
        Conflict: it has ended, or is about to be cancelled.
    """
    return _ask(session, locked(session, run_id), PAUSE, at)


def cancel(session: Session, run_id: uuid.UUID, at: datetime) -> str:
    """Give a training up: a queued or paused one at once, a running one after its batch; returns its state now.

    Raises:
        Conflict: it has ended.
    """
    return _ask(session, locked(session, run_id), CANCEL, at)


def _ask(session: Session, row: TrainingRun, wish: str, at: datetime) -> str:
    event = TrainingEvent.PAUSE if wish == PAUSE else TrainingEvent.CANCEL
    if row.state == TrainingState.PAUSED and wish == PAUSE:
        return row.state
    if row.state not in LIVE or (wish == PAUSE and row.wanted == CANCEL):
        state = "about to be cancelled" if row.state in LIVE else row.state
        raise Conflict(f"training {row.id} is {state}; nothing to {wish}")
    if row.state == TrainingState.RUNNING:
        session.execute(update(TrainingRun).where(TrainingRun.id == row.id).values(wanted=wish))
        return row.state
    ended = {"finished_at": at} if wish == CANCEL else {}
    transition(session, TrainingRun, event, [TrainingRun.id == row.id], **ended)
    return session.get_one(TrainingRun, row.id).state


def resume(session: Session, run_id: uuid.UUID, at: datetime) -> str:
    """Queue a paused training again; a running one that is about to pause goes on. Returns its state now.

    Raises:
        Conflict: it is not paused.
    """
    row = locked(session, run_id)
    if row.state == TrainingState.RUNNING and row.wanted == PAUSE:
        session.execute(update(TrainingRun).where(TrainingRun.id == run_id).values(wanted=None))
        return row.state
    if row.state != TrainingState.PAUSED:
        raise Conflict(f"training {run_id} is {row.state}; only a paused one can be resumed")
    transition(
        session, TrainingRun, TrainingEvent.RESUME, [TrainingRun.id == run_id], not_before=at, dispatched_at=at
    )  # fmt: skip
    outbox.post(session, outbox.TRAIN, run_id, at)
    return TrainingState.QUEUED


def retry(session: Session, run_id: uuid.UUID, settings: Settings, at: datetime) -> str:
    """Queue a failed training again, from its checkpoint, with new attempts and as much time again.

    Raises:
        Conflict: it has not failed, or the same training was launched anew meanwhile.
    """
    row = locked(session, run_id)
    if row.state != TrainingState.FAILED:
        raise Conflict(f"training {run_id} is {row.state}; only a failed one can be retried")
    other = same(session, row.request_hash)
    if other is not None:
        raise Conflict(f"training {run_id} was launched anew as {other.id}, which is {other.state}")
    transition(
        session, TrainingRun, TrainingEvent.RETRY, [TrainingRun.id == run_id],
        not_before=at, dispatched_at=at, finished_at=None, disk_limit_mb=settings.training_disk_mb,
        max_attempts=row.attempt + settings.training_attempts,
        time_limit_s=row.used_s + settings.training_limit_s,
    )  # fmt: skip
    outbox.post(session, outbox.TRAIN, run_id, at)
    return TrainingState.QUEUED
