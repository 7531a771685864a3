"""First weights: constant saliency, He's deviations, the same from the same seed."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from gmic.errors import ConfigError
from gmic.model import GMIC3D
from gmic.train.initialise import initialise
from tests.unit.gmic.small import CONFIG, volume


def test_saliency_starts_constant_and_convolutions_as_he_proposes() -> None:
    model = GMIC3D(CONFIG)
    initialise(model, 4, 0.01)
    assert bool((model.saliency_head.conv.weight == 0.01).all())
    for module in (*model.global_network.modules(), *model.local_network.modules()):
        if isinstance(module, nn.Conv2d) and module.weight.numel() > 4000:
            fan_in = math.prod(module.weight.shape[1:])
            assert module.weight.std().item() == pytest.approx(math.sqrt(2 / fan_in), rel=0.08)


def test_the_seed_decides_and_what_was_there_before_does_not() -> None:
    torch.manual_seed(0)
    first = GMIC3D(CONFIG).train()
    first(volume(2))  # moves the running statistics
    second = GMIC3D(CONFIG)
    initialise(first, 4, 0.01)
    initialise(second, np.random.default_rng(4), 0.01)
    for (name, value), other in zip(
        first.state_dict().items(), second.state_dict().values(), strict=True
    ):
        assert torch.equal(value, other), name


def test_a_fresh_model_lights_up_nowhere_negatively_and_somewhere() -> None:
    model = GMIC3D(CONFIG).eval()
    initialise(model, 4, 0.01)
    saliency = model(volume(2)).saliency_CDHW
    torch.testing.assert_close(saliency[0], saliency[1])
    assert 0 < saliency.max() < 1


@pytest.mark.parametrize("omega", [0.0, -0.1, math.nan, math.inf])
def test_a_useless_constant_is_refused(omega: float) -> None:
    with pytest.raises(ConfigError, match="omega"):
        initialise(GMIC3D(CONFIG), 1, omega)
