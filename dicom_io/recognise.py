"""What an object is, from its header alone: tomosynthesis, a mammogram, one slice of a series, a private form. Pure.

Tomosynthesis comes in three shapes. As Breast Tomosynthesis Image Storage, one object a view. As CT Image Storage, one
object a slice: a slice counts as tomosynthesis only where it says which breast and which view it shows and something
else says breast too, so that a chest CT in the study is never taken for one. As a Secondary Capture whose pixels are a
picture and whose private groups hold the slices: only its maker's software reads it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from enum import StrEnum
from typing import Final

from pydicom.dataset import Dataset

from dicom_io import codes, syntaxes
from dicom_io.header import InstanceHeader, items, text, values

_BREAST_CODES: Final = frozenset({codes.BREAST[0], "T-04000"})  # SNOMED CT, SNOMED-RT
_TOMOSYNTHESIS_WORDS: Final = frozenset({"TOMO", "TOMOSYNTHESIS"})
_PRIVATE_MAKERS: Final = ("HOLOGIC",)  # whose secondary captures are known to hold slices


_GENERATED_WORDS: Final = _TOMOSYNTHESIS_WORDS | {"GENERATED_2D"}
_PROJECTIONS: Final = frozenset(
    {syntaxes.BREAST_PROJECTION_PRESENTATION, syntaxes.BREAST_PROJECTION_PROCESSING}
)
_MAMMOGRAMS: Final = frozenset({syntaxes.MAMMOGRAPHY_PRESENTATION, syntaxes.MAMMOGRAPHY_PROCESSING})


class Kind(StrEnum):
    """What an object is to the node."""

    TOMOSYNTHESIS = "tomosynthesis"
    MAMMOGRAM = "mammogram"  # full field or synthesized, For Presentation
    TOMO_SLICE = "tomosynthesis slice"  # one object of a series that is one volume
    PRIVATE_TOMO = "private tomosynthesis"
    OTHER = "other"


def kind_of(header: InstanceHeader) -> Kind:
    """What the object is. Whether it can be read is another question: `dicom_io.accept` answers it."""
    uid = header.sop_class_uid
    if uid == syntaxes.BREAST_TOMOSYNTHESIS:
        return Kind.TOMOSYNTHESIS
    if uid == syntaxes.MAMMOGRAPHY_PRESENTATION:
        return Kind.MAMMOGRAM
    if uid == syntaxes.CT_IMAGE and _shows_a_breast(header):
        return Kind.TOMO_SLICE
    if uid in syntaxes.SECONDARY_CAPTURES and _holds_slices(header):
        return Kind.PRIVATE_TOMO
    return Kind.OTHER


def _shows_a_breast(header: InstanceHeader) -> bool:
    if header.laterality not in ("L", "R") or header.view is None:
        return False
    return (
        header.modality.upper() == "MG"
        or header.body_part == "BREAST"
        or header.anatomic_region in _BREAST_CODES
        or any(part.strip().upper() in _TOMOSYNTHESIS_WORDS for part in header.image_type)
    )


def _holds_slices(header: InstanceHeader) -> bool:
    return any(maker.upper().startswith(_PRIVATE_MAKERS) for maker in header.payload_creators)


def is_breast_image(header: InstanceHeader) -> bool:
    """Whether a report's image library lists it: tomosynthesis in any form, its projections, and 2D of any kind."""
    known = _MAMMOGRAMS | _PROJECTIONS
    return kind_of(header) is not Kind.OTHER or header.sop_class_uid in known


def two_d_form(dataset: Dataset) -> str:
    """Whether a mammogram was taken or made from tomosynthesis, in words; "" for others, and where its header does not
    say: Image Type (PS3.3 C.7.6.1.1.2), or the images it was made from."""
    if text(dataset, "SOPClassUID") not in _MAMMOGRAMS:
        return ""
    words = {str(part).strip().upper() for part in values(dataset, "ImageType")}
    sources = {text(one, "ReferencedSOPClassUID") for one in items(dataset, "SourceImageSequence")}
    if words & _GENERATED_WORDS or sources & (_PROJECTIONS | {syntaxes.BREAST_TOMOSYNTHESIS}):
        return "synthesized 2D image, made from tomosynthesis"
    raw = text(dataset, "SOPClassUID") == syntaxes.MAMMOGRAPHY_PROCESSING
    return "full-field digital mammogram" if raw or "ORIGINAL" in words else ""


def repeated_views(headers: Iterable[InstanceHeader]) -> dict[str, str]:
    """SOP Instance UID -> note, for each of several images of one breast in one view (modifiers count as the view).

    A tomosynthesis object and a mammogram of one view are no repetition, nor are slices of one series.
    """
    same: dict[tuple[Kind, str, frozenset[str]], dict[str, str]] = defaultdict(dict)
    for header in headers:
        kind = kind_of(header)
        if kind in (Kind.OTHER, Kind.PRIVATE_TOMO) or None in (header.laterality, header.view):
            continue
        volume = header.series_instance_uid if kind is Kind.TOMO_SLICE else header.sop_instance_uid
        form = Kind.MAMMOGRAM if kind is Kind.MAMMOGRAM else Kind.TOMOSYNTHESIS
        key = (form, f"{header.laterality}-{header.view}", frozenset(header.view_modifiers))
        same[key][header.sop_instance_uid] = volume
    notes: dict[str, str] = {}
    for (form, view, _), volumes in same.items():
        if (count := len(set(volumes.values()))) > 1:
            note = (
                f"one of {count} {form} images of {view}: each is read, none stands for the others"
            )
            notes |= dict.fromkeys(volumes, note)
    return notes
