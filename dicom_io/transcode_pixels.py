"""Stored pixel data as native little endian, piece by piece: how long it will be, and its bytes.

`plan` judges the header and finds the frames before a byte is written; `Plan.pieces` decodes one frame after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, Final

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from dicom_io.decode import DECODE_ERRORS, decoder_for
from dicom_io.errors import DicomIoError, UnreadableDataset
from dicom_io.parse import ParsedDataset, walk_items
from dicom_io.pixels import PixelFormat, Span, clipped, frame_spans
from dicom_io.syntaxes import ENCAPSULATED_UNCOMPRESSED, EXPLICIT_BIG, RLE_LOSSLESS

PIXEL_DATA: Final = 0x7FE00010
#: VR of binary values -> bytes that change their order together.
WORDS: Final = {"OW": 2, "OF": 4, "OL": 4, "OD": 8, "OV": 8}

_LONGEST = 0xFFFFFFFE  # bytes of a value of defined length, PS3.5 7.1.1
_CHUNK = 1 << 20  # a multiple of every word
_MAX_PIXELS = 1 << 26  # of one frame; more is a damaged header


class NotTranscodable(DicomIoError):
    """The object cannot be written in the wanted transfer syntax; the message says what stands against it."""


@dataclass(frozen=True)
class Plan:
    """The pixel data to be: where it goes, how long it is (bytes, before padding), and how it comes.

    `end` is the first byte after the stored pixel data.
    """

    tag: int
    vr: str
    length: int
    end: int
    pieces: Callable[[], Iterator[bytes]]


def plan(stream: BinaryIO, parsed: ParsedDataset, size: int) -> Plan:
    """How the pixel data of `parsed` becomes native.

    Args:
        stream: the (inflated) data set.
        parsed: its header; it has pixel data.
        size: bytes of the stream.

    Raises:
        NotTranscodable: encapsulated colour, 4 GB or more, another number of frames than stated.
        UnreadableDataset, ImageRefused: cut off.
    """
    pixels = parsed.pixels
    assert pixels is not None
    if pixels.length is not None:
        if pixels.offset + pixels.length > size:
            raise UnreadableDataset(
                f"pixel data is cut off at byte {size} of {pixels.offset + pixels.length}; send it again"
            )
        start, length = pixels.offset, pixels.length
        vr = "OW" if pixels.vr not in ("OB", *WORDS) else pixels.vr
        word = _word(parsed, vr)
        return Plan(
            pixels.tag, vr, length, start + length, lambda: _native(stream, start, length, word)
        )
    form = _form(parsed)
    stated = _stated_frames(parsed.dataset)
    spans = frame_spans(stream, pixels, form, stated, stated, size)
    if len(spans) != stated:
        raise NotTranscodable(
            f"the pixel data holds {len(spans)} frames, Number of Frames is {stated}"
        )
    bits = stated * form.rows * form.columns * form.bits_allocated
    length = -(-bits // 8)
    if length > _LONGEST:
        raise NotTranscodable(
            f"{length} bytes of uncompressed pixel data; an element can hold {_LONGEST}"
        )
    items = list(walk_items(stream, pixels.offset, size))
    end = sum(items[-1]) if items else pixels.offset
    vr = "OB" if form.bits_allocated == 8 else "OW"
    return Plan(PIXEL_DATA, vr, length, end + 8, lambda: _decoded(stream, spans, form))


def _native(stream: BinaryIO, start: int, length: int, word: int) -> Iterator[bytes]:
    """Stored native pixel data, with the bytes of every `word` turned over where that is more than one."""
    stream.seek(start)
    left = length
    while left:
        piece = stream.read(min(_CHUNK, left))
        if not piece:
            raise UnreadableDataset(f"pixel data is cut off, {left} bytes are missing")
        left -= len(piece)
        yield turned(piece, word)


def _decoded(stream: BinaryIO, spans: list[list[Span]], form: PixelFormat) -> Iterator[bytes]:
    """Frames as native little endian cells; frames of one bit follow each other without a gap (PS3.5 8.1.1)."""
    carried: NDArray[np.uint8] = np.empty(0, np.uint8)
    for index, frame in enumerate(spans):
        data = b"".join(_read(stream, span) for span in frame)
        try:
            cells = _cells(data, form)
        except DECODE_ERRORS as error:
            raise NotTranscodable(
                f"frame {index + 1} cannot be decoded: {error or type(error).__name__}"
            ) from error
        if form.bits_allocated > 1:
            yield cells.tobytes()
            continue
        bits = np.concatenate([carried, cells.reshape(-1)])
        whole = len(bits) // 8 * 8
        carried = bits[whole:]
        yield np.packbits(bits[:whole], bitorder="little").tobytes()
    if len(carried):
        yield np.packbits(carried, bitorder="little").tobytes()


def _cells(data: bytes, form: PixelFormat) -> NDArray[Any]:
    """One frame (H, W): the stored cells, little endian; uint8 of 0 and 1 where a cell has one bit."""
    shape = (form.rows, form.columns)
    count = form.rows * form.columns
    if form.transfer_syntax_uid == ENCAPSULATED_UNCOMPRESSED:
        if form.bits_allocated == 1:
            every = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")
            return _exactly(every, count)
        return _exactly(np.frombuffer(data, form.cell, len(data) // form.cell.itemsize), count)
    decode = decoder_for(form.transfer_syntax_uid, shape, form.cell, signed=form.signed)
    if decode is None:
        raise NotTranscodable(f"there is no decoder for {form.transfer_syntax_uid}")
    values = decode(data)
    if form.bits_allocated == 1:
        if values.max() > 1:
            raise ValueError(f"a value of {values.max()} in cells of one bit")
        return values.astype(np.uint8)
    if form.transfer_syntax_uid == RLE_LOSSLESS:
        return values  # the cells themselves
    shift = form.high_bit + 1 - form.bits_stored
    whole = np.dtype(f"<{'i' if form.signed else 'u'}{form.cell.itemsize}")
    if form.lossy:
        kept = clipped(values, form.bits_stored, form.high_bit, form.signed)
        return (kept << shift).astype(whole)
    if form.signed:
        # Some code streams carry a sign, the others the bits: either way it is spread over the cell.
        wide = (values.astype(np.int32) >> shift) & ((1 << form.bits_stored) - 1)
        wide -= (wide >> (form.bits_stored - 1)) << form.bits_stored
        return (wide << shift).astype(whole)
    if values.dtype.kind != "u" or values.itemsize > form.cell.itemsize:
        lowest, highest = int(values.min()), int(values.max())
        if lowest < 0 or highest >> form.bits_allocated:
            raise ValueError(f"values {lowest} to {highest} in {form.bits_allocated} bits")
    return values.astype(form.cell, copy=False)


def _exactly(cells: NDArray[Any], count: int) -> NDArray[Any]:
    if len(cells) < count:
        raise ValueError(f"{len(cells)} cells, not {count}")
    return cells[:count]


def _read(stream: BinaryIO, span: Span) -> bytes:
    stream.seek(span[0])
    return stream.read(span[1])


def _form(parsed: ParsedDataset) -> PixelFormat:
    header = parsed.dataset
    values = {
        keyword: _number(header, keyword)
        for keyword in ("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit")
    }
    if (samples := _number(header, "SamplesPerPixel")) != 1:
        raise NotTranscodable(f"encapsulated pixels of {samples} samples; only grey is transcoded")
    allocated, stored = values["BitsAllocated"], values["BitsStored"]
    if allocated not in (1, 8, 16) or not 1 <= stored <= allocated:
        raise NotTranscodable(f"{stored} of {allocated} bits; 1, 8 and 16 bits are transcoded")
    if not stored <= values["HighBit"] + 1 <= allocated:
        raise NotTranscodable(f"high bit {values['HighBit']} of {allocated} bits, {stored} stored")
    if not 0 < values["Rows"] * values["Columns"] <= _MAX_PIXELS:
        raise NotTranscodable(f"{values['Rows']} rows, {values['Columns']} columns")
    return PixelFormat(
        rows=values["Rows"],
        columns=values["Columns"],
        bits_allocated=allocated,
        bits_stored=stored,
        high_bit=values["HighBit"],
        signed=_number(header, "PixelRepresentation") == 1,
        inverted=False,
        padding=None,
        rescale=((1.0, 0.0),),
        transfer_syntax_uid=parsed.transfer_syntax_uid,
    )


def _number(header: Dataset, keyword: str) -> int:
    value = header.get(keyword)
    if not isinstance(value, int):
        raise NotTranscodable(f"{keyword} is {value!r}; the pixel data cannot be understood")
    return int(value)


def _stated_frames(header: Dataset) -> int:
    try:
        return int(header.get("NumberOfFrames") or 1)
    except (TypeError, ValueError):
        raise NotTranscodable("Number of Frames is no number") from None


def _word(parsed: ParsedDataset, vr: str) -> int:
    """How many bytes of native pixel data change their order together on the way to little endian."""
    if parsed.transfer_syntax_uid != EXPLICIT_BIG or vr == "OB":
        return 1
    allocated = parsed.dataset.get("BitsAllocated") or 16
    return max(WORDS[vr], allocated // 8) if vr == "OW" else WORDS[vr]


def turned(data: bytes, word: int) -> bytes:
    """The bytes with every word turned over; what is left over at the end stays."""
    if word == 1:
        return data
    whole = len(data) // word * word
    return np.frombuffer(data, f"u{word}", whole // word).byteswap().tobytes() + data[whole:]
