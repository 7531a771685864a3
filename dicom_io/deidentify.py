"""De-identified copies of images: PS3.15 annex E, Basic Application Confidentiality Profile with modified dates.

Which attribute is removed, emptied or replaced is the standard's table E.1-1 (2024b), as the library dicom-anonymizer
carries it. It is applied here to every item of every sequence, which the library does not do, and what the table does
not name is kept only where it cannot say who a patient is: numbers, strings in the form of CS, the standard's own UIDs,
the texts of `_KEPT_TEXTS`. Private attributes go. Pixel data is copied byte for byte, one piece at a time.

Dates are moved by whole days, the same for all images of a patient; times of day are removed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal

from dicomanonymizer.simpledicomanonymizer import (  # type: ignore[import-untyped]
    initialize_actions_2024b,
)
from pydicom import dcmwrite
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.tag import BaseTag, Tag
from pydicom.uid import UID_dictionary

from dicom_io.errors import ImageRefused, RefusalCode
from dicom_io.header import text
from dicom_io.parse import PARSE_ERRORS, ParsedDataset, PixelElement, inflated, parse, walk_items
from dicom_io.syntaxes import DEFLATED, EXPLICIT_BIG, EXPLICIT_LITTLE, IMPLICIT_LITTLE
from dicom_io.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

METHOD: Final = "PS3.15 Basic Application Confidentiality Profile, modified dates"
_METHOD_CODES: Final = (
    ("113100", "Basic Application Confidentiality Profile"),
    ("113107", "Retain Longitudinal Temporal Information Modified Dates Option"),
)
_IN_PIXELS: Final = ("BurnedInAnnotation", "RecognizableVisualFeatures")
_VALUE_LIMIT: Final = 64 << 20  # bytes of one header value, as in `dicom_io.dbt`
_CHUNK: Final = 4 << 20
_CODED_STRING: Final = re.compile(r"[A-Z0-9_ ]{0,16}")
_DATE: Final = re.compile(r"(\d{4})\.?(\d{2})\.?(\d{2})")
_PATIENT_GROUP: Final = 0x0010
_DRAWN_GROUPS: Final = (0x5000, 0x6000)  # curves and overlays, which repeat: they may hold writing

# Texts (LO, SH, ST, LT) that describe the device and how the image was made; every other text is removed.
_KEPT_TEXTS: Final = frozenset(
    Tag(keyword)
    for keyword in (
        "CodeValue", "CodingSchemeDesignator", "CodingSchemeVersion", "CodeMeaning",
        "Manufacturer", "ManufacturerModelName", "SoftwareVersions", "FilterType", "ConvolutionKernel",
        "PaddleDescription", "ExposureControlModeDescription", "AcquisitionDeviceProcessingCode",
        "ApplicationName", "ApplicationVersion", "ApplicationManufacturer", "AlgorithmDescription",
        "ReconstructionDescription", "RescaleType", "ModalityLUTType", "LUTExplanation",
        "WindowCenterWidthExplanation", "StackID", "DimensionDescriptionLabel",
        "PositionReferenceIndicator",
    )
)  # fmt: skip
_KEPT_BINARY: Final = frozenset(
    Tag(keyword) for keyword in ("LUTData", "ExtendedOffsetTable", "ExtendedOffsetTableLengths")
)
_TEXTS: Final = frozenset({"LO", "SH", "ST", "LT", "UT", "UC", "PN"})
_NUMBERS: Final = frozenset({"IS", "DS", "US", "UL", "UV", "SS", "SL", "SV", "FL", "FD", "AT"})


@dataclass(frozen=True)
class Disguise:
    """What stands for a patient's identity: `patient` as ID and name, dates moved by `days`, UIDs by `uid`."""

    patient: str
    days: int
    uid: Callable[[str], str]


def burned_in(source: Path) -> str:
    """What an object says of writing in its pixels (0028,0301): "YES", "NO", or "" where it does not say.

    A "YES" in Recognizable Visual Features (0028,0302) is a "YES" here. Raises UnreadableDataset.
    """
    with source.open("rb") as file:
        dataset = parse(file, tags=[Tag(name) for name in _IN_PIXELS]).dataset
    annotation, features = (text(dataset, name).upper() for name in _IN_PIXELS)
    return "YES" if "YES" in (annotation, features) else annotation


def write_deidentified(source: Path, target: Path, disguise: Disguise) -> None:
    """Write a de-identified copy of a DICOM file, durably; an existing target is replaced.

    The transfer syntax stays, but for a deflated object, which is written as Explicit VR Little Endian.

    Raises:
        UnreadableDataset: the source is no DICOM object or cut off.
        ImageRefused: it has no pixel data.
    """
    with ExitStack() as opened:
        file: BinaryIO = opened.enter_context(source.open("rb"))
        parsed = parse(file, limit=_VALUE_LIMIT)
        pixels = parsed.pixels
        if pixels is None:
            raise ImageRefused(RefusalCode.NO_PIXELS)
        syntax = parsed.transfer_syntax_uid
        if syntax == DEFLATED:
            end = pixels.offset + (pixels.length or 0)
            file, syntax = opened.enter_context(inflated(file, end)), EXPLICIT_LITTLE
        dataset = parsed.dataset
        deidentify(dataset, disguise)
        dataset.file_meta = _file_meta(dataset, syntax)
        with target.open("wb") as out:
            dcmwrite(
                out,
                dataset,
                enforce_file_format=True,
                implicit_vr=syntax == IMPLICIT_LITTLE,
                little_endian=syntax != EXPLICIT_BIG,
            )
            _copy_pixels(file, out, parsed, pixels, syntax)
            out.flush()
            os.fsync(out.fileno())


