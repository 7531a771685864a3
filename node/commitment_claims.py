"""A storage commitment in hand: claimed under a lease, decided, answered, or put back; fenced by `attempt`."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import ColumnElement, select

from node import leases, peers
from node.commitments import IN, Decided, Reference, references_of, tell
from node.config import Settings
from node.db import Database, now, transition
from node.deliveries import Destination, destination_of
from node.exchange_models import Commitment
from node.lifecycle import CommitmentEvent, CommitmentState
from node.models import Peer
from node.runs import Failure, back_off


@dataclass(frozen=True)
class Claim:
    """A commitment that this process holds until its lease ends; `decided` is None where nothing was decided yet."""

    commitment_id: uuid.UUID
    attempt: int
    direction: str
    transaction_uid: str
    ae_title: str
    destination: Destination | None
    references: tuple[Reference, ...]
    decided: tuple[Decided, ...] | None


def claim(
    db: Database, commitment_id: uuid.UUID, settings: Settings, *, early: bool = False
) -> Claim | None:
    """Take a pending commitment that is due, or, for the association that asked, before it is (`early`). None: there
    is nothing to do."""
    with db.transaction() as session:
        at = now(session)
        due = [] if early else [Commitment.not_before <= at]
        changed = transition(
            session,
            Commitment,
            CommitmentEvent.CLAIM,
            [Commitment.id == commitment_id, Commitment.deadline_at > at, *due],
            attempt=Commitment.attempt + 1,
            lease_until=at + timedelta(seconds=settings.lease_s),
        )
        if not changed:
            return None
        row = session.get_one(Commitment, commitment_id)
        if row.direction == IN:
            found = peers.called(session, row.ae_title)
            row.peer_id = None if found is None else found.id
        peer = session.get(Peer, row.peer_id) if row.peer_id is not None else None
        decided = tuple(
            Decided(Reference(item.sop_class_uid, item.sop_uid), item.failure)
            for item in row.items
            if item.committed is not None
        )
        return Claim(
            commitment_id=row.id,
            attempt=row.attempt,
            direction=row.direction,
            transaction_uid=row.transaction_uid,
            ae_title=row.ae_title,
            destination=destination_of(peer) if peer is not None and peer.enabled else None,
            references=references_of(row),
            decided=decided if len(decided) == len(row.items) else None,
        )


def heartbeat(db: Database, commitment_id: uuid.UUID, attempt: int, settings: Settings) -> bool:
    """Prolong the lease. False: no longer ours; stop."""
    return leases.prolong(db, Commitment, CommitmentState.SENDING, commitment_id, attempt, settings)


def note(db: Database, held: Claim, decided: Sequence[Decided]) -> bool:
    """Keep what was decided, before anybody is told: every later try says the same. False: the lease was lost."""
    with db.transaction() as session:
        row = session.execute(
            select(Commitment).where(*_mine(held)).with_for_update()
        ).scalar_one_or_none()
        if row is None:
            return False
        for item, one in zip(row.items, decided, strict=True):
            item.committed, item.failure = one.failure is None, one.failure
        return True


def _mine(held: Claim) -> list[ColumnElement[bool]]:
    return [
        Commitment.id == held.commitment_id,
        Commitment.attempt == held.attempt,
        Commitment.state == CommitmentState.SENDING,
    ]


def answered(db: Database, held: Claim) -> bool:
    """Who asked us has the answer: DONE. False: the lease was lost."""
    with db.transaction() as session:
        return bool(
            transition(
                session,
                Commitment,
                CommitmentEvent.ANSWER,
                _mine(held),
                lease_until=None,
                error=None,
                answered_at=now(session),
            )
        )


def waits(db: Database, held: Claim) -> bool:
    """A peer took our request; its answer may take until the deadline. True also where it is there already."""
    with db.transaction() as session:
        transition(
            session,
            Commitment,
            CommitmentEvent.REQUEUE,
            _mine(held),
            lease_until=None,
            error=None,
            not_before=Commitment.deadline_at,
            dispatched_at=None,
        )
        return True


def put_back(db: Database, held: Claim) -> None:
    """The association that asked cannot take the answer: the delivery worker's turn, now."""
    with db.transaction() as session:
        transition(
            session,
            Commitment,
            CommitmentEvent.REQUEUE,
            _mine(held),
            lease_until=None,
            not_before=now(session),
            dispatched_at=None,
        )


def fail(db: Database, held: Claim, failure: Failure, settings: Settings) -> str | None:
    """It did not succeed: later again, or FAILED where the other side refuses or time is up; None: lease lost."""
    with db.transaction() as session:
        at = now(session)
        row = session.get_one(Commitment, held.commitment_id)
        next_try = at + back_off(held.attempt, settings)
        again = failure.transient and next_try < row.deadline_at
        changed = transition(
            session,
            Commitment,
            CommitmentEvent.REQUEUE if again else CommitmentEvent.FAIL,
            _mine(held),
            lease_until=None,
            error=failure.message,
            not_before=next_try,
            dispatched_at=None,
        )
        if not changed:
            return None
        if not again:
            tell(session, held.commitment_id, at, "not committed", failure.message)
        return CommitmentState.PENDING if again else CommitmentState.FAILED
