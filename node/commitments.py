"""Storage commitments (DICOM PS3.4 annex J): IN, what others ask us to vouch for; OUT, what we ask our peers to.

The same shape as deliveries: claimed under a lease, fenced by `attempt`, tried again until a deadline. A commitment by
us that was asked for waits, due at its deadline, for the peer's answer, which may come at any time.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from pydicom.uid import generate_uid
from sqlalchemy import select
from sqlalchemy.orm import Session

from node import leases, outbox, timeline
from node.config import Settings
from node.db import now, transition
from node.errors import Conflict, NotFound
from node.exchange_models import Commitment, CommitmentItem
from node.lifecycle import CommitmentEvent, CommitmentState
from node.models import Artifact, Delivery, DeliveryInstance, Peer, Run

IN, OUT = "IN", "OUT"

#: How long the association that asked has to get its answer before the delivery worker opens another, in seconds.
SAME_ASSOCIATION_S = 5.0
_SHOWN = 3  # objects that a line names


@dataclass(frozen=True)
class Reference:
    """One object of a transaction."""

    sop_class_uid: str
    sop_uid: str


@dataclass(frozen=True)
class Decided:
    """What is said of one object; `failure` is a Failure Reason (PS3.3 C.14.1.1), None where it is committed."""

    reference: Reference
    failure: int | None


class OtherObjects(Conflict):
    """A transaction that is known was asked for again, with other objects."""


def asked_of_us(
    session: Session,
    transaction_uid: str,
    ae_title: str,
    references: Sequence[Reference],
    settings: Settings,
) -> uuid.UUID:
    """Keep what another system asks us to commit to, in the caller's transaction; its id.

    A transaction that was answered, or given up, is answered again, with the same answer.

    Raises:
        OtherObjects: the transaction is known with other objects.
    """
    at = now(session)
    known = session.execute(
        select(Commitment).where(
            Commitment.direction == IN,
            Commitment.transaction_uid == transaction_uid,
            Commitment.ae_title == ae_title,
        )
    ).scalar_one_or_none()
    first_try = at + timedelta(seconds=SAME_ASSOCIATION_S)
    deadline = at + timedelta(seconds=settings.commitment_deadline_s)
    if known is not None:
        if references_of(known) != tuple(references):
            raise OtherObjects(
                f"transaction {transaction_uid} is known with other objects; ask under a new one"
            )
        known_id = known.id
        _again(session, known_id, not_before=first_try, deadline_at=deadline, dispatched_at=None)
        return known_id
    made = Commitment(
        id=uuid.uuid4(),
        direction=IN,
        transaction_uid=transaction_uid,
        ae_title=ae_title,
        not_before=first_try,
        deadline_at=deadline,
        created_at=at,
    )
    _add(session, made, references)
    return made.id


def ask_peer(session: Session, delivery_id: uuid.UUID, settings: Settings, at: datetime) -> None:
    """Have the peer of a delivery that is sent commit to what it took, in the caller's transaction, with its message.

    Nothing where the peer is not one that commits, or took no objects.
    """
    delivery = session.get_one(Delivery, delivery_id)
    peer = session.get_one(Peer, delivery.peer_id)
    if not peer.commits or peer.kind != "DICOM":
        return
    taken = session.execute(
        select(Artifact.sop_class_uid, Artifact.sop_uid)
        .join(DeliveryInstance, DeliveryInstance.artifact_id == Artifact.id)
        .where(DeliveryInstance.delivery_id == delivery_id, DeliveryInstance.accepted)
        .order_by(Artifact.name)
    ).all()
    if not taken:
        return
    made = Commitment(
        id=uuid.uuid4(),
        direction=OUT,
        transaction_uid=generate_uid(prefix=None),
        ae_title=peer.ae_title,
        peer_id=peer.id,
        delivery_id=delivery_id,
        not_before=at,
        dispatched_at=at,
        deadline_at=at + timedelta(seconds=settings.commitment_deadline_s),
        created_at=at,
    )
    _add(session, made, [Reference(str(row[0]), str(row[1])) for row in taken])
    outbox.post(session, outbox.COMMIT, made.id, at)


def _add(session: Session, made: Commitment, references: Sequence[Reference]) -> None:
    session.add(made)
    session.flush()
    session.add_all(
        CommitmentItem(commitment_id=made.id, number=number, **vars(reference))
        for number, reference in enumerate(references)
    )


def references_of(commitment: Commitment) -> tuple[Reference, ...]:
    """The objects of a transaction, in the order asked."""
    return tuple(Reference(item.sop_class_uid, item.sop_uid) for item in commitment.items)


def _again(session: Session, commitment_id: uuid.UUID, **values: object) -> int:
    return transition(
        session,
        Commitment,
        CommitmentEvent.RETRY,
        [Commitment.id == commitment_id],
        error=None,
        answered_at=None,
        **values,
    )


def answered_by_peer(
    session: Session,
    transaction_uid: str,
    committed: Collection[Reference],
    failed: Mapping[Reference, int],
    at: datetime,
) -> bool:
    """Keep a peer's answer to what we asked, in the caller's transaction. What it says nothing of is not committed.

    An answer that comes again changes nothing.

    Raises:
        NotFound: we asked for no such transaction.
    """
    row = session.execute(
        select(Commitment)
        .where(Commitment.direction == OUT, Commitment.transaction_uid == transaction_uid)
        .with_for_update()
    ).scalar_one_or_none()
    if row is None:
        raise NotFound(f"no commitment {transaction_uid} was asked for here; nothing to answer")
    if row.state not in (CommitmentState.PENDING, CommitmentState.SENDING):
        return False
    for item in row.items:
        reference = Reference(item.sop_class_uid, item.sop_uid)
        item.committed = reference in committed and reference not in failed
        item.failure = failed.get(reference)
    session.flush()
    said, well = _summary(row)
    row_id = row.id
    transition(
        session,
        Commitment,
        CommitmentEvent.ANSWER,
        [Commitment.id == row_id],
        lease_until=None,
        error=None,
        answered_at=at,
    )
    tell(session, row_id, at, "committed" if well else "not committed", said)
    return True


def is_answered(session: Session, transaction_uid: str) -> bool:
    """Whether a peer has answered what we asked."""
    state = select(Commitment.state).where(
        Commitment.direction == OUT, Commitment.transaction_uid == transaction_uid
    )
    return session.execute(state).scalar_one_or_none() == CommitmentState.DONE


def _summary(row: Commitment) -> tuple[str, bool]:
    """An answer in a line, and whether every object is committed."""
    name = row.peer.name if row.peer is not None else row.ae_title
    missing = [item for item in row.items if not item.committed]
    if not missing:
        return f"{name} has {len(row.items)} objects", True
    shown = ", ".join(f"{item.sop_uid}: {reason(item.failure)}" for item in missing[:_SHOWN])
    more = f", and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
    return f"{name} does not have {len(missing)} of {len(row.items)} objects ({shown}{more})", False


#: Failure Reasons (PS3.3 C.14.1.1).
REASONS = {
    0x0110: "processing failure",
    0x0112: "no such object",
    0x0119: "of another class there",
    0x0122: "its class is not supported",
    0x0131: "transaction known already",
    0x0213: "out of resources",
}


def reason(failure: int | None) -> str:
    """A Failure Reason in words."""
    if failure is None:
        return "nothing said of it"
    return f"0x{failure:04X}, {REASONS.get(failure, 'see its log')}"


def tell(session: Session, commitment_id: uuid.UUID, at: datetime, kind: str, message: str) -> None:
    """A line in the history of the study whose results were to be committed; none where others asked us."""
    study_id = session.execute(
        select(Run.study_id)
        .join(Delivery, Delivery.run_id == Run.id)
        .join(Commitment, Commitment.delivery_id == Delivery.id)
        .where(Commitment.id == commitment_id)
    ).scalar_one_or_none()
    if study_id is not None:
        timeline.add(session, study_id, at, kind, message)


def reap(session: Session, at: datetime) -> int:
    """What a process that stopped held is pending again; what was not answered until its deadline fails."""
    changed = transition(
        session,
        Commitment,
        CommitmentEvent.REQUEUE,
        [Commitment.lease_until < at],
        lease_until=None,
        error="the worker stopped answering",
        not_before=at,
        dispatched_at=None,
    )
    late = select(Commitment).where(
        Commitment.state == CommitmentState.PENDING, Commitment.deadline_at <= at
    )
    for row in session.execute(late).scalars().all():
        silent = f"{row.ae_title} took the request and gave no answer until the deadline"
        message = row.error or (silent if row.direction == OUT else "not answered in time")
        row_id = row.id
        changed += transition(
            session, Commitment, CommitmentEvent.FAIL, [Commitment.id == row_id], error=message
        )
        tell(session, row_id, at, "not committed", message)
    return changed


def dispatch_due(session: Session, settings: Settings, at: datetime) -> int:
    """Write a message for every pending commitment that is due and has none on its way."""
    waiting, message = CommitmentState.PENDING, outbox.COMMIT
    return leases.dispatch_due(session, Commitment, waiting, message, settings, at)


def retry(session: Session, commitment_id: uuid.UUID, settings: Settings, at: datetime) -> None:
    """An operator wants a commitment that failed once more, or one where an object was not committed: ours is asked
    for under a new transaction, another system's gets the answer that was decided.

    Raises:
        NotFound: no such commitment.
        Conflict: it is under way, or all is well.
    """
    row = session.get(Commitment, commitment_id)
    if row is None:
        raise NotFound(
            f"no commitment {commitment_id}; `tomonode commitment list` shows what is here"
        )
    well = row.state == CommitmentState.DONE and all(item.committed for item in row.items)
    if well or row.state in (CommitmentState.PENDING, CommitmentState.SENDING):
        raise Conflict(f"commitment {commitment_id} is {row.state}; nothing to retry")
    values: dict[str, object] = {}
    if row.direction == OUT:
        values["transaction_uid"] = generate_uid(prefix=None)
        for item in row.items:
            item.committed = item.failure = None
        session.flush()
    deadline = at + timedelta(seconds=settings.commitment_deadline_s)
    _again(session, commitment_id, not_before=at, dispatched_at=at, deadline_at=deadline, **values)
    outbox.post(session, outbox.COMMIT, commitment_id, at)
