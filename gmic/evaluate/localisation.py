"""Whether a model looks at the lesion: its most salient cell, and its first patch.

A lesion is a half-open box in slices and window pixels. Nothing here needs the lesion's outline.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gmic.errors import DataError
from gmic.geometry import PatchBox, ReceptiveField


class LesionBox(NamedTuple):
    """A lesion's extent, half-open; rows and columns in window pixels."""

    slice0: int
    row0: int
    col0: int
    slice1: int
    row1: int
    col1: int

    @classmethod
    def around(cls, mask_DHW: NDArray[np.bool_]) -> LesionBox:
        """The smallest box around a mask.

        Raises:
            DataError: An empty mask, or not (D, H, W).
        """
        if mask_DHW.ndim != 3 or not mask_DHW.any():
            raise DataError(f"mask of shape {mask_DHW.shape} marks no voxel of a volume (D, H, W)")
        places = np.nonzero(mask_DHW)
        return cls(*(int(p.min()) for p in places), *(int(p.max()) + 1 for p in places))

    def has_slice(self, index: int, margin: int = 0) -> bool:
        """Whether a slice shows the lesion, or is at most `margin` slices from one that does."""
        return self.slice0 - margin <= index < self.slice1 + margin


class Peak(NamedTuple):
    """The most salient cell of a map; the first of equal ones."""

    slice_index: int
    row: float
    """Centre of its receptive field (window pixels)."""
    col: float
    value: float
    rows: tuple[int, int]
    """Window pixels that the cell owns, half-open."""
    cols: tuple[int, int]


def find_peak(
    saliency_Dhw: NDArray[np.floating], field: ReceptiveField, window: tuple[int, int]
) -> Peak | None:
    """The most salient cell of one class; None where no cell is above 0.

    Args:
        saliency_Dhw: Saliency of one class.
        field: Where the cells lie.
        window: Rows and columns of the window (pixels).

    Raises:
        DataError: Not (D, h, w), or not finite.
    """
    if saliency_Dhw.ndim != 3 or not saliency_Dhw.size or not np.isfinite(saliency_Dhw).all():
        raise DataError(f"saliency of shape {saliency_Dhw.shape}; give finite values (D, h, w)")
    d, i, j = (int(n) for n in np.unravel_index(saliency_Dhw.argmax(), saliency_Dhw.shape))
    if saliency_Dhw[d, i, j] <= 0:
        return None
    _, n_rows, n_cols = saliency_Dhw.shape
    return Peak(
        d,
        field.cell_centre(i),
        field.cell_centre(j),
        float(saliency_Dhw[d, i, j]),
        field.cell_span(i, n_rows, window[0]),
        field.cell_span(j, n_cols, window[1]),
    )


def peak_on_lesion(peak: Peak | None, lesions: Sequence[LesionBox], slice_margin: int = 0) -> bool:
    """Whether the cell owns a pixel of a lesion's box, in a slice of that lesion.

    A cell is all that saliency can tell apart: the box of a lesion smaller than a cell may lie
    between two centres, so it is the cell's pixels that must touch it, and not its centre alone.
    """
    return peak is not None and any(
        lesion.has_slice(peak.slice_index, slice_margin)
        and peak.rows[0] < lesion.row1
        and lesion.row0 < peak.rows[1]
        and peak.cols[0] < lesion.col1
        and lesion.col0 < peak.cols[1]
        for lesion in lesions
    )


def peak_distance(peak: Peak, lesion: LesionBox) -> float:
    """Distance in the slice plane from the cell's centre to the box (pixels); 0 inside."""
    down = max(lesion.row0 - peak.row, 0.0, peak.row - (lesion.row1 - 1))
    across = max(lesion.col0 - peak.col, 0.0, peak.col - (lesion.col1 - 1))
    return float(np.hypot(down, across))


def patch_on_lesion(
    patch: PatchBox, lesions: Sequence[LesionBox], slice_margin: int = 0, least_share: float = 0.5
) -> bool:
    """Whether a patch covers a lesion: at least `least_share` of its box, in one of its slices."""
    return any(
        lesion.has_slice(patch.slice_index, slice_margin)
        and covered_share(patch, lesion) >= least_share
        for lesion in lesions
    )


def covered_share(patch: PatchBox, lesion: LesionBox) -> float:
    """Share of the lesion's box, in rows and columns, that the patch covers, in [0, 1]."""
    rows = min(patch.row1, lesion.row1) - max(patch.row0, lesion.row0)
    cols = min(patch.col1, lesion.col1) - max(patch.col0, lesion.col0)
    area = (lesion.row1 - lesion.row0) * (lesion.col1 - lesion.col0)
    return max(rows, 0) * max(cols, 0) / area if area else 0.0
