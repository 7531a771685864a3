"""The evaluation on the public Duke set, from DICOM files to the report."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dicom_io.dbt import open_image
from gmic import bundle, weights
from gmic.config import GMIC3DConfig
from gmic.engine.reduced import require_bfloat16
from gmic.errors import ConfigError as ModelConfigError
from gmic.errors import DataError, WeightsError
from gmic.evaluate.duke import DukeTables
from gmic.evaluate.scores import read_scores
from gmic.published import published_name
from node.errors import ConfigError
from tests.conftest import make_settings
from tests.unit.workers.breasts import shuffle_frames, write_marked
from workers.duke import DukePlan, run_duke, stored_volume
from workers.importing import Wanted, configurations

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


def published(path: Path, seed: int) -> Path:
    """A checkpoint of the published size, with the published names."""
    model, _ = weights.seeded(GMIC3DConfig(), seed)
    torch.save({published_name(k): v for k, v in model.state_dict().items()}, path)
    return path


def test_published_checkpoints_and_the_ensemble_made_of_them_say_the_same(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    set_ = tables(tmp_path)
    paths = (published(tmp_path / "a.p", 1), published(tmp_path / "b.p", 2))
    plan = DukePlan(set_, paths, limit=1, pictures=False, top_t=(1.5, 2.25), patches=(3, 2))
    settings = make_settings(tmp_path, device="cpu", threads=1)
    lines: list[str] = []
    run_duke(plan, tmp_path / "theirs", settings, lines.append)
    said = json.loads((tmp_path / "theirs" / "run.json").read_text())["model"]
    assert lines[0] == f"model {said}"
    assert re.fullmatch(r"a\.p t=1\.5 K=3 \(\w{12}\) \+ b\.p t=2\.25 K=2 \(\w{12}\)", said)

    configs = configurations(Wanted(paths, "both", "none", plan.top_t, plan.patches))
    _, card = weights.seeded(CONFIG, 0)
    bundle.save(bundle.from_published(paths, configs), tmp_path / "both.safetensors", card)
    converted = settings.model_copy(update={"weights": tmp_path / "both.safetensors"})
    run_duke(DukePlan(set_, limit=1, pictures=False), tmp_path / "ours", converted, lines.append)
    for name in ("scores.csv", "predictions.csv"):
        assert (tmp_path / "ours" / name).read_text() == (tmp_path / "theirs" / name).read_text()
    assert "2 models)" in json.loads((tmp_path / "ours" / "run.json").read_text())["model"]


def test_weights_that_do_not_go_together(tmp_path: Path) -> None:
    set_, settings = tables(tmp_path), make_settings(tmp_path, device="cpu", threads=1)
    model, info = weights.seeded(CONFIG, 1)
    ours, foreign, text = (tmp_path / name for name in ("w.safetensors", "f.p", "t.p"))
    weights.save(model, ours, info)
    torch.save({"layer.weight": torch.zeros(3)}, foreign)
    text.write_text("no weights")
    cases: list[tuple[tuple[Path, ...], dict[str, Any], str]] = [
        ((ours,), {"top_t": (1.5,)}, "leave out --percent-t"),
        ((ours, foreign), {}, "give files of one kind"),
        ((foreign,), {}, "do not fit the model"),
        ((foreign, foreign), {}, "are not the five of the released ensemble"),
        ((text,), {}, "t.p"),
    ]
    for paths, options, words in cases:
        plan = DukePlan(set_, paths, **options)
        with pytest.raises((ConfigError, WeightsError), match=words):
            run_duke(plan, tmp_path / "out", settings, lambda _line: None)
    assert not (tmp_path / "out").exists()


def test_the_engine_is_part_of_what_a_folder_holds(tmp_path: Path) -> None:
    try:
        require_bfloat16(torch.device("cpu"))
    except ModelConfigError as error:
        pytest.skip(str(error))
    model, info = weights.seeded(CONFIG, 1)
    weights.save(model, tmp_path / "w.safetensors", info)
    plan = DukePlan(tables(tmp_path), (tmp_path / "w.safetensors",), limit=1, pictures=False)
    exact = make_settings(tmp_path, device="cpu", threads=1)
    run_duke(plan, tmp_path / "out", exact, lambda _line: None)
    faster = exact.model_copy(update={"engine": "bfloat16"})
    with pytest.raises(DataError, match="holds results of"):
        run_duke(plan, tmp_path / "out", faster, lambda _line: None)
    outcome = run_duke(plan, tmp_path / "faster", faster, lambda _line: None)
    assert "engine bfloat16" in outcome.report_html.read_text()


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
