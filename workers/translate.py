"""From a model's output to findings in the stored frames of its image. Pure: no file, no model, no DICOM object.

A saliency cell is placed by the centre of its receptive field: it owns the window pixels nearest to that centre. From
there the way back is exact, pixel by pixel: window -> (crop, flip) -> volume -> (orientation, frame order) -> stored.

Shapes: D slices of the volume, h and w cells, H and W pixels of a frame.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Protocol, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from dicom_io.findings import LABELS, Label, Region, Segment
from dicom_io.seg_values import LevelFrames
from gmic.geometry import ReceptiveField
from gmic.window import WindowTransform

MAX_REGIONS = 10
"""Regions listed for one label of one image; the mask is complete whatever their number."""

Box = tuple[int, int, int, int]
Value = TypeVar("Value", bound=np.generic)


class StoredImage(Protocol):
    """How the slices of a volume lie in the stored frames (`dicom_io.dbt.MammogramImage`)."""

    @property
    def source_frames(self) -> tuple[int, ...]:
        """0-based stored frame of each slice."""
        ...

    def to_stored(self, array: NDArray[Any]) -> NDArray[Any]:
        """Rows and columns (..., H, W) of the volume as those of a stored frame."""
        ...

    def stored_point(self, row: float, column: float) -> tuple[float, float]:
        """The same for a point, in pixel centres from 0."""
        ...


class Translated(NamedTuple):
    """Findings of one image; `dropped` counts regions beyond `MAX_REGIONS` a label."""

    segments: tuple[Segment, ...]
    regions: tuple[Region, ...]
    dropped: int


@dataclass(frozen=True, eq=False)
class CellGrid:
    """Where the (h, w) cells of a map lie in the stored frames.

    `counted_HW`, bool in the volume's rows and columns, says which pixels can hold a finding (the breast); None: all.
    """

    field: ReceptiveField
    cells: tuple[int, int]
    transform: WindowTransform
    image: StoredImage
    counted_HW: NDArray[np.bool_] | None = None

    @cached_property
    def row_edges(self) -> NDArray[np.int64]:
        """(h + 1,) first window row of each cell, and the window's height."""
        return self._edges(0)

    @cached_property
    def col_edges(self) -> NDArray[np.int64]:
        """(w + 1,) the same for columns."""
        return self._edges(1)

    def _edges(self, axis: int) -> NDArray[np.int64]:
        count, extent = self.cells[axis], self.transform.window_shape[axis + 1]
        spans = [self.field.cell_span(i, count, extent) for i in range(count)]
        return np.array([spans[0][0], *(stop for _, stop in spans)], dtype=np.int64)

    @cached_property
    def visible_hw(self) -> NDArray[np.bool_]:
        """Cells that own at least one pixel that counts; the others lie in padding, or in air, altogether."""
        counted_HW = self.counted_HW
        if counted_HW is None:
            counted_HW = np.ones(self.transform.source_shape[1:], dtype=bool)
        totals = self.transform.mask_to_window(counted_HW).astype(np.int32)
        for axis, edges in enumerate((self.row_edges, self.col_edges)):
            totals = np.add.reduceat(totals, np.minimum(edges[:-1], edges[-1] - 1), axis=axis)
        # `reduceat` gives a cell that owns no pixel at all, squeezed out at the border, a neighbour's.
        owns = (np.diff(self.row_edges) > 0)[:, None] & (np.diff(self.col_edges) > 0)[None, :]
        return (totals > 0) & owns

    def mask(self, cells_hw: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Mask of a stored frame, bool (H, W), of the pixels that the given cells own."""
        return self.pixels(cells_hw)

    def pixels(self, cells_hw: NDArray[Value]) -> NDArray[Value]:
        """A stored frame (H, W) whose pixels have the value of the cell that owns them; 0 where no cell does."""
        tall = np.repeat(cells_hw, np.diff(self.row_edges), axis=0)
        window = np.repeat(tall, np.diff(self.col_edges), axis=1)
        return np.ascontiguousarray(self.image.to_stored(self.transform.values_to_source(window)))

    def box(self, rows: NDArray[np.int64], cols: NDArray[np.int64]) -> Box:
        """Half-open box, in stored rows and columns, around the pixels of the given cells."""
        row0, col0, row1, col1 = self.transform.box_to_source(
            int(self.row_edges[rows.min()]),
            int(self.col_edges[cols.min()]),
            int(self.row_edges[rows.max() + 1]),
            int(self.col_edges[cols.max() + 1]),
        )
        one = self.image.stored_point(row0, col0)
        other = self.image.stored_point(row1 - 1, col1 - 1)
        (top, bottom), (left, right) = (
            sorted(map(round, pair)) for pair in zip(one, other, strict=True)
        )
        return top, left, bottom + 1, right + 1

    def point(self, row: int, col: int) -> tuple[float, float]:
        """Centre of a cell's receptive field, in stored rows and columns, kept inside the image."""
        top, left, bottom, right = self.transform.content
        window_row = min(max(self.field.cell_centre(row), top), bottom - 1)
        window_col = min(max(self.field.cell_centre(col), left), right - 1)
        return self.image.stored_point(*self.transform.to_source(window_row, window_col))


class SegmentFrames(Mapping[int, NDArray[np.bool_]]):
    """Masks by stored frame, each made when asked for: a volume of masks would need gigabytes."""

    def __init__(self, grid: CellGrid, cells: Mapping[int, NDArray[np.bool_]]) -> None:
        """`cells` maps a stored frame to its cells, bool (h, w), at least one of them True."""
        self._grid = grid
        self._cells = dict(sorted(cells.items()))

    def __getitem__(self, frame: int) -> NDArray[np.bool_]:
        return self._grid.mask(self._cells[frame])

    def __iter__(self) -> Iterator[int]:
        return iter(self._cells)

    def __len__(self) -> int:
        return len(self._cells)


def translate(
    saliency_CDhw: NDArray[np.float32], operating_point: float, grid_of: CellGrid
) -> Translated:
    """Segments and regions of everything at or above the operating point.

    Args:
        saliency_CDhw: Saliency in [0, 1], classes benign and malignant, slices in the volume's order.
        operating_point: Saliency in (0, 1) from which a cell counts.
        grid_of: Where the cells lie.
    """
    segments: list[Segment] = []
    regions: list[Region] = []
    dropped = 0
    for label, map_Dhw in zip(LABELS, saliency_CDhw, strict=True):
        found_Dhw = (map_Dhw >= operating_point) & grid_of.visible_hw
        if not found_Dhw.any():
            continue
        cells = {
            frame: found_Dhw[d]
            for d, frame in enumerate(grid_of.image.source_frames)
            if found_Dhw[d].any()
        }
        score = float(map_Dhw[found_Dhw].max())
        segments.append(Segment(label, SegmentFrames(grid_of, cells), score))
        labelled, count = connected(found_Dhw)
        regions += _regions(label, map_Dhw, labelled, count, grid_of)
        dropped += max(0, count - MAX_REGIONS)
    return Translated(tuple(segments), tuple(regions), dropped)


def levels(
    saliency_CDhw: NDArray[np.float32], grid: CellGrid
) -> dict[Label, Mapping[int, NDArray[np.uint8]]]:
    """The scores of each label by stored frame, for the writers that store them pixel by pixel; a frame is made when
    it is asked for. Cells that cannot hold a finding score 0, as in the masks."""
    return {
        label: LevelFrames(
            {
                frame: np.where(grid.visible_hw, map_Dhw[d], np.float32(0))
                for d, frame in enumerate(grid.image.source_frames)
            },
            grid.pixels,
        )
        for label, map_Dhw in zip(LABELS, saliency_CDhw, strict=True)
    }


def connected(found_Dhw: NDArray[np.bool_]) -> tuple[NDArray[np.int64], int]:
    """Number connected cells from 1, in the order of their first cell; 0 elsewhere.

    Cells touch within a slice by side or corner, and between neighbouring slices by the same row and column.
    """
    labelled = np.zeros(found_Dhw.shape, dtype=np.int64)
    count = 0
    for d, slice_hw in enumerate(found_Dhw):
        found, numbers = cv2.connectedComponents(slice_hw.astype(np.uint8), connectivity=8)
        labelled[d][slice_hw] = numbers[slice_hw] + count
        count += found - 1
    parent = np.arange(count + 1)
    both = (labelled[:-1] > 0) & (labelled[1:] > 0)
    for a, b in np.unique(np.stack([labelled[:-1][both], labelled[1:][both]], axis=1), axis=0):
        root_a, root_b = _root(parent, a), _root(parent, b)
        parent[max(root_a, root_b)] = min(root_a, root_b)
    roots = np.array([_root(parent, i) for i in range(count + 1)])
    order, renumbered = np.unique(roots, return_inverse=True)
    return renumbered[labelled], len(order) - 1


def _root(parent: NDArray[np.int64], i: int) -> int:
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = int(parent[i])
    return i


def _regions(
    label: Label,
    map_Dhw: NDArray[np.float32],
    labelled_Dhw: NDArray[np.int64],
    count: int,
    grid: CellGrid,
) -> list[Region]:
    """The regions with the highest scores, highest first; of equal ones the first in the volume."""
    scores = np.full(count + 1, -np.inf)
    np.maximum.at(scores, labelled_Dhw.ravel(), map_Dhw.ravel())
    best = np.argsort(-scores[1:], kind="stable")[:MAX_REGIONS] + 1
    return [_region(label, map_Dhw, labelled_Dhw == number, grid) for number in best]


def _region(
    label: Label, map_Dhw: NDArray[np.float32], inside_Dhw: NDArray[np.bool_], grid: CellGrid
) -> Region:
    peak = int(np.where(inside_Dhw, map_Dhw, -np.inf).argmax())
    key, row, col = (int(i) for i in np.unravel_index(peak, map_Dhw.shape))
    frames = [grid.image.source_frames[int(d)] for d in np.flatnonzero(inside_Dhw.any(axis=(1, 2)))]
    rows, cols = np.nonzero(inside_Dhw[key])
    centre_row, centre_col = grid.point(row, col)
    return Region(
        label=label,
        first_frame=min(frames),
        last_frame=max(frames),
        key_frame=grid.image.source_frames[key],
        centre_row=centre_row,
        centre_col=centre_col,
        box=grid.box(rows, cols),
        score=float(map_Dhw[key, row, col]),
    )
