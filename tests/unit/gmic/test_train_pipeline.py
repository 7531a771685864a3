"""The four steps of Fig. 5, and the command that runs every kind of training."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from gmic import weights
from gmic.errors import CheckpointError, ConfigError
from gmic.train.__main__ import main
from gmic.train.pipeline import FIGURE_5, RECIPES, Recipe, Stage, run_pipeline, stages_for
from gmic.train.pretrain import PretrainConfig, load_pretrained
from gmic.train.settings import TrainConfig, replaced
from gmic.train.task import Progress
from tests.unit.gmic.training import TINY, images, write_folder

ONE = TrainConfig(learning_rate=1e-3, epochs=1, batch=4, metric="mean")
RECIPE = Recipe(TINY, 0.05, PretrainConfig(), ONE, ONE)
FLAGS = ["--epochs=2", "--batch=4", "--learning-rate=0.001", "--device=cpu", "--threads=1"]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def test_figure_5_is_in_order_and_starts_where_the_paper_does() -> None:
    done: set[str] = set()
    for stage in FIGURE_5:
        assert stage.start is None or stage.start in done
        done.add(stage.name)
    starts = {stage.name: stage.start for stage in FIGURE_5}
    assert starts == {
        "birads-ffdm": None,
        "birads-dbt": "birads-ffdm",
        "birads-s2d": "birads-ffdm",
        "ffdm": "birads-ffdm",
        "dbt": "birads-dbt",
        "s2d": "birads-s2d",
    }
    assert {stage.modality for stage in FIGURE_5} == set(RECIPES)


def test_all_stages_run_and_each_starts_from_its_own(tmp_path: Path) -> None:
    sets = {
        name: (images(4, depth=depth), images(4, 50, depth=depth))
        for name, depth in (("ffdm", 1), ("dbt", 3), ("s2d", 1))
    }
    told: list[tuple[str, int]] = []

    def watch(stage: Stage, progress: Progress) -> None:
        if progress.metrics is not None:
            told.append((stage.name, progress.epoch))
        if stop and told == [("birads-ffdm", 1), ("birads-dbt", 1)]:
            raise InterruptedError

    stop = True
    recipes = dict.fromkeys(sets, RECIPE)
    with pytest.raises(InterruptedError):
        run_pipeline(sets, recipes, tmp_path, on_progress=watch)
    with pytest.raises(CheckpointError, match="holds a training already"):
        run_pipeline(sets, recipes, tmp_path)
    stop = False
    found = run_pipeline(sets, recipes, tmp_path, resume=True, on_progress=watch)
    assert told == [(stage.name, 1) for stage in FIGURE_5]
    assert set(found) == {stage.name for stage in FIGURE_5}
    load_pretrained(found["birads-dbt"])
    assert "Started from birads-dbt " in weights.load(found["dbt"])[1].description
    assert "Started from birads-ffdm " in weights.load(found["ffdm"])[1].description
    # Another start is noticed, also where the stage on top had ended.
    changed = load_pretrained(found["birads-ffdm"])
    with torch.no_grad():
        changed.classifier.bias.add_(1)
    from gmic.train.pretrain import save_pretrained

    save_pretrained(changed, found["birads-ffdm"])
    with pytest.raises(CheckpointError, match=r"of another training: settings\.start was"):
        run_pipeline(sets, recipes, tmp_path, resume=True)


def test_modalities_may_be_left_out_but_not_what_others_start_from() -> None:
    names = [stage.name for stage in stages_for({"ffdm", "dbt"})]
    assert names == ["birads-ffdm", "birads-dbt", "ffdm", "dbt"]
    with pytest.raises(
        ConfigError, match="stage birads-dbt starts from birads-ffdm, which needs ffdm"
    ):
        stages_for({"dbt"})
    with pytest.raises(ConfigError, match="no images of any modality"):
        stages_for(set())


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "data", train=8, valid=4)


@pytest.fixture
def model_json(tmp_path: Path) -> Path:
    path = tmp_path / "model.json"
    path.write_text(json.dumps(TINY.to_dict()))
    return path


def test_pretrain_then_fit_then_search_from_the_command(
    data: Path, model_json: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["--data", str(data), *FLAGS]
    first, second, third = (str(tmp_path / name) for name in ("pre", "fit", "search"))
    what = ["--pooling", "max", "--target", "labels"]
    assert main(["pretrain", *common, "--out", first, "--model", str(model_json), *what]) == 0
    start = ["--start", first + "/best.safetensors"]
    assert main(["fit", *common, "--out", second, *start, "--no-augment", "--omega", "0.05"]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    lines = said.out.splitlines()
    assert [line.split(":")[0] for line in lines[:3]] == [
        "epoch 1",
        "epoch 2",
        lines[2].split(":")[0],
    ]
    assert lines[2].startswith("best epoch ")
    info = weights.load(second + "/best.safetensors")[1]
    assert info.config == TINY
    assert "Started from best " in info.description
    again = ["fit", *common, "--out", second, *start, "--no-augment", "--omega", "0.05", "--resume"]
    assert main(again) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1
    ranges = tmp_path / "ranges.json"
    ranges.write_text('{"num_patches": [2], "top_t_fraction": [0.05, 0.5]}')
    few = ["--trials", "2", "--keep", "1", "--ranges", str(ranges)]
    assert main(["search", *common, "--out", third, *start, *few]) == 0
    assert "kept " in capsys.readouterr().out


def test_the_pipeline_from_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_folder(tmp_path / "data" / "ffdm", train=4, valid=4, depth=1)
    recipe = tmp_path / "recipe.json"
    settings = {"epochs": 1, "metric": "mean"}
    values = {"model": TINY.to_dict(), "pretraining": settings, "training": settings}
    recipe.write_text(json.dumps({"ffdm": values}))
    arguments = ["pipeline", "--data", str(tmp_path / "data"), "--out", str(tmp_path / "out")]
    assert main([*arguments, "--recipe", str(recipe), "--device", "cpu"]) == 0
    lines = capsys.readouterr().out.splitlines()
    names = ["birads-ffdm: epoch 1", "ffdm: epoch 1", "birads-ffdm: weights", "ffdm: weights"]
    assert [line.startswith(name) for line, name in zip(lines, names, strict=True)] == [True] * 4


def _broken(path: Path) -> None:
    np.save(path / "i2.npy", np.full((3, 96, 64), np.nan, np.float32))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["fit", "--data", "nowhere"], "nowhere holds no index"),
        (["fit", "--epochs", "0"], "epochs is 0; it must be a whole number above 0"),
        (["fit", "--threads", "0"], "threads is 0"),
        (["fit", "--device", "gpu"], "no device is called 'gpu'"),
        (["fit", "--omega", "-1"], "omega is -1.0"),
        (["fit", "--start", "nowhere"], "cannot read weights file nowhere"),
        (["fit", "--start", "bad"], "weights file bad is damaged or not safetensors"),
        (["fit", "--model", "bad"], "bad is no JSON"),
        (["fit", "--model", "list"], "list holds no JSON object"),
        (["fit", "--model", "field"], "model has no field 'depth'"),
        (["fit", "--model", "window"], "i0.npy has slices of (96, 64) pixels; the model's window"),
        (["fit", "--out", "bad/out"], "Not a directory"),
        (["pretrain", "--pooling", "mean"], "pooling is 'mean'"),
        (["pretrain", "--birads-classes", "2"], "i0 of the training set has BI-RADS group 2"),
        (["search", "--trials", "2"], "trials is 2 and keep 5"),
        (["pipeline"], "no images of any modality"),
        (["pipeline", "--recipe", "field"], "field has 'depth'; known: dbt, s2d, ffdm"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else "",
)
def test_every_failure_is_one_line_and_exit_code_2(
    data: Path,
    model_json: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    says: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, text in (("bad", "{"), ("list", "[]"), ("field", '{"depth": 3}')):
        Path(name).write_text(text)
    Path("window").write_text(json.dumps(TINY.to_dict() | {"window_shape": [96, 80]}))
    whole = {"--data": "data", "--out": "out", "--device": "cpu", "--epochs": "1"}
    if arguments[0] == "pipeline":
        del whole["--epochs"]
    elif "--start" not in arguments:
        whole["--model"] = str(model_json)
    given = dict(zip(arguments[1::2], arguments[2::2], strict=True))
    flags = [text for pair in (whole | given).items() for text in pair]
    assert main([arguments[0], *flags]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert len(said.err.splitlines()) == 1
    assert said.err.startswith("gmic.train: ")
    assert says in said.err


@pytest.mark.parametrize(
    ("flag", "values", "says"),
    [
        ("--model", {"top_t_fraction": None}, "model.top_t_fraction is null; give something like"),
        ("--model", {"stage_channels": None}, "model.stage_channels is null"),
        ("--recipe", {"dbt": {"training": {"learning_rate": 10**400}}}, "dbt.training cannot have"),
        ("--recipe", {"dbt": 5}, "dbt is 5; give an object of fields to replace"),
        ("--recipe", {"dbt": {"training": 5}}, "dbt.training is 5"),
        ("--recipe", {"dbt": {"training": None}}, "dbt.training is null"),
        ("--recipe", {"dbt": {"training": {"clip_norm": "x"}}}, "dbt.training cannot have"),
        ("--recipe", {"dbt": {"training": {"beta": None}}}, "dbt.training.beta is null"),
        ("--ranges", {"beta": [1, "x"]}, "beta is drawn from (1, 'x')"),
        ("--ranges", {"beta": [1]}, "beta is drawn from (1,)"),
        ("--ranges", {"beta": None}, "ranges.beta is null"),
        ("--ranges", [1], "values.json holds no JSON object"),
        ("--ranges", None, "values.json holds no JSON object"),
        ("--ranges", {"num_patches": [0, "a"]}, "num_patches is drawn from (0, 'a')"),
    ],
)
def test_values_of_the_wrong_kind_are_one_line(
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    flag: str,
    values: object,
    says: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    model = TINY.to_dict() | (values if flag == "--model" and isinstance(values, dict) else {})
    Path("model.json").write_text(json.dumps(model))
    Path("values.json").write_text(json.dumps(values))
    command = {"--model": "fit", "--recipe": "pipeline", "--ranges": "search"}[flag]
    flags = ["--data", str(data), "--out", "out", "--device", "cpu"]
    flags += ["--model", "model.json"] if command != "pipeline" else []
    flags += [flag, "values.json"] if flag != "--model" else []
    assert main([command, *flags]) == 2
    said = capsys.readouterr()
    assert len(said.err.splitlines()) == 1
    assert says in said.err


@pytest.mark.parametrize("text", ["1" * 5000, "[" * 100000])
def test_numbers_and_nesting_beyond_what_python_reads_are_no_json(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    path = tmp_path / "model.json"
    path.write_text(text)
    assert (
        main(["fit", "--data", str(data), "--out", str(tmp_path / "o"), "--model", str(path)]) == 2
    )
    assert "model.json is no JSON" in capsys.readouterr().err


def test_null_is_a_value_where_leaving_out_is_one() -> None:
    limited = TrainConfig(clip_norm=2.0, goal=0.9)
    assert replaced(limited, {"clip_norm": None, "goal": None}, "training") == TrainConfig()


def test_another_omega_is_another_training_for_the_command(
    data: Path, model_json: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = ["fit", "--data", str(data), *FLAGS, "--model", str(model_json), "--resume"]
    whole += ["--out", str(tmp_path / "out"), "--epochs=1"]
    assert main([*whole, "--omega", "0.05"]) == 0
    assert main([*whole, "--omega", "0.05"]) == 0
    capsys.readouterr()
    assert main([*whole, "--omega", "0.01"]) == 2
    assert "omega was 0.05, now it is 0.01" in capsys.readouterr().err


def test_another_omega_is_another_training_for_the_pipeline(tmp_path: Path) -> None:
    sets = {"ffdm": (images(4, depth=1), images(4, 50, depth=1))}
    run_pipeline(sets, {"ffdm": RECIPE}, tmp_path)
    other = {"ffdm": dataclasses.replace(RECIPE, omega=0.01)}
    with pytest.raises(CheckpointError, match=r"omega was 0.05, now it is 0.01"):
        run_pipeline(sets, other, tmp_path, resume=True)


def test_bad_voxels_are_found_before_anything_is_trained(
    data: Path, model_json: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _broken(data)
    arguments = ["fit", "--data", str(data), "--out", str(tmp_path / "out"), *FLAGS]
    assert main([*arguments, "--model", str(model_json)]) == 2
    assert "i2.npy: slice 0 holds NaN or infinity" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert main([*arguments, "--model", str(model_json), "--trust-data"]) == 2
    assert "i2.npy: slice 0 holds NaN or infinity" in capsys.readouterr().err


def test_two_processes_started_by_torchrun(data: Path, model_json: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = ["-m", "gmic.train", "fit", "--data", str(data), "--out", str(out), *FLAGS]
    done = subprocess.run(
        [*run, *command, "--model", str(model_json)],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert [line.split(":")[0] for line in done.stdout.splitlines()][:2] == ["epoch 1", "epoch 2"]
    assert len(done.stdout.splitlines()) == 3
    assert weights.load(out / "best.safetensors")[1].trained
