"""Commitments and pulls: with whom, how far, and what is waited for."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, or_, select
from sqlalchemy.orm import Session

from node.commitments import OUT, reason
from node.errors import ConfigError
from node.exchange_models import Commitment, Pull
from node.lifecycle import CommitmentState, PullState
from node.models import Delivery, Peer, Run, Study
from node.views.words import between


@dataclass(frozen=True)
class CommitmentView:
    """One storage commitment; `direction` is IN (asked of us) or OUT (asked by us). `missing` says which objects are
    not committed, and why; `well` is None before there is an answer."""

    id: uuid.UUID
    direction: str
    transaction_uid: str
    ae_title: str
    peer: str | None
    delivery_id: uuid.UUID | None
    state: str
    objects: int
    missing: tuple[str, ...]
    well: bool | None
    why: str
    attempt: int
    created_at: datetime
    answered_at: datetime | None


@dataclass(frozen=True)
class PullView:
    """One study that is fetched from a peer."""

    id: uuid.UUID
    peer: str
    study_uid: str
    why: str
    state: str
    attempt: int
    expected: int | None
    arrived: int | None
    waits: str
    created_at: datetime
    finished_at: datetime | None


def commitment_views(
    session: Session,
    at: datetime,
    which: ColumnElement[bool] | None = None,
    limit: int = 100,
) -> tuple[CommitmentView, ...]:
    """Commitments, newest first."""
    query = select(Commitment).order_by(Commitment.created_at.desc(), Commitment.id).limit(limit)
    if which is not None:
        query = query.where(which)
    return tuple(_commitment(row, at) for row in session.execute(query).scalars())


def commitments_of(session: Session, study: Study, at: datetime) -> tuple[CommitmentView, ...]:
    """Of the results of a study, by our peers."""
    deliveries = select(Delivery.id).join(Run).where(Run.study_id == study.id)
    return commitment_views(session, at, Commitment.delivery_id.in_(deliveries))


def pull_views(
    session: Session,
    at: datetime,
    which: ColumnElement[bool] | None = None,
    limit: int = 100,
) -> tuple[PullView, ...]:
    """Pulls, newest first."""
    query = select(Pull, Peer.name).join(Peer).order_by(Pull.created_at.desc(), Pull.id)
    if which is not None:
        query = query.where(which)
    rows = session.execute(query.limit(limit)).all()
    return tuple(_pull(pull, name, at) for pull, name in rows)


def pulls_of(session: Session, study: Study, at: datetime) -> tuple[PullView, ...]:
    """By which a study came, and those of its priors."""
    about = or_(Pull.study_uid == study.study_uid, Pull.for_study_id == study.id)
    return pull_views(session, at, about)


def in_state(table: type[Commitment] | type[Pull], state: str | None) -> ColumnElement[bool] | None:
    """The condition of a state. Raises ConfigError where there is none of this name."""
    if state is None:
        return None
    states = CommitmentState if table is Commitment else PullState
    if state not in list(states):
        raise ConfigError(f"state {state!r} is none of {', '.join(states)}")
    return table.state == state


def _commitment(row: Commitment, at: datetime) -> CommitmentView:
    known = [item for item in row.items if item.committed is not None]
    missing = [item for item in known if not item.committed]
    return CommitmentView(
        id=row.id,
        direction=row.direction,
        transaction_uid=row.transaction_uid,
        ae_title=row.ae_title,
        peer=row.peer.name if row.peer is not None else None,
        delivery_id=row.delivery_id,
        state=row.state,
        objects=len(row.items),
        missing=tuple(f"{item.sop_uid}: {reason(item.failure)}" for item in missing),
        well=not missing if len(known) == len(row.items) else None,
        why=_commitment_waits(row, at),
        attempt=row.attempt,
        created_at=row.created_at,
        answered_at=row.answered_at,
    )


def _commitment_waits(row: Commitment, at: datetime) -> str:
    """What it waits for, or why it was given up; empty when it is answered."""
    if row.state == CommitmentState.FAILED:
        return f"given up: {row.error}"
    if row.state == CommitmentState.SENDING:
        return f"on its way now, attempt {row.attempt}"
    if row.state != CommitmentState.PENDING:
        return ""
    last = f"; last error: {row.error}" if row.error else ""
    left = between(at, row.deadline_at)
    if row.direction == OUT and row.not_before >= row.deadline_at:
        return f"{row.ae_title} was asked; its answer may take {left} more"
    if row.not_before > at:
        return f"again in {between(at, row.not_before)}, tried for {left} more{last}"
    return f"waits for the delivery worker{last}"


def _pull(pull: Pull, name: str, at: datetime) -> PullView:
    names = ("id", "study_uid", "why", "state", "attempt", "expected", "arrived", "created_at")
    return PullView(
        peer=name,
        waits=_pull_waits(pull, at),
        finished_at=pull.finished_at,
        **{one: getattr(pull, one) for one in names},
    )


def _pull_waits(pull: Pull, at: datetime) -> str:
    if pull.state == PullState.FAILED:
        return f"given up after attempt {pull.attempt}: {pull.error}"
    if pull.state == PullState.RUNNING:
        far = "" if pull.expected is None else f", {pull.arrived} of {pull.expected} objects here"
        return f"attempt {pull.attempt} on {pull.worker}{far}"
    if pull.state == PullState.CANCELLED:
        return pull.error or ""
    if pull.state == PullState.DONE:
        return ""
    last = f"; last error: {pull.error}" if pull.error else ""
    if pull.not_before > at:
        return f"attempt {pull.attempt + 1} of {pull.max_attempts} in {between(at, pull.not_before)}{last}"
    return f"waits for the delivery worker{last}"
