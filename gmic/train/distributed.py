"""Data-parallel training: several processes, each with its share of every batch (paper, V-D.5).

`torchrun --nproc-per-node N -m gmic.train ...` starts them. Each adds the gradients of its own images
to `.grad`; then one all-reduce averages them. Torch's DistributedDataParallel is not used: it ties its
all-reduce to one backward pass through its wrapper's forward, and a step here runs many, one for each
slice that matters (`gmic.train.step`), whose number differs between processes.

Batch normalisation of the local network sees the whole batch's patches only with CUDA, for which
torch has SyncBatchNorm; on CPUs each process normalises its own images' patches.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch import distributed as dist

from gmic.errors import ConfigError, TrainingError

TIMEOUT_S = 1800.0
"""Longest wait for another process: longer than any validation image, shorter than a lost night."""


@dataclass(frozen=True)
class Group:
    """The processes of one training; the default is a process alone.

    Attributes:
        rank: This process, from 0; process 0 alone writes files.
        size: Number of processes.
        timeout_s: How long one waits for the others (seconds).
    """

    rank: int = 0
    size: int = 1
    timeout_s: float = TIMEOUT_S

    @property
    def leads(self) -> bool:
        """Whether this process writes files and speaks."""
        return self.rank == 0

    def share(self, batch: Sequence[int]) -> Sequence[int]:
        """This process's part of a batch; parts are equally long when `size` divides the batch."""
        return batch[self.rank :: self.size]

    def average(self, tensors: Iterable[Tensor]) -> None:
        """Replace floating-point tensors, alike in number and shape everywhere, by their mean.

        Every process gets the same bits.

        Raises:
            TrainingError: Another process is gone or silent.
        """
        parts = list(tensors)
        if self.size == 1 or not parts:
            return
        flat = torch.cat([part.detach().reshape(-1) for part in parts])
        self.add_up(flat)
        flat /= self.size
        first = 0
        with torch.no_grad():
            for part in parts:
                part.copy_(flat[first : first + part.numel()].view_as(part))
                first += part.numel()

    def add_up(self, tensor: Tensor) -> None:
        """Replace a tensor by its sum over all processes.

        Raises:
            TrainingError: Another process is gone or silent.
        """
        if self.size > 1:
            with self._lost():
                dist.all_reduce(tensor)

    def from_leader(self, value: bytes | None) -> bytes | None:
        """What process 0 has, for all.

        Raises:
            TrainingError: Another process is gone or silent.
        """
        if self.size == 1:
            return value
        values = [value]
        with self._lost():
            dist.broadcast_object_list(values)
        return values[0]

    @contextmanager
    def _lost(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            reason = str(error).strip().split("\n")[0]
            raise TrainingError(
                f"process {self.rank} of {self.size} waited in vain for another, which ended or was "
                f"silent for {self.timeout_s:g} s ({reason}); start all again with --resume"
            ) from error


@contextmanager
def joined(device: torch.device, timeout_s: float = TIMEOUT_S) -> Iterator[Group]:
    """Join the processes that torchrun started; without torchrun, a group of one.

    Args:
        device: Where this process computes; CUDA talks over NCCL, a CPU over gloo.
        timeout_s: How long to wait for another process (seconds).

    Raises:
        TrainingError: The others did not come.
        ConfigError: The environment that torchrun sets is incomplete.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Group(timeout_s=timeout_s)
        return
    group = Group(int(os.environ.get("RANK", "0")), size, timeout_s)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    try:
        with group._lost():
            dist.init_process_group(
                "nccl" if device.type == "cuda" else "gloo",
                timeout=datetime.timedelta(seconds=timeout_s),
            )
    except ValueError as error:
        raise ConfigError(f"WORLD_SIZE is {size}, but {error}; start with torchrun") from error
    try:
        yield group
    finally:
        dist.destroy_process_group()


def local_device(name: str | None) -> str | None:
    """The device of this process: under torchrun "cuda" becomes the GPU of its local rank."""
    wants_gpu = name == "cuda" or (name is None and torch.cuda.is_available())
    if wants_gpu and "LOCAL_RANK" in os.environ:
        return f"cuda:{os.environ['LOCAL_RANK']}"
    return name


def synchronise_norms(network: nn.Module, group: Group) -> None:
    """Let the batch norms inside `network` see the patches of all processes, where torch can (CUDA)."""
    if group.size > 1 and all(parameter.is_cuda for parameter in network.parameters()):
        nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]


def running_statistics(module: nn.Module) -> list[Tensor]:
    """Buffers that each process fills on its own: running means and variances."""
    return [buffer for buffer in module.buffers() if buffer.is_floating_point()]
