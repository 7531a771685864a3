"""`tomonode evaluate`: reports from tables, and one clear line where a table is bad."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

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
