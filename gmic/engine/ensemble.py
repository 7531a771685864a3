"""Several models and several modalities read together: predictions are averaged (paper, VII-B).

    Ensemble      models of one modality on one window: the five best of a search
    MultiModal    one reader a modality, each with its own window of the same breast and view

Averaging over the views of a breast belongs to `gmic.evaluate`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from gmic.errors import ConfigError, InputError
from gmic.inference import Predictor
from gmic.model import GMIC3DOutput
from gmic.volume import SliceSource


class Prediction(Protocol):
    """What every reader gives, whatever else."""

    @property
    def y_final(self) -> Tensor:
        """(2,) in [0, 1], in the order of `gmic.config.CLASSES`."""
        ...


class Reader(Protocol):
    """Anything that reads one standardised window (D, H, W): a predictor, or an ensemble of some."""

    def predict(self, window_DHW: SliceSource, /) -> Prediction:
        """Read it."""
        ...


@dataclass(frozen=True)
class EnsembleOutput:
    """What the models of one ensemble say of one window."""

    y_final: Tensor
    """(2,): mean of the members'."""
    saliency_CDHW: Tensor | None
    """(2, D, h, w): mean of the members' maps; None where their cells do not lie at the same places."""
    members: tuple[GMIC3DOutput, ...]
    """What each said, in the order of the models."""


class Ensemble:
    """Models that read the same window, one after the other.

    Each asks for every slice, so a volume that decodes slices when asked does so once a model.

    Args:
        predictors: At least one.

    Raises:
        ConfigError: No model.
    """

    def __init__(self, predictors: Sequence[Predictor]) -> None:
        if not predictors:
            raise ConfigError("the ensemble has no model; give at least one predictor")
        self.predictors = tuple(predictors)

    def predict(self, window_DHW: SliceSource) -> EnsembleOutput:
        """Read one standardised window (D, H, W) with every model.

        Raises:
            InputError: See `gmic.model.GMIC3D.forward`.
            DeviceMemoryError: The device ran out of memory.
        """
        members = tuple(predictor.predict(window_DHW) for predictor in self.predictors)
        places = {
            (output.saliency_CDHW.shape, predictor.model.receptive_field)
            for predictor, output in zip(self.predictors, members, strict=True)
        }
        maps = [output.saliency_CDHW for output in members]
        return EnsembleOutput(
            y_final=_mean(members),
            saliency_CDHW=torch.stack(maps).mean(dim=0) if len(places) == 1 else None,
            members=members,
        )


@dataclass(frozen=True)
class MultiModalOutput:
    """What the modalities of one breast and view say together."""

    y_final: Tensor
    """(2,): mean over the modalities, each counted once however many models it has."""
    modalities: Mapping[str, Prediction]
    """What each said, by its name."""


class MultiModal:
    """One reader a modality: tomosynthesis, synthesized 2D, FFDM, ...

    A 2D image is a volume of one slice.

    Args:
        readers: A reader by the name of its modality; at least one.

    Raises:
        ConfigError: No reader.
    """

    def __init__(self, readers: Mapping[str, Reader]) -> None:
        if not readers:
            raise ConfigError("there is no modality to read; give at least one reader")
        self.readers = dict(readers)

    def predict(self, windows: Mapping[str, SliceSource]) -> MultiModalOutput:
        """Read the windows there are; a modality without one is left out of the mean.

        Args:
            windows: A standardised window (D, H, W) by the name of its modality.

        Raises:
            InputError: No window, one of an unknown modality, or one that cannot be read.
            DeviceMemoryError: The device ran out of memory.
        """
        known = ", ".join(self.readers)
        if not windows:
            raise InputError(f"there is no window to read; give one of {known}")
        unknown = sorted(set(windows) - set(self.readers))
        if unknown:
            raise InputError(f"no model reads modality {unknown[0]!r}; known: {known}")
        found = {name: self.readers[name].predict(window) for name, window in windows.items()}
        return MultiModalOutput(_mean(list(found.values())), found)


def _mean(predictions: Sequence[Prediction]) -> Tensor:
    return torch.stack([prediction.y_final for prediction in predictions]).mean(dim=0)
