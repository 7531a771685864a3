"""The configuration: what it accepts, and that it survives being written down."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from gmic.config import GMIC3DConfig
from gmic.errors import ConfigError
from tests.unit.gmic.small import CONFIG


@pytest.mark.parametrize("config", [GMIC3DConfig(), CONFIG])
def test_to_json_and_back(config: GMIC3DConfig) -> None:
    assert GMIC3DConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("num_patches", 0),
        ("num_patches", 1.5),
        ("patch_size", True),
        ("slice_margin", -1),
        ("top_t_fraction", 0.0),
        ("top_t_fraction", float("nan")),
        ("window_shape", (2116,)),
        ("window_shape", (2116, 200)),
        ("norm_groups", 5),
        ("stage_strides", (1, 2)),
        ("stage_channels", ()),
        ("stage_channels", 5),
        ("stage_channels", None),
        ("top_t_fraction", "1.5"),
        ("top_t_fraction", None),
        ("top_t_fraction", float("inf")),
        ("window_shape", "ab"),
    ],
)
def test_values_no_model_can_have_are_refused(field: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=field):
        GMIC3DConfig(**{field: value})


def test_numbers_of_numpy_are_as_good_as_any() -> None:
    config = GMIC3DConfig(
        num_patches=np.int64(8),
        top_t_fraction=np.float32(0.5),
        window_shape=tuple(np.array([600, 400])),
    )
    assert config == GMIC3DConfig(num_patches=8, top_t_fraction=0.5, window_shape=(600, 400))
    assert json.dumps(config.to_dict())


def test_unknown_fields_are_refused() -> None:
    with pytest.raises(ConfigError, match="colour"):
        GMIC3DConfig.from_dict({"colour": 1})
