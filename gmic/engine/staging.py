"""Slices made ready ahead, so that reading or decoding, transfer and computing happen at once."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

import torch
from torch import Tensor

from gmic.volume import CheckedSlices, SliceSource

Staged = tuple[Tensor, torch.cuda.Event | None]
"""A slice on its device, and what to wait for before using it."""


class StagedSlices(CheckedSlices):
    """Checked slices that one thread makes while the model computes on those before.

    The thread asks the volume for a slice, which may decode it, checks it and sends it to the
    device: on a GPU from pinned memory, on a stream of its own, so that the copy runs beside the
    kernels. All reading, the second look at slices with patches included, is that thread's, so the
    volume need not be safe for several. What goes wrong there is raised where the slice is asked
    for. Use it as a context manager, which ends the thread.

    Args:
        volume_DHW: Standardised volume: array, tensor or other `SliceSource`.
        least_side: See `CheckedSlices`, like the following two.
        like: A tensor with the device and the floating type wanted.
        binning: Side of the squares averaged into one pixel.
        ahead: Slices to have ready besides the one in work, at least 1; so many are held.
    """

    def __init__(
        self, volume_DHW: SliceSource, least_side: int, like: Tensor, *, binning: int, ahead: int
    ) -> None:
        super().__init__(volume_DHW, least_side, like, binning)
        self._ahead = ahead
        self._next = 0
        self._coming: dict[int, Future[Staged]] = {}
        self._stream: torch.cuda.Stream | None = None
        if like.is_cuda:
            self._stream = torch.cuda.Stream(like.device)  # type: ignore[no-untyped-call]
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="slices")

    def __enter__(self) -> Self:
        self._fill()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._thread.shutdown(cancel_futures=True)
        self._coming.clear()

    def __getitem__(self, index: int) -> Tensor:
        """Slice `index`: (H, W), binned; see `CheckedSlices`."""
        found = self._coming.pop(index, None) or self._thread.submit(self._stage, index)
        self._fill()
        slice_HW, copied = found.result()
        if copied is not None:
            current = torch.cuda.current_stream(slice_HW.device)
            current.wait_event(copied)
            # Its memory belongs to the other stream and must not be given away while this one reads.
            slice_HW.record_stream(current)
        return slice_HW

    def _fill(self) -> None:
        while self._next < self.depth and len(self._coming) < self._ahead:
            self._coming[self._next] = self._thread.submit(self._stage, self._next)
            self._next += 1

    def _stage(self, index: int) -> Staged:
        if self._stream is None:
            return super().__getitem__(index), None
        with torch.cuda.stream(self._stream):
            return super().__getitem__(index), self._stream.record_event()
