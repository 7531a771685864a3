"""A rules file, read: the rules, or one clear line for every fault in it."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from node.errors import ConfigError
from node.results import KINDS, chosen
from node.rules.conditions import Wrong, near, texts, when
from node.rules.model import ACTIVE, ALL, NONE, Known, Rule, Then, When

_NAME_LIMIT = 64
_KEYS = ("name", "when", "then")
_THEN = ("model", "destinations", "results")


@dataclass(frozen=True)
class Parsed:
    """The rules of a file in their order, and its faults, a line each; rules are of use where there is no fault."""

    rules: tuple[Rule, ...]
    faults: tuple[str, ...]


def parse(text: str, source: str, known: Known | None) -> Parsed:
    """Read a rules file.

    Args:
        text: the file's.
        source: what faults call it: its path.
        known: peers and model versions that rules may name; None: names are not looked up.
    """
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        return Parsed((), (f"rules {source}: not valid TOML; {error}; mend that line",))
    faults = [
        f"rules {source}: {key!r} is not understood{near(key, ['rule']) or '; rules are tables [[rule]]'}"
        for key in table
        if key != "rule"
    ]
    entries = table.get("rule", [])
    if not isinstance(entries, list) or not all(isinstance(one, dict) for one in entries):
        return Parsed((), (*faults, f"rules {source}: rules are tables; write [[rule]] above each"))
    rules: list[Rule] = []
    for number, entry in enumerate(entries, 1):
        found: list[str] = []
        rule = _rule(entry, number, known, found)
        if any(rule.name == other.name for other in rules):
            found.append("has the name of an earlier rule; give another, for runs keep it")
        where = f"rules {source}: rule {number} {rule.name!r}"
        faults += [f"{where}: {fault}" for fault in found]
        rules.append(rule)
    return Parsed(tuple(rules), tuple(faults))


def _rule(entry: Mapping[str, Any], number: int, known: Known | None, faults: list[str]) -> Rule:
    faults += [f"{key!r} is not understood{near(key, _KEYS)}" for key in entry if key not in _KEYS]
    name = entry.get("name", f"rule {number}")
    if not isinstance(name, str) or not name.isprintable() or not 1 <= len(name) <= _NAME_LIMIT:
        faults.append(f"name is {name!r}; give 1 to {_NAME_LIMIT} printable characters")
        name = f"rule {number}"
    if "then" not in entry:
        faults.append("has no `then`; say what becomes of such studies")
    wanted = _table(entry, "when", faults)
    told = _table(entry, "then", faults)
    return Rule(
        name,
        when(wanted, faults) if wanted else When(),
        _then(told, known, faults) if told else Then(),
    )


def _table(entry: Mapping[str, Any], key: str, faults: list[str]) -> Mapping[str, Any]:
    value = entry.get(key, {})
    if isinstance(value, Mapping):
        return value
    faults.append(f"{key} is {value!r}; it is a table: {key} = {{ ... }}")
    return {}


def _then(table: Mapping[str, Any], known: Known | None, faults: list[str]) -> Then:
    faults += [
        f"then.{key} is not understood{near(key, _THEN)}" for key in table if key not in _THEN
    ]
    values: dict[str, Any] = {}
    for key, read in (("model", _model), ("destinations", _destinations), ("results", _results)):
        if key in table:
            try:
                values[key] = read(table[key], known)
            except Wrong as wrong:
                faults.append(f"then.{key} {wrong}")
    then = Then(**values)
    if then.model == NONE and ("destinations" in table or "results" in table):
        faults.append("then.model is 'none', so there is nothing to send; leave out the rest")
    if then.destinations is not None:
        faults += [
            f"then.results names {peer!r}, which is none of then.destinations; add it there"
            for peer in then.results
            if peer not in then.destinations
        ]
    return then


def _model(value: object, known: Known | None) -> str:
    if not isinstance(value, str) or not value:
        raise Wrong(f"is {value!r}; give 'active', 'none' or the name of a version")
    if value not in (ACTIVE, NONE) and known is not None and value not in known.versions:
        hint = near(value, [ACTIVE, NONE, *known.versions])
        raise Wrong(f"is {value!r}, no version of that name{hint}; see `tomonode model list`")
    return value


def _destinations(value: object, known: Known | None) -> tuple[str, ...] | None:
    if value == ALL:
        return None
    if value == NONE:
        return ()
    if not isinstance(value, list) or not value:
        raise Wrong(f"is {value!r}; give 'all', 'none' or a list of peers")
    names = texts(value)
    for name in names:
        _require_peer(name, known)
    return tuple(dict.fromkeys(names))


def _results(value: object, known: Known | None) -> dict[str, tuple[str, ...]]:
    if not isinstance(value, Mapping):
        raise Wrong(f"is {value!r}; it is a table: results = {{ PEER = ['SEG', 'SR'] }}")
    found: dict[str, tuple[str, ...]] = {}
    for peer, kinds in value.items():
        _require_peer(peer, known)
        named = texts(kinds)
        try:
            found[peer] = chosen(named)
        except ConfigError as error:
            hint = next((like for kind in named if (like := near(kind, KINDS))), "")
            raise Wrong(f"for {peer!r}: {error}{hint}") from None
    return found


def _require_peer(name: str, known: Known | None) -> None:
    if known is None:
        return
    if name not in known.peers:
        hint = near(name, known.peers)
        raise Wrong(f"names {name!r}, no peer of that name{hint}; see `tomonode peer list`")
    if not known.peers[name]:
        raise Wrong(f"names {name!r}, a peer that gets no results; see `tomonode peer list`")
