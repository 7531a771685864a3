"""A volume as a row of checked slices, so that the model never needs all of it at once."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from gmic.errors import InputError


class SliceSource(Protocol):
    """Anything with a shape (D, H, W) that gives slice d, (H, W), as `source[d]`.

    Arrays and tensors do; so does an object that makes each slice when asked. Slices are asked for
    in order, and those that hold patches once more.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """Slices, rows, columns."""
        ...

    def __getitem__(self, index: int, /) -> Any:
        """One slice, as an array or tensor of real numbers."""
        ...


class CheckedSlices:
    """Slices of a volume on the model's device, each checked, then binned, as it passes.

    Args:
        volume_DHW: Standardised volume: array, tensor or other `SliceSource`.
        least_side: Smallest number of rows and of columns (pixels).
        like: A tensor with the device and the floating type wanted.
        binning: Side of the squares averaged into one pixel, from the upper left corner on; rows
            and columns too few for another square, at the lower and right edge, are left out.

    Attributes:
        depth: Number of slices.
        window_shape: Rows and columns of a slice as given.
        pixels: Rows and columns of a slice as it comes out.

    Raises:
        InputError: Not three-dimensional, without a slice, or smaller than `least_side`.
    """

    def __init__(
        self, volume_DHW: SliceSource, least_side: int, like: Tensor, binning: int = 1
    ) -> None:
        shape = tuple(getattr(volume_DHW, "shape", ()))
        if len(shape) != 3:
            raise InputError(f"the volume has shape {shape}; give slices, rows, columns (D, H, W)")
        self.depth, rows, cols = (int(n) for n in shape)
        if self.depth < 1:
            raise InputError(f"the volume has shape {shape}; give at least one slice")
        if min(rows, cols) < least_side:
            raise InputError(
                f"the volume's slices are {rows} x {cols} pixels; "
                f"give at least {least_side} x {least_side}, the size of a patch"
            )
        self.window_shape = (rows, cols)
        self.pixels = (rows // binning, cols // binning)
        self._binning = binning
        self._volume = volume_DHW
        self._like = like
        self._low, self._high = float("inf"), float("-inf")

    @property
    def shape(self) -> tuple[int, int, int]:
        """Slices, rows, columns, as given."""
        return (self.depth, *self.window_shape)

    def __getitem__(self, index: int) -> Tensor:
        """Slice `index`: (H, W), binned.

        Raises:
            InputError: Values that are not real finite numbers, or a slice of another shape.
        """
        slice_HW = _as_tensor(self._volume[index], self._like.dtype)
        if tuple(slice_HW.shape) != self.window_shape:
            raise InputError(
                f"slice {index} has shape {tuple(slice_HW.shape)}; "
                f"the others have {self.window_shape}"
            )
        # Checked where the data lie, before the copy, so the host never waits for the device.
        low, high = torch.stack(torch.aminmax(slice_HW.detach())).tolist()
        if not np.isfinite(low) or not np.isfinite(high):
            raise InputError(f"slice {index} holds NaN or infinity; give finite numbers")
        self._low, self._high = min(self._low, low), max(self._high, high)
        slice_HW = slice_HW.to(self._like.dtype)
        if self._like.is_cuda and not slice_HW.is_cuda:
            slice_HW = slice_HW.pin_memory()  # only from there does a copy run beside kernels
        slice_HW = slice_HW.to(self._like.device, non_blocking=self._like.is_cuda)
        if self._binning == 1:
            return slice_HW
        return F.avg_pool2d(slice_HW[None], self._binning)[0]

    def require_contrast(self) -> None:
        """Refuse a volume whose slices, all seen by now, hold one value only.

        Raises:
            InputError: Every voxel has the same value.
        """
        if self._low == self._high:
            raise InputError(f"every voxel is {self._low:g}; give an image with contrast")


def _as_tensor(values: Any, dtype: torch.dtype) -> Tensor:
    """One slice as a real tensor; an array comes in the model's precision and native byte order."""
    if not isinstance(values, Tensor):
        array = np.asarray(values)
        if array.dtype.kind not in "iuf":
            raise InputError(f"the volume holds {array.dtype}; give real numbers, such as float32")
        precision = np.float64 if dtype == torch.float64 else np.float32
        # Torch wants memory it may write to and walk forwards.
        values = torch.from_numpy(np.require(array, precision, ["C", "W"]))
    elif values.is_complex() or values.dtype == torch.bool:
        raise InputError(f"the volume holds {values.dtype}; give real numbers, such as float32")
    tensor: Tensor = values
    return tensor
