"""The evaluation on the public Duke set, from DICOM files to the report."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from dicom_io.dbt import open_image
from gmic import weights
from gmic.config import GMIC3DConfig
from gmic.errors import DataError
from gmic.evaluate.duke import DukeTables
from gmic.evaluate.scores import read_scores
from node.errors import ConfigError
from tests.conftest import make_settings
from tests.unit.workers.breasts import shuffle_frames, write_marked
from workers.duke import DukePlan, run_duke, stored_volume

SHAPE = (4, 320, 200)
CONFIG = GMIC3DConfig(
    window_shape=(256, 160),
    patch_size=64,
    num_patches=2,
    top_t_fraction=0.1,
    slice_margin=1,
    stem_channels=8,
    stage_channels=(8, 16),
    stage_strides=(1, 2),
    attention_channels=16,
)


def tables(folder: Path) -> DukeTables:
    """A left and a right breast as DICOM, one stored by half a turn, and a file that is none."""
    left = write_marked(folder / "l", "L", "CC", SHAPE, (1, 150, 40), seed=1)
    right = write_marked(folder / "r", "R", "MLO", SHAPE, (2, 150, 20), turned=True, seed=2)
    (folder / "text.dcm").write_text("no DICOM")
    rows = [("P1", "lcc", left, "0,0,0,1"), ("P2", "rmlo", right, "1,0,0,0")]
    rows.append(("P2", "rcc", folder / "text.dcm", "1,0,0,0"))
    paths, labels = (folder / f"{name}.csv" for name in ("paths", "labels"))
    paths.write_text(
        "PatientID,StudyUID,View,descriptive_path,classic_path\n"
        + "".join(f"{p},S,{view},{path.relative_to(folder)},x\n" for p, view, path, _ in rows)
    )
    labels.write_text(
        "PatientID,StudyUID,View,Normal,Actionable,Benign,Cancer\n"
        + "".join(f"{p},S,{view},{marks}\n" for p, view, _, marks in rows)
    )
    return DukeTables(paths, labels, folder)


def test_dicom_files_are_evaluated(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    model, info = weights.seeded(CONFIG, 1)
    weights.save(model, tmp_path / "w.safetensors", info)
    settings = make_settings(tmp_path, device="cpu", threads=1)
    plan = DukePlan(tables(tmp_path), (tmp_path / "w.safetensors",), pictures=False)
    outcome = run_duke(plan, tmp_path / "out", settings, lambda _line: None)
    assert outcome.scored == 2
    assert [(each.name, each.kind) for each in outcome.left_out] == [
        ("P2/S/rcc", "cannot be opened")
    ]
    scores = read_scores(tmp_path / "out" / "scores.csv")
    assert [score.labels for score in scores] == [(0, 1), (0, 0)]
    assert json.loads(outcome.report_json.read_text())["images"] == 2


def test_slices_come_as_they_are_stored(tmp_path: Path) -> None:
    path = write_marked(tmp_path, "L", "CC", SHAPE, (1, 150, 40))
    shuffle_frames(path)
    assert open_image(path).source_frames != (0, 1, 2, 3)
    brightest = stored_volume(path).max(axis=(1, 2))
    assert int(np.argmax(brightest)) == 1


def test_what_cannot_be_evaluated(tmp_path: Path) -> None:
    (tmp_path / "text.dcm").write_text("no DICOM")
    with pytest.raises(DataError):
        stored_volume(tmp_path / "text.dcm")
    plan = DukePlan(DukeTables(tmp_path, tmp_path, tmp_path))
    with pytest.raises(ConfigError, match="no weights"):
        run_duke(plan, tmp_path / "out", make_settings(tmp_path), lambda _line: None)
