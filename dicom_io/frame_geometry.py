"""Spacing, positions and order of the frames of a breast image, as far as the header tells them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from dicom_io.header import item, items, numbers

_SAME_PLANE_MM = 0.01


@dataclass(frozen=True)
class FrameGeometry:
    """Millimetres, and 0-based stored frames. What the header does not tell is None.

    `positions_mm` lie along the normal, one for every stored frame; `source_frames` is the stored frame of every slice.
    """

    spacing_mm: tuple[float, float] | None
    slice_spacing_mm: float | None
    slice_thickness_mm: float | None
    positions_mm: tuple[float, ...] | None
    duplicate_positions: bool
    source_frames: tuple[int, ...]


def frame_geometry(dataset: Dataset, count: int) -> FrameGeometry:
    """Read the geometry of `count` stored frames (PS3.3 C.7.6.16).

    Per-frame items are believed only where there are as many as frames. Slices are put in the order of their
    positions along the normal; where those are missing or repeated, of In-Stack Position Number; else as stored. The
    order runs the way most of the stored frames run, so that a well-ordered object is left as it is.
    """
    shared = item(dataset, "SharedFunctionalGroupsSequence")
    frames = items(dataset, "PerFrameFunctionalGroupsSequence")
    frames = frames if len(frames) == count else []
    first = frames[0] if frames else Dataset()
    measures = [item(group, "PixelMeasuresSequence") for group in (shared, first)] + [dataset]
    positions = _positions(shared, frames)
    repeated = (
        positions is not None
        and count > 1
        and bool(np.diff(np.sort(positions)).min() < _SAME_PLANE_MM)
    )
    order_by = positions if positions is not None and not repeated else _stack_places(frames)
    gap = (
        float(np.median(np.diff(np.sort(positions))))
        if positions is not None and count > 1 and not repeated
        else None
    )
    return FrameGeometry(
        spacing_mm=_spacing(measures, dataset),
        slice_spacing_mm=_first_positive(measures, "SpacingBetweenSlices") or gap,
        slice_thickness_mm=_first_positive(measures, "SliceThickness"),
        positions_mm=None if positions is None else tuple(positions.tolist()),
        duplicate_positions=repeated,
        source_frames=tuple(range(count)) if order_by is None else ordered(order_by),
    )


def _spacing(measures: list[Dataset], dataset: Dataset) -> tuple[float, float] | None:
    """(between rows, between columns): Pixel Spacing, else Imager Pixel Spacing brought to the breast's plane."""
    for source in measures:
        if len(found := numbers(source, "PixelSpacing")) == 2 and min(found) > 0:
            return found[0], found[1]
    found = numbers(dataset, "ImagerPixelSpacing")
    if len(found) != 2 or min(found) <= 0:
        return None
    magnification = _first_positive([dataset], "EstimatedRadiographicMagnificationFactor") or 1.0
    return found[0] / magnification, found[1] / magnification


def _first_positive(sources: list[Dataset], keyword: str) -> float | None:
    return next(
        (found[0] for source in sources if (found := numbers(source, keyword)) and found[0] > 0),
        None,
    )


def _positions(shared: Dataset, frames: list[Dataset]) -> NDArray[np.float64] | None:
    """Distance of every frame along the normal of the first, or None where a frame does not say."""
    found = []
    normal: NDArray[np.float64] | None = None
    for frame in frames:
        orientation = item(frame, "PlaneOrientationSequence") or item(
            shared, "PlaneOrientationSequence"
        )
        axes = numbers(orientation, "ImageOrientationPatient")
        corner = numbers(item(frame, "PlanePositionSequence"), "ImagePositionPatient")
        if len(axes) != 6 or len(corner) != 3:
            return None
        normal = np.cross(axes[:3], axes[3:]) if normal is None else normal
        found.append(float(np.dot(normal, corner)))
    return np.array(found) if found else None


def _stack_places(frames: list[Dataset]) -> NDArray[np.float64] | None:
    places = [
        numbers(item(frame, "FrameContentSequence"), "InStackPositionNumber") for frame in frames
    ]
    values = [place[0] for place in places if place]
    return np.array(values) if values and len(set(values)) == len(frames) else None


def ordered(places: NDArray[np.float64]) -> tuple[int, ...]:
    """Indices of `places` (one a frame) in spatial order, in the direction in which most of the frames run already."""
    order = np.argsort(places, kind="stable")
    runs_down = float(np.sum(np.diff(order) > 0)) < (len(order) - 1) / 2
    return tuple(int(index) for index in (order[::-1] if runs_down else order))
