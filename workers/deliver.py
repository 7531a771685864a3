"""The delivery worker: a claimed delivery, from blobs to a peer, and its end in the database.

Every peer has one lane: of the deliveries to it one is sent at a time, and the others wait in memory without a thread.
So a dead or hanging peer holds one thread, whatever waits for it, and never delays another.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Sequence
from functools import partial

from sqlalchemy import select
from structlog.contextvars import bound_contextvars

from node import deliveries, log, scu, stow
from node.blobs import BlobStore
from node.config import Settings
from node.db import Database
from node.deliveries import Answer, DeliveryClaim
from node.errors import DatabaseUnavailable
from node.models import Delivery
from node.runs import Failure
from workers.errors import DeliveryPaused, DeliveryRefused
from workers.task import Check, Job, perform, persist

LANES = 32
"""Peers that one process can send to at the same time."""

# Failures after which the same object may be taken later: DIMSE statuses (PS3.7 annex C, PS3.4 table B.2-1), which
# STOW-RS repeats as failure reasons (PS3.18 table I.2-2), and those of HTTP. Any other says that the peer does not
# want the object: class not supported (0x0122), not authorised (0x0124), no match (0xA9xx), not understood (0xCxxx).
LATER_DIMSE = (
    range(0x0110, 0x0111),  # processing failure
    range(0x0213, 0x0214),  # resource limitation
    range(0xA700, 0xA800),  # out of resources
    range(0xFE00, 0xFE01),  # cancelled
)
LATER_HTTP = frozenset({408, 423, 425, 429, 500, 502, 503, 504, 507})


def may_pass(status: str) -> bool:
    """Whether a refusal (`0xA700`, `HTTP 503`) may be gone later. What is neither counts as passing: the deadline of
    the delivery bounds it."""
    try:
        if status.upper().startswith("HTTP"):
            return int(status.split()[1]) in LATER_HTTP
        value = int(status.split()[0], 16)
    except (ValueError, IndexError):
        return True
    return any(value in values for values in LATER_DIMSE)


class Lanes:
    """Which peer is being sent to, and what waits behind. Safe between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # A peer is a key while its lane is in use; the inner mapping keeps order and drops doubles.
        self._waiting: dict[uuid.UUID, dict[uuid.UUID, None]] = {}
        self._closed = False

    def enter(self, peer: uuid.UUID, delivery: uuid.UUID) -> bool:
        """True: the lane is the caller's, who asks `following` until it gives None. False: the lane is in use, and
        the delivery's turn comes in its owner's thread."""
        with self._lock:
            if peer in self._waiting:
                self._waiting[peer][delivery] = None
                return False
            self._waiting[peer] = {}
            return True

    def following(self, peer: uuid.UUID) -> uuid.UUID | None:
        """The next delivery of the caller's lane; None: nothing waits, and the lane is given back."""
        with self._lock:
            waiting = self._waiting[peer]
            if not waiting or self._closed:
                del self._waiting[peer]
                return None
            first = next(iter(waiting))
            del waiting[first]
            return first

    def work(
        self, peer: uuid.UUID, first: uuid.UUID, do: Callable[[uuid.UUID], object], what: str
    ) -> None:
        """Do a piece of work and whatever comes for the same peer meanwhile, or leave it to the thread that does.
        `what` is said of one that failed to start."""
        if not self.enter(peer, first):
            return
        current: uuid.UUID | None = first
        while current is not None:
            try:
                do(current)
            except DatabaseUnavailable as error:
                # Still pending: the relay writes the message again.
                log.get().warning(what, code=error.code, error=str(error))
            except Exception as error:  # noqa: BLE001 - the owner of a lane must go on, or nobody sends to this peer
                log.get().error(what, code=type(error).__name__)
            current = self.following(peer)

    def close(self) -> None:
        """Start nothing more; what waits stays pending in the database."""
        with self._lock:
            self._closed = True


class DeliveryWorker:
    """Takes deliveries, each call in a thread of its own. Make one a process."""

    def __init__(self, settings: Settings, name: str) -> None:
        """`name` is what the database calls this worker."""
        self._settings = settings
        self._name = name
        self._db = Database(settings.db_url)
        self._blobs = BlobStore.of(settings)
        self._lanes = Lanes()

    def handle(self, delivery_id: uuid.UUID) -> None:
        """Send a delivery and whatever comes for the same peer meanwhile, or leave it to the thread that does."""
        peer = self._peer_of(delivery_id)
        if peer is not None:
            self._lanes.work(peer, delivery_id, self.deliver, "delivery not claimed")

    def stop(self) -> None:
        """Finish what is being sent and start nothing more."""
        self._lanes.close()

    def _peer_of(self, delivery_id: uuid.UUID) -> uuid.UUID | None:
        try:
            with self._db.reading() as session:
                return session.execute(
                    select(Delivery.peer_id).where(Delivery.id == delivery_id)
                ).scalar_one_or_none()
        except DatabaseUnavailable as error:
            log.get().warning("delivery not claimed", code=error.code, error=str(error))
            return None

    def deliver(self, delivery_id: uuid.UUID) -> str:
        """Claim a delivery and send it: "done", "lost", the state a failure led to, or "" where nothing was claimed.

        Raises:
            DatabaseUnavailable: it cannot be claimed now.
        """
        held = deliveries.claim(self._db, delivery_id, self._name, self._settings)
        if held is None:
            return ""
        with bound_contextvars(
            study_id=str(held.study_id),
            run_id=str(held.run_id),
            delivery_id=str(delivery_id),
            peer=held.destination.name,
            attempt=held.attempt,
        ):
            answers: list[Answer] = []
            job = Job(
                beat=partial(
                    deliveries.heartbeat, self._db, delivery_id, held.attempt, self._settings
                ),
                body=partial(self._body, held, answers),
                fail=partial(self._fail, held, answers),
            )
            return perform(job, self._settings.lease_s, self._settings.run_limit_s)

    def _body(self, held: DeliveryClaim, answers: list[Answer], check: Check) -> bool:
        log.get().info("delivery claimed", count=len(held.parcels))
        if held.parcels:
            send = stow.store if held.destination.kind == "STOW" else scu.store
            parcels = [(parcel, self._blobs.fetch(parcel.sha256)) for parcel in held.parcels]
            answers += send(held.destination, parcels, self._settings)
        require_all(held, answers)
        write = partial(deliveries.finish, self._db, held, answers, self._settings)
        return persist(write, check, self._settings.lease_s)

    def _fail(self, held: DeliveryClaim, answers: Sequence[Answer], failure: Failure) -> str | None:
        return deliveries.fail(self._db, held, answers, failure, self._settings)


def require_all(held: DeliveryClaim, answers: Sequence[Answer]) -> None:
    """Check that the peer took every object; a part is a failure.

    Raises:
        DeliveryPaused: it may take the rest later.
        DeliveryRefused: it refused at least one for good, and none for now only.
    """
    taken = {answer.artifact_id for answer in answers if answer.accepted}
    refused = [answer for answer in answers if not answer.accepted]
    missing = len(held.parcels) - len(taken)
    if not missing:
        return
    shown = ", ".join(sorted({answer.status for answer in refused})) or "no answer"
    text = (
        f"{held.destination.name} did not take {missing} of {len(held.parcels)} objects ({shown})"
    )
    if len(refused) < missing or any(may_pass(answer.status) for answer in refused):
        raise DeliveryPaused(text)
    raise DeliveryRefused(f"{text}; see its log, then `tomonode delivery retry`")
