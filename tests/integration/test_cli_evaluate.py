"""`tomonode evaluate`: reports from tables, and one clear line where a table is bad."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from gmic import weights
from gmic.config import GMIC3DConfig
from gmic.errors import WeightsError
from gmic.published import published_name
from tests.unit.workers.breasts import write_marked

HEAD = "image_id,breast_id,patient_id,benign_label,malignant_label,benign_score,malignant_score\n"


def _table(path: Path, slope: float) -> Path:
    rows = [f"i{n},b{n},p{n},0,{n % 2},0.5,{slope * (n % 2) + n / 100:.3f}\n" for n in range(20)]
    path.write_text(HEAD + "".join(rows))
    return path


def _tomonode(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "workers.cli", "evaluate", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )


def test_two_tables_become_a_report(tmp_path: Path) -> None:
    ours, other = _table(tmp_path / "ours.csv", 1.0), _table(tmp_path / "other.csv", 0.0)
    done = _tomonode("scores", ours, other, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "out" / "report.json").read_text())
    assert "ours" in json.dumps(figures)
    assert "<html" in (tmp_path / "out" / "report.html").read_text()
    assert "report.html" in done.stdout


def test_a_bad_table_is_one_line(tmp_path: Path) -> None:
    table = _table(tmp_path / "ours.csv", 1.0)
    table.write_text(table.read_text().replace("0.120", "a lot"))
    done = _tomonode("scores", table, "--out", tmp_path / "out")
    assert done.returncode == 1
    (line,) = done.stderr.strip().splitlines()
    assert "a lot" in line
    assert not (tmp_path / "out").exists()


def test_duke_without_weights_is_one_line(tmp_path: Path) -> None:
    for name, head in (
        ("paths", "PatientID,StudyUID,View,descriptive_path,classic_path\n"),
        ("labels", "PatientID,StudyUID,View,Normal,Actionable,Benign,Cancer\n"),
    ):
        (tmp_path / f"{name}.csv").write_text(head)
    tables = [f"--{name}={tmp_path / name}.csv" for name in ("paths", "labels")]
    done = _tomonode("duke", *tables, "--images", tmp_path, "--out", tmp_path / "out")
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert "TOMONODE_WEIGHTS" in line


def _duke_tables(folder: Path) -> list[str]:
    """The options of a set of one small breast."""
    file = write_marked(folder / "l", "L", "CC", (2, 320, 200), (1, 150, 40))
    paths, labels = folder / "paths.csv", folder / "labels.csv"
    paths.write_text(
        "PatientID,StudyUID,View,descriptive_path,classic_path\n"
        f"P,S,lcc,{file.relative_to(folder)},x\n"
    )
    labels.write_text("PatientID,StudyUID,View,Normal,Actionable,Benign,Cancer\nP,S,lcc,0,0,0,1\n")
    return [f"--paths={paths}", f"--labels={labels}", f"--images={folder}", "--no-pictures"]


def test_duke_takes_a_published_checkpoint_and_the_engine_is_said(tmp_path: Path) -> None:
    tables = _duke_tables(tmp_path)
    model, _ = weights.seeded(GMIC3DConfig(), 1)
    state = {published_name(name): value for name, value in model.state_dict().items()}
    torch.save(state, tmp_path / "model_best.p")
    given = ["--weights", tmp_path / "model_best.p", "--percent-t=1.5", "--num-patches=2"]
    done = _tomonode("duke", *tables, *given, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "model model_best.p t=1.5 K=2" in done.stdout
    assert "1 images scored" in done.stdout
    faster = _tomonode("duke", *tables, *given, "--engine=bfloat16", "--out", tmp_path / "out")
    assert faster.returncode != 0
    (line,) = faster.stderr.strip().splitlines()
    # Another engine needs another folder; or this processor has none.
    assert "holds results of" in line or "no bfloat16 arithmetic" in line
    wrong = _tomonode("duke", *tables, *given[:2], "--percent-t=x", "--out", tmp_path / "new")
    assert (wrong.returncode, wrong.stderr.count("\n")) == (2, 1)
    assert "--percent-t is 'x'" in wrong.stderr


def test_the_command_that_converts_a_checkpoint_exists(tmp_path: Path) -> None:
    pickled = tmp_path / "model_best.p"
    torch.save({"a": torch.zeros(1)}, pickled)
    with pytest.raises(WeightsError) as raised:
        weights.load(pickled)
    named = re.search(r"`tomonode (\w+) (\w+) FILE --name NAME`", str(raised.value))
    assert named is not None
    done = subprocess.run(
        [sys.executable, "-m", "workers.cli", *named.groups(), "--help"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0
    assert "published checkpoints" in done.stdout
