"""The stored frames of any object, as they lie in its file: what a viewer asks for one by one (PS3.18 10.4).

Compressed frames are handed out as they are stored, with their media type. Uncompressed ones come in little-endian
order whatever the file's (inflated, swapped), each beginning on a byte: those of one bit a pixel do not do so in the
file. No object is read as a whole, so memory does not grow with the number of frames.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np
from pydicom.dataset import Dataset

from dicom_io import syntaxes
from dicom_io.decode import DECODE_ERRORS, decoder_for
from dicom_io.errors import ImageRefused, RefusalCode
from dicom_io.header import integer, text
from dicom_io.parse import ParsedDataset, PixelElement, inflated, parse
from dicom_io.pixels import PixelFormat, Span, clipped, frame_spans

OCTETS: Final = "application/octet-stream"

#: Transfer syntax -> media type of one frame stored in it (PS3.18 table 8.7.3-5).
MEDIA_TYPES: Final[dict[str, str]] = {
    **dict.fromkeys(
        (*syntaxes.JPEG_LOSSY_SYNTAXES, *syntaxes.JPEG_LOSSLESS_SYNTAXES), "image/jpeg"
    ),
    **dict.fromkeys(syntaxes.JPEG_LS_SYNTAXES, "image/jls"),
    **dict.fromkeys(syntaxes.JPEG2000_SYNTAXES, "image/jp2"),
    **dict.fromkeys(syntaxes.HTJ2K_SYNTAXES, "image/jphc"),
    syntaxes.RLE_LOSSLESS: "image/dicom-rle",
}

_MAX_PIXELS: Final = 1 << 26  # of one frame; more is a damaged header
_INFLATED_LIMIT: Final = 1 << 30  # bytes of a deflated data set that are inflated for a frame
_PIECE: Final = 1 << 20
_CODE_STREAM_ENDS: Final = b"\xff\xd9"


@dataclass(frozen=True)
class Frames:
    """Where the frames of one object lie and what they hold; reading one opens the file anew.

    `bits` counts those of one uncompressed frame; `spans` has the pieces of every compressed one and is empty for
    uncompressed pixel data.
    """

    path: Path
    dataset: Dataset = field(repr=False)  # up to the pixel data
    stored_syntax_uid: str
    pixels: PixelElement
    rows: int
    columns: int
    samples: int
    bits_allocated: int
    count: int
    spans: tuple[tuple[Span, ...], ...] = field(repr=False)

    @property
    def compressed(self) -> bool:
        """Whether `read` gives code streams."""
        return self.stored_syntax_uid in MEDIA_TYPES

    @property
    def media_type(self) -> str:
        """Of what `read` gives."""
        return MEDIA_TYPES.get(self.stored_syntax_uid, OCTETS)

    @property
    def transfer_syntax_uid(self) -> str:
        """Of what `read` gives: the stored one of compressed frames, Explicit VR Little Endian of others."""
        return self.stored_syntax_uid if self.compressed else syntaxes.EXPLICIT_LITTLE

    @property
    def bits(self) -> int:
        """Bits of one uncompressed frame."""
        return self.rows * self.columns * self.samples * self.bits_allocated

    @cached_property
    def signed(self) -> bool:
        """Whether stored values are two's complement."""
        return integer(self.dataset, "PixelRepresentation") == 1

    def read(self, index: int) -> bytes:
        """Frame `index`, counted from 0, as `media_type` and `transfer_syntax_uid` say.

        Raises ImageRefused where the file does not hold it whole, IndexError where there is no such frame.
        """
        if not 0 <= index < self.count:
            raise IndexError(f"frame {index + 1} of {self.count}")
        if self.spans:
            return self._encapsulated(index)
        return self._native(index)

    def decoded(self, index: int) -> bytes:
        """Frame `index` uncompressed, in Explicit VR Little Endian.

        Raises ImageRefused also where it cannot be decoded: colour, a damaged stream, a syntax without a decoder.
        """
        data = self.read(index)
        if not self.compressed:
            return data
        if self.samples != 1:
            raise ImageRefused(RefusalCode.COLOUR, "a compressed colour frame is not decoded")
        cell = np.dtype("<u2" if self.bits_allocated > 8 else "u1")
        decode = decoder_for(
            self.stored_syntax_uid, (self.rows, self.columns), cell, signed=self.signed
        )
        if decode is None or self.bits_allocated > 16:
            raise ImageRefused(RefusalCode.UNSUPPORTED_SYNTAX, self.stored_syntax_uid)
        try:
            frame_HW = decode(data)
        except DECODE_ERRORS as error:
            detail = f"frame {index + 1}: {error or type(error).__name__}"
            raise ImageRefused(RefusalCode.DECODE_FAILED, detail, frame=index) from error
        if self.bits_allocated == 1:
            return np.packbits(frame_HW.reshape(-1) != 0, bitorder="little").tobytes()
        stored, high = bits_of(self.dataset, self.bits_allocated)
        if self.stored_syntax_uid in syntaxes.LOSSY_SYNTAXES:
            frame_HW = clipped(frame_HW, stored, high, self.signed) << (high + 1 - stored)
        return frame_HW.astype(cell, casting="unsafe", copy=False).tobytes()

    def value(self) -> Iterator[bytes]:
        """The whole value of uncompressed pixel data, little-endian, in pieces; of one that is not encapsulated.

        Raises ImageRefused where the file does not hold it whole.
        """
        at, left, word = self.pixels.offset, self.pixels.length or 0, self._word
        with self._data_set(at + left) as file:
            while left:
                piece = _exactly(file, at, min(left, _PIECE), 0)
                yield _little(piece, word)
                at, left = at + len(piece), left - len(piece)

    def _encapsulated(self, index: int) -> bytes:
        with self.path.open("rb") as file:
            data = b"".join(_exactly(file, *span, index) for span in self.spans[index])
        if self.stored_syntax_uid == syntaxes.ENCAPSULATED_UNCOMPRESSED:
            return data[: -(-self.bits // 8)]
        if self.stored_syntax_uid == syntaxes.RLE_LOSSLESS:
            return data
        # The byte that makes a fragment's length even is no part of the code stream (PS3.5 A.4).
        return data[:-1] if data.endswith(_CODE_STREAM_ENDS + b"\0") else data

    def _native(self, index: int) -> bytes:
        first, last = index * self.bits, (index + 1) * self.bits
        word = self._word
        start = first // 8 // word * word
        length = -(-last // (8 * word)) * word - start
        length = min(length, (self.pixels.length or 0) - start)
        with self._data_set(self.pixels.offset + start + length) as file:
            data = _exactly(file, self.pixels.offset + start, length, index)
        data = _little(data, word)
        shift = first - start * 8
        if shift % 8 == 0 and self.bits % 8 == 0:
            return data[shift // 8 : (shift + self.bits) // 8]
        bits = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")
        return np.packbits(bits[shift : shift + self.bits], bitorder="little").tobytes()

    @property
    def _word(self) -> int:
        """Bytes that are swapped together; 1 where none are."""
        if self.stored_syntax_uid != syntaxes.EXPLICIT_BIG or self.pixels.vr == "OB":
            return 1
        return max(2, self.bits_allocated // 8)

    @contextmanager
    def _data_set(self, end: int) -> Iterator[BinaryIO]:
        with self.path.open("rb") as file:
            if self.stored_syntax_uid != syntaxes.DEFLATED:
                yield file
                return
            if end > _INFLATED_LIMIT:
                detail = f"byte {end} of a deflated data set; the limit is {_INFLATED_LIMIT}"
                raise ImageRefused(RefusalCode.PIXEL_FORMAT, detail)
            with inflated(file, end) as stream:
                yield stream


def bits_of(dataset: Dataset, allocated: int) -> tuple[int, int]:
    """Bits Stored and High Bit, where the header gives them. Raises ImageRefused where the cells do not hold them."""
    stored = integer(dataset, "BitsStored") or allocated
    high = integer(dataset, "HighBit")
    high = stored - 1 if high is None else high
    if not 0 < stored <= high + 1 <= allocated:
        raise ImageRefused(RefusalCode.PIXEL_FORMAT, f"bits stored {stored}, high bit {high}")
    return stored, high


def open_frames(path: Path) -> Frames:
    """Find the frames of an object; no pixel is read.

    Raises ImageRefused where there are none, or their form cannot be told from the header; UnreadableDataset where
    the file is no DICOM object; OSError from the disk.
    """
    with path.open("rb") as file:
        parsed = parse(file)
        return _frames(path, file, parsed)


def _frames(path: Path, file: BinaryIO, parsed: ParsedDataset) -> Frames:
    pixels, dataset, syntax = parsed.pixels, parsed.dataset, parsed.transfer_syntax_uid
    if pixels is None:
        raise ImageRefused(RefusalCode.NO_PIXELS)
    found = Frames(
        path=path,
        dataset=dataset,
        stored_syntax_uid=syntax,
        pixels=pixels,
        rows=integer(dataset, "Rows") or 0,
        columns=integer(dataset, "Columns") or 0,
        samples=_samples(dataset, pixels),
        bits_allocated=integer(dataset, "BitsAllocated") or 0,
        count=0,
        spans=(),
    )
    _check(found)
    if pixels.length is None:
        spans = frame_spans(file, pixels, _form(found), *_counts(dataset), parsed.size)
        if not spans:
            raise ImageRefused(RefusalCode.NO_PIXELS, "the pixel data is empty")
        return replace(found, count=len(spans), spans=tuple(map(tuple, spans)))
    count = pixels.length * 8 // found.bits
    if count == 0:
        raise ImageRefused(RefusalCode.TRUNCATED, f"{pixels.length} bytes are less than a frame")
    stated = _counts(dataset)[0]
    # What fills the last byte, and makes the number of bytes even, may look like a small frame.
    only_filled = 0 <= pixels.length * 8 - stated * found.bits < 16
    return replace(found, count=stated if only_filled else count)


def _counts(dataset: Dataset) -> tuple[int, int]:
    """Number of Frames, and of per-frame items."""
    groups = dataset.get("PerFrameFunctionalGroupsSequence")
    return max(1, integer(dataset, "NumberOfFrames") or 1), len(groups or ())


def _samples(dataset: Dataset, pixels: PixelElement) -> int:
    """Samples of a pixel as stored: uncompressed YBR_FULL_422 has two (PS3.3 C.7.6.3.1.2)."""
    samples = integer(dataset, "SamplesPerPixel") or 1
    subsampled = text(dataset, "PhotometricInterpretation") == "YBR_FULL_422"
    return 2 if subsampled and samples == 3 and pixels.length is not None else samples


def _check(found: Frames) -> None:
    if not 0 < found.rows * found.columns <= _MAX_PIXELS:
        detail = f"{found.rows} rows, {found.columns} columns"
        raise ImageRefused(RefusalCode.PIXEL_FORMAT, detail)
    if found.bits_allocated not in (1, 8, 16, 32, 64) or not 1 <= found.samples <= 4:
        detail = f"{found.bits_allocated} bits allocated, {found.samples} samples"
        raise ImageRefused(RefusalCode.PIXEL_FORMAT, detail)
    encapsulated = found.pixels.length is None
    known = (
        found.compressed or found.stored_syntax_uid == syntaxes.ENCAPSULATED_UNCOMPRESSED
        if encapsulated
        else found.stored_syntax_uid in syntaxes.NATIVE_SYNTAXES
    )
    if not known:
        raise ImageRefused(RefusalCode.UNSUPPORTED_SYNTAX, found.stored_syntax_uid)


def _form(found: Frames) -> PixelFormat:
    """What `frame_spans` has to know of encapsulated frames."""
    return PixelFormat(
        rows=found.rows,
        columns=found.columns,
        bits_allocated=found.bits_allocated,
        bits_stored=found.bits_allocated,
        high_bit=found.bits_allocated - 1,
        signed=False,
        inverted=False,
        padding=None,
        rescale=((1.0, 0.0),),
        transfer_syntax_uid=found.stored_syntax_uid,
    )


def _little(data: bytes, word: int) -> bytes:
    """Big-endian words of so many bytes as little-endian ones; bytes that make no whole word are dropped."""
    if word == 1:
        return data
    return np.frombuffer(data, f">u{word}", len(data) // word).astype(f"<u{word}").tobytes()


def _exactly(file: BinaryIO, offset: int, length: int, index: int) -> bytes:
    file.seek(offset)
    data = file.read(length)
    if length <= 0 or len(data) != length:
        raise ImageRefused(RefusalCode.TRUNCATED, f"frame {index + 1}", frame=index)
    return data
