"""Pulls: studies to be fetched from a peer by C-MOVE; the same shape as deliveries, bounded by attempts."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, CursorResult, and_, exists, or_, select, update
from sqlalchemy.orm import Session, aliased

from node import leases, outbox, timeline
from node.config import Settings
from node.db import Database, now, transition
from node.deliveries import Destination, destination_of
from node.errors import ConfigError, Conflict, NotFound
from node.exchange_models import Pull
from node.lifecycle import PullEvent, PullState
from node.models import Artifact, Instance, Peer, Study
from node.runs import Failure, back_off

OPERATOR, PRIOR, MISSING = "operator", "prior", "missing"
_LIVE = (PullState.PENDING, PullState.RUNNING)
_LATE = timedelta(hours=1)  # objects that a peer still sends after its last answer
_AT_ONCE = 500  # UIDs in one query


@dataclass(frozen=True)
class Claim:
    """A pull that this worker holds until its lease ends."""

    pull_id: uuid.UUID
    attempt: int
    study_uid: str
    source: Destination
    allowed: bool  # it is still a peer to fetch from


def order(
    session: Session,
    peer: Peer,
    study_uid: str,
    why: str,
    settings: Settings,
    for_study: Study | None = None,
) -> tuple[uuid.UUID, bool]:
    """Have a study fetched from a peer, in the caller's transaction, with its message.

    Returns:
        The pull, and whether it is new: one that is under way is enough.

    Raises:
        ConfigError: the UID is none.
        Conflict: the peer is not one to fetch from.
    """
    require_source(peer)
    if not 0 < len(study_uid) <= 64 or not set(study_uid) <= set("0123456789."):
        raise ConfigError(f"Study Instance UID {study_uid!r} cannot be one; give digits and dots")
    live = session.execute(
        select(Pull.id).where(
            Pull.peer_id == peer.id, Pull.study_uid == study_uid, Pull.state.in_(_LIVE)
        )
    ).scalar_one_or_none()
    if live is not None:
        return live, False
    at = now(session)
    made = Pull(
        id=uuid.uuid4(),
        peer_id=peer.id,
        study_uid=study_uid,
        why=why,
        for_study_id=for_study.id if for_study is not None else None,
        max_attempts=settings.pull_attempts,
        not_before=at,
        dispatched_at=at,
        created_at=at,
    )
    session.add(made)
    session.flush()
    outbox.post(session, outbox.PULL, made.id, at)
    _tell(session, made, at, "asked for", f"{study_uid} is fetched from {peer.name} ({why})")
    return made.id, True


def require_source(peer: Peer) -> None:
    """Raises Conflict where a peer is not one to fetch studies from."""
    if peer.kind != "DICOM":
        raise Conflict(
            f"peer {peer.name!r} is a STOW-RS service; studies are fetched by C-MOVE, from an AE title"
        )
    if not peer.queried:
        raise Conflict(
            f"peer {peer.name!r} is not one to fetch from; allow it: `tomonode peer set {peer.name} --query`"
        )


def claim(db: Database, pull_id: uuid.UUID, worker: str, settings: Settings) -> Claim | None:
    """Take a pending pull that is due; None when there is nothing to do."""
    with db.transaction() as session:
        at = now(session)
        changed = transition(
            session,
            Pull,
            PullEvent.CLAIM,
            [Pull.id == pull_id, Pull.not_before <= at],
            attempt=Pull.attempt + 1,
            worker=worker,
            lease_until=at + timedelta(seconds=settings.lease_s),
        )
        if not changed:
            return None
        pull = session.get_one(Pull, pull_id)
        source = destination_of(pull.peer)
        allowed = pull.peer.enabled and pull.peer.queried
        return Claim(pull.id, pull.attempt, pull.study_uid, source, allowed)


def heartbeat(db: Database, pull_id: uuid.UUID, attempt: int, settings: Settings) -> bool:
    """Prolong the lease. False: cancelled, or no longer ours; stop."""
    return leases.prolong(db, Pull, PullState.RUNNING, pull_id, attempt, settings)


def note(db: Database, held: Claim, expected: int, arrived: int) -> bool:
    """Keep how many objects the peer has of the study, and how many of them are here. False: the lease was lost."""
    mine = (
        Pull.id == held.pull_id,
        Pull.attempt == held.attempt,
        Pull.state == PullState.RUNNING,
    )
    with db.transaction() as session:
        result = session.execute(
            update(Pull).where(*mine).values(expected=expected, arrived=arrived)
        )
        assert isinstance(result, CursorResult)
        return result.rowcount == 1


def here(session: Session, sop_uids: Iterable[str]) -> set[str]:
    """Those of these objects that the node has: received, or made by a run."""
    wanted = list(dict.fromkeys(sop_uids))
    found: set[str] = set()
    for start in range(0, len(wanted), _AT_ONCE):
        some = wanted[start : start + _AT_ONCE]
        for column in (Instance.sop_uid, Artifact.sop_uid):
            found.update(
                str(uid)
                for uid in session.execute(select(column).where(column.in_(some))).scalars()
            )
    return found


def finish(db: Database, held: Claim, expected: int) -> bool:
    """Every object of the study is here: DONE. False: the lease was lost, or an operator cancelled."""
    with db.transaction() as session:
        at = now(session)
        changed = transition(
            session,
            Pull,
            PullEvent.FINISH,
            [Pull.id == held.pull_id, Pull.attempt == held.attempt],
            lease_until=None,
            expected=expected,
            arrived=expected,
            error=None,
            finished_at=at,
        )
        if changed:
            pull = session.get_one(Pull, held.pull_id)
            said = f"{held.study_uid}: {expected} objects from {held.source.name}"
            _tell(session, pull, at, "fetched", said)
        return changed == 1


def fail(db: Database, held: Claim, failure: Failure, settings: Settings) -> str | None:
    """It did not succeed: later again while attempts are left and the cause may pass, else FAILED. None: lease lost."""
    with db.transaction() as session:
        at = now(session)
        pull = session.get_one(Pull, held.pull_id)
        # `attempt` fences, so it always grows; an outage of our own raises the limit with it
        limit = pull.max_attempts + failure.outage
        again = failure.transient and held.attempt < limit
        changed = transition(
            session,
            Pull,
            PullEvent.REQUEUE if again else PullEvent.FAIL,
            [Pull.id == held.pull_id, Pull.attempt == held.attempt],
            max_attempts=limit,
            lease_until=None,
            error=failure.message,
            not_before=at + back_off(held.attempt, settings),
            dispatched_at=None,
            finished_at=None if again else at,
        )
        if not changed:
            return None
        if not again:
            pull = session.get_one(Pull, held.pull_id)
            _tell(session, pull, at, "not fetched", f"{held.study_uid}: {failure.message}")
        return PullState.PENDING if again else PullState.FAILED


def cancel(session: Session, pull_id: uuid.UUID, at: datetime) -> None:
    """An operator does not want a study any more; what has come of it stays.

    Raises:
        NotFound: no such pull.
        Conflict: it has ended.
    """
    pull = session.get(Pull, pull_id)
    if pull is None:
        raise NotFound(f"no pull {pull_id}; `tomonode pull list` shows what is here")
    changed = transition(
        session,
        Pull,
        PullEvent.CANCEL,
        [Pull.id == pull_id],
        lease_until=None,
        finished_at=at,
        error="cancelled by an operator",
    )
    if not changed:
        raise Conflict(f"pull {pull_id} is {pull.state}; nothing to cancel")
    _tell(session, session.get_one(Pull, pull_id), at, "not fetched", "cancelled by an operator")


def reap(session: Session, at: datetime) -> int:
    """Pulls whose worker stopped prolonging its lease are pending again, or fail when attempts are used up."""
    expired = (
        session.execute(select(Pull).where(Pull.state == PullState.RUNNING, Pull.lease_until < at))
        .scalars()
        .all()
    )
    for pull in expired:
        again = pull.attempt < pull.max_attempts
        transition(
            session,
            Pull,
            PullEvent.REQUEUE if again else PullEvent.FAIL,
            [Pull.id == pull.id, Pull.attempt == pull.attempt, Pull.lease_until < at],
            lease_until=None,
            error=f"worker {pull.worker} stopped answering in attempt {pull.attempt}",
            not_before=at,
            dispatched_at=None,
            finished_at=None if again else at,
        )
    return len(expired)


def given_up() -> ColumnElement[bool]:
    """The condition of pulls that failed, where the same study has not been fetched from the same peer since."""
    later = aliased(Pull)
    since = exists().where(
        later.peer_id == Pull.peer_id,
        later.study_uid == Pull.study_uid,
        later.created_at > Pull.created_at,
    )
    return and_(Pull.state == PullState.FAILED, ~since)


def dispatch_due(session: Session, settings: Settings, at: datetime) -> int:
    """Write a message for every pending pull that is due and has none on its way."""
    return leases.dispatch_due(session, Pull, PullState.PENDING, outbox.PULL, settings, at)


def note_arrival(
    session: Session, study: Study, calling_ae: str, is_image: bool, at: datetime
) -> None:
    """Keep whether a study came by our pulls alone, at a new object of it, in the caller's transaction.

    An object came by a pull while one of its study runs, and a while later, where its sender is the peer that had it.
    The first object decides; a new image that somebody sent makes it a received study, which is read.
    """
    late = and_(
        Peer.ae_title == calling_ae.strip(),
        Pull.expected.is_not(None),
        Pull.state != PullState.CANCELLED,
        or_(Pull.finished_at.is_(None), Pull.finished_at > at - _LATE),
    )
    by_pull = session.execute(
        select(Pull.id)
        .join(Peer, Peer.id == Pull.peer_id)
        .where(Pull.study_uid == study.study_uid)
        .where(or_(Pull.state == PullState.RUNNING, late))
        .limit(1)
    ).first()
    if study.pulled and by_pull is None and is_image:
        session.execute(update(Study).where(Study.id == study.id).values(pulled=False))
        timeline.add(session, study.id, at, "sent to us", f"by {calling_ae}, after we fetched it")
    elif by_pull is not None and not study.pulled:
        first = ~exists().where(Instance.study_id == study.id)
        alone = and_(Study.id == study.id, first)
        session.execute(update(Study).where(alone).values(pulled=True))


def _tell(session: Session, pull: Pull, at: datetime, kind: str, message: str) -> None:
    """A line in the history of the study that a pull is for, and of the one that it fetches, where it is here."""
    fetched = select(Study.id).where(Study.study_uid == pull.study_uid)
    about = {pull.for_study_id, session.execute(fetched).scalar_one_or_none()}
    for study_id in sorted(one for one in about if one is not None):
        timeline.add(session, study_id, at, kind, message)
