"""What a DICOMweb client accepts, and which of our representations it gets (PS3.18 8.7). Pure.

A client states media ranges with weights; `multipart/related` names the type of its parts in a parameter, and a
transfer syntax is a parameter of a DICOM or pixel type. Clients in use leave much of this out, so what is not said
is read generously, and what is said is kept to.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

MULTIPART: Final = "multipart/related"
MAX_RANGES: Final = 64  # of one header; a client has no use for more
_LIMIT: Final = 8192  # characters of a header that are looked at

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_TYPE: Final = re.compile(rf"\s*({_TOKEN}/{_TOKEN})\s*")
# A value is quoted, or a token; clients also leave a media type unquoted, slash and all.
_PARAMETER: Final = re.compile(rf';\s*({_TOKEN})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s;,"]*))\s*')
_ESCAPED: Final = re.compile(r"\\(.)")
_WEIGHT: Final = re.compile(r"[01](?:\.[0-9]{0,3})?")


class NotAMediaType(ValueError):
    """A text is no media type, or no list of media ranges."""


@dataclass(frozen=True)
class MediaType:
    """A media type or range, in lower case; names of parameters are in lower case, their values as given."""

    name: str
    parameters: tuple[tuple[str, str], ...] = field(default=())

    def parameter(self, name: str) -> str | None:
        """The value of a parameter, None where it is not given."""
        return next((value for known, value in self.parameters if known == name), None)


@dataclass(frozen=True)
class Offer:
    """One representation that we can give. `transfer_syntax` is "" for types without one."""

    media_type: str
    transfer_syntax: str = ""
    multipart: bool = False
    stored: bool = False  # the form in which the object is stored

    @property
    def content_type(self) -> str:
        """The media type of one part, or of the whole answer that is no multipart."""
        if not self.transfer_syntax:
            return self.media_type
        return f"{self.media_type}; transfer-syntax={self.transfer_syntax}"


def parse_media_type(text: str) -> MediaType:
    """The value of a Content-Type header. Raises NotAMediaType."""
    found, end = _media_type(text[:_LIMIT], 0)
    if text[end:].strip(" \t;"):
        raise NotAMediaType(f"not a media type: {text[:80]!r}")
    return found


def parse_accept(text: str) -> list[MediaType]:
    """The media ranges of an Accept header, as they stand.

    Raises NotAMediaType for a header that is none, is longer than 8192 characters, or has more than 64 ranges.
    """
    if len(text) > _LIMIT:
        raise NotAMediaType(f"an Accept header of {len(text)} characters; the limit is {_LIMIT}")
    ranges: list[MediaType] = []
    at = 0
    while at < len(text):
        if text[at] in ", \t":
            at += 1
            continue
        found, at = _media_type(text, at)
        ranges.append(found)
        at += len(text[at:]) - len(text[at:].lstrip("; \t"))
        if at < len(text) and text[at] != ",":
            raise NotAMediaType(f"not an Accept header: {text[at : at + 40]!r} after {found.name}")
        if len(ranges) > MAX_RANGES:
            raise NotAMediaType(f"more than {MAX_RANGES} media ranges in an Accept header")
    return ranges


def choose(accept: str, offers: Sequence[Offer]) -> Offer | None:
    """The offer that fits an Accept header best, None where none does (406).

    Weight decides first, then how exact the range is, then the order of the offers. Without a header, or an empty
    one, the first offer. A range without a transfer syntax takes any; `*` takes the stored form alone.
    Raises NotAMediaType for a header that cannot be read.
    """
    ranges = parse_accept(accept)
    if not ranges:
        return offers[0] if offers else None
    best: tuple[float, int, int] | None = None
    chosen = None
    for place, offer in enumerate(offers):
        fits = [(_exactness(known, offer), _weight(known)) for known in ranges]
        matching = [(exactness, weight) for exactness, weight in fits if exactness is not None]
        if not matching:
            continue
        exactness, weight = max(matching)  # the most exact range that names it sets its weight
        if weight > 0 and (best is None or (weight, exactness, -place) > best):
            best, chosen = (weight, exactness, -place), offer
    return chosen


def _media_type(text: str, at: int) -> tuple[MediaType, int]:
    head = _TYPE.match(text, at)
    if head is None:
        raise NotAMediaType(f"not a media type: {text[at : at + 80]!r}")
    parameters = []
    end = head.end()
    while (found := _PARAMETER.match(text, end)) is not None:
        name, quoted, plain = found.groups()
        value = plain if quoted is None else _ESCAPED.sub(r"\1", quoted)
        parameters.append((name.lower(), value))
        end = found.end()
    return MediaType(head.group(1).lower(), tuple(parameters)), end


def _exactness(wanted: MediaType, offer: Offer) -> int | None:
    """How exactly a range names an offer, None where it does not."""
    name = wanted.name
    if name == MULTIPART:
        if not offer.multipart:
            return None
        name = (wanted.parameter("type") or "*/*").lower()
    elif offer.multipart and name != "*/*":
        return None
    if name == "*/*":
        exactness = 1
    elif name.endswith("/*") and offer.media_type.startswith(name[:-1]):
        exactness = 2
    elif name == offer.media_type:
        exactness = 3
    elif name == "application/octet-stream" and wanted.parameter("transfer-syntax") == "*":
        exactness = 0  # what viewers say for "frames, in whatever form they are stored"
        return exactness if offer.stored else None
    else:
        return None
    syntax = wanted.parameter("transfer-syntax")
    if syntax is None:
        return exactness * 2
    if syntax == "*":
        return exactness * 2 if offer.stored or not offer.transfer_syntax else None
    return exactness * 2 + 1 if syntax == offer.transfer_syntax else None


def _weight(wanted: MediaType) -> float:
    """The quality value (RFC 9110 12.4.2); one that is none counts as 1."""
    text = wanted.parameter("q")
    if text is None or not _WEIGHT.fullmatch(text):
        return 1.0
    return min(1.0, float(text))
