"""The first model of the training demonstration: the demonstration weights, for images that are coarse already."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from gmic import weights
from gmic.model import GMIC3D
from gmic.study.settings import BINNING, NETWORK
from node.errors import ConfigError


def coarse_weights(source: Path, folder: Path, name: str) -> Path:
    """Write the same tensors for windows of the study's size, which are not averaged again; returns the file.

    Raises:
        ConfigError: no such file, or weights of another kind.
        WeightsError: it cannot be read.
        OSError: the folder cannot be written.
    """
    if not source.is_file():
        raise ConfigError(f"no demonstration weights at {source}; give some with --weights")
    model, info = weights.load(source)
    if model.config.binning != BINNING:
        raise ConfigError(
            f"weights {source} average {model.config.binning} pixels a side, not {BINNING}; give demonstration weights"
        )
    config = dataclasses.replace(model.config, window_shape=NETWORK.window_shape, binning=1)
    coarse = GMIC3D(config)
    coarse.load_state_dict(model.state_dict())
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.safetensors"
    weights.save(coarse.eval(), path, dataclasses.replace(info, name=name, version="1"))
    return path
