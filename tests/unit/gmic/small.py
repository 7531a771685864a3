"""A 3D-GMIC small enough to run in milliseconds, and volumes for it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gmic.config import GMIC3DConfig

CONFIG = GMIC3DConfig(
    window_shape=(256, 192),
    patch_size=64,
    num_patches=3,
    top_t_fraction=0.5,
    slice_margin=1,
    stem_channels=8,
    stage_channels=(8, 16),
    stage_strides=(1, 2),
    attention_channels=16,
    local_channels=(16, 16, 32, 32),
)


def volume(depth: int = 4, seed: int = 0) -> NDArray[np.float32]:
    """A volume of blurred noise (D, 256, 192), about standardised."""
    rng = np.random.default_rng(seed)
    coarse = rng.standard_normal((depth, 32, 24))
    return np.kron(coarse, np.ones((1, 8, 8))).astype(np.float32)


class Watched:
    """A volume that notes which slices it was asked for."""

    def __init__(self, volume_DHW: NDArray[np.float32]) -> None:
        self._volume, self.shape = volume_DHW, volume_DHW.shape
        self.asked: list[int] = []

    def __getitem__(self, index: int) -> NDArray[np.float32]:
        self.asked.append(index)
        return np.asarray(self._volume[index])
