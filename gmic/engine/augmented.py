"""Test-time augmentation: a window read several times, shifted and resized at random (paper, V-D.3)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gmic.engine.ensemble import Prediction, Reader
from gmic.errors import ConfigError
from gmic.train.augment import Shift, apply, draw
from gmic.volume import SliceSource

DRAWS = 10
"""Random augmentations an image, as in the paper."""


@dataclass(frozen=True)
class AugmentedOutput:
    """What was said of a window's random versions.

    There is no mean saliency: each draw's map shows another place. `shifts[n]` says where draw n's
    window was moved to.
    """

    y_final: Tensor
    """(2,): mean of the draws'."""
    shifts: tuple[Shift, ...]
    """How the window was moved, draw by draw; `gmic.train.augment.apply` does it again."""
    draws: tuple[Prediction, ...]
    """What was said of each."""


def predict_augmented(
    reader: Reader, window_DHW: SliceSource, rng: np.random.Generator, draws: int = DRAWS
) -> AugmentedOutput:
    """Read a standardised window (D, H, W) in `draws` random versions and average the predictions.

    All versions are drawn before any is read, so the same generator gives the same versions
    whatever the reader. Take a generator of its own for each image where the order of images varies.

    Args:
        reader: A predictor or an ensemble.
        window_DHW: The window; its slices are moved as they are asked for.
        rng: Where chance comes from.
        draws: How many versions, at least 1.

    Raises:
        ConfigError: Fewer than one draw.
        InputError: See `gmic.model.GMIC3D.forward`.
        DeviceMemoryError: The device ran out of memory.
    """
    if draws < 1:
        raise ConfigError(f"draws is {draws}; it must be at least 1")
    shifts = tuple(draw(rng, window_DHW.shape) for _ in range(draws))
    found = tuple(reader.predict(apply(window_DHW, shift)) for shift in shifts)
    mean_2 = torch.stack([prediction.y_final for prediction in found]).mean(dim=0)
    return AugmentedOutput(mean_2, shifts, found)
