"""Where the breast is in an image: its mask and the crop around it, as published.

See `gmic.preprocess` for the steps and their source. Pure image work on one projection.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from gmic.errors import NoBreastError
from gmic.window import Box

THRESHOLD = 100
"""Voxels above it count as breast."""
EROSIONS = 100
BUFFER = 50
"""Pixels left around the breast, but for the chest wall's side."""


@dataclass(frozen=True)
class BreastCrop:
    """The crop around the breast, found in a projection turned so that the breast points right.

    Attributes:
        box: Crop with its buffer (pixels of the turned projection).
        rightmost_col: Foremost column of the breast below the upper third of the crop, relative
            to the crop. The upper third is left out because an armpit can reach further.
        bottommost_row: Lowest row of the breast, relative to the crop.
    """

    box: Box
    rightmost_col: int
    bottommost_row: int


def find_crop(projection_HW: NDArray[Any], threshold: float = THRESHOLD) -> BreastCrop:
    """Find the breast in a projection turned so that the breast points right.

    Raises:
        NoBreastError: No pixel lies above the threshold.
    """
    mask_HW = breast_mask(projection_HW, threshold)
    height, width = mask_HW.shape
    rows = np.flatnonzero(mask_HW.any(axis=1))
    cols = np.flatnonzero(mask_HW.any(axis=0))
    # The chest wall's side gets no buffer: beyond it there is nothing of the patient.
    row0, col0 = max(int(rows[0]) - BUFFER, 0), int(cols[0])
    row1, col1 = min(int(rows[-1]) + 1 + BUFFER, height), min(int(cols[-1]) + 1 + BUFFER, width)
    lower_part = mask_HW[row0 + (row1 - row0) // 3 : row1, col0:col1]
    if not lower_part.any():  # a sliver at the upper edge of the frame
        lower_part = mask_HW[row0:row1, col0:col1]
    rightmost_col = int(np.flatnonzero(lower_part.any(axis=0))[-1])
    return BreastCrop((row0, col0, row1, col1), rightmost_col, int(rows[-1]) - row0)


def breast_mask(projection_HW: NDArray[Any], threshold: float = THRESHOLD) -> NDArray[np.bool_]:
    """Mask of the breast, bool (H, W): the largest component after opening.

    One erosion takes away every pixel with a background pixel (or the frame's edge) above, below,
    left or right of it, so n erosions leave the pixels whose city-block distance to the background
    exceeds n; dilations likewise. A breast too thin for 100 erosions is opened by half of the most
    it can bear, which still rids it of everything half as thick.

    Raises:
        NoBreastError: No pixel lies above the threshold.
    """
    inside = projection_HW > threshold
    if not inside.any():
        raise NoBreastError(
            f"no voxel lies above the threshold {threshold:g}: the largest is "
            f"{float(projection_HW.max()):g}; is the image empty, or scaled to other values?"
        )
    filled = _fill_holes(inside)
    depth = _city_block_distance(filled)
    deepest = int(depth.max())
    erosions = EROSIONS if deepest > EROSIONS else deepest // 2
    core = _largest_component(depth > erosions)
    # The distance to the core: the complement's distance to its background.
    reach: NDArray[np.float32] = cv2.distanceTransform((~core).astype(np.uint8), cv2.DIST_L1, 3)
    mask: NDArray[np.bool_] = reach <= erosions
    return mask


def _fill_holes(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Everything the frame's outside cannot reach in steps up, down, left and right."""
    outside = np.pad(~mask, 1, constant_values=True).astype(np.uint8)
    labels: NDArray[np.int32] = cv2.connectedComponents(outside, connectivity=4)[1]
    filled: NDArray[np.bool_] = labels[1:-1, 1:-1] != labels[0, 0]
    return filled


def _city_block_distance(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Distance to the nearest pixel outside the mask; beyond the frame all is outside."""
    padded = np.pad(mask, 1).astype(np.uint8)
    distance: NDArray[np.float32] = cv2.distanceTransform(padded, cv2.DIST_L1, 3)
    return distance[1:-1, 1:-1]


def _largest_component(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=4)
    largest: NDArray[np.bool_] = labels == 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())
    return largest
