"""Segmentations that readers drew (PS3.3 A.51, BINARY or FRACTIONAL): which lesion, on which frames of which image.

A stored frame is taken where it names the one frame it was drawn on (Derivation Image Sequence); position in the
patient is not consulted. One frame is unpacked at a time. No message repeats text of the object: a reader may have
written a name anywhere.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from highdicom.seg import Segmentation
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.sr.coding import Code
from pydicom.uid import SegmentationStorage

from dicom_io.errors import InvalidDrawing
from dicom_io.findings import Label
from dicom_io.header import item, items, text
from dicom_io.outline import Mask, Outline
from dicom_io.result_codes import CLASSES

FRACTION = 0.5
"""Share of a pixel from which a FRACTIONAL segment holds it."""
_UNREADABLE = (AttributeError, EOFError, LookupError, TypeError, ValueError, sqlite3.Error)
"""What highdicom raises on an object that breaks the rules; it keeps its index of frames in SQLite."""
_TYPES = ("BINARY", "FRACTIONAL")
_MEANINGS = ("SegmentedPropertyCategoryCodeSequence", "SegmentedPropertyTypeCodeSequence")
_MODIFIER = "SegmentedPropertyTypeModifierCodeSequence"


@dataclass(frozen=True)
class DrawnSegment:
    """One segment on one image. `problem` says why it cannot be used; without one there is an outline.

    `label` is None where the segment's property says neither benign nor malignant. `numbered` is False where a frame
    was named by its image alone, which says which frame only for an image of one.
    """

    segment: int
    sop_uid: str | None
    label: Label | None = None
    outline: Outline | None = None
    numbered: bool = True
    problem: str = ""


@dataclass(frozen=True)
class DrawnObject:
    """A segmentation object: its own UID, the shape of its frames, what is drawn in it."""

    sop_uid: str
    shape: tuple[int, int]
    drawings: tuple[DrawnSegment, ...]


class _Place(NamedTuple):
    sop_uid: str
    frame: int | None
    """Stored, from 0."""


def read_drawn(path: Path) -> DrawnObject:
    """Read a segmentation object.

    Raises:
        InvalidDrawing: no such object, or one that cannot be read.
        OSError: from the disk.
    """
    try:
        dataset = dcmread(path)
        if dataset.get("SOPClassUID") != SegmentationStorage:
            raise InvalidDrawing("it is no DICOM Segmentation; give one that a reader drew")
        seg = Segmentation.from_dataset(dataset, copy=False)
        if seg.SegmentationType not in _TYPES:
            raise InvalidDrawing(
                f"it is of type {seg.SegmentationType}; export it as {' or '.join(_TYPES)}"
            )
        shape = (int(seg.Rows), int(seg.Columns))
        frames = _frames(seg)
        found = [one for s in seg.SegmentSequence for one in _drawings(seg, s, frames)]
    except InvalidDrawing:
        raise
    except InvalidDicomError:
        raise InvalidDrawing("it is no DICOM file; give a Segmentation object") from None
    except _UNREADABLE as error:
        raise InvalidDrawing(
            f"it cannot be read as a Segmentation ({type(error).__name__}); export it again"
        ) from error
    return DrawnObject(str(seg.SOPInstanceUID), shape, tuple(found))


def _frames(seg: Dataset) -> dict[int, list[tuple[int, list[_Place]]]]:
    """Stored frames (from 1) of each segment, and the places each says it was drawn on."""
    shared = item(seg, "SharedFunctionalGroupsSequence")
    found: dict[int, list[tuple[int, list[_Place]]]] = {}
    for number, own in enumerate(items(seg, "PerFrameFunctionalGroupsSequence"), 1):
        named = item(own, "SegmentIdentificationSequence") or item(
            shared, "SegmentIdentificationSequence"
        )
        if not named:
            raise InvalidDrawing(f"its frame {number} names no segment; export it again")
        places = sorted(set(_places(own)) or set(_places(shared)), key=str)
        found.setdefault(int(named.ReferencedSegmentNumber), []).append((number, places))
    return found


def _places(groups: Dataset) -> Iterator[_Place]:
    for derivation in items(groups, "DerivationImageSequence"):
        for source in items(derivation, "SourceImageSequence"):
            uid, numbers = str(source.ReferencedSOPInstanceUID), source.get("ReferencedFrameNumber")
            if numbers is None:
                yield _Place(uid, None)
            else:
                for number in numbers if hasattr(numbers, "__iter__") else [numbers]:
                    yield _Place(uid, int(number) - 1)


def _drawings(
    seg: Segmentation, segment: Dataset, frames: dict[int, list[tuple[int, list[_Place]]]]
) -> Iterator[DrawnSegment]:
    """One drawing for each image that a segment lies on; one with a problem where that cannot be told."""
    number = int(segment.SegmentNumber)
    if text(segment, "SegmentAlgorithmType") == "AUTOMATIC":
        why = "an algorithm made it; what a model is measured by is drawn by readers"
        yield DrawnSegment(number, None, problem=why)
        return
    stored = frames.get(number, [])
    lost = next((n for n, places in stored if len(places) != 1), None)
    if lost is not None or not stored:
        why = "it has no frame" if lost is None else f"frame {lost} does not name one source frame"
        yield DrawnSegment(
            number, None, problem=f"{why} (Derivation Image Sequence); export it with it"
        )
        return
    for uid in sorted({places[0].sop_uid for _, places in stored}):
        here = [(n, places[0].frame) for n, places in stored if places[0].sop_uid == uid]
        try:
            outline = Outline.of(_masks(seg, here))
        except InvalidDrawing as error:
            yield DrawnSegment(number, uid, problem=f"{error}; draw it again, or leave it out")
            continue
        numbered = all(frame is not None for _, frame in here)
        yield DrawnSegment(number, uid, _label(segment), outline, numbered)


def _masks(seg: Segmentation, frames: list[tuple[int, int | None]]) -> dict[int, Mask]:
    """Masks (H, W) by source frame; two stored frames on one source frame are joined."""
    fractional = seg.SegmentationType == "FRACTIONAL"
    least = FRACTION * int(seg.MaximumFractionalValue) if fractional else 1
    masks: dict[int, Mask] = {}
    for number, frame in frames:
        mask_HW = np.asarray(seg.get_stored_frame(number)) >= least
        if mask_HW.any():
            place = frame or 0
            masks[place] = masks[place] | mask_HW if place in masks else mask_HW
    return masks


def _label(segment: Dataset) -> Label | None:
    """What the property's codes say: one of `dicom_io.result_codes.CLASSES`, anywhere in them; both say nothing."""
    codes = [code for keyword in _MEANINGS for code in items(segment, keyword)]
    codes += [modifier for code in codes for modifier in items(code, _MODIFIER)]
    said = {
        label
        for code in codes
        for label, known in CLASSES.items()
        if Code(text(code, "CodeValue"), text(code, "CodingSchemeDesignator"), "-") == known
    }
    return said.pop() if len(said) == 1 else None
