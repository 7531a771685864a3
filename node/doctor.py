"""`tomonode doctor`: looks at everything the node needs, and says how to mend what is wrong. It changes nothing,
and leaves nothing behind where it tries whether it could."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

from redis.exceptions import RedisError
from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from node import certificates, outbox, peers, probe, pulls, redis_server, registry, schema
from node.blobs import BlobStore, sha256_of
from node.catalogue.rows import without_row
from node.commitments import OUT
from node.config import Settings
from node.db import Database, now, parse_url
from node.deliveries import Destination, destination_of
from node.errors import NodeError
from node.exchange_models import Commitment, CommitmentItem, Pull
from node.learning_models import ModelVersion
from node.lifecycle import CommitmentState, DeliveryState, ModelState, PullState, RunState
from node.model_version import model_version, model_version_2d
from node.models import Delivery, Run
from node.rules import apply as routing
from node.rules.parse import Parsed

_T = TypeVar("_T")
_COMMITMENT_DAYS = 7  # nothing forgets one that was given up; after this the doctor does
_START = "start the node: `tomonode up`"


@dataclass(frozen=True)
class Check:
    """What was looked at, whether it is well, what was found, and how to mend it (empty where it is well)."""

    name: str
    ok: bool
    found: str
    mend: str = ""


def examine(settings: Settings) -> Iterator[Check]:
    """Every check in turn; none of them raises for a problem it finds."""
    yield _guarded("disk", lambda: _disk(settings))
    if settings.blob_url:
        yield _guarded("blob store", lambda: _blob_store(settings))
    yield _guarded("weights", lambda: _weights(settings))
    database = _guarded("database", lambda: _database(settings))
    yield database
    names_known = False
    if database.ok:
        migrations = _guarded("migrations", lambda: _migrations(settings))
        yield migrations
        if names_known := migrations.ok:
            yield _guarded("model", lambda: _model(settings))
            yield _guarded("work", lambda: _work(settings))
            yield _guarded("catalogue", lambda: _catalogue(settings))
            yield _guarded("commitments", lambda: _commitments(settings))
            yield _guarded("pulls", lambda: _pulls(settings))
            yield from _peers(settings)
    yield _guarded("rules", lambda: _rules(settings, names_known))
    broker = _guarded("broker", lambda: _broker(settings))
    yield broker
    if broker.ok:
        for queue in (outbox.INFER[1], outbox.DELIVER[1]):
            yield _guarded(f"worker {queue}", lambda queue=queue: _workers(settings, queue))  # type: ignore[misc]
    yield from (Check(**vars(found)) for found in certificates.examine(settings))
    yield _guarded("listener", lambda: _listener(settings))
    yield _guarded("web", lambda: _web(settings))


def _guarded(name: str, look: Callable[[], Check]) -> Check:
    try:
        return look()
    except NodeError as error:
        found, _, mend = str(error).rpartition("; ")
        return Check(name, False, found or mend, mend if found else "see the log")


def _disk(settings: Settings) -> Check:
    folder = next(path for path in (settings.home, *settings.home.parents) if path.is_dir())
    free = shutil.disk_usage(folder).free // 2**20
    found = f"{free} MB free at {folder}; the reserve is {settings.disk_reserve_mb} MB"
    ok = free > settings.disk_reserve_mb
    return Check("disk", ok, found, "" if ok else "free some space: nothing more is received")


def _blob_store(settings: Settings) -> Check:
    store = BlobStore.of(settings)
    assert store.remote is not None, "asked for only where there is one"
    seconds, waiting = store.remote.probe(), len(store.outgoing())
    found = f"{store.remote.shown} takes, gives and removes an object in {seconds:.3f} s"
    return Check("blob store", True, f"{found}; {waiting} received objects wait to be copied")


def _weights(settings: Settings) -> Check:
    version, flat = model_version(settings), model_version_2d(settings)
    said = f"; for mammograms {flat} in {settings.weights_2d}" if flat else ""
    if settings.weights is None:
        untrained = f"{version}: none configured, so untrained; scores mean nothing"
        return Check("weights", True, untrained + said)
    return Check("weights", True, f"{version} in {settings.weights}{said}")


def _database(settings: Settings) -> Check:
    url = parse_url(settings.db_url)
    shown = url.render_as_string(hide_password=True)
    if url.get_backend_name() == "sqlite" and not Path(url.database or "").exists():
        return Check(
            "database", False, f"{shown} is not there yet", f"{_START}, or `tomonode db upgrade`"
        )
    _ask(settings, lambda db: schema.current(db))
    return Check("database", True, f"{shown} answers")


def _migrations(settings: Settings) -> Check:
    current = _ask(settings, lambda db: schema.current(db))
    head = schema.head()
    ok = current == head
    mend = "" if ok else "run `tomonode db upgrade`, with the newest program if that does not help"
    found = f"schema {current or 'none'}" + ("" if ok else f"; this program needs {head}")
    return Check("migrations", ok, found, mend)


def _model(settings: Settings) -> Check:
    def used(db: Database) -> list[ModelVersion]:
        with db.reading() as session:
            present = registry.active(session)
            return [*([present] if present else []), *registry.shadows(session)]

    versions = _ask(settings, used)
    for row in versions:
        try:
            well = sha256_of(BlobStore.of(settings).fetch(row.sha256)) == row.sha256
        except FileNotFoundError:
            well = False
        if not well:
            found = (
                f"weights of {row.version}, {row.state.lower()}, are gone or damaged ({row.sha256})"
            )
            return Check("model", False, found, "import the file again: `tomonode model import`")
    said = ", ".join(f"{row.version} is {row.state.lower()}" for row in versions)
    if not any(row.state == ModelState.ACTIVE for row in versions):
        said = f"no version is active, so the configured weights answer{said and '; ' + said}"
    return Check("model", True, said)


def _work(settings: Settings) -> Check:
    def count(db: Database) -> dict[str, int]:
        with db.reading() as session:
            by_run = (
                select(Run.state, func.count()).where(Run.shadow.is_(False)).group_by(Run.state)
            )
            by_delivery = select(Delivery.state, func.count()).group_by(Delivery.state)
            runs, sent = session.execute(by_run).all(), session.execute(by_delivery).all()
        return {
            f"{kind} {s}": n for kind, rows in (("run", runs), ("delivery", sent)) for s, n in rows
        }

    counts = _ask(settings, count)
    failed = [f"{kind} {RunState.FAILED}" for kind in ("run", "delivery")]
    bad = sum(counts.get(name, 0) for name in failed)
    waiting = counts.get(f"run {RunState.QUEUED}", 0) + counts.get(f"run {RunState.RUNNING}", 0)
    sending = counts.get(f"delivery {DeliveryState.PENDING}", 0)
    found = f"{waiting} runs and {sending} deliveries to do; {bad} failed"
    mend = "`tomonode study list` and `tomonode delivery list` show them; `retry` tries again"
    return Check("work", not bad, found, mend if bad else "")


def _catalogue(settings: Settings) -> Check:
    def count(db: Database) -> int:
        with db.reading() as session:
            return without_row(session)

    missing = _ask(settings, count)
    found = f"{missing} objects are here that queries of other systems do not find"
    mend = "`tomonode catalogue rebuild --missing` lists them" if missing else ""
    return Check("catalogue", not missing, found if missing else "complete", mend)


def _rules(settings: Settings, names_known: bool) -> Check:
    if settings.rules is None:
        return Check("rules", True, "none: the active model reads every study, for every peer")
    path = settings.rules

    def look(db: Database) -> Parsed:
        with db.reading() as session:
            return routing.read(path, routing.known(session, settings))

    found = _ask(settings, look) if names_known else routing.read(path, None)
    if not found.faults:
        return Check("rules", True, f"{len(found.rules)} in {path}")
    mend = "mend it (`tomonode rules check`): a running node goes on with the last good rules, none starts with it"
    return Check("rules", False, found.faults[0], mend)


def _commitments(settings: Settings) -> Check:
    """Those that were given up, and our own where a peer does not keep an object."""
    kept = (
        select(CommitmentItem.commitment_id)
        .join(Commitment)
        .where(Commitment.direction == OUT, CommitmentItem.committed.is_(False))
    )
    wrong = (Commitment.state == CommitmentState.FAILED) | Commitment.id.in_(kept)

    def count(db: Database) -> tuple[int, int]:
        waiting = Commitment.state.in_([CommitmentState.PENDING, CommitmentState.SENDING])
        with db.reading() as session:
            recent = Commitment.created_at > now(session) - timedelta(days=_COMMITMENT_DAYS)
            bad = _count(session, Commitment.id, wrong & recent)
            return _count(session, Commitment.id, waiting), bad

    open_ones, failed = _ask(settings, count)
    found = (
        f"{open_ones} wait; {failed} of the last {_COMMITMENT_DAYS} days given up, or with an object"
        " that a peer does not keep"
    )
    mend = "`tomonode commitment list` shows them; `commitment retry` asks or answers once more"
    return Check("commitments", not failed, found, mend if failed else "")


def _pulls(settings: Settings) -> Check:
    def count(db: Database) -> tuple[int, int]:
        live = Pull.state.in_([PullState.PENDING, PullState.RUNNING])
        with db.reading() as session:
            return _count(session, Pull.id, live), _count(session, Pull.id, pulls.given_up())

    live, failed = _ask(settings, count)
    found = f"{live} on their way; {failed} given up"
    mend = "`tomonode pull list --state FAILED` says why; ask again, or `pull cancel` it"
    return Check("pulls", not failed, found, mend if failed else "")


def _count(session: Session, column: Any, where: ColumnElement[bool]) -> int:
    return session.execute(select(func.count(column)).where(where)).scalar_one()


def _peers(settings: Settings) -> Iterator[Check]:
    def destinations(db: Database) -> list[tuple[str, Destination]]:
        with db.reading() as session:
            return [(peers.address(p), destination_of(p)) for p in peers.listed(session)]

    known = _ask(settings, destinations)
    if not known:
        yield Check("peers", True, "none: results stay in the node; `tomonode peer add` adds one")
    for address, destination in known:
        name = f"peer {destination.name}"
        check = _guarded(name, lambda d=destination: _peer(d, settings))  # type: ignore[misc]
        yield check if check.ok else Check(name, False, f"{address}: {check.found}", check.mend)


def _peer(destination: Destination, settings: Settings) -> Check:
    seconds = peers.reach(destination, settings)
    return Check(f"peer {destination.name}", True, f"answers after {seconds:.3f} s")


def _broker(settings: Settings) -> Check:
    redis_server.require(settings)
    where = settings.redis_socket if settings.embedded_redis else "at TOMONODE_REDIS_URL"
    return Check("broker", True, f"Redis {where} answers")


def _workers(settings: Settings, queue: str) -> Check:
    """A worker calls itself QUEUE-PID@HOST on its connections to Redis."""
    try:
        clients = redis_server.client(settings).client_list()
    except (RedisError, OSError) as error:
        return Check(f"worker {queue}", False, f"Redis does not tell; {error}", _START)
    names = sorted({c["name"] for c in clients if c.get("name", "").startswith(f"{queue}-")})
    mend = "" if names else f"{_START}, or `tomonode worker --queue {queue}`"
    return Check(f"worker {queue}", bool(names), ", ".join(names) or "none is connected", mend)


def _listener(settings: Settings) -> Check:
    where = f"{settings.ae_title} at {settings.listen_host}:{settings.listen_port}"
    ok = probe.accepts(settings.listen_host, settings.listen_port)
    return Check(
        "listener", ok, f"{where} {'answers' if ok else 'is silent'}", "" if ok else _START
    )


def _web(settings: Settings) -> Check:
    secure = settings.web_certificate is not None
    ok = probe.serves_pages(settings.web_host, settings.web_port, tls=secure)
    where = settings.web_url
    return Check("web", ok, f"{where} {'answers' if ok else 'is silent'}", "" if ok else _START)


def _ask(settings: Settings, question: Callable[[Database], _T]) -> _T:
    db = Database(settings.db_url)
    try:
        return question(db)
    finally:
        db.dispose()
