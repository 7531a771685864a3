"""Bad input at every door that leads to the model: one clear line each, nothing executed, nothing changed.

What single functions refuse is tested beside them; here the same input comes by each way in.
"""

from __future__ import annotations

import copy
import dataclasses
import io
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gmic.engine.augmented import predict_augmented
from gmic.engine.ensemble import Ensemble
from gmic.engine.reduced import in_bfloat16
from gmic.errors import CheckpointError, InputError, WeightsError
from gmic.inference import Predictor
from gmic.model import GMIC3D
from gmic.preprocess import preprocess
from gmic.train import checkpoint
from gmic.train.step import train_step
from gmic.weights import load, load_published, save, seeded
from tests.unit.gmic.small import CONFIG, volume

Door = Callable[[Any], object]


MODEL, INFO = seeded(CONFIG, 3)


def _predictor(ahead: int = 0) -> Predictor:
    return Predictor(MODEL, INFO, device="cpu", ahead=ahead)


def _train(x: Any) -> object:
    model = copy.deepcopy(MODEL).train()
    labels = torch.tensor([[0.0, 1.0]])
    return train_step(model, [x], labels, 1e-4, np.random.default_rng(0))


DOORS: dict[str, Door] = {
    "exact": lambda x: _predictor().predict(x),
    "read ahead": lambda x: _predictor(ahead=2).predict(x),
    "bfloat16": lambda x: in_bfloat16(MODEL)(x),
    "ensemble": lambda x: Ensemble([_predictor(), _predictor()]).predict(x),
    "augmented": lambda x: predict_augmented(_predictor(), x, np.random.default_rng(0), draws=2),
    "training": _train,
}


def _spoiled(value: float) -> np.ndarray[Any, Any]:
    x = volume(3)
    x[1, 100, 50] = value
    return x


VOLUMES = {
    "smaller than a patch": (volume(2)[:, :63, :], "63 x 192 pixels; give at least 64 x 64"),
    "narrower than a patch": (volume(2)[:, :, :40], "256 x 40 pixels; give at least 64 x 64"),
    "one slice without its axis": (volume(1)[0], "slices, rows, columns"),
    "no slice": (volume(1)[:0], "at least one slice"),
    "not a number": (_spoiled(np.nan), "slice 1 holds NaN"),
    "infinite": (_spoiled(-np.inf), "slice 1 holds NaN or infinity"),
    "nothing but NaN": (np.full((2, 256, 192), np.nan, np.float32), "slice 0 holds NaN"),
    "constant": (np.full((2, 256, 192), 7.0, np.float32), "every voxel is 7"),
    "black": (np.zeros((1, 256, 192), np.float32), "every voxel is 0"),
    "complex": (volume(2).astype(complex), "give real numbers"),
}


# Moving slices needs slices of real numbers, so these two do not get as far as the model there.
NOT_MOVED = {("augmented", "one slice without its axis"), ("augmented", "complex")}
CASES = [(door, kind) for door in DOORS for kind in VOLUMES if (door, kind) not in NOT_MOVED]


@pytest.mark.parametrize(("door", "kind"), CASES)
def test_a_volume_that_cannot_be_read_is_refused_everywhere(door: str, kind: str) -> None:
    bad, says = VOLUMES[kind]
    with pytest.raises(InputError, match=says) as caught:
        DOORS[door](bad)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["not a number", "constant"])
def test_a_training_step_that_is_refused_leaves_no_gradients(kind: str) -> None:
    model = copy.deepcopy(MODEL).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    labels = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    with pytest.raises(InputError):
        train_step(model, [volume(2), VOLUMES[kind][0]], labels, 1e-4, None)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("ahead", [0, 2])
def test_fewer_cells_than_top_t_wants_are_all_taken(ahead: int) -> None:
    """t of 229 % with one slice, on which the published code fails."""
    model, info = seeded(dataclasses.replace(CONFIG, top_t_fraction=2.29), 3)
    output = Predictor(model, info, device="cpu", ahead=ahead).predict(volume(1))
    torch.testing.assert_close(output.y_global, output.saliency_CDHW.mean(dim=(1, 2, 3)))
    result = train_step(model.train(), [volume(1)], torch.tensor([[0.0, 1.0]]), 1e-4, None)
    assert np.isfinite(result.loss)


def test_a_volume_with_nan_that_reaches_preprocessing_does_not_reach_the_model() -> None:
    x = np.zeros((2, 700, 500), np.float32)
    x[:, 150:550, :350] = 400.0
    x[1, 300, 100] = np.nan
    with pytest.raises(InputError):
        _predictor().predict(preprocess(x, "L", "CC").window_DHW)


