"""Random search: what is drawn, what is kept, and going on after a kill."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gmic import weights
from gmic.errors import CheckpointError, ConfigError, DivergedError
from gmic.train.pretrain import PretrainConfig, Pretrainer
from gmic.train.search import (
    RANGES_2D,
    RANGES_3D,
    Ranges,
    SearchConfig,
    Subject,
    draw_trial,
    search,
)
from tests.unit.gmic.training import SHORT, TINY, images

FAST = Ranges(learning_rate=(1e-4, 1e-2), top_t_fraction=(0.05, 0.5), num_patches=(1, 2))
THREE = SearchConfig(FAST, trials=3, keep=2, seed=4)


@pytest.fixture
def subject() -> Subject:
    torch.set_num_threads(1)
    training = dataclasses.replace(SHORT, epochs=1, metric="mean")
    return Subject(TINY, images(4), images(8, 50), training)


@pytest.mark.parametrize(
    ("ranges", "t", "patches", "beta"),
    [
        (RANGES_3D, (0.1097, 2.7425), {8, 12, 16}, (-6.54, -4.54)),
        (RANGES_2D, (0.01, 0.25), {4, 6, 8}, (-5.5, -3.5)),
    ],
    ids=["3d", "2d"],
)
def test_draws_fill_the_papers_ranges_and_no_more(
    ranges: Ranges, t: tuple[float, float], patches: set[int], beta: tuple[float, float]
) -> None:
    drawn = [draw_trial(SearchConfig(ranges), number) for number in range(400)]
    assert {trial.num_patches for trial in drawn} == patches
    for values, (low, high) in (
        ([math.log10(trial.learning_rate) for trial in drawn], (-5.5, -4.5)),
        ([math.log10(trial.omega) for trial in drawn], (-3, -2)),
        ([trial.top_t_fraction for trial in drawn], t),
        ([math.log10(trial.beta) for trial in drawn], beta),
    ):
        places = (np.array(values) - low) / (high - low)
        assert 0 <= places.min() < 0.02
        assert 0.98 < places.max() <= 1
        assert abs(places.mean() - 0.5) < 0.06
    assert len({trial.seed for trial in drawn}) == 400


def test_a_trial_depends_on_seed_and_number_alone() -> None:
    assert draw_trial(SearchConfig(seed=3), 7) == draw_trial(SearchConfig(seed=3, trials=9), 7)
    assert draw_trial(SearchConfig(seed=3), 7) != draw_trial(SearchConfig(seed=4), 7)


def test_the_best_are_kept_best_first(subject: Subject, tmp_path: Path) -> None:
    kept = search(subject, THREE, tmp_path)
    table = json.loads((tmp_path / "search.json").read_text())
    assert [trial["number"] for trial in table["trials"]] == [0, 1, 2]
    metrics = {trial["weights"]: trial["metric"] for trial in table["trials"]}
    assert [str(path.relative_to(tmp_path)) for path in kept] == table["best"]
    assert [metrics[name] for name in table["best"]] == sorted(metrics.values())[:0:-1]
    for trial in table["trials"]:
        model, info = weights.load(tmp_path / trial["weights"])
        assert info.sha256 == trial["sha256"]
        assert info.name == f"3d-gmic-00{trial['number']}"
        assert model.config.num_patches == trial["num_patches"]
        assert model.config.top_t_fraction == trial["top_t_fraction"]


def test_a_stopped_search_goes_on_the_same(subject: Subject, tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def stop(progress: object) -> None:
        told.append(progress)
        if len(told) == 3:
            raise Stop

    told: list[object] = []
    search(subject, THREE, tmp_path / "whole")
    with pytest.raises(Stop):
        search(subject, THREE, tmp_path / "cut", on_progress=stop)
    with pytest.raises(CheckpointError, match="holds a training already"):
        search(subject, THREE, tmp_path / "cut")
    search(subject, THREE, tmp_path / "cut", resume=True)
    table = "search.json"
    assert (tmp_path / "cut" / table).read_text() == (tmp_path / "whole" / table).read_text()


def test_trials_start_from_the_pretraining(subject: Subject, tmp_path: Path) -> None:
    start = Pretrainer(TINY, PretrainConfig())
    start.initialise(5)
    still = Ranges(learning_rate=(1e-30, 1e-30), num_patches=(2,), top_t_fraction=(0.1, 0.1))
    started = dataclasses.replace(subject, start=start)
    kept = search(started, SearchConfig(still, trials=1, keep=1), tmp_path)
    model = weights.load(kept[0])[0]
    for name, value in start.global_network.state_dict().items():
        torch.testing.assert_close(
            model.global_network.state_dict()[name], value, rtol=1e-7, atol=1e-20, msg=name
        )


def test_trials_that_diverge_are_listed_and_left_behind(subject: Subject, tmp_path: Path) -> None:
    wild = dataclasses.replace(FAST, learning_rate=(1e30, 1e30))
    longer = dataclasses.replace(
        subject, training=dataclasses.replace(subject.training, epochs=2, batch=1)
    )
    with pytest.raises(DivergedError, match="all 2 trials diverged; lower the learning rates"):
        search(longer, SearchConfig(wild, trials=2, keep=1), tmp_path)
    table = json.loads((tmp_path / "search.json").read_text())
    assert ["lower the learning rate" in trial["failed"] for trial in table["trials"]] == [True] * 2


def test_searches_there_are_not_are_refused() -> None:
    with pytest.raises(ConfigError, match="trials is 3 and keep 5"):
        SearchConfig(trials=3)
    with pytest.raises(ConfigError, match="beta is drawn from 0 to 1"):
        Ranges(beta=(0, 1))
    with pytest.raises(ConfigError, match="num_patches is drawn from nothing"):
        Ranges(num_patches=())
    with pytest.raises(ConfigError, match="seed is -1"):
        SearchConfig(seed=-1)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"beta": (1, "x")}, r"beta is drawn from \(1, 'x'\); give a lowest and a highest number"),
        ({"beta": (1,)}, r"beta is drawn from \(1,\)"),
        ({"omega": None}, "omega is drawn from None"),
        ({"omega": (True, 2)}, r"omega is drawn from \(True, 2\)"),
        (
            {"num_patches": (0, 4)},
            r"num_patches is drawn from \(0, 4\); give whole numbers above 0",
        ),
        ({"num_patches": (4, "a")}, r"num_patches is drawn from \(4, 'a'\)"),
        ({"num_patches": (1.5,)}, r"num_patches is drawn from \(1.5,\)"),
    ],
)
def test_ranges_of_the_wrong_kind_are_refused(values: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        Ranges(**values)


def test_a_search_goes_on_with_its_own_draws_alone(subject: Subject, tmp_path: Path) -> None:
    two = dataclasses.replace(THREE, trials=2)
    search(subject, two, tmp_path)
    other = dataclasses.replace(two, ranges=dataclasses.replace(FAST, omega=(2e-3, 1e-2)))
    before = (tmp_path / "search.json").read_text()
    with pytest.raises(ConfigError, match=r"omega was \[0.001, 0.01\], now it is \[0.002, 0.01\]"):
        search(subject, other, tmp_path, resume=True)
    with pytest.raises(ConfigError, match="seed was 4, now it is 5"):
        search(subject, dataclasses.replace(two, seed=5), tmp_path, resume=True)
    assert (tmp_path / "search.json").read_text() == before
    search(subject, THREE, tmp_path, resume=True)  # one trial more changes no draw
    assert len(json.loads((tmp_path / "search.json").read_text())["trials"]) == 3
    (tmp_path / "search.json").unlink()  # killed before the first trial ended: its checkpoint knows
    with pytest.raises(CheckpointError, match="of another training: omega was"):
        search(subject, other, tmp_path, resume=True)
    (tmp_path / "search.json").write_text("{")
    with pytest.raises(ConfigError, match="is damaged; remove it"):
        search(subject, two, tmp_path, resume=True)
