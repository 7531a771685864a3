"""The rules that are in force, and what they make of a study when it closes.

A file that cannot be used never loses or stalls a study: the node does not start with it, and while it runs the last
good one goes on. That one is kept as a copy in home, so every process finds it, one that starts anew as well.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from dicom_io.errors import UnreadableDataset
from node import log
from node.blobs import BlobStore
from node.config import Settings
from node.db import Database
from node.errors import ConfigError
from node.learning_models import ModelVersion
from node.model_version import model_version
from node.models import Instance, Peer, Study
from node.rules import facts
from node.rules.judge import Judgement, judge
from node.rules.model import ACTIVE, NONE, Facts, Image, Known, Rule, tags
from node.rules.parse import Parsed, parse

_LIMIT = 2**20  # bytes of a rules file


@dataclass(frozen=True)
class Decision:
    """What becomes of a study: `version` is of the model that reads it (None: none does), `route` what its run keeps
    (None: no rule matched).

    `said` tells people why; "" where nothing but the usual happens.
    """

    version: str | None
    route: dict[str, Any] | None = None
    said: str = ""


def known(session: Session, settings: Settings) -> Known:
    """The names that rules may use.

    Raises:
        ConfigError: the configured weights cannot be read.
    """
    peers = session.execute(select(Peer.name, Peer.receives).where(Peer.enabled))
    versions = session.execute(select(ModelVersion.version)).scalars()
    return Known(
        {row.name: row.receives for row in peers}, frozenset([model_version(settings), *versions])
    )


def read(path: Path, names: Known | None) -> Parsed:
    """Read a rules file; a file that is not there or no text is a fault."""
    return _load(path, names)[0]


def _load(path: Path, names: Known | None) -> tuple[Parsed, bytes]:
    """What a file says, and its bytes as they were read."""
    try:
        with path.open("rb") as file:
            content = file.read(_LIMIT + 1)
        if len(content) > _LIMIT:
            raise ConfigError(f"is longer than {_LIMIT // 2**20} MiB; shorten it")
        return parse(content.decode(), str(path), names), content
    except OSError as error:
        fault = f"cannot be read, {error.strerror}; check TOMONODE_RULES"
    except UnicodeDecodeError:
        fault = "is not UTF-8 text; save it as UTF-8"
    except ConfigError as error:
        fault = str(error)
    return Parsed((), (f"rules {path}: {fault}",)), b""


def kept_copy(settings: Settings) -> Path:
    """Where the last good rules lie while the node runs."""
    return settings.home / "run" / "rules.toml"


def require_good(settings: Settings) -> None:
    """Before the node starts: the rules are without fault, or there are none. What is in force later begins with them.

    Raises:
        ConfigError: the first fault, and how many there are; or the copy cannot be kept.
        DatabaseUnavailable: the names in them cannot be looked up.
    """
    if settings.rules is None:
        return
    db = Database(settings.db_url)
    try:
        with db.reading() as session:
            found, content = _load(settings.rules, known(session, settings))
    finally:
        db.dispose()
    if found.faults:
        raise ConfigError(_summary(found))
    try:
        _keep(settings, content)
    except OSError as error:
        raise ConfigError(
            f"{kept_copy(settings)} cannot be written, {error.strerror}; make room, or set TOMONODE_HOME to another"
        ) from None


def in_force(session: Session, settings: Settings) -> tuple[Rule, ...]:
    """The rules as they stand in the file, or the last good ones where the file cannot be used now.

    Raises:
        ConfigError: the file cannot be used, and no good one was ever read.
    """
    return _current(session, settings)[0]


def watch(session: Session, settings: Settings) -> None:
    """Take up an edit of the file; where it has a fault, log it, once. Raises ConfigError as `in_force` does."""
    fault = _current(session, settings)[1]
    if fault:
        _complain(fault)


def _current(session: Session, settings: Settings) -> tuple[tuple[Rule, ...], str]:
    """The rules in force, and what is wrong with the file, "" for nothing."""
    if settings.rules is None:
        return (), ""
    last, content = _load(kept_copy(settings), None)
    if not last.faults and content == _bytes(settings.rules):
        return last.rules, ""
    found, content = _load(settings.rules, known(session, settings))
    if not found.faults:
        with suppress(OSError):  # without room for the copy they are in force all the same
            _keep(settings, content)
        return found.rules, ""
    if last.faults:
        raise ConfigError(_summary(found))
    return last.rules, _summary(found)


def decide(session: Session, study: Study, settings: Settings, answering: str) -> Decision:
    """What the rules in force make of a study that closes, or is to be read again.

    Without a rule that matches, the model that answers reads it and every peer gets its results; but a study that was
    fetched from a peer is there to be compared with, and is not read.
    """
    rules = in_force(session, settings)
    rule = judge(rules, of_study(session, study, rules, settings)).rule if rules else None
    if rule is None:
        if study.pulled:
            return Decision(None, said="fetched from a peer, and no routing rule asks for a model")
        return Decision(answering)
    if rule.then.model == NONE:
        return Decision(None, rule.frozen(), f"routing rule {rule.name!r} asks for no model")
    version = answering if rule.then.model == ACTIVE else rule.then.model
    to = rule.then.destinations
    where = "all destinations" if to is None else ", ".join(to) or "nobody"
    return Decision(
        version, rule.frozen(), said=f"routing rule {rule.name!r}: model {version}, to {where}"
    )


def of_study(session: Session, study: Study, rules: tuple[Rule, ...], settings: Settings) -> Facts:
    """What is known of a stored study, as far as these rules ask. An object that is not on this host, or cannot be
    read, has no values."""
    rows = session.execute(
        select(Instance.sha256, Instance.calling_ae, Instance.laterality, Instance.view).where(
            Instance.study_id == study.id, Instance.is_image
        )
    ).all()
    wanted = tags(rules)
    store = BlobStore(settings.blob_root, settings.spool)
    images = []
    for row in rows:
        values: dict[int, tuple[str, ...]] = {}
        try:
            values = facts.values(store.path(row.sha256), wanted) if wanted else {}
        except (OSError, UnreadableDataset) as error:
            log.get().warning("rules see no header", sha256=row.sha256, code=type(error).__name__)
        images.append(Image(row.calling_ae, values))
    views = frozenset(f"{row.laterality}-{row.view}" for row in rows if row.laterality and row.view)
    return Facts(tuple(images), views, study.pulled)


def judged(session: Session, study: Study, settings: Settings) -> Judgement:
    """How a stored study stands to the rules in force."""
    rules = in_force(session, settings)
    return judge(rules, of_study(session, study, rules, settings))


def _summary(found: Parsed) -> str:
    more = len(found.faults) - 1
    others = f" ({more} more: `tomonode rules check`)" if more else ""
    return f"{found.faults[0]}{others}"


def _bytes(path: Path) -> bytes | None:
    try:
        with path.open("rb") as file:
            return file.read(_LIMIT + 1)
    except OSError:
        return None


def _keep(settings: Settings, content: bytes) -> None:
    """Keep a copy: whole or not at all, whoever reads it meanwhile. Raises OSError."""
    to = kept_copy(settings)
    fresh = to.with_name(f"{to.name}.{os.getpid()}")
    to.parent.mkdir(parents=True, exist_ok=True)
    fresh.write_bytes(content)
    fresh.replace(to)


@lru_cache(maxsize=256)
def _complain(fault: str) -> None:
    """Once for each fault: it is found again whenever the rules are looked at."""
    log.get().warning("rules not usable, the last good ones go on", error=fault)
