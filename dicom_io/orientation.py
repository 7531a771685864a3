"""Which side of the image the breast touches, and whether that agrees with the stated laterality.

As stored for reading, the chest wall of a left breast is at the left of the image (column 0) and that of a right
breast at the right (hanging protocols put the two back to back). Real objects disagree: the attribute may be wrong,
or the frames turned by half a turn. Where they disagree, the public benchmark of the Duke set flips rows and
columns; so do we.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Side = Literal["L", "R"]
Orientation = Literal["consistent", "flipped", "undecided"]

_EDGE = 8  # the outer eighth of the columns is looked at on either side
_LEAST = 0.05  # a breast covers at least this fraction of its edge
_RATIO = 1.25  # and this much more of it than of the other edge
_BINS = 64


def chest_wall_side(frame_HW: NDArray[Any]) -> Side | None:
    """The side of the image the breast touches: "L" (column 0), "R", or None where that cannot be told.

    `frame_HW` holds grey values with a dark background. The fraction of tissue at either edge is compared, not
    brightness, so that a burned-in label or a bright border does not outweigh a breast.
    """
    thinned = frame_HW[:: max(1, frame_HW.shape[0] // 512), :: max(1, frame_HW.shape[1] // 512)]
    tissue = _bright(thinned)
    if tissue is None:
        return None
    width = max(1, tissue.shape[1] // _EDGE)
    left, right = float(tissue[:, :width].mean()), float(tissue[:, -width:].mean())
    if max(left, right) < _LEAST or max(left, right) < _RATIO * min(left, right):
        return None
    return "L" if left > right else "R"


def _bright(frame_HW: NDArray[Any]) -> NDArray[np.bool_] | None:
    """Tissue against background by Otsu's threshold; None for a flat image.

    It is taken of logarithms, which bring labels and dense tissue close to the rest of the breast but leave air apart.
    """
    levels = np.log1p((frame_HW - np.percentile(frame_HW, 1)).clip(0))
    if levels.max() <= 0:
        return None
    counts, edges = np.histogram(levels, _BINS)
    below = np.cumsum(counts)[:-1]
    above = below[-1] + counts[-1] - below
    sums = np.cumsum(counts * (edges[:-1] + edges[1:]) / 2)
    with np.errstate(divide="ignore", invalid="ignore"):
        apart = below * above * (sums[:-1] / below - (sums[-1] - sums[:-1]) / above) ** 2
    mask: NDArray[np.bool_] = levels > edges[1 + int(np.nan_to_num(apart).argmax())]
    return mask


def judge(frame_HW: NDArray[Any], laterality: Side) -> Orientation:
    """Compare the image with its stated laterality; "undecided" counts as agreeing for whoever reads it."""
    side = chest_wall_side(frame_HW)
    if side is None:
        return "undecided"
    return "consistent" if side == laterality else "flipped"
