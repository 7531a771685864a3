"""Deliveries: claim, heartbeat, finish, fail, retry; the same shape as runs, with a deadline in place of attempts."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from node import commitments, destinations, leases, outbox, timeline
from node.config import Settings
from node.db import Database, now, transition
from node.errors import Conflict, NotFound
from node.lifecycle import DeliveryEvent, DeliveryState, RunState
from node.models import Artifact, Delivery, DeliveryInstance, Peer, Run
from node.results import KINDS
from node.runs import Failure, back_off


@dataclass(frozen=True)
class Destination:
    """A peer, as a value: safe to use outside the transaction."""

    name: str
    kind: str  # DICOM or STOW
    ae_title: str | None
    host: str | None
    port: int | None
    url: str | None
    tls: bool = False  # a DICOM peer: over TLS (a STOW peer's URL says it)
    pin_sha256: str | None = None  # its certificate's SHA-256; None: an authority must vouch for it


@dataclass(frozen=True)
class Parcel:
    """One object to be sent."""

    artifact_id: uuid.UUID
    sop_uid: str
    sop_class_uid: str
    sha256: str


@dataclass(frozen=True)
class DeliveryClaim:
    """A delivery that this worker holds until its lease ends."""

    delivery_id: uuid.UUID
    attempt: int
    run_id: uuid.UUID
    study_id: uuid.UUID
    destination: Destination
    parcels: tuple[Parcel, ...]


@dataclass(frozen=True)
class Answer:
    """What the peer said of one object: `status` is a DIMSE status such as 0x0000, or an HTTP one."""

    artifact_id: uuid.UUID
    accepted: bool
    status: str


def destination_of(peer: Peer) -> Destination:
    """The peer as a value."""
    return Destination(
        peer.name,
        peer.kind,
        peer.ae_title,
        peer.host,
        peer.port,
        peer.url,
        bool(peer.tls),
        peer.pin_sha256,
    )


def claim(
    db: Database, delivery_id: uuid.UUID, worker: str, settings: Settings
) -> DeliveryClaim | None:
    """Take a pending delivery that is due; None when there is nothing to do.

    What the peer took before is not sent again.
    """
    with db.transaction() as session:
        at = now(session)
        changed = transition(
            session,
            Delivery,
            DeliveryEvent.CLAIM,
            [Delivery.id == delivery_id, Delivery.not_before <= at],
            attempt=Delivery.attempt + 1,
            worker=worker,
            lease_until=at + timedelta(seconds=settings.lease_s),
        )
        if not changed:
            return None
        delivery = session.get_one(Delivery, delivery_id)
        run = session.get_one(Run, delivery.run_id)
        return DeliveryClaim(
            delivery_id=delivery.id,
            attempt=delivery.attempt,
            run_id=run.id,
            study_id=run.study_id,
            destination=destination_of(session.get_one(Peer, delivery.peer_id)),
            parcels=_unsent(session, delivery),
        )


def _unsent(session: Session, delivery: Delivery) -> tuple[Parcel, ...]:
    """What the peer gets of the run and has not taken yet, in the order of sending."""
    taken = select(DeliveryInstance.artifact_id).where(
        DeliveryInstance.delivery_id == delivery.id, DeliveryInstance.accepted
    )
    peer, run = session.get_one(Peer, delivery.peer_id), session.get_one(Run, delivery.run_id)
    kinds = destinations.kinds_of(peer, run.route)
    query = select(Artifact).where(Artifact.run_id == run.id, Artifact.kind.in_(kinds))
    found = session.execute(query.where(Artifact.id.not_in(taken))).scalars()
    # a document arrives after what it refers to
    rows = sorted(found, key=lambda a: (KINDS.index(a.kind), a.name))
    return tuple(Parcel(a.id, a.sop_uid or "", a.sop_class_uid or "", a.sha256) for a in rows)


def heartbeat(db: Database, delivery_id: uuid.UUID, attempt: int, settings: Settings) -> bool:
    """Prolong the lease. False: no longer ours; stop."""
    return leases.prolong(db, Delivery, DeliveryState.SENDING, delivery_id, attempt, settings)


def note_answers(
    session: Session, delivery_id: uuid.UUID, answers: Sequence[Answer], at: datetime
) -> None:
    """Keep what the peer said of each object; a later answer replaces an earlier one."""
    for answer in answers:
        session.execute(
            delete(DeliveryInstance).where(
                DeliveryInstance.delivery_id == delivery_id,
                DeliveryInstance.artifact_id == answer.artifact_id,
            )
        )
        session.add(DeliveryInstance(delivery_id=delivery_id, at=at, **vars(answer)))
    session.flush()


def finish(
    db: Database, held: DeliveryClaim, answers: Sequence[Answer], settings: Settings
) -> bool:
    """All objects were accepted: SENT, and a peer that commits is to be asked. False: the lease was lost or the
    delivery cancelled.

    The answers are kept either way: a peer that has an object has it.
    """
    with db.transaction() as session:
        at = now(session)
        note_answers(session, held.delivery_id, answers, at)
        changed = transition(
            session,
            Delivery,
            DeliveryEvent.SENT,
            [Delivery.id == held.delivery_id, Delivery.attempt == held.attempt],
            lease_until=None,
            sent_at=at,
            error=None,
            error_code=None,
        )
        if changed:
            name = held.destination.name
            timeline.add(
                session, held.study_id, at, "sent", f"{len(held.parcels)} objects to {name}"
            )
            commitments.ask_peer(session, held.delivery_id, settings, at)
        return changed == 1


def fail(
    db: Database,
    held: DeliveryClaim,
    answers: Sequence[Answer],
    failure: Failure,
    settings: Settings,
) -> str | None:
    """A delivery, or a part of it, did not succeed: later again, or FAILED when the peer refuses or time is up."""
    with db.transaction() as session:
        at = now(session)
        note_answers(session, held.delivery_id, answers, at)
        delivery = session.get_one(Delivery, held.delivery_id)
        next_try = at + back_off(held.attempt, settings)
        again = failure.transient and next_try < delivery.deadline_at
        changed = transition(
            session,
            Delivery,
            DeliveryEvent.REQUEUE if again else DeliveryEvent.FAIL,
            [Delivery.id == held.delivery_id, Delivery.attempt == held.attempt],
            lease_until=None,
            error=failure.message,
            error_code=failure.code,
            not_before=next_try,
            dispatched_at=None,
        )
        if not changed:
            return None
        end = f"again in {(next_try - at).total_seconds():.0f} s" if again else "given up"
        timeline.add(
            session,
            held.study_id,
            at,
            "not sent",
            f"{held.destination.name}: {failure.message} ({end})",
        )
        return DeliveryState.PENDING if again else DeliveryState.FAILED


def reap(session: Session, at: datetime) -> int:
    """Deliveries whose worker stopped prolonging its lease become pending again, or fail after their deadline."""
    expired = (
        session.execute(
            select(Delivery).where(
                Delivery.state == DeliveryState.SENDING, Delivery.lease_until < at
            )
        )
        .scalars()
        .all()
    )
    for delivery in expired:
        again = at < delivery.deadline_at
        transition(
            session,
            Delivery,
            DeliveryEvent.REQUEUE if again else DeliveryEvent.FAIL,
            [Delivery.id == delivery.id, Delivery.attempt == delivery.attempt],
            lease_until=None,
            error=f"worker {delivery.worker} stopped answering in attempt {delivery.attempt}",
            error_code="WorkerLost",
            not_before=at,
            dispatched_at=None,
        )
    return len(expired)


def dispatch_due(session: Session, settings: Settings, at: datetime) -> int:
    """Write a message for every pending delivery that is due and has none on its way."""
    waiting, message = DeliveryState.PENDING, outbox.DELIVER
    return leases.dispatch_due(session, Delivery, waiting, message, settings, at)


def retry(session: Session, delivery_id: uuid.UUID, settings: Settings, at: datetime) -> None:
    """An operator wants a failed delivery tried again, with a new deadline; or a sent one, for new kinds.

    Raises:
        NotFound: no such delivery.
        Conflict: it has not failed and nothing of it is left to send, its run no longer counts, or the peer takes no
            results any more.
    """
    delivery = session.get(Delivery, delivery_id)
    if delivery is None:
        raise NotFound(f"no delivery {delivery_id}; `tomonode delivery list` shows what is here")
    _check_retry(session, delivery)
    changed = transition(
        session,
        Delivery,
        DeliveryEvent.RETRY,
        [Delivery.id == delivery_id],
        not_before=at,
        sent_at=None,
        dispatched_at=at,
        deadline_at=at + timedelta(seconds=settings.delivery_deadline_s),
    )
    if not changed:
        raise Conflict(f"delivery {delivery_id} is {delivery.state}, not FAILED; nothing to retry")
    outbox.post(session, outbox.DELIVER, delivery_id, at)


def _check_retry(session: Session, delivery: Delivery) -> None:
    """Raises Conflict where sending again would send nothing, or what nobody should get."""
    peer, run = session.get_one(Peer, delivery.peer_id), session.get_one(Run, delivery.run_id)
    if not (peer.enabled and peer.receives):
        raise Conflict(
            f"peer {peer.name!r} takes no results; `tomonode peer list` shows what each peer gets"
        )
    if delivery.state != DeliveryState.SENT:
        return
    if run.state != RunState.SUCCEEDED:
        raise Conflict(f"run {run.id} is {run.state}: a newer one answers; nothing of it is sent")
    if not _unsent(session, delivery):
        raise Conflict(
            f"delivery {delivery.id} is SENT, and {peer.name} has all that the run made of what it gets;"
            " `tomonode study retry` makes kinds that it was given since"
        )
