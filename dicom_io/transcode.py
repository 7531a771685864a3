"""The same object in an uncompressed transfer syntax, for a peer that does not take the stored one.

    transcode(path, "1.2.840.10008.1.2.1", out)

Only ever towards little endian, explicit or implicit (PS3.5 A.1, A.2): nothing is compressed here, so nothing is lost
that was not lost before. The object stays what it was: same SOP Instance UID, and what says that its pixels were lossy
compressed stays (PS3.3 C.7.6.1.1.5: once lossy, always said). Frames go through one by one, so memory holds the header
and one frame. Encapsulated colour is refused, not guessed.
"""

from __future__ import annotations

import os
import struct
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, Final

from pydicom import dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filebase import DicomFileLike
from pydicom.filewriter import write_dataset
from pydicom.uid import UID

from dicom_io.errors import UnreadableDataset
from dicom_io.header import header_from_dataset
from dicom_io.parse import PARSE_ERRORS, ParsedDataset, inflated, parse, read_elements
from dicom_io.syntaxes import (
    DEFLATED,
    EXPLICIT_BIG,
    EXPLICIT_LITTLE,
    IMPLICIT_LITTLE,
    JPEG_LOSSY_SYNTAXES,
    NATIVE_SYNTAXES,
)
from dicom_io.transcode_pixels import PIXEL_DATA, WORDS, plan, turned
from dicom_io.transcode_pixels import NotTranscodable as NotTranscodable
from dicom_io.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

#: What can be made, the better one first: explicit keeps the type of private elements.
TARGETS: Final = (EXPLICIT_LITTLE, IMPLICIT_LITTLE)

_NO_LIMIT = 1 << 62
_AFTER_PIXELS = 16 << 20  # bytes of a deflated data set that may follow its pixel data
# Extended offset tables describe items that are gone; signatures cover bytes that are; padding never meant anything.
_DROPPED: Final = (0x7FE00001, 0x7FE00002, 0xFFFAFFFA, 0xFFFCFFFC)


def transcode(path: Path, to_syntax: str, out: Path) -> Path:
    """Write the object of a DICOM file in another transfer syntax; `out` is replaced, and removed on any error.

    Args:
        path: the object, in any syntax of `dicom_io.syntaxes.TRANSFER_SYNTAXES`.
        to_syntax: one of `TARGETS`.
        out: where it goes.

    Returns:
        `out`.

    Raises:
        NotTranscodable: another target, encapsulated colour, pixel data of 4 GB or more, or with another number of
            frames than the header states, an element that pydicom cannot write in the target syntax.
        UnreadableDataset: not DICOM, or cut off.
        ImageRefused: the pixel data ends within a frame.
        OSError: from the disk.
    """
    if to_syntax not in TARGETS:
        raise NotTranscodable(f"{to_syntax} is not written here, only {' and '.join(TARGETS)}")
    try:
        with path.open("rb") as file, out.open("wb") as target, ExitStack() as stack:
            _rewrite(file, to_syntax, target, stack)
    except PARSE_ERRORS as error:
        out.unlink(missing_ok=True)
        raise NotTranscodable(
            f"an element of {path.name} cannot be written in {to_syntax}: {type(error).__name__}"
        ) from error
    except BaseException:
        out.unlink(missing_ok=True)
        raise
    return out


def _rewrite(file: BinaryIO, to_syntax: str, target: BinaryIO, stack: ExitStack) -> None:
    parsed = parse(file, limit=_NO_LIMIT)
    stream, size = file, parsed.size
    if parsed.pixels is not None and parsed.transfer_syntax_uid == DEFLATED:
        assert parsed.pixels.length is not None, "a deflated data set holds native pixels"
        end = parsed.pixels.offset + parsed.pixels.length + _AFTER_PIXELS
        stream = stack.enter_context(inflated(file, end))
        size = stream.seek(0, os.SEEK_END)
    header = _without_what_no_longer_holds(parsed)
    header.file_meta = _file_meta(header, to_syntax)
    found = None if parsed.pixels is None else plan(stream, parsed, size)
    rest = Dataset() if found is None else _after(stream, found.end, parsed)
    if parsed.transfer_syntax_uid == EXPLICIT_BIG:
        _swap_words(header)
        _swap_words(rest)
    implicit = to_syntax == IMPLICIT_LITTLE
    dcmwrite(target, header, enforce_file_format=True, implicit_vr=implicit, little_endian=True)
    if found is None:
        return
    target.write(_element_head(found.tag, found.vr, found.length + found.length % 2, implicit))
    written = 0
    for piece in found.pieces():
        written += target.write(piece)
    assert written == found.length, f"{written} bytes of pixel data, {found.length} announced"
    target.write(b"\0" * (written % 2))
    if len(rest):
        _append(target, rest, implicit)


def _without_what_no_longer_holds(parsed: ParsedDataset) -> Dataset:
    """The header as it will be written; `parsed` is not needed any more after that."""
    header = parsed.dataset
    for tag in _DROPPED:
        if tag in header:
            del header[tag]
    if parsed.transfer_syntax_uid not in NATIVE_SYNTAXES:
        icons = header.get("IconImageSequence") or []
        if any("PixelData" in icon and icon["PixelData"].is_undefined_length for icon in icons):
            del header.IconImageSequence  # a small compressed copy, which nobody needs (type 3)
    if parsed.transfer_syntax_uid in JPEG_LOSSY_SYNTAXES:
        header.LossyImageCompression = "01"
        if "LossyImageCompressionMethod" not in header:
            header.LossyImageCompressionMethod = "ISO_10918_1"
    return header


def _file_meta(header: Dataset, to_syntax: str) -> FileMetaDataset:
    known = header_from_dataset(header, to_syntax)  # says which UID is missing, where one is
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID(known.sop_class_uid)
    meta.MediaStorageSOPInstanceUID = UID(known.sop_instance_uid)
    meta.TransferSyntaxUID = UID(to_syntax)
    meta.ImplementationClassUID = IMPLEMENTATION_CLASS_UID
    meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
    return meta


def _after(stream: BinaryIO, start: int, parsed: ParsedDataset) -> Dataset:
    """What follows the pixel data: private groups above 7FE0."""
    stream.seek(start)
    try:
        rest = read_elements(stream, parsed.transfer_syntax_uid)
    except OSError as error:
        if error.errno is not None:
            raise
        raise UnreadableDataset(f"what follows the pixel data is no data set: {error}") from error
    for tag in list(rest.keys()):
        if tag in _DROPPED or tag <= PIXEL_DATA:
            del rest[tag]
    return rest


def _swap_words(dataset: Dataset) -> None:
    """Turn over what pydicom leaves as bytes: the words of big endian binary values, in sequences too."""
    for element in dataset:
        if element.VR == "SQ":
            for item in element.value:
                _swap_words(item)
        elif element.VR in WORDS and isinstance(element.value, bytes):
            element.value = turned(element.value, WORDS[element.VR])


def _element_head(tag: int, vr: str, length: int, implicit: bool) -> bytes:
    """Tag, VR and length (PS3.5 7.1.2, 7.1.3) of a value that is written by hand."""
    if implicit:
        return struct.pack("<HHL", tag >> 16, tag & 0xFFFF, length)
    return struct.pack("<HH2sHL", tag >> 16, tag & 0xFFFF, vr.encode("ascii"), 0, length)


def _append(target: BinaryIO, dataset: Dataset, implicit: bool) -> None:
    writer = DicomFileLike(target)
    writer.is_implicit_VR, writer.is_little_endian = implicit, True
    write_dataset(writer, dataset)
