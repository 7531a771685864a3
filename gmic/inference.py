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
from gmic.engine.reduced import in_bfloat16, require_bfloat16
from gmic.engine.staging import StagedSlices
from gmic.errors import ConfigError, DeviceMemoryError
from gmic.model import GMIC3D, GMIC3DOutput
from gmic.volume import SliceSource
from gmic.weights import WeightsInfo, load

ENGINES = ("exact", "bfloat16")
"""Float32 throughout, or the global network in bfloat16, which moves results a little."""

_GPU_AHEAD = 2


class Predictor:
    """Reads standardised windows with one model on one device.

    Args:
        model: The model; moved to the device and set to evaluation mode.
        info: The card of its weights.
        device: "cpu", "cuda", "cuda:1", ...; by default the first GPU where there is one.
        threads: CPU threads for this process, as torch counts them; by default torch's choice.
        engine: One of `ENGINES`. How far "bfloat16" is from "exact" is in docs/benchmarks.md.
        ahead: Slices that a thread makes ready while the model computes: worth it where making one
            takes time that is not the model's, such as decoding beside a GPU. 0 makes each when
            its turn comes. By default 2 on a GPU and 0 on a CPU.

    Raises:
        ConfigError: A device that is not there, fewer than one thread, an unknown engine or one
            that would be slow on the device, or a negative `ahead`.
    """

    def __init__(
        self,
        model: GMIC3D,
        info: WeightsInfo,
        *,
        device: str | None = None,
        threads: int | None = None,
        engine: str = "exact",
        ahead: int | None = None,
    ) -> None:
        self.device = choose_device(device)
        if engine not in ENGINES:
            raise ConfigError(f"engine is {engine!r}; it must be one of {', '.join(ENGINES)}")
        if ahead is not None and ahead < 0:
            raise ConfigError(f"ahead is {ahead}; it must be at least 0")
        if engine == "bfloat16":
            require_bfloat16(self.device)
        self.engine = engine
        self._ahead = ahead if ahead is not None else _GPU_AHEAD * (self.device.type == "cuda")
        if threads is not None:
            if threads < 1:
                raise ConfigError(f"threads is {threads}; it must be at least 1")
            torch.set_num_threads(threads)
        self.info = info
        with _memory_errors(self.device):
            model = model.eval().to(self.device)
            self.model = in_bfloat16(model) if engine == "bfloat16" else model

    @classmethod
    def from_file(
        cls,
        path: str | Path,
        *,
        device: str | None = None,
        threads: int | None = None,
        engine: str = "exact",
    ) -> Predictor:
        """A predictor from a file that `gmic.weights.save` wrote.

        Raises:
            WeightsError: The file does not fit.
            ConfigError: See the class.
        """
        model, info = load(path)
        return cls(model, info, device=device, threads=threads, engine=engine)

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
        with _memory_errors(self.device), exact, self._staged(window_DHW) as slices:
            output: GMIC3DOutput = self.model(slices)
            on_cpu: dict[str, Any] = {
                field.name: value.cpu()
                for field in dataclasses.fields(output)
                if isinstance(value := getattr(output, field.name), Tensor)
            }
            return dataclasses.replace(output, **on_cpu)

    def _staged(self, window_DHW: SliceSource) -> contextlib.AbstractContextManager[SliceSource]:
        """The window, its slices made ready ahead where that is wanted."""
        if self._ahead == 0:
            return contextlib.nullcontext(window_DHW)
        config, like = self.config, next(self.model.parameters())
        return StagedSlices(
            window_DHW, config.patch_extent, like, binning=config.binning, ahead=self._ahead
        )


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
