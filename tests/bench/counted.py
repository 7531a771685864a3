"""Work and memory of a training step, counted on tensors without values: no time, no memory, any size.

Every array that an operation makes is noted when it appears and when its last owner lets go of it, so the peak
is what an allocator without waste would need. Libraries' scratch space is not in it.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode


class LiveBytes(TorchDispatchMode):
    """Bytes held by tensors now, and the most that were; those that exist before do not count."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()

    def add(self, value: Any) -> None:
        """Count a tensor's memory until it is freed; once, however many views there are."""
        if not isinstance(value, Tensor):
            return
        storage = value.untyped_storage()
        if storage in self._known:
            return
        size = storage.nbytes()
        self._known.add(storage)
        weakref.finalize(storage, self._freed, size)
        self.now += size
        self.peak = max(self.peak, self.now)

    def _freed(self, size: int) -> None:
        self.now -= size

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run the operation and count what it made."""
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            self.add(leaf)
        return out


def gmac(network: nn.Module, image: Tensor) -> float:
    """Multiply-accumulates of a forward pass, in 10^9."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(image)
    return float(counter.get_total_flops()) / 2e9


def step_mb(network: nn.Module, image: Tensor, step: Callable[[nn.Module, Tensor], None]) -> float:
    """Most memory during `step`, parameters and image included."""
    with LiveBytes() as live:
        for value in (*network.parameters(), *network.buffers(), image):
            live.add(value)
        step(network, image)
    return live.peak / 1e6
