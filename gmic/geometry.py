"""Where a cell of a map and a patch lie in the window, in pixels. Pure arithmetic, no torch.

Coordinates: row before column, 0-based; an integer is the centre of a pixel, so pixel p covers
[p - 0.5, p + 0.5]. Spans and boxes are half-open.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple


class SpatialLayer(NamedTuple):
    """What a convolution or pooling does to one axis, in cells of its own input."""

    kernel: int
    stride: int
    padding: int


@dataclass(frozen=True)
class ReceptiveField:
    """How a map's cells sit on the window, the same for rows and columns.

    Attributes:
        stride: Distance between the centres of neighbouring cells (pixels).
        offset: Centre of cell 0 (pixels); not stride / 2: it follows from strides and padding.
        size: Extent of what one cell sees (pixels); overlapping, and cut off at the border.
    """

    stride: int
    offset: float
    size: int

    @classmethod
    def of(cls, layers: Iterable[SpatialLayer]) -> ReceptiveField:
        """Receptive field of `layers` applied one after the other.

        A layer's first output is centred (kernel - 1) / 2 - padding of its input's cells after the
        first input. For the published network this gives stride 64, offset 2.
        """
        stride, offset, size = 1, 0.0, 1
        for layer in layers:
            offset += ((layer.kernel - 1) / 2 - layer.padding) * stride
            size += (layer.kernel - 1) * stride
            stride *= layer.stride
        return cls(stride, offset, size)

    def cell_centre(self, i: int) -> float:
        """Centre of cell `i` (pixels), along either axis."""
        return self.stride * i + self.offset

    def cell_centres(self, n: int) -> tuple[float, ...]:
        """Centres of the `n` cells of an axis (pixels)."""
        return tuple(self.cell_centre(i) for i in range(n))

    def cell_span(self, i: int, n: int, extent: int) -> tuple[int, int]:
        """Pixels owned by cell `i` of `n` along an axis of `extent` pixels: (start, stop).

        Every pixel belongs to the cell with the nearest centre, and to the later one of two at the
        same distance. The first and the last cell reach to the border, so the n spans tile
        [0, extent) without a gap.

        Raises:
            IndexError: `i` is not in [0, n).
        """
        if not 0 <= i < n:
            raise IndexError(f"cell {i} is outside the {n} cells of this axis")
        return self._boundary(i, n, extent), self._boundary(i + 1, n, extent)

    def _boundary(self, i: int, n: int, extent: int) -> int:
        """First pixel of cell `i`; `extent` for i = n."""
        if i == 0:
            return 0
        if i == n:
            return extent
        return min(max(math.ceil(self.cell_centre(i) - self.stride / 2), 0), extent)


class PatchBox(NamedTuple):
    """One picked patch as a half-open box of window pixels, cut off at the window's border."""

    slice_index: int
    row0: int
    col0: int
    row1: int
    col1: int
    attention: float
    """alpha_k of equation 4: the patch's share of the local prediction, in [0, 1]."""
    score: float
    """Mean scaled saliency of the patch's window when picked, classes added, in (0, 2]."""
