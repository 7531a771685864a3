"""A whole study in small: it runs, goes on where it stood, and reports."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from gmic.errors import CheckpointError, DataError
from gmic.study.__main__ import main
from gmic.study.cohort import PhantomSet
from gmic.study.report import write_report
from gmic.study.run import baselines, run
from gmic.study.settings import BINNING, MAIN
from gmic.study.ship import ship
from gmic.weights import load
from tests.unit.gmic.small_study import SETTINGS


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study with its main run done."""
    folder = tmp_path_factory.mktemp("study")
    said: list[str] = []
    run(SETTINGS, MAIN, 0, folder, said.append)
    assert any("testing" in line for line in said)
    return folder


def test_a_run_leaves_figures_scores_and_weights(out: Path) -> None:
    folder = out / "runs" / "main-0"
    result = json.loads((folder / "result.json").read_text())
    assert (result["study"], result["variant"], result["seed"]) == ("small", "main", 0)
    assert result["breasts"] == SETTINGS.breasts["test"]
    assert 0 <= result["malignant"]["auc_low"] <= result["malignant"]["auc_high"] <= 1
    assert len((folder / "scores.csv").read_text().splitlines()) == result["images"]
    model, info = load(folder / "train" / "best.safetensors")
    assert info.trained
    assert model.config == SETTINGS.network


def test_a_run_that_is_done_is_read_back(out: Path) -> None:
    said: list[str] = []
    result = run(SETTINGS, MAIN, 0, out, said.append)
    assert result == json.loads((out / "runs" / "main-0" / "result.json").read_text())
    assert said == []


def test_a_run_goes_on_where_it_stood(out: Path) -> None:
    """Without its figures, but with its trainings, a run comes to the same figures again."""
    folder = out / "runs" / "main-0"
    before = json.loads((folder / "result.json").read_text())
    weights = (folder / "train" / "best.safetensors").read_bytes()
    (folder / "result.json").unlink()
    said: list[str] = []
    again = run(SETTINGS, MAIN, 0, out, said.append)
    assert {**again, "seconds": 0} == {**before, "seconds": 0}
    assert (folder / "train" / "best.safetensors").read_bytes() == weights
    assert not any("loss" in line for line in said)


def test_a_damaged_checkpoint_is_refused(out: Path) -> None:
    folder = out / "runs" / "main-0"
    checkpoint, result = folder / "train" / "checkpoint", folder / "result.json"
    kept, figures = checkpoint.read_bytes(), result.read_bytes()
    try:
        checkpoint.write_bytes(kept[:100])
        result.unlink()
        with pytest.raises(CheckpointError):
            run(SETTINGS, MAIN, 0, out, lambda _line: None)
    finally:
        checkpoint.write_bytes(kept)
        result.write_bytes(figures)


def test_the_report_tells_what_is_there_and_what_is_missing(out: Path) -> None:
    trivial = baselines(SETTINGS, out)
    assert baselines(SETTINGS, out) == trivial
    page = write_report(SETTINGS, out).read_text()
    result = json.loads((out / "runs" / "main-0" / "result.json").read_text())
    assert f"{result['malignant']['auc']:.3f}" in page
    assert "Not run yet: projection-0." in page
    assert "smoothed maximum" in page
    assert (out / "report.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((out / "report.json").read_text())["baselines"] == trivial
    flat = run(SETTINGS, SETTINGS.variants[0], 0, out, lambda _line: None)
    page = write_report(SETTINGS, out).read_text()
    assert "Not run yet" not in page
    assert f"| on the projection | malignant | {flat['malignant']['auc']:.3f}" in page
    difference = flat["malignant"]["auc"] - result["malignant"]["auc"]
    assert f"| on the projection | {difference:+.3f} (" in page


def test_weights_of_a_run_read_full_windows_as_the_run_read_its_own(
    out: Path, tmp_path: Path
) -> None:
    path = tmp_path / "phantom.safetensors"
    with pytest.raises(DataError, match="run main-0 first"):
        ship(SETTINGS, tmp_path, path)
    card = ship(SETTINGS, out, path)
    model, info = load(path)
    assert info == card
    assert info.trained
    assert "phantoms alone" in info.caveat
    assert model.config.binning == BINNING
    trained, _ = load(out / "runs" / "main-0" / "train" / "best.safetensors")
    image = PhantomSet(SETTINGS.images, "test", 1, out / "images").volume(0)
    fine = image.repeat(BINNING, axis=1).repeat(BINNING, axis=2)
    np.testing.assert_allclose(model(fine).y_final, trained(image).y_final, atol=1e-5)


def test_an_empty_study_has_a_report_too(tmp_path: Path) -> None:
    assert "No main run is finished yet." in write_report(SETTINGS, tmp_path).read_text()


def test_command_lists_runs_and_refuses_unknown_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["full", "--list"]) == 0
    listed = capsys.readouterr().out.split()
    assert listed[:3] == ["main-0", "main-1", "main-2"]
    assert "sigmoid-0" in listed
    assert main(["quick", "--out", str(tmp_path), "--run", "main-7"]) == 1
    assert "run 'main-7'; give one of main-0" in capsys.readouterr().err
