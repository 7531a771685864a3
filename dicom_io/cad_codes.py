"""Codes and content items of Mammography CAD SR (PS3.16 TID 4000 to 4023), one short function an item."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from highdicom import sr
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code

CONTAINS = sr.RelationshipTypeValues.CONTAINS
MODIFIES = sr.RelationshipTypeValues.HAS_CONCEPT_MOD
PROPERTY = sr.RelationshipTypeValues.HAS_PROPERTIES
INFERRED = sr.RelationshipTypeValues.INFERRED_FROM
SELECTED = sr.RelationshipTypeValues.SELECTED_FROM
ACQUIRED = sr.RelationshipTypeValues.HAS_ACQ_CONTEXT


def _dcm(value: str, meaning: str) -> Code:
    return Code(value, "DCM", meaning)


REPORT = _dcm("111036", "Mammography CAD Report")
LANGUAGE = _dcm("121049", "Language of Content Item and Descendants")
ENGLISH = Code("en-US", "RFC5646", "English (United States)")
IMAGE_LIBRARY = _dcm("111028", "Image Library")
IMAGE_LATERALITY = _dcm("111027", "Image Laterality")
IMAGE_VIEW = _dcm("111031", "Image View")
ORIENTATION_ROW = _dcm("111044", "Patient Orientation Row")
ORIENTATION_COLUMN = _dcm("111043", "Patient Orientation Column")
STUDY_DATE = _dcm("111060", "Study Date")
HORIZONTAL_SPACING = _dcm("111026", "Horizontal Pixel Spacing")
VERTICAL_SPACING = _dcm("111066", "Vertical Pixel Spacing")
FRAME_OF_REFERENCE = _dcm("112227", "Frame of Reference UID")
POSITION = tuple(
    _dcm(str(110901 + n), f"Image Position (Patient) {a}") for n, a in enumerate("XYZ")
)
ORIENTATION = tuple(
    _dcm(str(110904 + n), f"Image Orientation (Patient) {axis}")
    for n, axis in enumerate(f"{line} {a}" for line in ("Row", "Column") for a in "XYZ")
)
LATERALITY = Code("272741003", "SCT", "Laterality")

IMPRESSION = _dcm("111033", "Impression Description")
INDIVIDUAL_IMPRESSION = _dcm("111034", "Individual Impression/Recommendation")
RENDERING_INTENT = _dcm("111056", "Rendering Intent")
OPTIONAL = _dcm("111151", "Presentation Optional: Rendering device may present")
FINDING = _dcm("111059", "Single Image Finding")
SELECTED_REGION = _dcm("111099", "Selected region")
REGION_DESCRIPTION = _dcm("111058", "Selected Region Description")
CENTRE = _dcm("111010", "Center")
OUTLINE = _dcm("111041", "Outline")
DERIVATION = _dcm("121401", "Derivation")
UNSPECIFIED_METHOD = _dcm("112187", "Unspecified method of calculation")
CALCULATION = _dcm("112034", "Calculation Description")

DETECTIONS = _dcm("111064", "Summary of Detections")
ANALYSES = _dcm("111065", "Summary of Analyses")
SUCCEEDED = _dcm("111222", "Succeeded")
PARTIALLY_SUCCEEDED = _dcm("111223", "Partially Succeeded")
NOT_ATTEMPTED = _dcm("111225", "Not Attempted")
SUCCESSFUL = _dcm("111063", "Successful Detections")
FAILED = _dcm("111025", "Failed Detections")
DETECTION = _dcm("111022", "Detection Performed")

ALGORITHM_NAME = _dcm("111001", "Algorithm Name")
ALGORITHM_VERSION = _dcm("111003", "Algorithm Version")
ALGORITHM_PARAMETERS = _dcm("111002", "Algorithm Parameters")

MILLIMETRE = Code("mm", "UCUM", "mm")
COSINE = Code("{-1:1}", "UCUM", "{-1:1}")
NO_UNITS = Code("1", "UCUM", "no units")


def with_children(item: Any, children: Iterable[Any]) -> Any:
    """The item with these below it."""
    below = list(children)
    if below:
        # Not by attribute: highdicom takes no relationship by reference, which this report is made of.
        item.add_new("ContentSequence", "SQ", below)
    return item


def container(name: Code, relationship: Any, children: Iterable[Any]) -> Any:
    """A CONTAINER that is no root."""
    return with_children(sr.ContainerContentItem(name, relationship_type=relationship), children)


def code(name: Code, value: Code, relationship: Any, children: Iterable[Any] = ()) -> Any:
    """A CODE item."""
    return with_children(sr.CodeContentItem(name, value, relationship), children)


def text(name: Code, value: str, relationship: Any) -> Any:
    """A TEXT item."""
    return sr.TextContentItem(name, value, relationship)


def number(
    name: Code, value: float, unit: Code, relationship: Any, children: Iterable[Any] = ()
) -> Any:
    """A NUM item."""
    return with_children(
        sr.NumContentItem(name, value, unit, relationship_type=relationship), children
    )


def image(
    sop_class_uid: str, sop_instance_uid: str, frame: int | None, relationship: Any
) -> Dataset:
    """An IMAGE item without a name, as TID 4020 and 2010 want it; `frame` is 0-based, None: the whole instance."""
    reference = Dataset()
    reference.ReferencedSOPClassUID = sop_class_uid
    reference.ReferencedSOPInstanceUID = sop_instance_uid
    if frame is not None:
        reference.ReferencedFrameNumber = frame + 1
    item = Dataset()
    item.RelationshipType = relationship.value
    item.ValueType = "IMAGE"
    item.ReferencedSOPSequence = [reference]
    return item


def by_reference(identifier: Sequence[int], relationship: Any) -> Dataset:
    """A relationship with an item elsewhere in the tree, named by its place from the root (PS3.3 C.17.3.2.5)."""
    item = Dataset()
    item.RelationshipType = relationship.value
    item.ReferencedContentItemIdentifier = list(identifier)
    return item


def shape(name: Code, points: Sequence[tuple[float, float]], target: Sequence[int]) -> Any:
    """A SCOORD of (column, row) points, 0, 0 the first pixel's corner, on an image of the library (TID 4021).

    One point is a POINT, more are a POLYLINE.
    """
    kind = sr.GraphicTypeValues.POINT if len(points) == 1 else sr.GraphicTypeValues.POLYLINE
    item = sr.ScoordContentItem(
        name, kind, np.array(points, dtype=np.float64), relationship_type=PROPERTY
    )
    return with_children(item, [by_reference(target, SELECTED)])
