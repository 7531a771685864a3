"""What an image is like as it comes in, measured while it is in memory, for the page of drift. Pure.

Shapes: D slices, H rows, W columns of the volume as `dicom_io.dbt` gives it.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from dicom_io.dbt import MammogramImage
from node.input_quality import Measured

_SLICES = 8
_PIXELS_A_SLICE = 20_000
"""Enough for the quantiles of all pixels to a percent, and some milliseconds an image."""
_LENGTHS_MM = (1e-3, 1e3)
"""A spacing outside is a fault of the header, as good as none."""


def measure(
    image: MammogramImage, volume_DHW: NDArray[np.uint16], breast_HW: NDArray[np.bool_]
) -> Measured:
    """Spacing as the header says, and grey values inside the breast; see `Measured` for what they are.

    Args:
        image: whose header it is.
        volume_DHW: its grey values, dark background, C-contiguous, not standardised.
        breast_HW: where the breast is in the maximum over the slices; not empty.
    """
    rows, cols = image.spacing_mm or (math.nan, math.nan)
    low, middle, high = intensity(volume_DHW, breast_HW)
    return Measured(
        # Of square pixels their side; the roots first, for the product of two faults may be no number.
        pixel_spacing_mm=_length(math.sqrt(rows) * math.sqrt(cols)),
        slice_spacing_mm=_length(image.slice_spacing_mm or math.nan),
        intensity_p05=low,
        intensity_p50=middle,
        intensity_p95=high,
    )


def intensity(
    volume_DHW: NDArray[np.uint16], breast_HW: NDArray[np.bool_]
) -> tuple[float, float, float]:
    """The 5, 50 and 95 % quantiles of the grey values inside the breast.

    Of a stack, of up to 8 slices, each the middle of one of so many equal parts, so that the outermost ones are not
    among them; of each slice, of every so-many-th pixel of the breast, about 20,000. No chance is in it.
    """
    inside = np.flatnonzero(breast_HW)
    inside = inside[:: max(1, inside.size // _PIXELS_A_SLICE)]
    depth = len(volume_DHW)
    parts = min(depth, _SLICES)
    chosen = [(2 * part + 1) * depth // (2 * parts) for part in range(parts)]
    found = np.concatenate([volume_DHW[index].reshape(-1)[inside] for index in chosen])
    low, middle, high = np.quantile(found, (0.05, 0.5, 0.95)).tolist()
    return low, middle, high


def _length(mm: float) -> float | None:
    """Whole nanometres; None where it is no length that a mammogram could have."""
    shortest, longest = _LENGTHS_MM
    return round(mm, 6) if shortest <= mm <= longest else None
