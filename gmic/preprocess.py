"""From raw voxels to the standardised window the network reads.

The published steps (Wu et al. 2019, "Deep neural networks improve radiologists' performance in
breast cancer screening", III; used by the 3D-GMIC paper, IV-B.3), in this order:

1. Threshold the maximum over slices, fill holes, open by 100 erosions and dilations around the
   largest component: thin lines, labels and the frame's edge fall away.
2. Crop to that component with a buffer of 50 pixels on every side but the chest wall's.
3. Place the window where it covers most signal, while it still reaches the foremost point of the
   breast and, in oblique and lateral views, its lowest point.
4. Pad with zeros: rows on both sides, columns behind the breast's tip only.
5. Standardise the whole window, padding included: mean 0, standard deviation 1 over all slices.

Shapes: D slices, H rows, W columns of the source; h, w of the window; suffixes say which.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gmic.breast import THRESHOLD, find_crop
from gmic.errors import InputError
from gmic.window import Box, WindowTransform

WINDOW_SHAPE = (2116, 1339)
"""Rows and columns of the published tomosynthesis window (3D-GMIC paper, V-D.3)."""
FFDM_WINDOW_SHAPE = (2866, 1814)
"""The same for full-field digital mammograms, whose pixels are smaller: as much of the breast."""

LATERALITIES = ("L", "R")
CRANIOCAUDAL_VIEWS = ("CC", "XCC", "XCCL", "XCCM", "FB")
"""Views whose window must reach the foremost point of the breast only."""
LATERAL_VIEWS = ("MLO", "ML", "LM", "LMO", "SIO", "ISO", "AT")
"""Views that also show the fold below the breast, which the window must reach as well."""

_MIN_STD = np.float32(1e-5)
_GREATEST = 1e12
"""Sums of squares of a window of such values still fit float32; 64-bit DICOM values do not come near."""
_CHUNK = 1 << 18
"""Elements worked on at a time: 1 MiB of float32 stays in the cache."""


class Preprocessed(NamedTuple):
    """The window, float32 (D, h, w), C-contiguous, and where it lies in the source."""

    window_DHW: NDArray[np.float32]
    transform: WindowTransform


def preprocess(
    volume_DHW: NDArray[Any],
    laterality: str,
    view: str,
    *,
    window_shape: tuple[int, int] = WINDOW_SHAPE,
    threshold: float = THRESHOLD,
) -> Preprocessed:
    """Cut, pad and standardise the window the network reads.

    Beside the volume it needs the window, one projection and a few frames of memory.

    Args:
        volume_DHW: Raw voxels (slices, rows, columns) of any real type, bright tissue on a dark
            background, as stored: chest wall left for "L", right for "R".
        laterality: "L" or "R".
        view: "CC", "MLO" or one of `CRANIOCAUDAL_VIEWS` and `LATERAL_VIEWS`.
        window_shape: Rows and columns of the window (pixels).
        threshold: Voxels above it count as breast. The published value, 100, is meant for 10 to
            16 stored bits with background near zero.

    Raises:
        NoBreastError: No voxel lies above the threshold.
        InputError: Not a volume of finite real numbers, one without contrast, or an unknown laterality or view.
    """
    _check_arguments(volume_DHW, laterality, view, window_shape)
    flipped = laterality == "R"
    projection = max_projection(volume_DHW)
    turned = projection[:, ::-1] if flipped else projection
    crop = find_crop(turned, threshold)
    _check_values(volume_DHW, projection)
    row0, col0, row1, col1 = crop.box
    centre = best_centre(
        turned[row0:row1, col0:col1],
        window_shape,
        reach_row=crop.bottommost_row if view in LATERAL_VIEWS else 0,
        reach_col=crop.rightmost_col,
    )
    transform = place_window(volume_DHW.shape, window_shape, crop.box, centre, flipped)
    window_DHW = _cut(volume_DHW, transform)
    standardise(window_DHW)
    return Preprocessed(window_DHW, transform)


def _check_arguments(
    volume_DHW: NDArray[Any], laterality: str, view: str, window_shape: tuple[int, int]
) -> None:
    if not isinstance(volume_DHW, np.ndarray):
        raise InputError(f"volume is a {type(volume_DHW).__name__}; give a numpy array")
    if volume_DHW.ndim != 3 or volume_DHW.size == 0:
        raise InputError(
            f"volume is of shape {volume_DHW.shape}; give slices, rows and columns, none of them 0"
        )
    if volume_DHW.dtype.kind not in "uif":
        raise InputError(f"volume is of type {volume_DHW.dtype}; give real numbers")
    if laterality not in LATERALITIES:
        raise InputError(f"laterality is {laterality!r}; give 'L' or 'R'")
    if view not in CRANIOCAUDAL_VIEWS + LATERAL_VIEWS:
        known = ", ".join(CRANIOCAUDAL_VIEWS + LATERAL_VIEWS)
        raise InputError(f"view is {view!r}; give one of {known}")
    if min(window_shape) < 1:
        raise InputError(f"window_shape is {window_shape}; give two sizes above 0")


def _check_values(volume_DHW: NDArray[Any], projection_HW: NDArray[Any]) -> None:
    """Refuse what leaves nothing to read: padding would be the only contrast, or sums would overflow."""
    greatest = projection_HW.max()
    if greatest == projection_HW.min() and volume_DHW.min() == greatest:
        raise InputError(f"every voxel of the volume is {greatest:g}; give an image with contrast")
    for value in (greatest, volume_DHW.min() if volume_DHW.dtype.kind == "f" else 0):
        if abs(float(value)) > _GREATEST:
            raise InputError(
                f"a voxel of the volume is {value:g}; give stored values within {_GREATEST:g} of 0"
            )


def max_projection(volume_DHW: NDArray[Any]) -> NDArray[Any]:
    """Greatest value over the slices, (H, W), slice by slice.

    Raises:
        InputError: A voxel is not finite.
    """
    real = volume_DHW.dtype.kind == "f"
    projection: NDArray[Any] = volume_DHW[0].copy()
    for index, slice_hw in enumerate(volume_DHW):
        if real and not np.isfinite(slice_hw).all():
            raise InputError(
                f"slice {index} of the volume holds NaN or infinity; give finite voxels"
            )
        np.maximum(projection, slice_hw, out=projection)
    return projection


def best_centre(
    cropped_HW: NDArray[Any], window_shape: tuple[int, int], *, reach_row: int, reach_col: int
) -> tuple[int, int]:
    """Centre (row, column) of the window that covers the largest sum of the cropped projection.

    The window stays in the crop and ends no earlier than `reach_row` and `reach_col`. Among equal
    sums the centre nearest to the crop's wins, then the upper, then the left one. Along an axis
    where the crop is no longer than the window, the centre is the crop's.
    """
    height, width = cropped_HW.shape
    rows, cols = min(window_shape[0], height), min(window_shape[1], width)
    first_row, first_col = max(reach_row - rows, 0), max(reach_col - cols, 0)
    # Summing down, then across, and taking differences gives every window's sum; values this
    # large are exact in float64 for whole-number voxels.
    down = _window_sums(cropped_HW.astype(np.float64), rows)
    sums = _window_sums(down.T, cols).T[first_row:, first_col:]
    row_starts, col_starts = np.nonzero(sums == sums.max())
    centre_rows = row_starts + first_row + rows // 2
    centre_cols = col_starts + first_col + cols // 2
    away = (centre_rows - height // 2) ** 2 + (centre_cols - width // 2) ** 2
    nearest = int(away.argmin())
    return int(centre_rows[nearest]), int(centre_cols[nearest])


def _window_sums(values: NDArray[np.float64], length: int) -> NDArray[np.float64]:
    """Sums of `length` neighbouring rows, for every place where they fit."""
    total = np.pad(np.cumsum(values, axis=0), ((1, 0), (0, 0)))
    sums: NDArray[np.float64] = total[length:] - total[: len(total) - length]
    return sums


def place_window(
    source_shape: tuple[int, ...],
    window_shape: tuple[int, int],
    crop: Box,
    centre: tuple[int, int],
    flipped: bool,
) -> WindowTransform:
    """Window around the centre, kept inside the crop; padded where the crop is too small.

    Rows are padded on both sides, the odd one below; columns only behind the breast's tip, so
    that the chest wall stays at the window's left edge.
    """
    depth, height, width = source_shape
    starts, contents = [], []
    for axis, both_sides in ((0, True), (1, False)):
        size, available = window_shape[axis], crop[axis + 2] - crop[axis]
        if available < size:
            before = (size - available) // 2 if both_sides else 0
            start, content = -before, (before, before + available)
        else:
            start = min(max(centre[axis] - size // 2, 0), available - size)
            content = (0, size)
        starts.append(crop[axis] + start)
        contents.append(content)
    (top, bottom), (left, right) = contents
    return WindowTransform(
        source_shape=(depth, height, width),
        window_shape=(depth, *window_shape),
        row_offset=starts[0],
        col_offset=starts[1],
        flipped=flipped,
        content=(top, left, bottom, right),
    )


def _cut(volume_DHW: NDArray[Any], transform: WindowTransform) -> NDArray[np.float32]:
    """Copy the window's pixels out of the source as float32; padding is zero."""
    window_DHW = np.zeros(transform.window_shape, dtype=np.float32)
    top, left, bottom, right = transform.content
    row0, col0, row1, col1 = transform.box_to_source(*transform.content)
    part_DHW = volume_DHW[:, row0:row1, col0:col1]
    if transform.flipped:
        part_DHW = part_DHW[:, :, ::-1]
    window_DHW[:, top:bottom, left:right] = part_DHW
    return window_DHW


