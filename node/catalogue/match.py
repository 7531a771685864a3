"""Attribute matching of queries (PS3.4 C.2.2.2), read from a key's value and turned into SQL.

| kind | a value means |
|---|---|
| UID | this UID, or one of a list |
| TEXT | this value, case and all; `*` is any text and `?` any one character |
| NAME | as TEXT, whatever the case and the accents; one component group of a name is enough |
| DATE | this day; `A-B`, `-B` and `A-` are ranges with both ends |
| TIME | as DATE; a time that is cut short is all it holds: 1015 is the whole minute |
| NUMBER | this number |

An empty value, or `*` alone, asks for nothing (universal matching). Several values, separated by a backslash, are
alternatives for every kind; UIDs may be separated by commas, too (PS3.18 8.3.4.1). Absent attributes match nothing
but the universal.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from sqlalchemy import ColumnElement, func, or_
from sqlalchemy.orm import InstrumentedAttribute

from node.errors import Permanent

_UIDS = re.compile(r"[0-9.]{1,64}")
_DATE = re.compile(r"\d{8}|\d{4}\.\d\d\.\d\d")
_TIME = re.compile(r"\d\d(\d\d(\d\d(\.\d{1,6})?)?)?")
_NUMBER = re.compile(r"[+-]?\d{1,11}")
_NUMBERS = range(-(2**31), 2**31)  # of an integer string: PS3.5 6.2
_FIRST = "000000.000000"
_LAST = "235959.999999"
_ACCENTS = re.compile("[\u0300-\u036f]")
_LIMIT = 1024  # characters of a key; far more than any attribute holds


class BadKey(Permanent):
    """A key's value is none of its kind."""


class Kind(Enum):
    """How an attribute is compared."""

    UID = auto()
    TEXT = auto()
    NAME = auto()
    DATE = auto()
    TIME = auto()
    NUMBER = auto()


@dataclass(frozen=True)
class Exact:
    """The value itself."""

    value: str | int


@dataclass(frozen=True)
class Pattern:
    """Text with `*` and `?`."""

    value: str


@dataclass(frozen=True)
class Range:
    """From `low` to `high`, both included, compared as text; None is open."""

    low: str | None
    high: str | None


Term = Exact | Pattern | Range


def read(kind: Kind, value: str) -> tuple[Term, ...]:
    """The alternatives a key's value asks for; none of them for universal matching.

    Raises:
        BadKey: the value is none of its kind. The message says the kind and never the value, which may be a patient's.
    """
    text = clean(value)
    if len(text) > _LIMIT:
        raise BadKey(f"key of {len(text)} characters; {_LIMIT} are the most")
    separators = r"[\\,]" if kind is Kind.UID else r"\\"
    parts = [part.strip() for part in re.split(separators, text)]
    asked = [part for part in parts if part]
    if not asked or any(set(part) == {"*"} for part in asked):
        return ()
    return tuple(term for part in asked for term in _READERS[kind](part))


def clean(value: str) -> str:
    """A value as any database takes it: no NUL, which PostgreSQL refuses, no half characters, no outer blanks."""
    return value.replace("\0", "").encode("utf-8", "replace").decode("utf-8").strip()


def folded(name: str) -> str | None:
    """A person name (PS3.5 6.2.1) as names are compared: `=` before and after each component group; None for none.

    Lower case, no accents on Latin, Greek and Cyrillic letters, no blanks around components, no empty ones at the
    end, no half and full width forms.
    """
    groups = [group for group in map(_folded_group, clean(name).split("=")) if group]
    return f"={'='.join(groups)}=" if groups else None


def day(value: str) -> str | None:
    """A stored date as YYYYMMDD (or, of old, YYYY.MM.DD); None for what is no date."""
    return value.replace(".", "") if _DATE.fullmatch(value) else None


def time_of_day(value: str) -> str | None:
    """A stored time as HH, HHMM, HHMMSS or HHMMSS.ffffff (of old, with colons); None for what is no time."""
    plain = value.replace(":", "")
    return plain if _TIME.fullmatch(plain) else None


