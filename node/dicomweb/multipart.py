"""Bodies of several parts (multipart/related: RFC 2387, RFC 2046 5.1; PS3.18 8.6.1.2): written and read as a stream.

The reader takes a body in whatever pieces the network gives it and keeps no more of it than a boundary is long and the
headers of one part; what it finds it hands on at once. Every limit is checked while the bytes come.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from node.dicomweb.accept import MULTIPART, NotAMediaType, parse_media_type
from node.errors import Permanent

_MAX_BOUNDARY: Final = 70  # characters: RFC 2046 5.1.1
_MAX_PREAMBLE: Final = 64 * 1024  # bytes before the first part, or of space after a boundary


class BadMultipart(Permanent):
    """A body is not what its Content-Type says, ends early, or goes beyond a limit."""


class TooLarge(BadMultipart):
    """A part, the headers of a part or the number of parts goes beyond its limit."""


@dataclass(frozen=True)
class Limits:
    """What a reader takes: bytes of a part, bytes of the headers of a part, and parts."""

    part_bytes: int
    header_bytes: int = 16 * 1024
    parts: int = 100_000


@dataclass(frozen=True)
class PartBegins:
    """A part begins; names of headers are in lower case."""

    headers: Mapping[str, str]


@dataclass(frozen=True)
class PartData:
    """Some bytes of the part that began last; never empty."""

    data: bytes


@dataclass(frozen=True)
class PartEnds:
    """The part that began last is whole."""


Event = PartBegins | PartData | PartEnds


class _State(Enum):
    PREAMBLE = auto()
    AFTER_BOUNDARY = auto()
    HEADERS = auto()
    BODY = auto()
    EPILOGUE = auto()


def boundary_of(content_type: str) -> tuple[bytes, str]:
    """(boundary, media type of the root part or "") of a multipart/related Content-Type. Raises BadMultipart."""
    try:
        found = parse_media_type(content_type)
    except NotAMediaType as error:
        raise BadMultipart(str(error)) from error
    if found.name != MULTIPART:
        raise BadMultipart(f"the body is {found.name}; send {MULTIPART}")
    boundary = found.parameter("boundary") or ""
    if not 0 < len(boundary) <= _MAX_BOUNDARY or not boundary.isascii():
        raise BadMultipart(f"{MULTIPART} without a boundary of 1 to {_MAX_BOUNDARY} letters")
    return boundary.encode("ascii"), (found.parameter("type") or "").lower()


class Reader:
    """A reader of one body: `feed` it, then `finish`. After an error it takes nothing more."""

    def __init__(self, boundary: bytes, limits: Limits) -> None:
        self._limits = limits
        self._line = b"--" + boundary
        self._state = _State.PREAMBLE
        # A boundary opens a line; the first may open the body.
        self._buffer = bytearray(b"\r\n")
        self._passed = self._part_bytes = self._parts = 0

    def feed(self, data: bytes) -> list[Event]:
        """What is found in the next bytes of the body. Raises BadMultipart."""
        self._buffer += data
        events: list[Event] = []
        step = {
            _State.PREAMBLE: self._preamble,
            _State.AFTER_BOUNDARY: self._after_boundary,
            _State.HEADERS: self._headers,
            _State.BODY: self._body,
            _State.EPILOGUE: self._epilogue,
        }
        while step[self._state](events):
            pass
        return events

    def finish(self) -> None:
        """The body is at its end. Raises BadMultipart where its last boundary has not come."""
        if self._state is not _State.EPILOGUE:
            raise BadMultipart("the body ends before its last boundary; send it again")

    # Each step takes what it can from the buffer and says whether the next one may go on.

    def _preamble(self, _events: list[Event]) -> bool:
        mark = b"\r\n" + self._line
        at = self._buffer.find(mark)
        if at < 0:
            self._pass(max(0, len(self._buffer) - len(mark) + 1))
            return False
        del self._buffer[: at + len(mark)]
        self._state = _State.AFTER_BOUNDARY
        return True

    def _after_boundary(self, _events: list[Event]) -> bool:
        """Behind a boundary: two hyphens end the body, spaces and a line end begin a part."""
        if self._buffer[:2] == b"--":
            self._state = _State.EPILOGUE
            return True
        at = self._buffer.find(b"\r\n")
        rest = bytes(self._buffer if at < 0 else self._buffer[:at])
        unfinished = at < 0 and rest in (b"-", b"\r")
        if len(rest) > _MAX_PREAMBLE or (rest.strip(b" \t\r") and not unfinished):
            raise BadMultipart("a boundary is followed by something else than a line end")
        if at < 0:
            return False
        self._parts += 1
        if self._parts > self._limits.parts:
            raise TooLarge(f"more than {self._limits.parts} parts; send them in several requests")
        del self._buffer[:at]  # the line end stays: the empty line may follow at once
        self._state = _State.HEADERS
        return True

    def _headers(self, events: list[Event]) -> bool:
        end = self._buffer.find(b"\r\n\r\n")
        if (end if end >= 0 else len(self._buffer)) > self._limits.header_bytes:
            raise TooLarge(f"headers of a part beyond {self._limits.header_bytes} bytes")
        if end < 0:
            return False
        lines = bytes(self._buffer[2:end]).decode("latin-1").split("\r\n") if end else []
        events.append(PartBegins(dict(_header(line) for line in lines)))
        del self._buffer[: end + 4]
        self._part_bytes = 0
        self._state = _State.BODY
        return True

    def _body(self, events: list[Event]) -> bool:
        mark = b"\r\n" + self._line
        at = self._buffer.find(mark)
        length = at if at >= 0 else max(0, len(self._buffer) - len(mark) + 1)
        self._part_bytes += length
        if self._part_bytes > self._limits.part_bytes:
            raise TooLarge(f"a part of more than {self._limits.part_bytes} bytes")
        if length:
            events.append(PartData(bytes(self._buffer[:length])))
        if at < 0:
            del self._buffer[:length]
            return False
        del self._buffer[: at + len(mark)]
        events.append(PartEnds())
        self._state = _State.AFTER_BOUNDARY
        return True

    def _epilogue(self, _events: list[Event]) -> bool:
        self._buffer.clear()
        return False

    def _pass(self, count: int) -> None:
        self._passed += count
        del self._buffer[:count]
        if self._passed > _MAX_PREAMBLE:
            raise BadMultipart(f"no boundary within the first {_MAX_PREAMBLE} bytes of the body")


def _header(line: str) -> tuple[str, str]:
    name, colon, value = line.partition(":")
    if not colon or not name.strip():
        raise BadMultipart(f"a part has a header that is none: {line[:40]!r}")
    return name.strip().lower(), value.strip()


@dataclass(frozen=True)
class Part:
    """A part to write: its Content-Type, its bytes in pieces, and its address, if it has one."""

    content_type: str
    content: Iterable[bytes]
    location: str = ""


def new_boundary() -> str:
    """A boundary that no content holds but by a chance of 1 in 2**128."""
    return f"tomonode-{secrets.token_hex(16)}"


def content_type(boundary: str, media_type: str) -> str:
    """The Content-Type of a multipart/related body whose parts are of `media_type`."""
    return f'{MULTIPART}; type="{media_type}"; boundary={boundary}'


def write(parts: Iterable[Part], boundary: str) -> Iterator[bytes]:
    """The body, in pieces. A body without parts has its last boundary alone."""
    for part in parts:
        location = f"Content-Location: {part.location}\r\n" if part.location else ""
        yield f"--{boundary}\r\nContent-Type: {part.content_type}\r\n{location}\r\n".encode()
        yield from part.content
        yield b"\r\n"
    yield f"--{boundary}--\r\n".encode()
