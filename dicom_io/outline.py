"""Where a lesion lies on the stored frames of one image, pixel by pixel, small enough for a row of a table."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dicom_io.errors import InvalidDrawing

Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Outline:
    """A mask of each of `frames` (stored, from 0, ascending), cut to one box that holds them all.

    `masks_NHW` is bool; its first row and column are `row` and `col` of the stored frame, from 0.
    """

    frames: tuple[int, ...]
    row: int
    col: int
    masks_NHW: NDArray[np.bool_]

    @classmethod
    def of(cls, masks: Mapping[int, Mask]) -> Outline:
        """From whole masks (H, W) by stored frame; those without a pixel are left out.

        Raises:
            InvalidDrawing: no mask has a pixel.
        """
        marked = {frame: masks[frame] for frame in sorted(masks) if masks[frame].any()}
        if not marked:
            raise InvalidDrawing("it marks no pixel")
        rows = np.flatnonzero(np.any([mask.any(axis=1) for mask in marked.values()], axis=0))
        cols = np.flatnonzero(np.any([mask.any(axis=0) for mask in marked.values()], axis=0))
        row0, row1, col0, col1 = (int(n) for n in (rows[0], rows[-1] + 1, cols[0], cols[-1] + 1))
        cut = np.stack([mask[row0:row1, col0:col1] for mask in marked.values()])
        return cls(tuple(marked), row0, col0, cut.astype(bool))

    @property
    def central(self) -> tuple[int, tuple[int, int, int, int]]:
        """The frame with the most pixels, and the box around them: row, column, height, width."""
        n = int(self.masks_NHW.sum(axis=(1, 2)).argmax())
        rows, cols = (np.flatnonzero(self.masks_NHW[n].any(axis=axis)) for axis in (1, 0))
        height, width = int(np.ptp(rows)) + 1, int(np.ptp(cols)) + 1
        return self.frames[n], (self.row + int(rows[0]), self.col + int(cols[0]), height, width)

    def projected(self, shape: tuple[int, int]) -> Mask:
        """Maximum over the frames, bool (H, W), in the rows and columns of a stored frame of this shape."""
        mask_HW = np.zeros(shape, dtype=bool)
        _, height, width = self.masks_NHW.shape
        mask_HW[self.row : self.row + height, self.col : self.col + width] = self.masks_NHW.any(0)
        return mask_HW

    def to_bytes(self) -> bytes:
        """A line of JSON (frames, row, col, shape), then the bits row by row; compressed by zlib."""
        head = {"frames": self.frames, "row": self.row, "col": self.col}
        line = json.dumps({**head, "shape": self.masks_NHW.shape}) + "\n"
        return zlib.compress(line.encode("ascii") + np.packbits(self.masks_NHW).tobytes(), 9)

    @classmethod
    def from_bytes(cls, content: bytes) -> Outline:
        """What `to_bytes` made."""
        line, _, bits = zlib.decompress(content).partition(b"\n")
        head = json.loads(line)
        count = int(np.prod(head["shape"]))
        flat = np.unpackbits(np.frombuffer(bits, np.uint8), count=count).astype(bool)
        return cls(tuple(head["frames"]), head["row"], head["col"], flat.reshape(head["shape"]))