def deidentify(dataset: Dataset, disguise: Disguise) -> None:
    """Remove from a data set, in place, what says who the patient is; mark it as de-identified (PS3.15 E.1.1)."""
    _clean(dataset, disguise)
    dataset.PatientID = disguise.patient
    dataset.PatientName = disguise.patient
    dataset.PatientIdentityRemoved = "YES"
    dataset.DeidentificationMethod = METHOD
    dataset.DeidentificationMethodCodeSequence = [_code(*code) for code in _METHOD_CODES]
    dataset.LongitudinalTemporalInformationModified = "MODIFIED"


def _clean(dataset: Dataset, disguise: Disguise) -> None:
    for tag in list(dataset.keys()):
        try:
            element = None if _is_unknown(tag) else dataset[tag]
        except PARSE_ERRORS:
            element = None  # a value that cannot be read cannot be judged
        if element is None or not _judge(element, disguise):
            del dataset[tag]


def _is_unknown(tag: BaseTag) -> bool:
    return tag.is_private or tag.group & 0xFF00 in _DRAWN_GROUPS


def _judge(element: DataElement, disguise: Disguise) -> bool:
    """Change one element as it needs; False where it must go."""
    action = _table().get(element.tag, "")
    vr = element.VR
    if vr in ("DA", "DT") and element.tag.group != _PATIENT_GROUP:
        element.value = _each(element, lambda value: _moved(value, disguise.days))
        return True
    if action == "delete":
        return False
    if vr == "UI":
        element.value = _each(element, lambda uid: uid if _is_known(uid) else disguise.uid(uid))
        return True
    if action in ("empty", "delete_or_empty"):
        element.value = [] if vr == "SQ" else None
        return True
    if action in ("replace", "empty_or_replace", "delete_or_replace", "delete_or_empty_or_replace"):
        return _replace(element)
    if vr == "SQ":
        for item in element.value:
            _clean(item, disguise)
        return True
    return element.tag.group != _PATIENT_GROUP and _says_nothing(element)


def _replace(element: DataElement) -> bool:
    """A dummy where an image may need one; other attributes are not needed and go."""
    if element.VR in _TEXTS:
        element.value = "ANONYMIZED"
    elif element.VR == "TM":
        element.value = "000000"
    else:
        return False
    return True


def _says_nothing(element: DataElement) -> bool:
    """Whether an attribute that the table does not name can be kept."""
    if element.VR in _NUMBERS:
        return all(isinstance(value, int | float | Decimal) for value in _values(element))
    if element.VR == "CS":
        return all(_CODED_STRING.fullmatch(str(value)) for value in _values(element))
    if (
        element.VR == "US or SS"
    ):  # of an object in Implicit VR: up to three cells, not yet read as numbers
        return len(element.value or b"") <= 6
    return element.tag in (_KEPT_TEXTS if element.VR in _TEXTS else _KEPT_BINARY)


def _values(element: DataElement) -> list[Any]:
    if element.value is None or element.value == "":
        return []
    return list(element.value) if element.VM > 1 else [element.value]


def _each(element: DataElement, change: Callable[[str], str]) -> Any:
    changed = [change(str(value)) for value in _values(element)]
    return changed if len(changed) > 1 else (changed or [""])[0]


def _moved(value: str, days: int) -> str:
    """A DA or DT value as a date so many days away; "" where it is none."""
    found = _DATE.match(value)
    if found is None:
        return ""
    try:
        moved = date(*map(int, found.groups())) + timedelta(days=days)
    except (ValueError, OverflowError):
        return ""
    return moved.strftime("%Y%m%d").zfill(8)


def _is_known(uid: str) -> bool:
    """Whether the standard itself registers this UID: classes, syntaxes, well-known frames of reference."""
    return not uid or uid in UID_dictionary


@lru_cache(maxsize=1)
def _table() -> dict[BaseTag, str]:
    """Action by tag, without the repeating groups (`_DRAWN_GROUPS`)."""
    return {
        Tag(*tag): action.__name__
        for tag, action in initialize_actions_2024b().items()
        if len(tag) == 2
    }


def _code(value: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "DCM", meaning
    return item


def _file_meta(dataset: Dataset, syntax: str) -> FileMetaDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = syntax
    meta.ImplementationClassUID = IMPLEMENTATION_CLASS_UID
    meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
    return meta


def _copy_pixels(
    file: BinaryIO, out: BinaryIO, parsed: ParsedDataset, pixels: PixelElement, syntax: str
) -> None:
    """The pixel data element as it was; whatever follows it in the source is left behind."""
    order: Literal["big", "little"] = "big" if syntax == EXPLICIT_BIG else "little"
    length = pixels.length if pixels.length is not None else 0xFFFFFFFF
    head = b"".join(half.to_bytes(2, order) for half in (pixels.tag >> 16, pixels.tag & 0xFFFF))
    vr = b"" if syntax == IMPLICIT_LITTLE else pixels.vr.encode("ascii") + b"\0\0"
    out.write(head + vr + length.to_bytes(4, order))
    if pixels.length is not None:
        _copy(file, out, pixels.offset, pixels.length)
        return
    for offset, size in walk_items(file, pixels.offset, parsed.size):
        _copy(file, out, offset - 8, size + 8)  # with the item's own header
    out.write(b"\xfe\xff\xdd\xe0\0\0\0\0")


def _copy(file: BinaryIO, out: BinaryIO, start: int, length: int) -> None:
    file.seek(start)
    left = length
    while left > 0:
        piece = file.read(min(left, _CHUNK))
        if not piece:
            raise ImageRefused(RefusalCode.TRUNCATED)
        out.write(piece)
        left -= len(piece)