def condition(
    column: InstrumentedAttribute[Any], kind: Kind, terms: tuple[Term, ...], dialect: str
) -> ColumnElement[bool]:
    """What a row must fulfil; `column` of a NAME holds folded names. `dialect` is "sqlite" or "postgresql"."""
    exact = [term.value for term in terms if isinstance(term, Exact)]
    found: list[ColumnElement[bool]] = [column.in_(exact)] if exact else []
    for term in terms:
        if isinstance(term, Pattern):
            found.append(_like(column, term.value, dialect))
        elif isinstance(term, Range):
            found.append(_between(column, kind, term))
    return or_(*found)


def _like(column: InstrumentedAttribute[Any], pattern: str, dialect: str) -> ColumnElement[bool]:
    if dialect == "sqlite":  # its LIKE takes ASCII letters of either case for the same
        return column.bool_op("GLOB")(pattern.replace("[", "[[]"))
    escaped = re.sub(r"([\\%_])", r"\\\1", pattern)
    return column.like(escaped.replace("*", "%").replace("?", "_"), escape="\\")


def _between(column: InstrumentedAttribute[Any], kind: Kind, term: Range) -> ColumnElement[bool]:
    value: ColumnElement[Any] = column.expression
    if kind is Kind.TIME:  # a time that was cut short counts as its first moment
        value = column + func.substr(_FIRST, func.length(column) + 1)
    if term.low is None:
        return value <= term.high
    return value >= term.low if term.high is None else value.between(term.low, term.high)


def _uid(part: str) -> list[Term]:
    if not _UIDS.fullmatch(part):
        raise BadKey("a UID is digits and dots, 64 characters at most; wildcards do not apply")
    return [Exact(part)]


def _text(part: str) -> list[Term]:
    return [Pattern(_one_star(part))] if set(part) & set("*?") else [Exact(part)]


def _name(part: str) -> list[Term]:
    asked = [_one_star((folded(part) or "==")[1:-1])]
    while asked[-1].endswith("^*"):  # components that a name does not have are empty, and match
        asked.append(asked[-1][:-2])
    return [Pattern(f"*={one}=*") for one in asked]


def _date(part: str) -> list[Term]:
    low, dash, high = part.partition("-")
    ends = [day(end) if end else None for end in (low, high)]
    if ends == [None, None] or (low and not ends[0]) or (high and not ends[1]):
        raise BadKey("a date is YYYYMMDD, a range YYYYMMDD-YYYYMMDD, either end may be left out")
    return [Range(ends[0], ends[1] if dash else ends[0])]


def _time(part: str) -> list[Term]:
    low, dash, high = part.partition("-")
    ends = [time_of_day(end) if end else None for end in (low, high)]
    if ends == [None, None] or (low and not ends[0]) or (high and not ends[1]):
        raise BadKey(
            "a time is HHMMSS, HHMM or HH, a range HHMMSS-HHMMSS, either end may be left out"
        )
    first, last = ends[0], ends[1] if dash else ends[0]
    return [
        Range(
            first and first + _FIRST[len(first) :],
            last and last + _LAST[len(last) :],
        )
    ]


def _number(part: str) -> list[Term]:
    if not _NUMBER.fullmatch(part) or int(part) not in _NUMBERS:
        raise BadKey("a number is whole and fits 32 bits; wildcards do not apply")
    return [Exact(int(part))]


def _folded_group(group: str) -> str:
    plain = _ACCENTS.sub("", unicodedata.normalize("NFKD", group))
    lower = unicodedata.normalize("NFC", plain.casefold())
    return "^".join(" ".join(part.split()) for part in lower.split("^")).rstrip("^")


def _one_star(pattern: str) -> str:
    return re.sub(r"\*+", "*", pattern)


_READERS: dict[Kind, Callable[[str], list[Term]]] = {
    Kind.UID: _uid,
    Kind.TEXT: _text,
    Kind.NAME: _name,
    Kind.DATE: _date,
    Kind.TIME: _time,
    Kind.NUMBER: _number,
}
