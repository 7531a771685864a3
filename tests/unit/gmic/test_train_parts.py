"""Models of the global module alone (paper, VII-B and Table II): gradients, training, files, the command."""

from __future__ import annotations

import copy
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from gmic import weights
from gmic.config import GMIC3DConfig
from gmic.errors import CheckpointError, ConfigError, DivergedError
from gmic.inference import Predictor
from gmic.model import GMIC3D
from gmic.train.__main__ import main
from gmic.train.checkpoint import decode
from gmic.train.initialise import initialise
from gmic.train.step import plain_step, train_step
from gmic.train.trainer import train
from tests.unit.gmic.small import Watched
from tests.unit.gmic.training import SHORT, TINY, images, tiny_model, write_folder

GLOBAL = dataclasses.replace(TINY, parts="global")
LABELS = torch.tensor([[0.0, 1.0], [1.0, 0.0]])


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def _model(seed: int = 1, omega: float = 0.05) -> GMIC3D:
    model = GMIC3D(GLOBAL)
    initialise(model, seed, omega)
    return model


def _volumes() -> list[NDArray[np.float32]]:
    return [np.asarray(images(2, depth=depth).volume(n)) for n, depth in ((0, 5), (1, 2))]


def _gradients(model: GMIC3D) -> dict[str, Tensor]:
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("smoothing", [0.0, 0.01])
def test_gradients_equal_plain_autograd(smoothing: float) -> None:
    """Against the one-graph step, and against the loss written down from the model's own output."""
    model, volumes, beta = _model().double().train(), _volumes(), 1e-4
    with torch.no_grad():  # so that the maps of the two classes differ
        weight = model.saliency_head.conv.weight
        weight += 0.1 * torch.linspace(-1, 1, weight.numel()).cos().reshape(weight.shape)
    results, found = [], []
    for step in (train_step, plain_step):
        own = copy.deepcopy(model)
        rng = np.random.default_rng(5)
        results.append(step(own, volumes, LABELS, beta, rng, target_smoothing=smoothing))
        found.append(_gradients(own))
        assert rng.random() == np.random.default_rng(5).random()
    written = copy.deepcopy(model)
    losses = []
    for volume, labels in zip(volumes, LABELS.double(), strict=True):
        output = written(volume)
        y_2 = output.y_global * (1 - 2 * smoothing) + smoothing
        cross = F.binary_cross_entropy(y_2, labels, reduction="sum")
        losses.append(cross + beta * output.saliency_CDHW.abs().sum())
    loss = torch.stack(losses).mean()
    loss.backward()
    wanted = _gradients(written)
    assert {name.split(".")[0] for name in wanted} == {"global_network", "saliency_head"}
    for result, gradients in zip(results, found, strict=True):
        assert result.loss == pytest.approx(loss.item(), rel=1e-12)
        assert bool(result.y_local_B2.isnan().all())
        assert gradients.keys() == wanted.keys()
        for name, gradient in wanted.items():
            off = (gradients[name] - gradient).abs().max() / gradient.abs().max()
            assert off < 1e-10, name


def test_no_patch_is_cut_in_training_and_none_in_reading() -> None:
    model, source = _model().train(), Watched(_volumes()[0])
    train_step(model, [source], LABELS[:1], 1e-4, np.random.default_rng(1))
    assert source.asked == [*range(5), *range(5)]
    source.asked.clear()
    output = model.eval()(source)
    assert source.asked == [*range(5)]
    assert model.patch_boxes(output) == ()
    assert output.patch_corners.shape == (0, 2)
    assert (
        output.patch_slices.shape
        == output.patch_scores.shape
        == output.patch_attention.shape
        == (0,)
    )


def test_reading_gives_what_the_global_module_of_the_whole_model_gives() -> None:
    whole, alone = tiny_model().eval(), _model().eval()
    alone.load_state_dict(whole.state_dict())
    volume = _volumes()[0]
    everything, output = whole(volume), alone(volume)
    assert torch.equal(output.y_final, everything.y_global)
    assert torch.equal(output.y_global, everything.y_global)
    assert torch.equal(output.saliency_CDHW, everything.saliency_CDHW)
    assert bool(output.y_local.isnan().all())
    assert not torch.equal(everything.y_final, everything.y_global)


