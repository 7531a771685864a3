"""Where the frames lie in a file, and one frame as 16-bit grey values.

Frames are read one by one at their offset (`os.pread`, so that threads share one file), never the pixel data as a
whole. Values are brought to one form: unsigned, dark background, rescaled.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from dicom_io.decode import DECODE_ERRORS, decoder_for
from dicom_io.errors import ImageRefused, RefusalCode, UnreadableDataset
from dicom_io.parse import PixelElement, walk_items
from dicom_io.syntaxes import (
    ENCAPSULATED_UNCOMPRESSED,
    EXPLICIT_BIG,
    LOSSY_SYNTAXES,
    NATIVE_SYNTAXES,
    RLE_LOSSLESS,
)

Span = tuple[int, int]  # offset, length in bytes
_CODE_STREAM_STARTS = (
    b"\xff\xd8\xff",
    b"\xff\x4f\xff\x51",
    b"\x00\x00\x00\x0cjP",
)  # JPEG and JPEG-LS, J2K, JP2
_UNCOMPRESSED = (*NATIVE_SYNTAXES, ENCAPSULATED_UNCOMPRESSED)


@dataclass(frozen=True)
class PixelFormat:
    """The form of stored values. `rescale` holds (slope, intercept), once or for every stored frame."""

    rows: int
    columns: int
    bits_allocated: int
    bits_stored: int
    high_bit: int
    signed: bool
    inverted: bool  # MONOCHROME1: small values are bright
    padding: tuple[int, int] | None  # stored values, lowest and highest, that are no tissue
    rescale: tuple[tuple[float, float], ...]
    transfer_syntax_uid: str
    word_swapped: bool = False  # 8-bit cells in big-endian words of two (PS3.5 A.3, VR OW)

    @property
    def frame_bytes(self) -> int:
        """Bytes of one uncompressed frame."""
        return self.rows * self.columns * self.bits_allocated // 8

    @property
    def lossy(self) -> bool:
        """Whether values may have been changed by compression."""
        return self.transfer_syntax_uid in LOSSY_SYNTAXES

    @property
    def cell(self) -> np.dtype[Any]:
        """The type of a stored cell."""
        kind = np.dtype(np.uint8 if self.bits_allocated == 8 else np.uint16)
        return kind.newbyteorder(">" if self.transfer_syntax_uid == EXPLICIT_BIG else "<")


def frame_spans(
    file: BinaryIO, pixels: PixelElement, form: PixelFormat, stated: int, described: int, size: int
) -> list[list[Span]]:
    """The pieces of every frame that the pixel data really holds, in stored order.

    `stated` is Number of Frames, `described` the number of per-frame items, `size` the bytes of the stream. Fragments
    are put together so that there are as many frames as stated, else as described: one each, or as the offset table or
    the code streams themselves tell.

    Raises ImageRefused (TRUNCATED) where the data ends within a frame.
    """
    if pixels.length is None:
        return _encapsulated_spans(
            file, pixels, size, (stated, described), form.transfer_syntax_uid
        )
    end = min(pixels.offset + pixels.length, size)
    count = (end - pixels.offset) // form.frame_bytes
    if (count < stated and count != described) or pixels.offset + pixels.length > size:
        needed = pixels.offset + max(pixels.length, stated * form.frame_bytes)
        raise ImageRefused(RefusalCode.TRUNCATED, f"byte {end} of {needed}")
    return [
        [(pixels.offset + index * form.frame_bytes, form.frame_bytes)] for index in range(count)
    ]


def read_frame(
    fd: int, spans: Sequence[Span], form: PixelFormat, index: int, out_HW: NDArray[np.uint16]
) -> None:
    """Read stored frame `index` into `out_HW` (H, W), which may be a flipped view. Raises ImageRefused."""
    data = b"".join(os.pread(fd, length, offset) for offset, length in spans)
    if len(data) != sum(length for _, length in spans):
        raise ImageRefused(RefusalCode.TRUNCATED, f"frame {index + 1}", frame=index)
    rescale = form.rescale[index % len(form.rescale)]
    normalise(_decode(data, form, index), form, rescale, out_HW)


def normalise(
    stored_HW: NDArray[Any],
    form: PixelFormat,
    rescale: tuple[float, float],
    out_HW: NDArray[np.uint16],
) -> None:
    """Stored values (H, W) to grey values with a dark background, rounded and clipped to 0..65535 (PS3.3 C.7.6.3).

    In this order: the bits stored, the sign, MONOCHROME1 turned over within the bits stored, slope and intercept.
    Padding that would come out bright is set to 0; dark padding stays as it is.
    """
    value = _bits_stored(stored_HW, form)
    if not form.signed and not form.inverted and form.padding is None and rescale == (1.0, 0.0):
        out_HW[...] = value
        return
    mask = (1 << form.bits_stored) - 1
    grey = value.astype(np.int32)
    if form.signed:
        grey -= (grey >> (form.bits_stored - 1)) << form.bits_stored
    padded = _padded(grey, form.padding)
    if form.inverted:
        grey = (-1 if form.signed else mask) - grey
    bright = padded & (grey > (mask >> 1 if not form.signed else 0))
    if rescale != (1.0, 0.0):
        grey = np.rint(grey * rescale[0] + rescale[1])
    grey[bright] = 0
    out_HW[...] = np.clip(grey, 0, 65535)


def clipped(
    values_HW: NDArray[Any], bits_stored: int, high_bit: int, signed: bool
) -> NDArray[np.int32]:
    """Values (H, W) of a lossy code stream without what lies below the bits stored, and no larger than these hold.

    A lossy code stream may say more bits than are stored and decode to a little more than the largest value: that is
    the largest value, and no bits above those stored, without which white would turn black.
    """
    low = -(1 << (bits_stored - 1)) if signed else 0
    high = low + (1 << bits_stored) - 1
    values: NDArray[np.int32] = values_HW.astype(np.int32) >> (high_bit + 1 - bits_stored)
    return np.clip(values, low, high)


def _bits_stored(stored_HW: NDArray[Any], form: PixelFormat) -> NDArray[np.uint16]:
    """The bits stored of every cell, brought to the low end."""
    shift = form.high_bit + 1 - form.bits_stored
    if form.lossy:
        stored_HW = clipped(stored_HW, form.bits_stored, form.high_bit, form.signed)
        shift = 0
    value = stored_HW.astype(np.uint16, copy=False)
    kept: NDArray[np.uint16] = (value >> np.uint16(shift)) & np.uint16((1 << form.bits_stored) - 1)
    return kept


def _padded(grey: NDArray[np.int32], padding: tuple[int, int] | None) -> NDArray[np.bool_]:
    if padding is None:
        return np.zeros(grey.shape, np.bool_)
    return (grey >= padding[0]) & (grey <= padding[1])


def _decode(data: bytes, form: PixelFormat, index: int) -> NDArray[Any]:
    shape = (form.rows, form.columns)
    if form.transfer_syntax_uid in _UNCOMPRESSED:
        if len(data) < form.frame_bytes:
            raise ImageRefused(RefusalCode.TRUNCATED, f"frame {index + 1}", frame=index)
        cells = np.frombuffer(data, form.cell, form.rows * form.columns)
        return (cells.reshape(-1, 2)[:, ::-1] if form.word_swapped else cells).reshape(shape)
    decode = decoder_for(form.transfer_syntax_uid, shape, form.cell, signed=form.signed)
    if decode is None:
        raise ImageRefused(RefusalCode.UNSUPPORTED_SYNTAX, form.transfer_syntax_uid)
    try:
        return decode(data)
    except DECODE_ERRORS as error:
        detail = f"frame {index + 1}: {error or type(error).__name__}"
        raise ImageRefused(RefusalCode.DECODE_FAILED, detail, frame=index) from error


def _encapsulated_spans(
    file: BinaryIO, pixels: PixelElement, size: int, counts: tuple[int, int], syntax: str
) -> list[list[Span]]:
    try:
        table, *fragments = walk_items(file, pixels.offset, size)
    except UnreadableDataset as error:
        raise ImageRefused(RefusalCode.TRUNCATED, str(error)) from error
    except ValueError as error:
        raise ImageRefused(RefusalCode.NO_PIXELS, "the pixel data is empty") from error
    one_each = list(range(len(fragments)))
    if syntax == RLE_LOSSLESS:  # one fragment a frame (PS3.5 A.4.2)
        return _grouped(fragments, one_each)
    by_table = _table_starts(file, table, fragments)
    by_stream = _code_stream_starts(file, fragments)
    for count in counts:
        for starts in (one_each, by_table, by_stream):
            if len(starts) == count:
                return _grouped(fragments, starts)
    return _grouped(fragments, by_table or by_stream or one_each[:1])


def _grouped(fragments: list[Span], starts: list[int]) -> list[list[Span]]:
    return [fragments[a:b] for a, b in pairwise([*starts, len(fragments)])]


def _table_starts(file: BinaryIO, table: Span, fragments: list[Span]) -> list[int]:
    """First fragment of every frame by the basic offset table; empty where the table is empty or makes no sense."""
    file.seek(table[0])
    offsets = np.frombuffer(file.read(table[1] & ~3), "<u4").tolist()
    first = fragments[0][0] if fragments else 0
    index_of = {offset - first: index for index, (offset, _) in enumerate(fragments)}
    starts = [index_of.get(offset, -1) for offset in offsets]
    sound = starts[:1] == [0] and all(a < b for a, b in pairwise(starts))
    return starts if sound else []


def _code_stream_starts(file: BinaryIO, fragments: list[Span]) -> list[int]:
    """First fragment of every frame by the marker that opens a code stream; empty where the first has none."""
    starts = []
    for index, (offset, _) in enumerate(fragments):
        file.seek(offset)
        if file.read(6).startswith(_CODE_STREAM_STARTS):
            starts.append(index)
    return starts if starts[:1] == [0] else []
