"""Data sets from files: Part 10, deflated, or bare; never the pixels, never more memory than a header needs.

Only pydicom is needed here, so that a receiving process stays small. Everything read is checked against the size
of the file, because pydicom takes a data set that is cut off for a short one.
"""

from __future__ import annotations

import io
import os
import struct
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO

import pydicom.config
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException
from pydicom.filereader import read_dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from dicom_io.errors import UnreadableDataset

# pydicom's warnings about odd values quote them, patient attributes too, on stderr and in logs.
pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE

UNDEFINED = 0xFFFFFFFF
VALUE_LIMIT = 4 << 20  # bytes; a larger value is skipped, no header attribute is that large
HEADER_LIMIT = (
    256 << 20
)  # bytes read for one header, with what each element costs in memory besides its value
INFLATED_HEADER_LIMIT = 16 << 20  # bytes of a deflated data set that may precede its pixel data
MAX_FRAGMENTS = 200_000
_CHUNK = 1 << 20
_READ_COST = 192  # bytes of memory for each read; an element takes two or three
_PIXEL_TAGS = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})
_FIRST_GROUPS = (b"\x02\x00", b"\x08\x00", b"\x00\x08")  # 0002 or 0008, in either byte order

# What pydicom raises on bytes that are no data set; OSError is handled apart (without errno it is pydicom's own).
PARSE_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    NotImplementedError,
    RecursionError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
    BytesLengthException,
)


@dataclass(frozen=True)
class PixelElement:
    """Where the pixel data lies: `offset` of its value in the (inflated) stream, `length` in bytes or None."""

    offset: int
    length: int | None
    vr: str
    tag: int


@dataclass(frozen=True)
class ParsedDataset:
    """A data set up to its pixel data; `size` counts the bytes of the (inflated) stream."""

    dataset: Dataset
    transfer_syntax_uid: str
    pixels: PixelElement | None
    size: int


class _CutOffError(Exception):
    """An element says it is longer than the file."""


class _TooLargeError(Exception):
    """More would be read for a header than any header has."""


class _Metered:
    """A stream that gives no more than a header needs: pydicom keeps all of a sequence of undefined length, and asks at
    its start alone whether to go on."""

    def __init__(self, stream: BinaryIO) -> None:
        self.seek, self.tell, self._read = stream.seek, stream.tell, stream.read
        self._left = HEADER_LIMIT
        self.exhausted = False

    def read(self, count: int = -1) -> bytes:
        """As of any stream; raises where the limit is reached, before memory is given to a length that is a lie."""
        self._left -= _READ_COST
        if count < 0 or count > self._left:
            self.exhausted = True
            raise _TooLargeError
        data = self._read(count)
        self._left -= len(data)
        return data


class _Watch:
    """pydicom's `stop_when` callback: stops at the pixel data and sees an element that runs past the end."""

    def __init__(self, stream: BinaryIO, size: int) -> None:
        self.stream, self.size = stream, size
        self.end: int | None = stream.tell()
        self.pixels: PixelElement | None = None

    def __call__(self, tag: int, vr: str | None, length: int) -> bool:
        start = self.stream.tell()
        defined = length != UNDEFINED
        if tag in _PIXEL_TAGS:
            self.pixels = PixelElement(start, length if defined else None, vr or "OW", int(tag))
            return True
        self.end = start + length if defined else None
        if self.end is not None and self.end > self.size:
            name = f"{tag >> 16:04X},{tag & 0xFFFF:04X}"
            raise _CutOffError(f"element {name} ends at byte {self.end} of {self.size}")
        return False


def parse(file: BinaryIO, tags: list[int] | None = None, limit: int = VALUE_LIMIT) -> ParsedDataset:
    """Read the data set of an open file up to its pixel data; `tags` limits what is kept.

    A deflated data set is inflated up to `INFLATED_HEADER_LIMIT`; see `inflated` for its pixels. Raises
    UnreadableDataset for what is not DICOM or ends early; OSError from the disk passes through.
    """
    try:
        return _parse(file, tags, limit)
    except _CutOffError as error:
        raise UnreadableDataset(f"data set is cut off: {error}; send it again") from error
    except OSError as error:
        if error.errno is not None:
            raise
        raise UnreadableDataset(f"not a readable DICOM data set: {error}") from error
    except PARSE_ERRORS as error:
        raise UnreadableDataset(f"not a readable DICOM data set: {type(error).__name__}") from error


def read_elements(stream: BinaryIO, syntax: str, **how: Any) -> Dataset:
    """pydicom's `read_dataset` from where the stream stands, within `HEADER_LIMIT`; `how` goes to it.

    Raises UnreadableDataset where more would be read, and `PARSE_ERRORS` and OSError as pydicom does.
    """
    metered = _Metered(stream)
    try:
        return read_dataset(
            metered,
            is_implicit_VR=syntax == ImplicitVRLittleEndian,
            is_little_endian=syntax != ExplicitVRBigEndian,
            **how,
        )
    except (_TooLargeError, OSError, *PARSE_ERRORS) as error:
        if metered.exhausted:
            raise UnreadableDataset(f"header of more than {HEADER_LIMIT >> 20} MiB") from error
        raise


