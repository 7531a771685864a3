"""A model in memory, or an ensemble of some, and what it is called.

The node names a model version without torch; `workers.models` finds its weights, this module reads images with them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dicom_io.findings import LABELS, Algorithm, Label
from dicom_io.result_codes import caveat_of
from gmic import bundle, weights
from gmic.bundle import Bundle
from gmic.config import CLASSES, GMIC3DConfig
from gmic.engine.ensemble import Ensemble
from gmic.errors import ConfigError as ModelConfigError
from gmic.geometry import PatchBox, ReceptiveField
from gmic.inference import Predictor as Model
from gmic.inference import choose_device
from gmic.model import GMIC3D
from gmic.weights import WeightsInfo
from node.config import Settings
from node.errors import ConfigError
from node.model_version import UNTRAINED, UNTRAINED_SEED, model_version
from workers.errors import DeviceMissing

ALGORITHM = "3D-GMIC"
assert CLASSES == LABELS  # model and reports share one order of classes


@dataclass(frozen=True)
class ModelIdentity:
    """What a report says of the model. `version` is what the node queues runs under."""

    version: str
    weights_sha256: str
    trained: bool
    description: str
    caveat: str
    operating_point: float
    device: str
    engine: str  # of `gmic.inference.ENGINES`
    configs: tuple[GMIC3DConfig, ...]  # of each member of an ensemble; they read the same window

    @property
    def window_shape(self) -> tuple[int, int]:
        """Rows and columns of the window that the model reads (pixels)."""
        return self.configs[0].window_shape

    def algorithm(self) -> Algorithm:
        """The algorithm as a report shows it, its engine too; not whether a GPU or a CPU computed."""
        return Algorithm(
            name=ALGORITHM,
            version=self.version,
            weights_sha256=self.weights_sha256,
            trained=self.trained,
            caveat=self.caveat,
            parameters={
                **({"members": str(len(self.configs))} if len(self.configs) > 1 else {}),
                "patches": _each(config.num_patches for config in self.configs),
                "top_t_fraction": _each(f"{config.top_t_fraction:g}" for config in self.configs),
                "slice_margin": _each(config.slice_margin for config in self.configs),
                "window": "x".join(map(str, self.window_shape)),
                "engine": self.engine,
            },
        )

    def card(self) -> dict[str, Any]:
        """What the database keeps of it."""
        return {
            "name": ALGORITHM,
            "version": self.version,
            "sha256": self.weights_sha256,
            "trained": self.trained,
            "description": self.description,
            "caveat": caveat_of(self.algorithm()),
            "operating_point": self.operating_point,
            "device": self.device,
            "engine": self.engine,
        }


@dataclass(frozen=True)
class Prediction:
    """What the model says of one image: a score a label in [0, 1], its saliency (2, D, h, w) in [0, 1], and the patches
    that its members picked."""

    scores: dict[Label, float]
    saliency_CDhw: NDArray[np.float32]
    patches: tuple[PatchBox, ...]


class Predictor:
    """One model in memory, or the members of one ensemble; `predict` is not for several threads."""

    def __init__(self, models: Sequence[Model], identity: ModelIdentity) -> None:
        self.identity = identity
        self._models = tuple(models)

    @classmethod
    def load(cls, settings: Settings) -> Predictor:
        """Load the configured weights, or draw the untrained ones where none are configured.

        Raises:
            WeightsError: the file cannot be used.
            ConfigError: the file is no longer the one that runs are queued for, or an engine that cannot run here.
            DeviceMissing: no such device.
            DeviceMemoryError: the device has no room.
        """
        if settings.weights is None:
            model, info = weights.seeded(GMIC3DConfig(), UNTRAINED_SEED)
            return cls.of(Bundle((model,), info), UNTRAINED, settings)
        found, version = bundle.load(settings.weights), model_version(settings)
        if not version.startswith(found.info.name):
            raise ConfigError(
                f"weights {settings.weights} changed while being read ({version}, {found.info.name}); start again"
            )
        return cls.of(found, version, settings)

    @classmethod
    def of(cls, found: Bundle, version: str, settings: Settings) -> Predictor:
        """Put models on the configured device, called by the version's name.

        Raises:
            DeviceMissing: no such device.
            ConfigError: an engine that the device cannot run.
            DeviceMemoryError: the device has no room.
        """
        models = in_memory([(model, found.info) for model in found.models], settings)
        identity = ModelIdentity(
            version=version,
            weights_sha256=found.info.sha256,
            trained=found.info.trained,
            description=found.info.description,
            caveat=found.info.caveat,
            operating_point=settings.segment_threshold or found.info.segment_threshold,
            device=str(models[0].device),
            engine=models[0].engine,
            configs=found.configs,
        )
        return cls(models, identity)

    @property
    def on_gpu(self) -> bool:
        """Whether the CPU is free while the model computes."""
        return self._models[0].device.type != "cpu"

    @property
    def receptive_field(self) -> ReceptiveField:
        """Where a saliency cell lies on the window."""
        return self._models[0].model.receptive_field

    def predict(self, window_DHW: NDArray[np.float32], check: Callable[[], None]) -> Prediction:
        """Read one standardised window; `check` is called before each slice and may raise.

        Of an ensemble, scores and saliency are the members' means, so regions are those of the mean map.

        Raises:
            InputError: the window cannot be read.
            DeviceMemoryError: the device ran out of memory.
        """
        window = _CheckedWindow(window_DHW, check)
        output = Ensemble(self._models).predict(window)
        scores = output.y_final.tolist()
        assert output.saliency_CDHW is not None  # `gmic.bundle` takes members of one grid alone
        patches = tuple(
            patch
            for one, member in zip(self._models, output.members, strict=True)
            for patch in one.model.patch_boxes(member)
        )
        named = dict(zip(LABELS, scores, strict=True))
        return Prediction(named, output.saliency_CDHW.numpy(), patches)


class _CheckedWindow:
    """A window that asks, before it gives a slice, whether there is still a reason to go on."""

    def __init__(self, window_DHW: NDArray[np.float32], check: Callable[[], None]) -> None:
        self.shape = window_DHW.shape
        self._window_DHW = window_DHW
        self._check = check

    def __getitem__(self, index: int, /) -> NDArray[np.float32]:
        self._check()
        slice_hw: NDArray[np.float32] = self._window_DHW[index]
        return slice_hw


def in_memory(members: Sequence[tuple[GMIC3D, WeightsInfo]], settings: Settings) -> list[Model]:
    """Models with their cards on the configured device, in the configured engine.

    Raises:
        DeviceMissing: no such device.
        ConfigError: an engine that the device cannot run.
        DeviceMemoryError: the device has no room.
    """
    try:
        device = choose_device(None if settings.device == "auto" else settings.device)
    except ModelConfigError as error:
        raise DeviceMissing(f"setting TOMONODE_DEVICE={settings.device!r}: {error}") from None
    threads = settings.threads or _cpus()
    try:
        return [
            Model(model, info, device=str(device), threads=threads, engine=settings.engine)
            for model, info in members
        ]
    except ModelConfigError as error:
        raise ConfigError(f"setting TOMONODE_ENGINE={settings.engine!r}: {error}") from None


def _each(values: Iterable[object]) -> str:
    """A value that all members share, or theirs in order."""
    found = [str(value) for value in values]
    return found[0] if len(set(found)) == 1 else ", ".join(found)


def _cpus() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0))
