"""First values of a model's weights (paper, V-B.4; He et al. 2015 for the networks)."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from gmic.errors import ConfigError
from gmic.model import GMIC3D


def initialise(model: GMIC3D, rng: np.random.Generator | int, omega: float) -> None:
    """Fill `model` anew, in place; the same seed gives the same weights on every machine.

    Convolutions are drawn as He et al. propose for ReLUs, the attention as Glorot and Bengio do for
    its tanh and sigmoid, norms start as the identity. The saliency layer is constant: whatever
    feature fires, the maps light up there (V-B.4).

    Args:
        model: The model.
        rng: Source of the numbers, or a seed for one.
        omega: Every weight of the saliency layer, above 0; the paper draws it from 0.001 to 0.01.

    Raises:
        ConfigError: `omega` is not a finite number above 0.
    """
    draw = np.random.default_rng(rng)
    for network in (model.global_network, model.local_network):
        initialise_network(network, draw)
    for module in model.attention.modules():
        if isinstance(module, nn.Linear):
            rows, cols = module.weight.shape
            _fill(module.weight, math.sqrt(2 / (rows + cols)), draw)
    initialise_saliency(model, omega)


def initialise_network(network: nn.Module, draw: np.random.Generator) -> None:
    """Convolutions from a normal distribution of variance 2 / inputs; norms to the identity."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            _fill(module.weight, math.sqrt(2 / math.prod(module.weight.shape[1:])), draw)
        elif isinstance(module, nn.GroupNorm | nn.BatchNorm2d):
            module.reset_parameters()


def initialise_saliency(model: GMIC3D, omega: float) -> None:
    """Set every weight of the saliency layer to `omega`.

    Raises:
        ConfigError: `omega` is not a finite number above 0.
    """
    if not (math.isfinite(omega) and omega > 0):
        raise ConfigError(f"omega is {omega}; it must be a finite number above 0")
    with torch.no_grad():
        model.saliency_head.conv.weight.fill_(omega)


def _fill(weight: Tensor, deviation: float, draw: np.random.Generator) -> None:
    with torch.no_grad():
        weight.copy_(torch.from_numpy(deviation * draw.standard_normal(tuple(weight.shape))))
