"""Random shifting and resizing, in training and at test time (paper, V-D.3).

Chance is drawn first, as a `Shift`; `apply` then does what it says, the same every time, slice by
slice when a slice is asked for. All slices of a volume move alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from gmic.errors import ConfigError
from gmic.volume import SliceSource

REACH = 100
"""Furthest that anything moves in a full window (pixels)."""

FULL_ROWS = 2116
"""Rows of the window that `REACH` is meant for (tomosynthesis)."""


@dataclass(frozen=True)
class Shift:
    """How a window is moved; the default leaves it as it is.

    Attributes:
        rows: The image moves down by this many pixels, up when negative.
        cols: The same to the right.
        growth: The image's longer side becomes this many pixels longer about the window's centre,
            the other in proportion; shorter when negative.
    """

    rows: float = 0.0
    cols: float = 0.0
    growth: float = 0.0


def reach(window_shape: Sequence[int]) -> float:
    """Furthest that anything moves in a window of these rows and columns (pixels).

    100 pixels from the full tomosynthesis window on (the paper uses 100 for FFDM too), less in
    proportion in a smaller one.
    """
    return REACH * min(1.0, window_shape[-2] / FULL_ROWS)


def draw(rng: np.random.Generator, window_shape: Sequence[int]) -> Shift:
    """A random `Shift` for a window; each part is uniform in [-reach, reach].

    Args:
        rng: Three numbers are drawn from it.
        window_shape: Its last two are rows and columns, so the shape of a volume will do.
    """
    most = reach(window_shape)
    rows, cols, growth = rng.uniform(-most, most, 3).tolist()
    return Shift(rows, cols, growth)


def apply(volume_DHW: SliceSource, shift: Shift) -> SliceSource:
    """`volume_DHW` moved by `shift`, as slices of the same size that are made when asked for.

    Pixels are interpolated bilinearly; what lies outside the volume takes its slice's minimum. The
    default `Shift` gives the volume itself back, whole pixels without growth copy values exactly.

    Raises:
        ConfigError: The shift would shrink the image to nothing.
    """
    if shift == Shift():
        return volume_DHW
    return _Moved(volume_DHW, shift)


class _Moved:
    """The slices of a volume, each moved when it is asked for."""

    def __init__(self, volume_DHW: SliceSource, shift: Shift) -> None:
        self.shape = tuple(volume_DHW.shape)
        self._volume = volume_DHW
        rows, cols = self.shape[-2:]
        scale = 1 + shift.growth / max(rows, cols)
        if not scale > 0:
            raise ConfigError(f"growth is {shift.growth}; it must be above -{max(rows, cols)}")
        # Where each pixel of the result comes from: x, y = column, row, as OpenCV counts.
        centre_x, centre_y = (cols - 1) / 2, (rows - 1) / 2
        self._source_23 = np.array(
            [
                [1 / scale, 0, centre_x - (centre_x + shift.cols) / scale],
                [0, 1 / scale, centre_y - (centre_y + shift.rows) / scale],
            ]
        )

    def __getitem__(self, index: int) -> NDArray[Any]:
        slice_HW = np.ascontiguousarray(self._volume[index])
        rows, cols = slice_HW.shape
        moved_HW: NDArray[Any] = cv2.warpAffine(
            slice_HW,
            self._source_23,
            (cols, rows),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=float(slice_HW.min()),
        )
        return moved_HW
