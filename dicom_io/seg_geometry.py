"""Where the frames of a source lie in the patient, as far as its header can be believed.

A segmentation may claim the geometry of its source only where every frame has one. Real headers lack a frame of
reference, repeat one position in every frame, leave out the pixel spacing, or describe more frames than they hold.
Then the segmentation makes no claim at all: each of its frames names the source frame it lies on, pixel for pixel
(Derivation Image, Spatial Locations Preserved YES), and that is enough to draw it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.valuerep import format_number_as_ds

from dicom_io.findings import SourceRef
from dicom_io.header import item, items, numbers, text

# Planes nearer than this along the normal are one plane: far below the thinnest slice in use.
_SAME_PLANE_MM = 0.01
# Direction cosines that differ by less are one direction, rounded differently.
_PARALLEL = 1e-4


@dataclass(frozen=True)
class PatientGeometry:
    """Planes of a source in its frame of reference (PS3.3 C.7.6.2, C.7.6.16.2).

    `positions_mm` is (F, 3), the centre of each frame's first pixel; `orientation` the six direction cosines that
    all frames share; `measures` a Pixel Measures item; `rank` (F,) the place of each frame along the normal.
    """

    frame_of_reference_uid: str
    position_reference_indicator: str
    orientation: tuple[float, ...]
    positions_mm: NDArray[np.float64]
    rank: NDArray[np.int64]
    measures: Dataset


@dataclass(frozen=True)
class NoGeometry:
    """The source's geometry cannot be copied; `reason` is a plain clause."""

    reason: str


def read_geometry(source: SourceRef) -> PatientGeometry | NoGeometry:
    """The geometry of every frame of `source`, or why there is none. Never raises on what a header holds."""
    uid = text(source.header, "FrameOfReferenceUID")
    if not uid:
        return NoGeometry("the source has no Frame of Reference UID")
    groups = _frame_groups(source)
    if groups is None:
        described = len(items(source.header, "PerFrameFunctionalGroupsSequence"))
        return NoGeometry(f"the source describes {described} frames and holds {source.frame_count}")
    positions = [
        _numbers(group, "PlanePositionSequence", "ImagePositionPatient", 3) for group in groups
    ]
    cosines = [
        _numbers(group, "PlaneOrientationSequence", "ImageOrientationPatient", 6)
        for group in groups
    ]
    if not all(positions) or not all(cosines):
        return NoGeometry("the source lacks the position or orientation of a frame")
    if not np.allclose(cosines, cosines[0], rtol=0, atol=_PARALLEL):
        return NoGeometry("the source's frames are not parallel")
    measures = pixel_measures(source)
    if measures is None:
        return NoGeometry("the source has no pixel spacing")
    positions_mm = np.array(positions, dtype=np.float64)
    rank = _ranks(positions_mm, np.array(cosines[0]))
    if rank is None:
        return NoGeometry("frames of the source share one position")
    indicator = text(source.header, "PositionReferenceIndicator")
    return PatientGeometry(uid, indicator, cosines[0], positions_mm, rank, measures)


def pixel_measures(source: SourceRef) -> Dataset | None:
    """A Pixel Measures item valid for every frame; None where spacing is unknown or differs between frames.

    Imager Pixel Spacing of a projection image is measured at the detector, not in the patient, so it is not used.
    """
    groups = _frame_groups(source)
    if not groups:
        return None
    spacings = {_numbers(group, "PixelMeasuresSequence", "PixelSpacing", 2) for group in groups}
    spacing = spacings.pop()
    if spacings or not spacing or min(spacing) <= 0:
        return None
    measures = Dataset()
    measures.PixelSpacing = decimal_strings(spacing)
    for keyword in ("SliceThickness", "SpacingBetweenSlices"):
        given = numbers(item(groups[0], "PixelMeasuresSequence"), keyword)
        if given:
            setattr(measures, keyword, format_number_as_ds(given[0]))
    return measures


def decimal_strings(values: Iterable[float]) -> list[str]:
    """Numbers as Decimal Strings of at most 16 characters (PS3.5 6.2): as given where that fits, else rounded."""
    return [format_number_as_ds(float(value)) for value in values]


def _frame_groups(source: SourceRef) -> list[Dataset] | None:
    """Per frame a data set that holds the functional groups; None where descriptions and frames do not pair up.

    A per-frame item wins over the shared one (PS3.3 C.7.6.16.1); a single-frame image, or slice, is its own group.
    """
    if source.slices:
        return [_single_frame_group(header) for header in source.slices]
    per_frame = items(source.header, "PerFrameFunctionalGroupsSequence")
    shared = item(source.header, "SharedFunctionalGroupsSequence")
    if not per_frame and not shared:
        return [_single_frame_group(source.header)] if source.frame_count == 1 else None
    if len(per_frame) != source.frame_count:
        return None
    return [_merged(shared, own) for own in per_frame]


def _single_frame_group(header: Dataset) -> Dataset:
    """The plane modules of a single-frame image in the form of functional groups."""
    group = Dataset()
    for sequence in ("PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence"):
        setattr(group, sequence, [header])
    return group


def _merged(shared: Dataset, own: Dataset) -> Dataset:
    group = Dataset()
    for sequence in ("PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence"):
        entries = items(own, sequence) or items(shared, sequence)
        if entries:
            setattr(group, sequence, entries[:1])
    return group


def _numbers(group: Dataset, sequence: str, keyword: str, count: int) -> tuple[float, ...]:
    """`count` finite numbers of the first item of a functional group, or an empty tuple."""
    found = numbers(item(group, sequence), keyword)
    return found if len(found) == count else ()


def _ranks(
    positions_mm: NDArray[np.float64], cosines: NDArray[np.float64]
) -> NDArray[np.int64] | None:
    """Place of each frame along the normal, counted from 1; None where two frames lie in one plane."""
    distance = positions_mm @ np.cross(cosines[:3], cosines[3:])
    order = np.argsort(distance, kind="stable")
    if np.any(np.diff(distance[order]) < _SAME_PLANE_MM):
        return None
    rank = np.empty(len(distance), dtype=np.int64)
    rank[order] = np.arange(1, len(distance) + 1)
    return rank
