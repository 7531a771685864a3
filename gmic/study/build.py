"""The models of the study's variants, and the images each of them reads."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gmic.errors import ConfigError
from gmic.model import GMIC3D
from gmic.preprocess import standardise
from gmic.saliency import SaliencyHead
from gmic.study.cohort import ImageSettings, PhantomSet
from gmic.study.settings import Stage, StudySettings, Variant, model_config
from gmic.train.data import Example
from gmic.train.initialise import initialise


class SigmoidHead(SaliencyHead):
    """The nonlinearity of the first GMIC: no cell is ever 0, and all start at one half."""

    def forward(self, features_NChw: Tensor) -> Tensor:
        """Features (N, C, h, w) to saliency (N, 2, h, w) in (0, 1)."""
        logits_N2hw: Tensor = self.conv(features_NChw)
        precision = torch.promote_types(logits_N2hw.dtype, torch.float32)
        return torch.sigmoid(logits_N2hw.to(precision))


def build(settings: StudySettings, variant: Variant, seed: int, slices: int) -> GMIC3D:
    """The model of a variant with its first weights.

    Args:
        settings: The study.
        variant: What differs.
        seed: Of the weights.
        slices: That the model will read of each volume, for `top_t_of` "volume".

    Raises:
        ConfigError: A saliency no variant has.
    """
    if variant.saliency not in ("relu-tanh", "sigmoid"):
        raise ConfigError(f"saliency is {variant.saliency!r}; give 'relu-tanh' or 'sigmoid'")
    config = model_config(settings, variant)
    if variant.top_t_of == "volume":
        # The share of a slice that is as many cells as the share `top_t_fraction` of the volume.
        config = dataclasses.replace(config, top_t_fraction=VOLUME_T * slices)
    head = SigmoidHead if variant.saliency == "sigmoid" else SaliencyHead
    model = GMIC3D(config, saliency_head=head(config.stage_channels[-1]))
    initialise(model, seed, settings.omega)
    if not variant.constant:
        weight = model.saliency_head.conv.weight
        drawn = np.random.default_rng([seed, 1]).standard_normal(tuple(weight.shape))
        with torch.no_grad():
            weight.copy_(torch.from_numpy(drawn / math.sqrt(weight.shape[1])))
    return model


VOLUME_T = 0.02
"""t of the variant that counts cells of the whole volume, as the first GMIC counted those of an image."""


class StudyImages(Protocol):
    """Images with what is needed to train on them."""

    examples: Sequence[Example]

    def volume(self, index: int) -> NDArray[np.float32]:
        """Standardised window of image `index`."""
        ...


class Projected:
    """The mean over the slices of each image, standardised again: (1, H, W)."""

    def __init__(self, images: StudyImages) -> None:
        self.examples = images.examples
        self._images = images

    def volume(self, index: int) -> NDArray[np.float32]:
        """Projection of image `index`."""
        projection: NDArray[np.float32] = self._images.volume(index).mean(0, np.float32)[None]
        standardise(projection)
        return projection


def images_for(
    settings: StudySettings, variant: Variant, split: str, cache: Path, stage: Stage | None = None
) -> StudyImages:
    """The images of a split as a variant reads them, in a stage of the pre-training or after it."""
    own: ImageSettings = settings.images
    breasts = settings.breasts[split]
    if stage is not None:
        own = dataclasses.replace(
            own,
            lesion_factor=stage.lesion_factor,
            distractor_factor=stage.distractor_factor,
        )
        # Choosing an epoch of a stage needs no more than a glance.
        breasts = stage.breasts if split == "train" else max(breasts // 2, 10)
    images = PhantomSet(own, split, breasts, cache)
    return Projected(images) if variant.projection else images
