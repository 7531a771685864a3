"""Two scores that know nothing of lesions but that they are bright blobs.

When these tell breasts with lesions from others, a phantom is too easy to prove anything.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

BASELINES = ("smoothed maximum", "difference of Gaussians")


def baseline_scores(volume_DHW: NDArray[np.float32], radius: float) -> tuple[float, float]:
    """Smoothed maximum and greatest difference of Gaussians of a standardised window.

    Args:
        volume_DHW: The window.
        radius: Mean radius of a lesion (pixels), which decides the widths.
    """
    brightest, blob = -np.inf, -np.inf
    for slice_HW in volume_DHW:
        narrow, wide = (cv2.GaussianBlur(slice_HW, (0, 0), radius * by) for by in (0.6, 1.2))
        # The skin and the muscle's edge are bright everywhere: look at the breast's inside.
        inside = cv2.erode((slice_HW > -0.2).astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
        if inside.any():
            brightest = max(brightest, float(narrow[inside].max()))
            blob = max(blob, float((narrow - wide)[inside].max()))
    return brightest, blob
