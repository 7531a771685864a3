"""What a header says that queries return or compare. Pixels are never read."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.tag import Tag

from dicom_io import header
from dicom_io.parse import PARSE_ERRORS, parse
from node.catalogue.match import clean, day, folded, time_of_day

# Kept as DICOM JSON. None of group 0010: what is known of patients lies in `studies` alone.
_KEPT = (
    "ImageType",
    "AcquisitionDate",
    "ContentDate",
    "AcquisitionTime",
    "ContentTime",
    "PresentationIntentType",
    "Manufacturer",
    "StationName",
    "ManufacturerModelName",
    "ProtocolName",
    "ViewPosition",
    "FrameOfReferenceUID",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "BitsAllocated",
    "BitsStored",
    "LossyImageCompression",
    "PerformedProcedureStepStartDate",
    "PerformedProcedureStepStartTime",
    "CompletionFlag",
    "VerificationFlag",
    "SegmentationType",
    "ContentLabel",
    "ContentDescription",
)
_TITLE = "ConceptNameCodeSequence"  # of a structured report
_CODE = ("CodeValue", "CodingSchemeDesignator", "CodeMeaning")
_READ = (
    *_KEPT,
    _TITLE,
    "SpecificCharacterSet",
    "SOPInstanceUID",
    "SeriesInstanceUID",
    "StudyDate",
    "SeriesDate",
    "StudyTime",
    "SeriesTime",
    "AccessionNumber",
    "Modality",
    "ReferringPhysicianName",
    "StudyDescription",
    "SeriesDescription",
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "BodyPartExamined",
    "StudyID",
    "SeriesNumber",
    "InstanceNumber",
    "Laterality",
    "ImageLaterality",
    "NumberOfFrames",
    "Rows",
    "Columns",
)
_TAGS = [Tag(keyword) for keyword in _READ]
#: Attributes of an object that queries return and do not match.
KEPT_TAGS = frozenset(int(Tag(keyword)) for keyword in (*_KEPT, _TITLE))
_VALUE_LIMIT = 512  # characters of one kept attribute as JSON


@dataclass(frozen=True)
class OfStudy:
    """What an object says of its study and patient; None where it does not say. Columns of `studies`."""

    patient_id: str | None = None
    accession_number: str | None = None
    study_date: str | None = None
    patient_name: str | None = None
    patient_name_folded: str | None = None
    patient_birth_date: str | None = None
    patient_sex: str | None = None
    study_time: str | None = None
    study_id: str | None = None
    study_description: str | None = None
    referring_physician: str | None = None
    referring_physician_folded: str | None = None


@dataclass(frozen=True)
class Described:
    """What an object says of itself; None where it does not say. Columns of `catalogue`."""

    modality: str | None = None
    series_number: int | None = None
    series_description: str | None = None
    series_date: str | None = None
    series_time: str | None = None
    body_part: str | None = None
    laterality: str | None = None
    instance_number: int | None = None
    rows: int | None = None
    columns: int | None = None
    frames: int | None = None
    attributes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Header:
    """One object's header, as the catalogue takes it."""

    series_uid: str
    transfer_syntax_uid: str
    of_study: OfStudy
    described: Described


def read(source: Path | BinaryIO) -> Header:
    """Read a Part 10 file's header, given by its path or open.

    Raises:
        UnreadableDataset: no data set, or cut off before its pixels.
    """
    if isinstance(source, Path):
        with source.open("rb") as file:
            return read(file)
    parsed = parse(source, tags=_TAGS)
    dataset = parsed.dataset
    return Header(
        series_uid=header.text(dataset, "SeriesInstanceUID")[:64],
        transfer_syntax_uid=parsed.transfer_syntax_uid,
        of_study=_of_study(dataset),
        described=_described(dataset),
    )


def text(value: str, limit: int) -> str | None:
    """A value as a column takes it: cleaned and cut to its length; None for none."""
    return clean(value)[:limit].rstrip() or None


def _of_study(dataset: Dataset) -> OfStudy:
    patient = _name(dataset, "PatientName")
    physician = _name(dataset, "ReferringPhysicianName")
    return OfStudy(
        patient_id=_text(dataset, "PatientID", 64),
        accession_number=_text(dataset, "AccessionNumber", 64),
        study_date=day(header.text(dataset, "StudyDate")),
        patient_name=patient,
        patient_name_folded=folded(patient or ""),
        patient_birth_date=day(header.text(dataset, "PatientBirthDate")),
        patient_sex=_text(dataset, "PatientSex", 16),
        study_time=time_of_day(header.text(dataset, "StudyTime")),
        study_id=_text(dataset, "StudyID", 64),
        study_description=_text(dataset, "StudyDescription", 64),
        referring_physician=physician,
        referring_physician_folded=folded(physician or ""),
    )


def _described(dataset: Dataset) -> Described:
    return Described(
        modality=_text(dataset, "Modality", 16),
        series_number=_number(dataset, "SeriesNumber"),
        series_description=_text(dataset, "SeriesDescription", 64),
        series_date=day(header.text(dataset, "SeriesDate")),
        series_time=time_of_day(header.text(dataset, "SeriesTime")),
        body_part=_text(dataset, "BodyPartExamined", 16),
        laterality=header.laterality_of(dataset),
        instance_number=_number(dataset, "InstanceNumber"),
        rows=_number(dataset, "Rows"),
        columns=_number(dataset, "Columns"),
        frames=_number(dataset, "NumberOfFrames"),
        attributes=_kept(dataset),
    )


def _kept(dataset: Dataset) -> dict[str, Any]:
    found = {
        key: value
        for keyword in _KEPT
        if (key := _key(keyword)) and (value := _as_json(dataset, keyword))
    }
    title = _title(header.item(dataset, _TITLE))
    if title is not None:
        found[_key(_TITLE)] = title
    return found


def _as_json(dataset: Dataset, keyword: str) -> dict[str, Any] | None:
    """One attribute as PS3.18 F.2 has it; None where it is absent, empty, malformed or beyond all measure."""
    if not header.values(dataset, keyword):
        return None
    try:
        value = dataset[keyword].to_json_dict(None, _VALUE_LIMIT)
        content = clean(json.dumps(value, ensure_ascii=False, allow_nan=False))
    except PARSE_ERRORS:
        return None
    if len(content) > _VALUE_LIMIT or "Value" not in value or "\\u0000" in content:
        return None
    found: dict[str, Any] = json.loads(content)
    return found


def _title(code: Dataset) -> dict[str, Any] | None:
    parts = {keyword: value for keyword in _CODE if (value := _text(code, keyword, 64))}
    if len(parts) < len(_CODE):
        return None
    vrs = dict(zip(_CODE, ("SH", "SH", "LO"), strict=True))
    item = {
        _key(keyword): {"vr": vrs[keyword], "Value": [value]} for keyword, value in parts.items()
    }
    return {"vr": "SQ", "Value": [item]}


def _key(keyword: str) -> str:
    return f"{Tag(keyword):08X}"


def _name(dataset: Dataset, keyword: str) -> str | None:
    """A person name, in the characters its character set stands for; the first, where there are several."""
    try:
        value = dataset.get(keyword)
        return text(str(value[0] if isinstance(value, MultiValue) else value or ""), 256)
    except PARSE_ERRORS:
        return None


def _text(dataset: Dataset, keyword: str, limit: int) -> str | None:
    return text(header.text(dataset, keyword), limit)


def _number(dataset: Dataset, keyword: str) -> int | None:
    """A whole number that a column takes, or None."""
    value = header.integer(dataset, keyword)
    return value if value is not None and -(2**31) <= value < 2**31 else None