class _Trap:
    """Makes a file when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def _zip_pickle(trap: _Trap) -> bytes:
    buffer = io.BytesIO()
    torch.save({"state_dict": {"a": torch.ones(1)}, "x": trap}, buffer)
    return buffer.getvalue()


def _old_pickle(trap: _Trap) -> bytes:
    buffer = io.BytesIO()
    torch.save({"x": trap}, buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


TRAPS: dict[str, Callable[[_Trap], bytes]] = {
    "plain pickle": lambda trap: pickle.dumps({"x": trap}),
    "torch pickle": _zip_pickle,
    "torch pickle of old": _old_pickle,
}


@pytest.mark.parametrize("trap", TRAPS)
@pytest.mark.parametrize("name", ["x.p", "x.pth", "x.safetensors"])
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_code_in_a_weights_file_is_not_run(trap: str, name: str, tmp_path: Path) -> None:
    sprung, path = tmp_path / "sprung", tmp_path / name
    path.write_bytes(TRAPS[trap](_Trap(sprung)))
    model = GMIC3D(CONFIG)
    doors: tuple[Door, ...] = (
        lambda p: load_published(model, p),
        load,
        lambda p: Predictor.from_file(p, device="cpu"),
    )
    for door in doors:
        with pytest.raises(WeightsError) as caught:
            door(path)
        assert name in str(caught.value)
        assert "\n" not in str(caught.value)
    assert not sprung.exists()


def test_the_trap_would_spring(tmp_path: Path) -> None:
    """So that the test above means something."""
    pickle.loads(TRAPS["plain pickle"](_Trap(tmp_path / "sprung")))
    assert (tmp_path / "sprung").exists()


def test_code_in_a_training_checkpoint_is_not_run(tmp_path: Path) -> None:
    data = checkpoint.encode({"x": _Trap(tmp_path / "sprung")})
    with pytest.raises(CheckpointError, match="more than tensors"):
        checkpoint.decode(data, tmp_path / "c")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("keep", [0, 1, 8, 200, -1])
def test_a_truncated_weights_file_is_refused(keep: int, tmp_path: Path) -> None:
    model, info = seeded(CONFIG, 5)
    path = tmp_path / "w.safetensors"
    save(model, path, info)
    path.write_bytes(path.read_bytes()[:keep])
    for door in (load, lambda p: load_published(GMIC3D(CONFIG), p)):
        with pytest.raises(WeightsError, match="damaged"):
            door(path)


@pytest.mark.parametrize("keep", [0, 1, 2, 3, 16, 500, 11000, 20000, -1])
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_truncated_checkpoint_is_refused(zipped: bool, keep: int, tmp_path: Path) -> None:
    """Both formats of PyTorch; a cut pickle makes its reader fail in many ways."""
    path = tmp_path / "w.p"
    torch.save(MODEL.state_dict(), path, _use_new_zipfile_serialization=zipped)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(WeightsError, match=r"w\.p") as caught:
        load_published(GMIC3D(CONFIG), path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_file_of_nonsense_is_refused(seed: int, tmp_path: Path) -> None:
    random = np.random.default_rng(seed)
    start = pickle.dumps({"a": 1}, protocol=2)[: int(random.integers(0, 8))]
    path = tmp_path / "w.pt"
    path.write_bytes(start + random.bytes(int(random.integers(0, 300))))
    with pytest.raises(WeightsError, match=r"w\.pt"):
        load_published(GMIC3D(CONFIG), path)


def test_a_header_that_claims_more_than_the_file_holds_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(struct.pack("<Q", 2**62) + b"{}")
    with pytest.raises(WeightsError, match="damaged"):
        load(path)


def test_a_folder_is_no_weights_file(tmp_path: Path) -> None:
    for door in (load, lambda p: load_published(GMIC3D(CONFIG), p)):
        with pytest.raises(WeightsError, match="cannot read"):
            door(tmp_path)


def test_weights_of_another_shape_are_refused_by_the_predictor(tmp_path: Path) -> None:
    """A published checkpoint for other widths than the configuration says."""
    model, _ = seeded(dataclasses.replace(CONFIG, stage_channels=(16, 16)), 5)
    with pytest.raises(WeightsError, match=r"is \[16, .*, not \[8, .*; check the config"):
        load_published(GMIC3D(CONFIG), model.state_dict())
