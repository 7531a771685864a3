"""Which patches to look at: `retrieve_roi_from_3d_image` (paper, Algorithm 1), without its sampling
in training (`gmic.train.jitter`). Pure numpy: picks do not depend on the device, and carry no gradient.

Shapes: C classes, D slices, h and w cells of the saliency map, H and W pixels, K patches.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


class Picks(NamedTuple):
    """K places on the map, in the order of picking."""

    slices_K: IntArray
    cells_K2: IntArray
    """Upper left cell of each window: row, column."""
    scores_K: FloatArray
    """Mean of A* over each window when it was picked, in [0, 2]; 0 once nothing was left to pick."""


def window_cells(
    patch_size: int, pixels: tuple[int, int], cells: tuple[int, int]
) -> tuple[int, int]:
    """Rows and columns of cells that a patch covers (Algorithm 1, line 6): at least one, at most all."""
    rows, cols = (
        min(max(round(patch_size * n / extent), 1), n)
        for n, extent in zip(cells, pixels, strict=True)
    )
    return rows, cols


def combined_saliency(saliency_CDhw: FloatArray) -> FloatArray:
    """A*: each class scaled to [0, 1] over the whole volume, then summed (lines 2 to 5): (D, h, w).

    A class that is constant over the volume has nothing to say about where to look and adds nothing
    (scaling it would divide 0 by 0).
    """
    total = np.zeros(saliency_CDhw.shape[1:])
    for class_Dhw in saliency_CDhw:
        low, high = class_Dhw.min(), class_Dhw.max()
        if high > low:
            total += (class_Dhw - low) / (high - low)
    return total


def window_sums(map_Dhw: FloatArray, window: tuple[int, int]) -> FloatArray:
    """Sum of every window of `window` cells: (D, h - rows + 1, w - cols + 1).

    Sums are made by adding, never by subtracting running totals, so cleared cells sum to exactly 0.
    """
    rows, cols = window
    n_rows, n_cols = map_Dhw.shape[1] - rows + 1, map_Dhw.shape[2] - cols + 1
    tall = np.zeros((len(map_Dhw), n_rows, map_Dhw.shape[2]))
    for i in range(rows):
        tall += map_Dhw[:, i : i + n_rows]
    sums = np.zeros((len(map_Dhw), n_rows, n_cols))
    for j in range(cols):
        sums += tall[:, :, j : j + n_cols]
    return sums


def pick_windows(
    map_Dhw: FloatArray,
    window: tuple[int, int],
    num_patches: int,
    slice_margin: int,
    positions_D: IntArray | None = None,
) -> Picks:
    """Greedily take the window with the most saliency, K times (lines 8 to 17).

    A pick clears its cells in its own slice and in `slice_margin` slices on either side. Of windows
    with the same sum the first wins: lowest slice, then row, then column. Where the map holds some
    of a volume's slices only, `positions_D` says which, and the margin is counted in the volume's.

    When no saliency is left, the remaining picks score 0 and all fall on slice 0, row 0, column 0,
    as this rule makes them. The published model does the same and its attention counts each of
    them, so its predictions depend on them; they are kept to give the same predictions, and the
    score tells them from places that were really picked (`GMIC3D.patch_boxes` leaves them out).
    """
    left = map_Dhw.copy()
    positions_D = np.arange(len(map_Dhw)) if positions_D is None else positions_D
    picked = []
    for _ in range(num_patches):
        sums = window_sums(left, window)
        best = int(sums.argmax())
        d, row, col = (int(i) for i in np.unravel_index(best, sums.shape))
        picked.append((d, row, col, float(sums.flat[best])))
        near = np.abs(positions_D - positions_D[d]) <= slice_margin
        left[near, row : row + window[0], col : col + window[1]] = 0.0
    places = np.array([p[:3] for p in picked], dtype=np.int64)
    scores = np.array([p[3] for p in picked]) / (window[0] * window[1])
    return Picks(places[:, 0], places[:, 1:], scores)


def patch_corners(cells_K2: IntArray, pixels: tuple[int, int], cells: tuple[int, int]) -> IntArray:
    """Upper left pixel of each patch (line 10): cell / cells * pixels, halves to even: (K, 2)."""
    corners = cells_K2 / np.array(cells) * np.array(pixels)
    return np.asarray(np.round(corners), dtype=np.int64)


def crop_patch(slice_HW: Tensor, corner: tuple[int, int], patch_size: int) -> Tensor:
    """The patch whose upper left pixel is `corner`: (patch_size, patch_size).

    A patch that leaves the image keeps its pixels at its lower right and is filled with the slice's
    minimum above and to the left.
    """
    row, col = corner
    part = slice_HW[row : row + patch_size, col : col + patch_size]
    above, before = patch_size - part.shape[0], patch_size - part.shape[1]
    if not above and not before:
        return part
    fill = slice_HW.detach().min()
    patch = fill.expand(patch_size, patch_size).clone()
    patch[above:, before:] = part
    return patch
