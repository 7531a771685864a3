"""The `when` of a rule: what a rules file may ask of a study, and what is wrong with it where it cannot be asked."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Collection, Mapping
from datetime import date, datetime, time
from typing import Any

from pydicom.datadict import dictionary_has_tag, dictionary_VR, keyword_dict

from dicom_io import codes
from node.catalogue.match import BadKey, Kind, Range, read
from node.rules.model import Condition, Days, Glob, Numbers, Term, Times, When

_OWN = ("calling_ae", "views", "pulled")
_TAG = re.compile(r"\(?([0-9A-Fa-f]{4}),?([0-9A-Fa-f]{4})\)?")
_NUMERIC = frozenset({"DS", "IS", "US", "SS", "UL", "SL", "UV", "SV", "FL", "FD", "US or SS"})
_TEXT = frozenset({"AE", "AS", "CS", "DT", "LO", "LT", "PN", "SH", "ST", "UC", "UI", "UR", "UT"})
_PRIVATE = "private"
_SYNTAX = 0x00020010  # the one attribute of the file meta information that is known of every object
_ENDS = frozenset({"from", "to"})
_LIMIT = 256  # characters of a pattern; no attribute that is compared holds more that matters


class Wrong(Exception):
    """What is wrong with one entry, and what to do; the place is added by `parse`."""


def when(table: Mapping[str, Any], faults: list[str]) -> When:
    """The `when` of a rule; what is wrong with it is added to `faults`, each a sentence."""
    attributes: list[Condition] = []
    values: dict[str, Any] = {}
    for name, value in table.items():
        try:
            if name in _OWN:
                values[name] = _READERS[name](value)
            else:
                attributes.append(_condition(name, value))
        except Wrong as wrong:
            faults.append(f"when.{name} {wrong}")
    return When(tuple(attributes), **values)


def near(word: str, known: Collection[str]) -> str:
    """ "; did you mean 'x'?" where something like it is known, else "" """
    lower = {one.lower(): one for one in known}
    found = difflib.get_close_matches(word.lower(), lower, 1, 0.7)
    return f"; did you mean {lower[found[0]]!r}?" if found else ""


def _condition(name: str, value: object) -> Condition:
    tag = _tag(name)
    group = tag >> 16
    vr = _PRIVATE if group % 2 else dictionary_VR(tag)
    secret = group == 0x0010 or vr in ("PN", _PRIVATE)
    given = value if isinstance(value, list) else [value]
    if not given:
        raise Wrong("is an empty list; give a value, or leave it out")
    return Condition(name, tag, tuple(_term(one, vr, secret) for one in given), secret)


def _tag(name: str) -> int:
    numbers = _TAG.fullmatch(name)
    if numbers is None:
        if name not in keyword_dict:
            hint = near(name, [*keyword_dict, *_OWN]) or "; give a keyword, or a tag as (gggg,eeee)"
            raise Wrong(f"is no keyword of the standard{hint}")
        tag = int(keyword_dict[name])
    else:
        tag = int(numbers[1] + numbers[2], 16)
    group = tag >> 16
    if (group < 8 or group == 0xFFFE) and tag != _SYNTAX:
        raise Wrong("is no attribute of a data set; of file meta only TransferSyntaxUID is known")
    if group % 2 == 0 and not dictionary_has_tag(tag):
        raise Wrong("is no tag of the standard; private tags have an odd group")
    return tag


def _term(value: object, vr: str, secret: bool) -> Term:
    shown = "this value" if secret else repr(value)
    if isinstance(value, date | datetime | time):
        raise Wrong(
            f"is a TOML date, {value}; write it in quotes as DICOM does, such as '20260131'"
        )
    if isinstance(value, bool):
        raise Wrong(f"is {str(value).lower()}; give text or a number")
    if isinstance(value, Mapping):
        return _range(value, vr)
    if vr in _NUMERIC or (vr == _PRIVATE and isinstance(value, int | float)):
        number = _number(value, shown)
        return Numbers(number, number)
    if not isinstance(value, str):
        raise Wrong(f"is {shown}; it is text ({vr}), give it in quotes")
    if vr in ("DA", "TM"):
        return _span(value, vr, shown)
    if vr not in _TEXT and vr != _PRIVATE:
        raise Wrong(
            f"is a sequence or binary ({vr}), and cannot be compared; sides and views are `views`"
        )
    if len(value) > _LIMIT:
        raise Wrong(f"has {len(value)} characters; {_LIMIT} are the most")
    return Glob(value)


def _range(value: Mapping[str, Any], vr: str) -> Numbers:
    if vr not in _NUMERIC and vr != _PRIVATE:
        how = "write it 'A-B', as in a query" if vr in ("DA", "TM") else "give a text with * and ?"
        raise Wrong(f"has a range of numbers, and is none ({vr}); {how}")
    if not value or not set(value) <= _ENDS:
        raise Wrong(
            "has a range that is not understood; write { from = 1, to = 9 }, or one of both"
        )
    low, high = (
        None if value.get(end) is None else _number(value[end], repr(value[end]))
        for end in ("from", "to")
    )
    if low is not None and high is not None and low > high:
        raise Wrong(f"has a bad range: from {low:g} is above to {high:g}; swap them")
    return Numbers(low, high)


def _number(value: object, shown: str) -> float:
    try:
        if isinstance(value, int | float | str) and not isinstance(value, bool):
            number = float(value)
            if math.isfinite(number):
                return number
    except (ValueError, OverflowError):
        pass
    raise Wrong(f"is {shown}, and its values are numbers; give one, or {{ from = 1, to = 9 }}")


def _span(value: str, vr: str, shown: str) -> Days | Times:
    kind = Kind.DATE if vr == "DA" else Kind.TIME
    try:
        terms = read(kind, value)
    except BadKey as error:
        raise Wrong(f"has a bad range, {shown}: {error}") from None
    if len(terms) != 1 or not isinstance(terms[0], Range):
        raise Wrong(f"is {shown}; give one day or time or a range, or a list of them")
    low, high = terms[0].low, terms[0].high
    if low is not None and high is not None and low > high:
        raise Wrong(f"has a bad range, {shown}: it ends before it begins; swap the ends")
    return Days(low, high) if vr == "DA" else Times(low, high)


def texts(value: object) -> tuple[str, ...]:
    """One text, or a list of them that is not empty. Raises Wrong."""
    given = value if isinstance(value, list) else [value]
    if not given or not all(isinstance(one, str) and one for one in given):
        raise Wrong(f"is {value!r}; give a text, or a list of texts")
    return tuple(given)


def _calling_ae(value: object) -> tuple[Glob, ...]:
    titles = texts(value)
    for title in titles:
        if len(title) > 16:
            raise Wrong(f"has {title!r}, and an AE title has 16 characters at most")
    return tuple(Glob(title) for title in titles)


def _views(value: object) -> frozenset[str]:
    known = [f"{side}-{view.name}" for side in ("L", "R") for view in codes.VIEWS]
    for view in texts(value):
        if view not in known:
            raise Wrong(f"has {view!r}, which is no view{near(view, known) or '; such as L-CC'}")
    return frozenset(texts(value))


def _pulled(value: object) -> bool:
    if not isinstance(value, bool):
        raise Wrong(f"is {value!r}; give true or false, without quotes")
    return value


_READERS = {"calling_ae": _calling_ae, "views": _views, "pulled": _pulled}
