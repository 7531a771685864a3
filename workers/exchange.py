"""The delivery worker's other work with peers: storage commitments, and studies to be fetched.

As in `workers.deliver` every peer has a lane, one for each of the two: a peer that hangs holds one thread of each.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from functools import partial
from typing import TypeVar

from sqlalchemy import Select, select
from structlog.contextvars import bound_contextvars

from node import commitment_claims, log, pulls, vouching
from node.blobs import BlobStore
from node.commitment_claims import Claim
from node.commitments import OUT
from node.config import Settings
from node.db import Database
from node.dimse import commitment_scu, query
from node.dimse.query import Held
from node.errors import DatabaseUnavailable, PeerRefused
from node.exchange_models import Commitment, Pull
from workers.deliver import Lanes
from workers.errors import Incomplete, NoWayBack
from workers.task import Check, Job, perform, persist

_SETTLE_S = 5.0  # for objects that still arrive after the peer's last answer
_STEP_S = 0.2
_T = TypeVar("_T")


class ExchangeWorker:
    """Takes commitments and pulls, each call in a thread of its own. Make one a process."""

    def __init__(self, settings: Settings, name: str) -> None:
        """`name` is what the database calls this worker."""
        self._settings, self._name = settings, name
        self._db = Database(settings.db_url)
        self._blobs = BlobStore.of(settings)
        self._commit_lanes, self._pull_lanes = Lanes(), Lanes()

    def commit(self, commitment_id: uuid.UUID) -> None:
        """Answer or ask, and whatever comes for the same AE title meanwhile."""
        # by AE title, as who asks us may be no peer
        title = self._of(select(Commitment.ae_title).where(Commitment.id == commitment_id))
        if title is not None:
            lane = uuid.uuid5(uuid.NAMESPACE_OID, title)
            self._commit_lanes.work(lane, commitment_id, self.settle, "commitment not claimed")

    def pull(self, pull_id: uuid.UUID) -> None:
        """Fetch a study, and whatever is wanted of the same peer meanwhile."""
        lane = self._of(select(Pull.peer_id).where(Pull.id == pull_id))
        if lane is not None:
            self._pull_lanes.work(lane, pull_id, self.fetch, "pull not claimed")

    def stop(self) -> None:
        """Finish what is under way and start nothing more."""
        self._commit_lanes.close()
        self._pull_lanes.close()

    def _of(self, query: Select[_T]) -> _T | None:
        try:
            with self._db.reading() as session:
                return session.execute(query).scalar_one_or_none()
        except DatabaseUnavailable as error:
            log.get().warning("not claimed", code=error.code, error=str(error))
            return None

    def settle(self, commitment_id: uuid.UUID) -> str:
        """Claim a commitment, and tell who asked, or ask the peer: as `workers.deliver.DeliveryWorker.deliver`.

        Raises:
            DatabaseUnavailable: it cannot be claimed now.
        """
        db, settings = self._db, self._settings
        held = commitment_claims.claim(db, commitment_id, settings)
        if held is None:
            return ""
        beat = partial(commitment_claims.heartbeat, db, commitment_id, held.attempt, settings)
        job = Job(
            beat=beat,
            body=partial(self._ask if held.direction == OUT else self._answer, held),
            fail=lambda failure: commitment_claims.fail(db, held, failure, settings),
        )
        with bound_contextvars(transaction_uid=held.transaction_uid, attempt=held.attempt):
            return perform(job, settings.lease_s, settings.run_limit_s)

    def _answer(self, held: Claim, check: Check) -> bool:
        decided = vouching.of_claim(self._db, self._blobs, held)
        if decided is None:
            return False
        if held.destination is None:
            raise NoWayBack(
                f"{held.ae_title} asked us to commit, has ended its association and is no peer; add where it takes"
                f" reports: `tomonode peer add NAME {held.ae_title} HOST PORT --no-results`"
            )
        check()
        commitment_scu.tell(held.destination, held.transaction_uid, decided, self._settings)
        write = partial(commitment_claims.answered, self._db, held)
        return persist(write, check, self._settings.lease_s)

    def _ask(self, held: Claim, check: Check) -> bool:
        if held.destination is None:
            raise PeerRefused(f"the peer of AE title {held.ae_title} was removed; nobody to ask")
        came = commitment_scu.ask(
            held.destination, held.transaction_uid, held.references, self._settings, self._db
        )
        if came:
            return True
        write = partial(commitment_claims.waits, self._db, held)
        return persist(write, check, self._settings.lease_s)

    def fetch(self, pull_id: uuid.UUID) -> str:
        """Claim a pull and have the peer send the study: as `workers.deliver.DeliveryWorker.deliver`.

        Raises:
            DatabaseUnavailable: it cannot be claimed now.
        """
        held = pulls.claim(self._db, pull_id, self._name, self._settings)
        if held is None:
            return ""
        fetching = _Fetching(held, self._db, self._settings)
        job = Job(
            beat=fetching.beat,
            body=fetching.body,
            fail=lambda failure: pulls.fail(self._db, held, failure, self._settings),
        )
        facts = {"study_uid": held.study_uid, "peer": held.source.name, "attempt": held.attempt}
        with bound_contextvars(**facts):
            # the peer's own time is bounded in the body; a process is not to end for a study on its way
            return perform(job, self._settings.lease_s, 2 * self._settings.pull_limit_s + 600)


class _Fetching:
    """One study on its way."""

    def __init__(self, held: pulls.Claim, db: Database, settings: Settings) -> None:
        self._held, self._db, self._settings = held, db, settings
        self._wanted: Sequence[Held] = ()

    def beat(self) -> bool:
        """Prolong the lease, and keep how far it is."""
        held = self._held
        ours = pulls.heartbeat(self._db, held.pull_id, held.attempt, self._settings)
        if ours and self._wanted:
            self._note(len(self._missing()))
        return ours

    def body(self, check: Check) -> bool:
        """Ask what there is, have it sent, and look whether it is here."""
        held, settings = self._held, self._settings
        if not held.allowed:
            raise PeerRefused(f"{held.source.name} is no peer to fetch from any more")
        self._wanted = query.objects_of(held.source, held.study_uid, settings, check)
        if not self._wanted:
            raise PeerRefused(f"{held.source.name} has no study {held.study_uid}")
        missing = self._missing()
        self._note(len(missing))
        if missing:
            whole = len(missing) == len(self._wanted)
            series = () if whole else tuple(sorted({one.series_uid for one in missing}))
            log.get().info("fetching", count=len(missing))
            moved = query.move(held.source, held.study_uid, series, settings, check)
            missing = self._settled(check)
            self._note(len(missing))
            if missing:
                raise Incomplete(self._summary(moved, missing))
        write = partial(pulls.finish, self._db, held, len(self._wanted))
        return persist(write, check, settings.lease_s)

    def _missing(self) -> list[Held]:
        with self._db.reading() as session:
            here = pulls.here(session, [one.sop_uid for one in self._wanted])
        return [one for one in self._wanted if one.sop_uid not in here]

    def _note(self, missing: int) -> None:
        wanted = len(self._wanted)
        pulls.note(self._db, self._held, wanted, wanted - missing)

    def _settled(self, check: Check) -> list[Held]:
        """What is missing once nothing has come for a while: some peers answer before they have sent all."""
        missing = self._missing()
        end = time.monotonic() + _SETTLE_S
        while missing and time.monotonic() < end:
            check()
            time.sleep(_STEP_S)
            left = self._missing()
            if len(left) < len(missing):
                end = time.monotonic() + _SETTLE_S
            missing = left
        return missing

    def _summary(self, moved: query.Moved, missing: Sequence[Held]) -> str:
        name, wanted = self._held.source.name, len(self._wanted)
        said = f"it says {moved.sent} were sent and {moved.failed} could not be"
        advice = f"look at its log, and at ours for what was refused ({missing[0].sop_uid} first)"
        return f"{len(missing)} of {wanted} objects of {name} are not here; {said}; {advice}"
