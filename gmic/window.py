"""Where a pixel of the network's window lies in the image it was cut from, and back.

The window is cut from the image after turning it so that the breast points right, and zero-padded
where the image is too small. Both frames count pixels from 0 in rows and columns, so everything
here is whole-number arithmetic and exact. Slices are never moved: slice d of the window is slice d
of the source.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from gmic.errors import InputError

Box = tuple[int, int, int, int]
"""(row0, col0, row1, col1), half-open, row before column."""

Value = TypeVar("Value", bound=np.generic)
Coordinate = TypeVar("Coordinate", int, float, NDArray[Any])
"""Pixel index or pixel-centre coordinate, 0-based; arrays work element by element."""


@dataclass(frozen=True)
class WindowTransform:
    """Exact map between the window and the source image.

    Attributes:
        source_shape: (D, H, W) of the image as it was given.
        window_shape: (D, h, w) of the window.
        row_offset: Source row of window row 0; negative where the window starts in padding.
        col_offset: The same for columns, counted in the source after turning it.
        flipped: The source was mirrored left to right to make the breast point right.
        content: Box of the window that holds source pixels; the rest is zero padding.
    """

    source_shape: tuple[int, int, int]
    window_shape: tuple[int, int, int]
    row_offset: int
    col_offset: int
    flipped: bool
    content: Box

    def to_source(self, rows: Coordinate, cols: Coordinate) -> tuple[Coordinate, Coordinate]:
        """Map window coordinates to source coordinates.

        Padding has coordinates too: they continue the grid and may lie outside the source.
        """
        return rows + self.row_offset, self._turn(cols + self.col_offset)

    def to_window(self, rows: Coordinate, cols: Coordinate) -> tuple[Coordinate, Coordinate]:
        """Map source coordinates to window coordinates; they may lie outside the window."""
        return rows - self.row_offset, self._turn(cols) - self.col_offset

    def box_to_source(self, row0: int, col0: int, row1: int, col1: int) -> Box:
        """Map a half-open box of the window to the half-open box of the source below it.

        The box is clipped to the pixels the window took from the source; a box that lies in the
        padding altogether comes back empty (row0 == row1 or col0 == col1).
        """
        top, left, bottom, right = self.content
        row0, row1 = (min(max(row, top), bottom) for row in (row0, row1))
        col0, col1 = (min(max(col, left), right) for col in (col0, col1))
        first_row, first_col = self.to_source(row0, col0)
        last_row, last_col = self.to_source(max(row1, row0) - 1, max(col1, col0) - 1)
        if self.flipped:
            first_col, last_col = last_col, first_col
        return first_row, first_col, last_row + 1, last_col + 1

    def mask_to_source(self, mask_hw: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Paste a mask of the window, bool (h, w), into a source frame, bool (H, W).

        Padding is dropped; source pixels the window does not show are False.

        Raises:
            InputError: The mask is not of the window's shape.
        """
        return self.values_to_source(mask_hw.astype(bool))

    def values_to_source(self, values_hw: NDArray[Value]) -> NDArray[Value]:
        """Paste values of the window (h, w) into a source frame (H, W), the same pixels and dtype.

        Padding is dropped; source pixels the window does not show are 0.

        Raises:
            InputError: The values are not of the window's shape.
        """
        _check_shape(values_hw, "window", self.window_shape[1:])
        top, left, bottom, right = self.content
        part = values_hw[top:bottom, left:right]
        frame = np.zeros(self.source_shape[1:], dtype=values_hw.dtype)
        row0, col0, row1, col1 = self.box_to_source(*self.content)
        frame[row0:row1, col0:col1] = part[:, ::-1] if self.flipped else part
        return frame

    def mask_to_window(self, mask_HW: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Cut a mask of a source frame, bool (H, W), to the window, bool (h, w); padding is False.

        Raises:
            InputError: The mask is not of the source's shape.
        """
        _check_shape(mask_HW, "source", self.source_shape[1:])
        top, left, bottom, right = self.content
        row0, col0, row1, col1 = self.box_to_source(*self.content)
        part = mask_HW[row0:row1, col0:col1]
        window = np.zeros(self.window_shape[1:], dtype=bool)
        window[top:bottom, left:right] = part[:, ::-1] if self.flipped else part
        return window

    def _turn(self, cols: Coordinate) -> Coordinate:
        """Mirror column coordinates of the source where it was mirrored; its own inverse."""
        return (self.source_shape[2] - 1) - cols if self.flipped else cols


def _check_shape(mask: NDArray[Any], what: str, shape: tuple[int, ...]) -> None:
    if mask.shape != shape:
        raise InputError(f"mask is of shape {mask.shape}; the {what} is of {shape}")
