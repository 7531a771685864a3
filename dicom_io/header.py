"""The header of any DICOM object: identifiers and what a work list needs, pixels never read.

Light enough for the receiving process: only pydicom is imported, and a header costs milliseconds and little memory
whatever the size of the object.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

from pydicom.dataset import Dataset
from pydicom.tag import Tag

from dicom_io import codes
from dicom_io.errors import UnreadableDataset
from dicom_io.parse import PARSE_ERRORS, check_complete, parse

# Private groups (PS3.5 7.8) that vendors keep tomosynthesis in; their creators tell whose it is.
_PAYLOAD_GROUPS: Final = (0x7E01, 0x7F01)
_CREATORS: Final = tuple(
    Tag(group, element) for group in _PAYLOAD_GROUPS for element in range(0x10, 0x14)
)
_UID: Final = re.compile(
    r"[0-9]+(\.[0-9]+)*"
)  # PS3.5 9.1, and leading zeros, which some makers write
_TAGS = [
    Tag(keyword)
    for keyword in (
        "SpecificCharacterSet",
        "ImageType",
        "SOPClassUID",
        "SOPInstanceUID",
        "StudyDate",
        "StudyTime",
        "AccessionNumber",
        "Modality",
        "PresentationIntentType",
        "Manufacturer",
        "StationName",
        "StudyDescription",
        "SeriesDescription",
        "ManufacturerModelName",
        "AnatomicRegionSequence",
        "PatientID",
        "BodyPartExamined",
        "ViewPosition",
        "StudyInstanceUID",
        "SeriesInstanceUID",
        "StudyID",
        "SeriesNumber",
        "InstanceNumber",
        "Laterality",
        "ImageLaterality",
        "FrameOfReferenceUID",
        "SamplesPerPixel",
        "PhotometricInterpretation",
        "NumberOfFrames",
        "Rows",
        "Columns",
        "BitsAllocated",
        "BitsStored",
        "BreastImplantPresent",
        "ViewCodeSequence",
        "SharedFunctionalGroupsSequence",
        "PerFrameFunctionalGroupsSequence",
    )
] + list(_CREATORS)


@dataclass(frozen=True)
class InstanceHeader:
    """One DICOM instance without its pixels. Text is "" and a number None where the object does not say.

    `laterality` is "L", "R", "B" or None; `view` an abbreviation of `codes.VIEWS` or None. Dates and times are as
    stored (YYYYMMDD, HHMMSS.ffffff). `implant` is Breast Implant Present (0028,1300). `anatomic_region` is a code
    value, `payload_creators` whose the private groups are that may hold tomosynthesis.
    """

    sop_class_uid: str
    sop_instance_uid: str
    study_instance_uid: str
    series_instance_uid: str
    transfer_syntax_uid: str
    modality: str
    patient_id: str
    accession_number: str
    study_id: str
    study_date: str
    study_time: str
    study_description: str
    series_description: str
    series_number: int | None
    instance_number: int | None
    manufacturer: str
    model: str
    station: str
    image_type: tuple[str, ...]
    presentation_intent: str
    laterality: str | None
    view: str | None
    view_modifiers: tuple[str, ...]
    frame_of_reference_uid: str | None
    rows: int | None
    columns: int | None
    number_of_frames: int | None
    samples_per_pixel: int | None
    photometric: str
    bits_allocated: int | None
    bits_stored: int | None
    body_part: str
    anatomic_region: str
    implant: bool | None
    payload_creators: tuple[str, ...]


def read_header(source: str | Path | BinaryIO) -> InstanceHeader:
    """Read the header of a Part 10 file, or of a bare data set, given as a path or as an open, seekable file.

    Raises UnreadableDataset for garbage, a data set or pixel data that is cut off, and missing or malformed UIDs.
    Errors of the disk (OSError) pass through.
    """
    with _opened(source) as file:
        parsed = parse(file, tags=_TAGS)
        check_complete(file, parsed)
    return header_from_dataset(parsed.dataset, parsed.transfer_syntax_uid)


def header_from_dataset(dataset: Dataset, transfer_syntax_uid: str) -> InstanceHeader:
    """The header of a data set in memory. Raises UnreadableDataset where a required UID is missing or malformed."""
    view, modifiers = view_of(dataset)
    intent = text(dataset, "PresentationIntentType").upper()
    return InstanceHeader(
        sop_class_uid=_uid(dataset, "SOPClassUID"),
        sop_instance_uid=_uid(dataset, "SOPInstanceUID"),
        study_instance_uid=_uid(dataset, "StudyInstanceUID"),
        series_instance_uid=_uid(dataset, "SeriesInstanceUID"),
        transfer_syntax_uid=transfer_syntax_uid,
        modality=text(dataset, "Modality"),
        patient_id=text(dataset, "PatientID"),
        accession_number=text(dataset, "AccessionNumber"),
        study_id=text(dataset, "StudyID"),
        study_date=text(dataset, "StudyDate"),
        study_time=text(dataset, "StudyTime"),
        study_description=text(dataset, "StudyDescription"),
        series_description=text(dataset, "SeriesDescription"),
        series_number=integer(dataset, "SeriesNumber"),
        instance_number=integer(dataset, "InstanceNumber"),
        manufacturer=text(dataset, "Manufacturer"),
        model=text(dataset, "ManufacturerModelName"),
        station=text(dataset, "StationName"),
        image_type=tuple(str(part) for part in values(dataset, "ImageType")),
        presentation_intent=intent,
        laterality=laterality_of(dataset),
        view=view,
        view_modifiers=modifiers,
        frame_of_reference_uid=text(dataset, "FrameOfReferenceUID") or None,
        rows=integer(dataset, "Rows"),
        columns=integer(dataset, "Columns"),
        number_of_frames=integer(dataset, "NumberOfFrames"),
        samples_per_pixel=integer(dataset, "SamplesPerPixel"),
        photometric=text(dataset, "PhotometricInterpretation"),
        bits_allocated=integer(dataset, "BitsAllocated"),
        bits_stored=integer(dataset, "BitsStored"),
        body_part=text(dataset, "BodyPartExamined").upper(),
        anatomic_region=_anatomic_region(dataset),
        implant={"YES": True, "NO": False}.get(text(dataset, "BreastImplantPresent").upper()),
        payload_creators=tuple(_creators(dataset)),
    )


def laterality_of(dataset: Dataset) -> str | None:
    """ "L", "R" or "B", or None where the object does not say."""
    return next(iter(stated_sides(dataset)), None)


def stated_sides(dataset: Dataset) -> list[str]:
    """Every laterality given: of the frames' anatomy (shared, then the first frame), the image, the series."""
    groups = (
        item(dataset, "SharedFunctionalGroupsSequence"),
        item(dataset, "PerFrameFunctionalGroupsSequence"),
    )
    found = [text(item(group, "FrameAnatomySequence"), "FrameLaterality") for group in groups]
    found += [text(dataset, "ImageLaterality"), text(dataset, "Laterality")]
    return [side for value in found if (side := value.upper()) in ("L", "R", "B")]


