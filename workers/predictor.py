"""The model of this process: which one, loaded when first needed and once, and what it is called.

The node names a model version without torch (`node.model_version`); this module loads what that name stands for.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dicom_io.findings import LABELS, Algorithm, Label
from gmic import weights
from gmic.config import CLASSES, GMIC3DConfig
from gmic.errors import ConfigError as ModelConfigError
from gmic.geometry import ReceptiveField
from gmic.inference import Predictor as Model
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
    operating_point: float
    device: str
    config: GMIC3DConfig

    def algorithm(self) -> Algorithm:
        """The algorithm as a report shows it; nothing that a GPU or a CPU would change."""
        return Algorithm(
            name=ALGORITHM,
            version=self.version,
            weights_sha256=self.weights_sha256,
            trained=self.trained,
            parameters={
                "patches": str(self.config.num_patches),
                "top_t_fraction": f"{self.config.top_t_fraction:g}",
                "slice_margin": str(self.config.slice_margin),
                "window": "x".join(map(str, self.config.window_shape)),
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
            "operating_point": self.operating_point,
            "device": self.device,
        }


@dataclass(frozen=True)
class Prediction:
    """What the model says of one image: a score a label in [0, 1], and its saliency (2, D, h, w) in [0, 1]."""

    scores: dict[Label, float]
    saliency_CDhw: NDArray[np.float32]


class Predictor:
    """One model in memory. Make one a process; `predict` is not for several threads."""

    def __init__(self, model: Model, identity: ModelIdentity) -> None:
        self.identity = identity
        self._model = model

    @classmethod
    def load(cls, settings: Settings) -> Predictor:
        """Load the configured weights, or draw the untrained ones where none are configured.

        Raises:
            WeightsError: the file cannot be used.
            ConfigError: the file is no longer the one that runs are queued for.
            DeviceMissing: no such device.
            DeviceMemoryError: the device has no room.
        """
        if settings.weights is None:
            model, info = weights.seeded(GMIC3DConfig(), UNTRAINED_SEED)
            version = UNTRAINED
        else:
            model, info = weights.load(settings.weights)
            version = model_version(settings)
            if not version.startswith(info.name):
                raise ConfigError(
                    f"weights {settings.weights} changed while being read ({version}, {info.name}); start again"
                )
        try:
            device = None if settings.device == "auto" else settings.device
            held = Model(model, info, device=device, threads=settings.threads or _cpus())
        except ModelConfigError as error:
            raise DeviceMissing(f"setting TOMONODE_DEVICE={settings.device!r}: {error}") from None
        identity = ModelIdentity(
            version=version,
            weights_sha256=info.sha256,
            trained=info.trained,
            description=info.description,
            operating_point=settings.segment_threshold or info.segment_threshold,
            device=str(held.device),
            config=held.config,
        )
        return cls(held, identity)

    @property
    def on_gpu(self) -> bool:
        """Whether the CPU is free while the model computes."""
        return self._model.device.type != "cpu"

    @property
    def receptive_field(self) -> ReceptiveField:
        """Where a saliency cell lies on the window."""
        return self._model.model.receptive_field

    def predict(self, window_DHW: NDArray[np.float32], check: Callable[[], None]) -> Prediction:
        """Read one standardised window; `check` is called before each slice and may raise.

        Raises:
            InputError: the window cannot be read.
            DeviceMemoryError: the device ran out of memory.
        """
        output = self._model.predict(_CheckedWindow(window_DHW, check))
        scores = output.y_final.tolist()
        return Prediction(dict(zip(LABELS, scores, strict=True)), output.saliency_CDHW.numpy())


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


def _cpus() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0))