def standardise(window_DHW: NDArray[np.float32]) -> None:
    """Shift and scale a C-contiguous float32 array in place to mean 0 and standard deviation 1.

    Mean and deviation are float32 and summed by halves, in the order of `numpy.mean` and
    `numpy.std` on the whole array, because the published windows were made with these: any other
    order, a more exact one included, changes last digits. No copy of the window is made.
    """
    flat = window_DHW.reshape(-1)
    mean = np.float32(_sum_by_halves(flat, None) / flat.size)
    variance = np.float32(_sum_by_halves(flat, mean) / flat.size)
    deviation = max(np.sqrt(variance), _MIN_STD)
    for start in range(0, flat.size, _CHUNK):
        chunk = flat[start : start + _CHUNK]
        chunk -= mean
        chunk /= deviation


def _sum_by_halves(flat: NDArray[np.float32], mean: np.float32 | None) -> np.float64:
    """Sum of the values or, given their mean, of their squared deviations.

    The value is a float32 sum; it comes as float64 so that the division by the count is rounded
    once. Halves start at multiples of eight, as numpy's own pairwise summation splits them.
    """
    if flat.size <= _CHUNK:
        if mean is None:
            return np.float64(flat.sum())
        deviations = flat - mean
        deviations *= deviations
        return np.float64(deviations.sum())
    half = flat.size // 2
    half -= half % 8
    left, right = _sum_by_halves(flat[:half], mean), _sum_by_halves(flat[half:], mean)
    return np.float64(np.float32(left) + np.float32(right))
