"""One training step in a process of its own: `... step NETWORK SLICES ROWS COLUMNS DEVICE [streamed]` prints JSON.

Memory is the most that network, volume and step together added to the process, or on a GPU what its tensors needed at
most. Milliseconds are of the step alone, after one on a single slice.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gmic.config import GMIC3DConfig
from gmic.train.step import plain_step, train_step
from gmic.volume import SliceSource
from gmic.weights import seeded
from tests.bench import networks

Step = Callable[[int], object]  # of that many slices
BETA = 1e-6


class Streamed:
    """A volume that is never held: each slice is made when asked, from one, by moving it."""

    def __init__(self, slices: int, window: tuple[int, int]) -> None:
        self.shape = (slices, *window)
        self._slice_HW = np.random.default_rng(1).standard_normal(window, np.float32)

    def __getitem__(self, index: int, /) -> NDArray[np.float32]:
        return np.roll(self._slice_HW, 16 * index, axis=0)


def main(
    name: str, slices: int, window: tuple[int, int], device: str, streamed: bool
) -> dict[str, Any]:
    """Figures of one network at one size; `mb` is None where the GPU has not the memory."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.manual_seed(0)
    with torch.device("meta"):  # whatever else is imported for it comes before the memory counts
        networks.BASELINES.get(name, torch.nn.Identity)()
    before = _resident("VmRSS")
    step = (
        _ours(name, slices, window, device, streamed)
        if name in networks.OURS
        else _other(name, slices, window, device)
    )
    figures: dict[str, Any] = {"ms": None, "mb": None}
    try:
        step(1)
        _forget_peak(device)
        started = time.perf_counter()
        step(slices)
        if device == "cuda":
            torch.cuda.synchronize()
        figures["ms"] = 1e3 * (time.perf_counter() - started)
    except torch.OutOfMemoryError:
        return figures
    peak = torch.cuda.max_memory_allocated() if device == "cuda" else _resident("VmHWM") - before
    figures["mb"] = peak / 1e6
    return figures


def _other(name: str, slices: int, window: tuple[int, int], device: str) -> Step:
    network = networks.BASELINES[name]().to(device)
    volume_CDHW = networks.volume(slices, window, device)

    def step(count: int) -> None:
        network.zero_grad(set_to_none=True)
        networks.train_once(network, volume_CDHW[:, :count])

    return step


def _ours(name: str, slices: int, window: tuple[int, int], device: str, streamed: bool) -> Step:
    model, _ = seeded(GMIC3DConfig(), 7)
    model.train().to(device)
    take = plain_step if name == networks.PLAIN else train_step
    source = Streamed(slices, window)
    held_DHW = None if streamed else _held(source)
    labels = torch.tensor([[0.0, 1.0]])

    def step(count: int) -> None:
        model.zero_grad(set_to_none=True)
        volume_DHW: SliceSource = Streamed(count, window) if held_DHW is None else held_DHW[:count]
        take(model, [volume_DHW], labels, BETA, np.random.default_rng(0))

    return step


def _held(source: Streamed) -> NDArray[np.float32]:
    volume_DHW = np.empty(source.shape, np.float32)
    for d in range(len(volume_DHW)):
        volume_DHW[d] = source[d]
    return volume_DHW


def _forget_peak(device: str) -> None:
    """From here on the peak is that of what follows."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5")


def _resident(field: str) -> int:
    """Bytes resident now (VmRSS) or at most since the peak was last forgotten (VmHWM)."""
    status = Path("/proc/self/status").read_text().splitlines()
    [line] = [line for line in status if line.startswith(field + ":")]
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    network_name, *size = sys.argv[1:5]
    count, rows, columns = map(int, size)
    found = main(network_name, count, (rows, columns), sys.argv[5], "streamed" in sys.argv[6:])
    sys.stdout.write(json.dumps(found))
