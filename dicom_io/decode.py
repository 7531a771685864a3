"""One compressed frame to grey values: a decoder for every transfer syntax; all release the interpreter lock.

Frames come from strangers, so speed was not the only measure. liblj92, jpegsof3 and the RLE decoder of imagecodecs
crash the process on damaged streams, OpenJPH and CharLS may not return from them. Used are libjpeg-turbo for every
JPEG, OpenJPEG for JPEG 2000 and HTJ2K, CharLS on whole streams only, and RLE by its segments. The size in the code
stream is compared with the header before anything is decoded, so that a lie costs no memory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from dicom_io.syntaxes import (
    HTJ2K_SYNTAXES,
    JPEG2000_SYNTAXES,
    JPEG_LOSSLESS_SYNTAXES,
    JPEG_LOSSY_SYNTAXES,
    JPEG_LS_SYNTAXES,
    RLE_LOSSLESS,
)

Decoder = Callable[[bytes], NDArray[Any]]
Shape = tuple[int, int]


@dataclass(frozen=True)
class _Stated:
    """What the header of a code stream says: its size, and the bits of a value."""

    rows: int
    columns: int
    components: int
    bits: int


_END_OF_IMAGE: Final = b"\xff\xd9"
_J2K_START: Final = b"\xff\x4f\xff\x51"
_NOT_FRAMES: Final = (0xC4, 0xC8, 0xCC)  # JPEG markers among C0..CF that open no frame

# imagecodecs' own errors are RuntimeErrors; the others come from headers that make no sense.
DECODE_ERRORS: Final = (
    RuntimeError,
    ValueError,
    TypeError,
    LookupError,
    OverflowError,
    MemoryError,
)

_DECODERS: Final[dict[str, Decoder]] = {
    **dict.fromkeys((*JPEG_LOSSY_SYNTAXES, *JPEG_LOSSLESS_SYNTAXES), imagecodecs.jpeg8_decode),
    **dict.fromkeys(JPEG_LS_SYNTAXES, imagecodecs.jpegls_decode),
    **dict.fromkeys((*JPEG2000_SYNTAXES, *HTJ2K_SYNTAXES), imagecodecs.jpeg2k_decode),
}


def decoder_for(
    transfer_syntax_uid: str, shape: Shape, cell: np.dtype[Any], *, signed: bool = False
) -> Decoder | None:
    """The decoder of an encapsulated transfer syntax for frames of `shape` (H, W), or None where there is none.

    `cell` is the type of a stored cell (uint8 or uint16), `signed` whether its bits are two's complement. A decoder
    gives (H, W) and raises one of `DECODE_ERRORS`. Signed values come as signed integers from a code stream, and as
    bit patterns from RLE.
    """
    if transfer_syntax_uid == RLE_LOSSLESS:
        return partial(_rle, shape=shape, cell=cell)
    decode = _DECODERS.get(transfer_syntax_uid)
    if decode is None:
        return None
    return partial(_code_stream, decode=decode, shape=shape, signed=signed)


def _code_stream(data: bytes, decode: Decoder, shape: Shape, signed: bool) -> NDArray[Any]:
    """Refuse a stream of another size, or without its end: decoders fill a missing part with invented values."""
    stated = _stated(data)
    size = (stated.rows, stated.columns, stated.components)
    if size != (*shape, 1):
        raise ValueError(
            f"the code stream holds rows, columns, components {size}, not {(*shape, 1)}"
        )
    if _END_OF_IMAGE not in data[-16:]:
        raise ValueError("the code stream has no end")
    frame = decode(data)
    if frame.shape != shape:
        raise ValueError(f"the code stream decodes to {frame.shape}")
    return _with_sign(frame, stated.bits) if signed else frame


def _with_sign(frame_HW: NDArray[Any], bits: int) -> NDArray[Any]:
    """Values as signed integers. Only JPEG 2000 knows a sign; the others carry two's complement of `bits` bits."""
    if frame_HW.dtype.kind == "i":
        return frame_HW
    unused = 8 * frame_HW.itemsize - bits
    if unused < 0:
        raise ValueError(f"the code stream says {bits} bits, its values have {frame_HW.dtype}")
    whole = np.dtype(f"i{frame_HW.itemsize}")
    values: NDArray[Any] = (frame_HW << unused).view(whole) >> unused
    return values


def _stated(data: bytes) -> _Stated:
    """The SIZ of JPEG 2000 (PS3.5 A.4.4) or the frame header of JPEG; IndexError where it is cut off."""
    start = data.find(_J2K_START, 0, 4096)
    if start >= 0:
        siz = data[start + 4 : start + 43]
        x1, y1, x0, y0 = (int.from_bytes(siz[at : at + 4], "big") for at in (4, 8, 12, 16))
        bits = (siz[38] & 0x7F) + 1  # the highest bit of Ssiz is the sign
        return _Stated(y1 - y0, x1 - x0, int.from_bytes(siz[36:38], "big"), bits)
    at = 2
    while data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        if marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in _NOT_FRAMES):
            rows, columns = (int.from_bytes(data[i : i + 2], "big") for i in (at + 5, at + 7))
            return _Stated(rows, columns, data[at + 9], data[at + 4])
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    raise ValueError("the code stream has no frame header")


def _rle(data: bytes, shape: Shape, cell: np.dtype[Any]) -> NDArray[Any]:
    """RLE Lossless (PS3.5 annex G): one segment of packed bits for each byte of a cell, the highest byte first."""
    size = shape[0] * shape[1]
    header = np.frombuffer(data, "<u4", 16).tolist()
    count = header[0]
    if count != cell.itemsize:
        raise ValueError(f"RLE frame has {count} segments, not {cell.itemsize}")
    ends = [*header[2 : count + 1], len(data)]
    planes = np.empty((size, count), np.uint8)
    for index, (start, end) in enumerate(zip(header[1 : count + 1], ends, strict=True)):
        segment = imagecodecs.packbits_decode(data[start:end])
        # Padding to an even length may decode to a byte or two.
        if not size <= len(segment) <= size + 2:
            raise ValueError(f"RLE segment holds {len(segment)} bytes, not {size}")
        planes[:, count - 1 - index] = np.frombuffer(segment, np.uint8, size)
    return planes.view(f"<u{count}").reshape(shape)
