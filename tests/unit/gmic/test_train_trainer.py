"""The training loop: it learns, keeps the best, stops early, and says what is wrong."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from gmic import weights
from gmic.errors import ConfigError, DataError, DivergedError
from gmic.evaluate.roc import auc
from gmic.train import loop
from gmic.train.settings import TrainConfig, replaced
from gmic.train.step import train_step
from gmic.train.task import Progress
from gmic.train.trainer import moved, train
from tests.unit.gmic.training import SHORT, TINY, images, tiny_model


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def test_it_learns_and_keeps_the_best_weights(tmp_path: Path) -> None:
    config = dataclasses.replace(SHORT, epochs=7, learning_rate=3e-3, seed=3)
    valid = images(8, 100)
    told: list[Progress] = []
    result = train(tiny_model(), images(16), valid, config, tmp_path, on_progress=told.append)
    assert result.best_metric == 1.0
    assert result.history[-1]["loss"] < result.history[0]["loss"]
    model, info = weights.load(result.weights)
    assert info == result.info
    assert info.trained
    assert "16 images of 16 patients; epoch" in info.description
    scores = [float(model(valid.volume(n)).y_final[1]) for n in range(8)]
    labels = [example.labels[1] for example in valid.examples]
    assert auc(labels, scores) == result.best_metric
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines == list(result.history)
    assert [line["epoch"] for line in lines] == list(range(1, 8))
    assert result.best_epoch == 1 + int(np.argmax([line["metric"] for line in lines]))
    steps = [progress for progress in told if progress.metrics is None]
    assert len(steps) == 7 * 4
    assert len(told) == 7 * 5
    assert [p.step for p in told[:5]] == [1, 2, 3, 4, 4]


def test_one_epoch_is_adam_on_the_steps_drawn(tmp_path: Path) -> None:
    """The loop does what a reader would write down in ten lines."""
    config = dataclasses.replace(SHORT, epochs=1, slice_step=2, clip_norm=0.5, schedule="cosine")
    ours, theirs, train_set = tiny_model(), tiny_model(), images(6)
    train(ours, train_set, images(4, 50), config, tmp_path)
    adam = torch.optim.Adam(theirs.parameters())
    order = np.random.default_rng([config.seed, 0]).permutation(6)
    theirs.train()
    for step, batch in enumerate((order[:4], order[4:])):
        rng = np.random.default_rng([config.seed, 0, step, 0])
        drawn = [moved(train_set, int(n), config, rng) for n in batch]
        adam.param_groups[0]["lr"] = config.learning_rate * (1 + math.cos(math.pi * step / 2)) / 2
        for parameter in theirs.parameters():
            parameter.grad = torch.zeros_like(parameter)
        train_step(
            theirs,
            [volume for volume, _ in drawn],
            torch.tensor([train_set.examples[n].labels for n in batch]),
            config.beta,
            rng,
            slice_choice=[slices for _, slices in drawn],
        )
        nn.utils.clip_grad_norm_(theirs.parameters(), 0.5)
        adam.step()
    for (name, a), b in zip(ours.state_dict().items(), theirs.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_two_dimensional_images_are_volumes_of_one_slice(tmp_path: Path) -> None:
    config = dataclasses.replace(SHORT, epochs=2)
    result = train(tiny_model(), images(8, depth=1), images(4, 50, depth=1), config, tmp_path)
    assert len(result.history) == 2


@pytest.mark.parametrize("autocast", ["bfloat16", "float16"])
def test_mixed_precision_trains_nearly_alike(tmp_path: Path, autocast: str) -> None:
    config = dataclasses.replace(SHORT, epochs=1, metric="mean")
    sets = images(4), images(4, 50)
    full = train(tiny_model(), *sets, config, tmp_path / "full").history[0]["loss"]
    mixed = dataclasses.replace(config, autocast=autocast)
    half = train(tiny_model(), *sets, mixed, tmp_path / "half").history[0]["loss"]
    assert half == pytest.approx(full, rel=0.05)
    assert half != full


class _Scripted:
    """A task whose validation follows a script; its one weight counts the steps."""

    def __init__(self, metrics: Sequence[float], gradient: float = -1.0) -> None:
        self.metrics, self.gradient = list(metrics), gradient
        self.module: nn.Module = nn.Linear(1, 1, bias=False)
        self.sizes, self.width = (5, 3), 1
        self.validated = 0
        self.seen: list[list[int]] = []
        self.saved: list[int] = []

    def identity(self) -> dict[str, object]:
        return {"kind": "scripted"}

    def step(self, indices: Sequence[int], rng: np.random.Generator, scale: float) -> float:
        self.seen.append(list(indices))
        for parameter in self.module.parameters():
            assert parameter.grad is not None
            parameter.grad.fill_(self.gradient * scale)
        return 1.0

    def score(self, index: int) -> Sequence[float]:
        return [float(index)]

    def measure(self, scores_NS: np.ndarray) -> dict[str, float]:
        assert scores_NS.ravel().tolist() == [0, 1, 2]
        self.validated += 1
        return {"metric": self.metrics[self.validated - 1]}

    def save(self, path: Path, epoch: int, metric: float) -> None:
        self.saved.append(epoch)
        path.write_bytes(b"")


def test_it_stops_after_patience_and_keeps_the_first_of_equals(tmp_path: Path) -> None:
    task = _Scripted([0.5, 0.7, 0.6, 0.7, 0.7, 0.9])
    config = TrainConfig(epochs=40, patience=3, batch=2)
    result = loop.run(task, config, tmp_path)
    assert result.stopped_early
    assert len(result.history) == 5
    assert result.best_epoch == 2
    assert task.saved == [1, 2]


def test_it_stops_once_the_goal_is_reached(tmp_path: Path) -> None:
    task = _Scripted([0.5, 0.7, 0.9, 0.8, 1.0])
    result = loop.run(task, TrainConfig(epochs=5, goal=0.9, batch=2), tmp_path)
    assert result.stopped_early
    assert (len(result.history), result.best_epoch) == (3, 3)
    again = loop.run(task, TrainConfig(epochs=5, goal=0.9, batch=2), tmp_path, resume=True)
    assert again == result, "a training that reached its goal is over"


def test_an_epoch_takes_every_image_once_in_a_new_order(tmp_path: Path) -> None:
    task = _Scripted([0.5] * 40)
    result = loop.run(task, TrainConfig(epochs=4, batch=2), tmp_path)
    assert not result.stopped_early
    epochs = np.array([np.concatenate(task.seen[n : n + 3]) for n in range(0, 12, 3)])
    assert (np.sort(epochs) == np.arange(5)).all()
    assert (epochs != epochs[0]).any()


@pytest.mark.parametrize("gradient", [math.nan, math.inf])
def test_a_gradient_that_is_no_number_stops_the_training(tmp_path: Path, gradient: float) -> None:
    task = _Scripted([0.5], gradient)
    before = [p.detach().clone() for p in task.module.parameters()]
    with pytest.raises(DivergedError, match=r"epoch 1, step 1: .* lower the learning rate \(now"):
        loop.run(task, TrainConfig(batch=2), tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(before, task.module.parameters(), strict=True))


def test_a_learning_rate_far_too_high_is_told(tmp_path: Path) -> None:
    config = dataclasses.replace(SHORT, learning_rate=1e30)
    with pytest.raises(DivergedError, match="lower the learning rate") as caught:
        train(tiny_model(), images(4), images(4, 50), config, tmp_path)
    assert "\n" not in str(caught.value)


def test_sets_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="2 images of the validation set have malignant = 0"):
        train(tiny_model(), images(4), images(2, 101), SHORT, tmp_path)
    with pytest.raises(DataError, match="patients are in both"):
        train(tiny_model(), images(4), images(4), SHORT, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("learning_rate", 0.0),
        ("learning_rate", math.nan),
        ("beta", -1.0),
        ("epochs", 0),
        ("patience", 1.5),
        ("goal", 0.0),
        ("goal", 1.5),
        ("batch", True),
        ("seed", -1),
        ("schedule", "linear"),
        ("slice_step", 0),
        ("target_smoothing", 0.5),
        ("autocast", "int8"),
        ("clip_norm", 0.0),
        ("metric", "accuracy"),
        ("checkpoint_every", 0),
    ],
)
def test_settings_no_training_can_have_are_named(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"{name} is {value!r}; it must be"):
        dataclasses.replace(SHORT, **{name: value})  # type: ignore[arg-type]


def test_the_cosine_falls_from_the_learning_rate_to_zero() -> None:
    config = TrainConfig(learning_rate=2.0, epochs=4, schedule="cosine")
    assert [round(config.learning_rate_at(e), 6) for e in (0, 2, 4)] == [2, 1, 0]
    assert TrainConfig(learning_rate=2.0).learning_rate_at(30) == 2


def test_settings_from_json_are_checked() -> None:
    assert replaced(TINY, {"local_channels": [8, 8, 8, 16]}, "model").local_channels[3] == 16
    assert replaced(SHORT, {"learning_rate": 1, "clip_norm": 2}, "x").clip_norm == 2
    with pytest.raises(ConfigError, match="x has no field 'lr'; known: augment, "):
        replaced(SHORT, {"lr": 1}, "x")
    for values in ({"epochs": "3"}, {"augment": 1}, {"name": 3}, {"seed": [1]}):
        with pytest.raises(ConfigError, match=f"x.{next(iter(values))} is .*; give something like"):
            replaced(SHORT, values, "x")
