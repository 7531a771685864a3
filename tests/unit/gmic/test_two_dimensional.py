"""2D GMIC (paper, V-D.2) is the same model given one slice: a mammogram in the FFDM window."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gmic.config import GMIC3DConfig
from gmic.model import GMIC3D
from gmic.preprocess import FFDM_WINDOW_SHAPE, Preprocessed, preprocess
from gmic.train.initialise import initialise
from gmic.train.step import train_step

CONFIG = GMIC3DConfig(
    window_shape=FFDM_WINDOW_SHAPE,
    num_patches=4,
    top_t_fraction=0.13,
    stem_channels=4,
    stage_channels=(4, 4, 8, 8, 8),
    blocks_per_stage=1,
    norm_groups=4,
    local_channels=(4, 4, 8, 8),
)


@pytest.fixture(scope="module")
def mammogram() -> Preprocessed:
    rows, cols = np.ogrid[:3328, :2560]
    radius = ((rows - 1664) / 1500) ** 2 + (cols / 1700) ** 2
    tissue = 400 + 200 * np.sin(rows / 40) * np.cos(cols / 55)
    frame = np.where(radius < 1, tissue, 0).astype(np.uint16)
    return preprocess(frame[None], "L", "CC", window_shape=FFDM_WINDOW_SHAPE)


def test_a_mammogram_is_cut_to_its_window(mammogram: Preprocessed) -> None:
    window = mammogram.window_DHW
    assert window.shape == (1, 2866, 1814)
    assert mammogram.transform.window_shape == window.shape
    assert window.mean(dtype=np.float64) == pytest.approx(0, abs=1e-4)
    assert window.std(dtype=np.float64) == pytest.approx(1, abs=1e-4)


def test_the_model_reads_it_and_learns_from_it(mammogram: Preprocessed) -> None:
    model = GMIC3D(CONFIG)
    initialise(model, 1, 0.02)
    output = model.eval()(mammogram.window_DHW)
    assert output.saliency_CDHW.shape == (2, 1, 45, 29)
    for box in model.patch_boxes(output):
        assert box.slice_index == 0
        assert 0 <= box.row0 < box.row1 <= 2866
        assert 0 <= box.col0 < box.col1 <= 1814
    rng = np.random.default_rng(0)
    before = rng.bit_generator.state
    train_step(model.train(), [mammogram.window_DHW], torch.tensor([[0.0, 1.0]]), 1e-4, rng)
    assert rng.bit_generator.state == before  # one slice: none to draw from
    assert all(bool(p.grad is not None and p.grad.isfinite().all()) for p in model.parameters())