def view_of(dataset: Dataset) -> tuple[str | None, tuple[str, ...]]:
    """View and modifiers, abbreviated: from the view code (old or new), else from View Position (0018,5101).

    An unknown modifier is given by its code value, so that it is never mistaken for none.
    """
    code = item(dataset, "ViewCodeSequence")
    view = codes.view_from_code(text(code, "CodeValue")) or codes.view_from_name(
        text(dataset, "ViewPosition")
    )
    modifiers = []
    for modifier in items(code, "ViewModifierCodeSequence"):
        value = text(modifier, "CodeValue")
        known = codes.modifier_from_code(value)
        modifiers.append(known.name if known else value)
    return (view.name if view else None), tuple(name for name in modifiers if name)


def _anatomic_region(dataset: Dataset) -> str:
    """The region's code value: of the frames' anatomy, else of the image."""
    shared = item(item(dataset, "SharedFunctionalGroupsSequence"), "FrameAnatomySequence")
    return text(item(shared, "AnatomicRegionSequence"), "CodeValue") or text(
        item(dataset, "AnatomicRegionSequence"), "CodeValue"
    )


def _creators(dataset: Dataset) -> Iterator[str]:
    for tag in _CREATORS:
        try:
            element = dataset.get(tag)
        except PARSE_ERRORS:
            continue
        if element is not None and isinstance(element.value, str) and element.value.strip():
            yield element.value.strip()


# --- Lenient access: a malformed optional attribute is an absent one ---


def values(dataset: Dataset, keyword: str) -> list[Any]:
    """Every value of an attribute; empty where it is absent, empty or malformed."""
    try:
        value = dataset.get(keyword)
    except PARSE_ERRORS:
        return []
    if value is None or value == "":
        return []
    if isinstance(value, str | bytes) or not hasattr(value, "__iter__"):
        return [value]
    return list(value)


def text(dataset: Dataset, keyword: str) -> str:
    """The first value of an attribute as stripped text, or ""."""
    first = values(dataset, keyword)[:1]
    return str(first[0]).strip(" \0") if first and first[0] is not None else ""


def numbers(dataset: Dataset, keyword: str) -> tuple[float, ...]:
    """Every value of a numeric attribute; empty where one of them is no finite number."""
    try:
        found = tuple(float(value) for value in values(dataset, keyword))
    except (TypeError, ValueError, OverflowError):
        return ()
    return found if all(abs(value) < float("inf") for value in found) else ()


def integer(dataset: Dataset, keyword: str) -> int | None:
    """The first value of an attribute as a whole number, or None."""
    found = numbers(dataset, keyword)
    return int(found[0]) if found and found[0] == int(found[0]) else None


def items(dataset: Dataset, keyword: str) -> list[Dataset]:
    """The items of a sequence; empty where it is absent or malformed."""
    return [entry for entry in values(dataset, keyword) if isinstance(entry, Dataset)]


def item(dataset: Dataset, keyword: str) -> Dataset:
    """The first item of a sequence, or an empty data set."""
    found = items(dataset, keyword)
    return found[0] if found else Dataset()


def _uid(dataset: Dataset, keyword: str) -> str:
    value = text(dataset, keyword)
    if not value:
        raise UnreadableDataset(f"{keyword} is missing; every object must have one")
    if len(value) > 64 or not _UID.fullmatch(value) or len(values(dataset, keyword)) != 1:
        raise UnreadableDataset(f"{keyword} is not a UID")
    return value


@contextmanager
def _opened(source: str | Path | BinaryIO) -> Iterator[BinaryIO]:
    if isinstance(source, str | Path):
        with Path(source).open("rb") as file:
            yield file
    else:
        yield source