def _parse(file: BinaryIO, tags: list[int] | None, limit: int) -> ParsedDataset:
    syntax, start = _find_start(file)
    stream = file
    if syntax == DeflatedExplicitVRLittleEndian:
        stream = io.BytesIO(b"".join(_inflate(file, start, INFLATED_HEADER_LIMIT)))
        start = 0
    size = stream.seek(0, os.SEEK_END)
    stream.seek(start)
    watch = _Watch(stream, size)
    dataset = read_elements(stream, syntax, stop_when=watch, defer_size=limit, specific_tags=tags)
    if watch.pixels is None and watch.end is not None and 0 < size - watch.end < 8:
        raise _CutOffError(f"{size - watch.end} stray bytes at its end")
    _drop_skipped(dataset)
    return ParsedDataset(dataset, str(syntax), watch.pixels, size)


@contextmanager
def inflated(file: BinaryIO, end: int) -> Iterator[BinaryIO]:
    """The deflated data set of a Part 10 file, inflated into a nameless temporary file (not into memory).

    Inflating stops soon after byte `end`, so that a small file cannot fill the disk. Raises UnreadableDataset where
    the deflated stream is damaged or cut off.
    """
    _, start = _find_start(file)
    with tempfile.TemporaryFile() as out:
        try:
            for chunk in _inflate(file, start, end):
                out.write(chunk)
        except zlib.error as error:
            raise UnreadableDataset(f"deflated data set is damaged: {error}") from error
        out.flush()
        yield out


def walk_items(file: BinaryIO, start: int, size: int) -> Iterator[tuple[int, int]]:
    """(offset, length) of every item of encapsulated pixel data, the offset table first (PS3.5 A.4).

    Only item headers are read. Raises UnreadableDataset where an item runs past the end of the file or there are
    more than `MAX_FRAGMENTS`. A missing sequence delimiter after the last whole item is forgiven: it is common.
    """
    for _ in range(MAX_FRAGMENTS):
        file.seek(start)
        head = file.read(8)
        if len(head) < 8 or head[:4] == b"\xfe\xff\xdd\xe0":
            return
        length = int.from_bytes(head[4:], "little")
        if head[:4] != b"\xfe\xff\x00\xe0" or length == UNDEFINED:
            raise UnreadableDataset(
                f"encapsulated pixel data has no item at byte {start}; send it again"
            )
        start += 8
        if start + length > size:
            raise UnreadableDataset(
                f"pixel data is cut off at byte {size} of {start + length}; send it again"
            )
        yield start, length
        start += length
    raise UnreadableDataset(f"pixel data has more than {MAX_FRAGMENTS} fragments")


def check_complete(file: BinaryIO, parsed: ParsedDataset) -> None:
    """Raise UnreadableDataset where the pixel data runs past the end of the file; reads no pixels.

    Deflated pixel data is not judged here: that would mean inflating all of it.
    """
    pixels = parsed.pixels
    if pixels is None or parsed.transfer_syntax_uid == DeflatedExplicitVRLittleEndian:
        return
    if pixels.length is None:
        for _ in walk_items(file, pixels.offset, parsed.size):
            pass
    elif (end := pixels.offset + pixels.length) > parsed.size:
        raise UnreadableDataset(
            f"pixel data is cut off at byte {parsed.size} of {end}; send it again"
        )


def _find_start(file: BinaryIO) -> tuple[str, int]:
    """Transfer syntax and first byte of the data set; one without preamble or meta group is recognised."""
    file.seek(0)
    head = file.read(132)
    if head[128:] != b"DICM" and head[:2] not in _FIRST_GROUPS:
        raise UnreadableDataset("not a DICOM file: no DICM prefix and no data set at its start")
    start = 132 if head[128:] == b"DICM" else 0
    file.seek(start)
    seen: set[int] = set()

    def ended(tag: int, _vr: str | None, _length: int) -> bool:
        """At the data set, which may bring elements of group 0002 of its own: they say nothing of the file."""
        over = tag >> 16 != 2 or tag in seen
        seen.add(tag)
        return over

    meta = read_elements(file, ExplicitVRLittleEndian, stop_when=ended, defer_size=VALUE_LIMIT)
    start = file.tell() if len(meta) else start
    stated = meta.get("TransferSyntaxUID")
    if isinstance(stated, str) and (syntax := stated.strip(" \0")):
        return syntax, start
    file.seek(start)
    first = file.read(6)
    if first[:2] == b"\x00\x08":
        return ExplicitVRBigEndian, start
    explicit = first[4:6].isalpha() and first[4:6].isupper()
    return (ExplicitVRLittleEndian if explicit else ImplicitVRLittleEndian), start


def _inflate(file: BinaryIO, start: int, limit: int) -> Iterator[bytes]:
    """Inflate from byte `start` (raw deflate, PS3.5 A.5) in pieces of at most a megabyte, about `limit` in all."""
    engine = zlib.decompressobj(-zlib.MAX_WBITS)
    file.seek(start)
    done = 0
    while not engine.eof and done < limit:
        data = engine.unconsumed_tail or file.read(_CHUNK)
        piece = engine.decompress(data, _CHUNK)
        if not data and not piece:
            raise UnreadableDataset("deflated data set is cut off; send it again")
        done += len(piece)
        yield piece


def _drop_skipped(dataset: Dataset) -> None:
    """Remove elements whose value was too large to read: pydicom would look for it in a file it does not know."""
    for tag in list(dataset.keys()):
        element = dataset.get_item(tag)
        if isinstance(element, RawDataElement) and element.value is None and element.length:
            del dataset[tag]