def test_predictions_that_are_no_numbers_end_the_step() -> None:
    model = _model().train()
    with torch.no_grad():
        model.saliency_head.conv.weight.fill_(torch.nan)
    with pytest.raises(DivergedError, match=r"predictions are y_global \[nan, nan\]; lower"):
        train_step(model, _volumes(), LABELS, 1e-4, None)


def test_it_learns_and_its_file_answers_with_y_global(tmp_path: Path) -> None:
    config = dataclasses.replace(SHORT, epochs=6, learning_rate=3e-3, augment=False, beta=1e-6)
    model, valid = _model(), images(16, 100)
    before = copy.deepcopy(model.state_dict())
    result = train(model, images(32), valid, config, tmp_path)
    assert result.history[-1]["metric"] >= 0.95  # 0.58 before
    assert result.history[-1]["loss"] < 0.7 * result.history[0]["loss"]
    moved = {
        name.split(".")[0]
        for name, v in model.state_dict().items()
        if not torch.equal(v, before[name])
    }
    assert moved == {"global_network", "saliency_head"}
    card = weights.load(result.weights)[1]
    assert card.config == GLOBAL
    assert "Global module alone, y_final is y_global." in card.description
    output = Predictor.from_file(result.weights, device="cpu").predict(valid.volume(0))
    assert torch.equal(output.y_final, output.y_global)


def test_files_and_checkpoints_of_whole_models_say_what_they_said(tmp_path: Path) -> None:
    assert "parts" not in TINY.to_dict()
    assert GMIC3DConfig.from_dict(TINY.to_dict()) == TINY
    assert GLOBAL.to_dict()["parts"] == "global"
    assert GMIC3DConfig.from_dict(GLOBAL.to_dict()) == GLOBAL
    config = dataclasses.replace(SHORT, epochs=1)
    result = train(tiny_model(), images(4), images(4, 50), config, tmp_path)
    assert (
        "parts" not in decode((tmp_path / "checkpoint").read_bytes(), tmp_path)["identity"]["model"]
    )
    assert "odule" not in result.info.description
    with pytest.raises(CheckpointError, match=r"model\.parts was None, now it is 'global'"):
        train(_model(), images(4), images(4, 50), config, tmp_path, resume=True)


@pytest.mark.parametrize("parts", ["local", "", None, 1])
def test_other_parts_are_refused(parts: object) -> None:
    with pytest.raises(ConfigError, match=r"parts is .*; it must be one of all, global"):
        GMIC3DConfig(parts=parts)  # type: ignore[arg-type]


def test_the_command_trains_goes_on_and_searches(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, config = write_folder(tmp_path / "data", train=8, valid=4), tmp_path / "model.json"
    config.write_text(json.dumps(TINY.to_dict()))
    flags = ["--data", str(data), "--model", str(config), "--device=cpu", "--epochs=1"]
    fit = ["fit", *flags, "--out", str(tmp_path / "fit")]
    assert main([*fit, "--parts", "global"]) == 0
    assert weights.load(tmp_path / "fit" / "best.safetensors")[1].config == GLOBAL
    assert main([*fit, "--parts", "global", "--resume"]) == 0
    capsys.readouterr()
    assert main([*fit, "--resume"]) == 2
    assert "model.parts was 'global', now it is None" in capsys.readouterr().err
    assert main([*fit, "--parts", "half"]) == 2
    assert "parts is 'half'; it must be one of all, global" in capsys.readouterr().err
    # A whole model may start from it: its local module is as it was filled, and learns.
    start = ["--start", str(tmp_path / "fit" / "best.safetensors"), "--parts", "all"]
    assert main([*fit[:-1], str(tmp_path / "whole"), *start]) == 0
    assert weights.load(tmp_path / "whole" / "best.safetensors")[1].config == TINY
    few = ["--trials", "1", "--keep", "1", "--out", str(tmp_path / "search"), "--parts", "global"]
    assert main(["search", *flags, *few]) == 0
    found = weights.load(tmp_path / "search" / "trial-000" / "best.safetensors")[1]
    assert found.config.parts == "global"
