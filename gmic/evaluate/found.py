"""The places a model found in a volume, as boxes: from patches and saliency to what FROC compares."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gmic.evaluate.froc import LEAST_REACH, SLICE_SHARE, Prediction, Volume
from gmic.evaluate.localisation import LesionBox
from gmic.geometry import PatchBox, ReceptiveField
from gmic.window import WindowTransform


class FoundBox(NamedTuple):
    """A suspicious place in one slice: half-open, in the rows and columns of the volume."""

    slice_index: int
    row0: int
    col0: int
    row1: int
    col1: int
    score: float
    """Highest saliency of either class in the box, in [0, 1)."""

    def prediction(self, volume: Volume) -> Prediction:
        """The same as the benchmark's tables have it: one slice deep."""
        return Prediction(
            volume,
            x=self.col0,
            width=self.col1 - self.col0,
            y=self.row0,
            height=self.row1 - self.row0,
            z=self.slice_index,
            depth=1,
            score=self.score,
        )


def boxes_of(
    patches: Sequence[PatchBox],
    saliency_CDhw: NDArray[np.floating],
    field: ReceptiveField,
    transform: WindowTransform,
) -> list[FoundBox]:
    """The patches as boxes of the volume, each with the highest saliency of the cells centred in it.

    A patch without a cell's centre, or in the padding altogether, gives no box.
    """
    rows = np.array(field.cell_centres(saliency_CDhw.shape[2]))
    cols = np.array(field.cell_centres(saliency_CDhw.shape[3]))
    found = []
    for patch in patches:
        inside_rows = (rows >= patch.row0) & (rows < patch.row1)
        inside_cols = (cols >= patch.col0) & (cols < patch.col1)
        cells = saliency_CDhw[:, patch.slice_index][:, inside_rows][:, :, inside_cols]
        box = transform.box_to_source(patch.row0, patch.col0, patch.row1, patch.col1)
        if cells.size and box[0] < box[2] and box[1] < box[3]:
            found.append(FoundBox(patch.slice_index, *box, score=float(cells.max())))
    return found


def strongest(found: Sequence[FoundBox], slices: int) -> tuple[FoundBox, ...]:
    """Boxes by score, without those whose centre lies near that of a higher one.

    Near is what the benchmark calls the same place: `LEAST_REACH` pixels and a quarter of the slices.
    """
    kept: list[FoundBox] = []
    for box in sorted(found, key=lambda each: -each.score):
        if not any(
            _apart(box, other) <= LEAST_REACH
            and abs(box.slice_index - other.slice_index) <= slices * SLICE_SHARE
            for other in kept
        ):
            kept.append(box)
    return tuple(kept)


def _apart(one: FoundBox, other: FoundBox) -> float:
    down = one.row0 + one.row1 - other.row0 - other.row1
    across = one.col0 + one.col1 - other.col0 - other.col1
    return math.hypot(down, across) / 2


def to_window(box: LesionBox, transform: WindowTransform) -> LesionBox:
    """A half-open box of the volume in window pixels; it may leave the window."""
    row0, col0 = transform.to_window(box.row0, box.col0)
    row1, col1 = transform.to_window(box.row1 - 1, box.col1 - 1)
    col0, col1 = min(col0, col1), max(col0, col1)
    return LesionBox(box.slice0, row0, col0, box.slice1, row1 + 1, col1 + 1)
