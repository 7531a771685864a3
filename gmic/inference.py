"""One model held in memory, ready to read window after window."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gmic.config import GMIC3DConfig
from gmic.errors import ConfigError, DeviceMemoryError
from gmic.model import GMIC3D, GMIC3DOutput
from gmic.volume import SliceSource
from gmic.weights import WeightsInfo, load


class Predictor:
    """Reads standardised windows with one model on one device.

    Args:
        model: The model; moved to the device and set to evaluation mode.
        info: The card of its weights.
        device: "cpu", "cuda", "cuda:1", ...; by default the first GPU where there is one.
        threads: CPU threads for this process, as torch counts them; by default torch's choice.

    Raises:
        ConfigError: A device that is not there, or fewer than one thread.
    """

    def __init__(
        self,
        model: GMIC3D,
        info: WeightsInfo,
        *,
        device: str | None = None,
        threads: int | None = None,
    ) -> None:
        self.device = choose_device(device)
        if threads is not None:
            if threads < 1:
                raise ConfigError(f"threads is {threads}; it must be at least 1")
            torch.set_num_threads(threads)
        self.info = info
        with _memory_errors(self.device):
            self.model = model.eval().to(self.device)

    @classmethod
    def from_file(
        cls, path: str | Path, *, device: str | None = None, threads: int | None = None
    ) -> Predictor:
        """A predictor from a file that `gmic.weights.save` wrote.

        Raises:
            WeightsError: The file does not fit.
            ConfigError: See the class.
        """
        model, info = load(path)
        return cls(model, info, device=device, threads=threads)

    @property
    def config(self) -> GMIC3DConfig:
        """The configuration of the model in memory."""
        return self.model.config

    def predict(self, window_DHW: SliceSource) -> GMIC3DOutput:
        """Read one standardised window (D, H, W); the output's tensors are on the CPU.

        Raises:
            InputError: See `gmic.model.GMIC3D.forward`.
            DeviceMemoryError: The device ran out of memory; the model is still usable.
        """
        # TensorFloat-32 would cost digits that decide which patch is picked first.
        exact = torch.backends.cudnn.flags(
            enabled=True, benchmark=False, deterministic=True, allow_tf32=False
        )
        with _memory_errors(self.device), exact:
            output: GMIC3DOutput = self.model(window_DHW)
            on_cpu: dict[str, Any] = {
                field.name: value.cpu()
                for field in dataclasses.fields(output)
                if isinstance(value := getattr(output, field.name), Tensor)
            }
            return dataclasses.replace(output, **on_cpu)


def choose_device(name: str | None) -> torch.device:
    """The device called `name`, or the first GPU where there is one, or the CPU.

    Raises:
        ConfigError: No such device.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"no device is called {name!r}; use cpu, cuda or cuda:N") from error
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"device {name!r} is not supported; use cpu, cuda or cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(f"device {name!r} is not there; use cpu or look at the driver")
    return device


@contextlib.contextmanager
def _memory_errors(device: torch.device) -> Iterator[None]:
    """Turn every way of running out of memory into `DeviceMemoryError`."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        if device.type == "cuda":
            torch.cuda.empty_cache()
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise DeviceMemoryError(f"{device} ran out of memory: {reason}") from error


def _is_out_of_memory(error: MemoryError | RuntimeError) -> bool:
    """On the CPU torch raises a plain RuntimeError that only its text tells apart."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "allocate memory" in str(
        error
    )
