"""`python -m gmic.evaluate`: a folder of windows and weights become scores and a report, or one clear line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from gmic import bundle, weights
from gmic.config import GMIC3DConfig
from gmic.evaluate.__main__ import main
from gmic.evaluate.scores import read_scores
from gmic.inference import Predictor
from gmic.published import published_name
from gmic.train.data import FolderSet
from gmic.weights import WeightsInfo
from tests.unit.gmic.training import TINY, tiny_model, write_folder


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("set") / "data", train=4, valid=8)


def _weights(path: Path, seed: int = 1) -> Path:
    info = WeightsInfo("tiny", str(seed), "", True, "for a test", 0.5, TINY)
    weights.save(tiny_model(seed), path, info)
    return path


def _run(data: Path, out: Path, *more: object, split: str = "valid") -> int:
    start = ("--data", data, "--split", split, "--out", out, "--device", "cpu")
    return main([str(each) for each in (*start, *more)])


def test_a_split_becomes_scores_and_a_report(data: Path, tmp_path: Path) -> None:
    file = _weights(tmp_path / "w.safetensors")
    assert _run(data, tmp_path / "out", "--weights", file) == 0
    scores = read_scores(tmp_path / "out" / "scores.csv")
    images = FolderSet(data, "valid")
    assert [s.image_id for s in scores] == [e.image_id for e in images.examples]
    assert [s.labels for s in scores] == [e.labels for e in images.examples]
    alone = Predictor.from_file(file, device="cpu")
    for n, score in enumerate(scores):
        assert score.scores == tuple(alone.predict(images.volume(n)).y_final.tolist())
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["images"] == 8
    assert "tiny 1 (" in report["about"][0]
    page = (tmp_path / "out" / "report.html").read_text()
    gallery = page[page.index("<h2>Saliency</h2>") : page.index("<h2>Worst cases</h2>")]
    assert gallery.count("data:image/webp") == 4  # two malignant images and two benign ones
    assert gallery.index("proven malignant") < gallery.index("proven benign")


def test_draws_and_several_models_are_averaged_and_pictures_left_out(
    data: Path, tmp_path: Path
) -> None:
    one, two = _weights(tmp_path / "a.safetensors", 1), _weights(tmp_path / "b.safetensors", 2)
    info = WeightsInfo("both", "1", "", True, "for a test", 0.5, TINY)
    both = tmp_path / "both.safetensors"
    bundle.save([tiny_model(1), tiny_model(2)], both, info)
    runs = {"separate": (one, two), "ensemble": (both,), "drawn": (both, "--draws", 2)}
    said = {}
    for name, more in runs.items():
        assert _run(data, tmp_path / name, "--no-pictures", "--weights", *more) == 0
        said[name] = read_scores(tmp_path / name / "scores.csv")
        assert "data:image/webp" not in (tmp_path / name / "report.html").read_text()
    assert said["separate"] == said["ensemble"]
    assert said["drawn"] != said["ensemble"]
    assert "2 draws" in (tmp_path / "drawn" / "report.json").read_text()


def test_published_checkpoints_are_read_with_the_values_given(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    rng = np.random.default_rng(0)
    rows = ["file,image_id,breast_id,patient_id,benign,malignant,split"]
    for n in range(2):
        np.save(folder / f"{n}.npy", rng.standard_normal((2116, 1339)).astype(np.float32))
        rows.append(f"{n}.npy,i{n},b{n},p{n},0,{n},test")
    (folder / "index.csv").write_text("\n".join(rows) + "\n")
    config = GMIC3DConfig(top_t_fraction=1.5, num_patches=2)
    model, info = weights.seeded(config, 3)
    theirs, ours = tmp_path / "theirs.p", tmp_path / "ours.safetensors"
    torch.save({published_name(k): v for k, v in model.state_dict().items()}, theirs)
    weights.save(model, ours, info)
    values = ("--percent-t", 1.5, "--num-patches", 2)
    for out, more in (("a", (theirs, *values)), ("b", (ours,))):
        assert _run(folder, tmp_path / out, "--no-pictures", "--weights", *more, split="test") == 0
    scores = [read_scores(tmp_path / out / "scores.csv") for out in "ab"]
    assert scores[0] == scores[1]
    assert "theirs.p t=1.5 K=2" in (tmp_path / "a" / "report.json").read_text()


def test_every_failure_is_one_line(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = _weights(tmp_path / "w.safetensors")
    torch.save({"layer.weight": torch.zeros(3)}, tmp_path / "foreign.p")
    (tmp_path / "file").write_text("")
    broken = write_folder(tmp_path / "broken", train=0, valid=4)
    (broken / "i1.npy").write_bytes(b"no array")
    odd = write_folder(tmp_path / "odd", train=0, valid=4)
    index = (odd / "index.csv").read_text().replace(",b1,", ",b0,")
    (odd / "index.csv").write_text(index)
    large = write_folder(tmp_path / "large", train=0, valid=4)
    np.save(large / "i2.npy", np.random.default_rng(0).random((2, 96, 80), np.float32))
    cases: list[tuple[Path, tuple[object, ...], str, str]] = [
        (tmp_path, (file,), "valid", "holds no index"),
        (data, (file,), "test", "lists no image of split 'test'"),
        (data, (tmp_path / "none",), "valid", "cannot read weights file"),
        (data, (tmp_path / "foreign.p",), "valid", "do not fit the model"),
        (data, (file, tmp_path / "foreign.p"), "valid", "give files of one kind"),
        (data, (tmp_path / "foreign.p",) * 2, "valid", "--percent-t has 0 values for 2"),
        (data, (file, "--percent-t", 1.5), "valid", "has a card with its own values"),
        (data, (file, "--draws", -1), "valid", "draws is -1"),
        (data, (file, "--device", "cuda:99"), "valid", "cuda:99"),
        (data, (file, "--threads", 0), "valid", "threads is 0"),
        (broken, (file,), "valid", "i1.npy is damaged"),
        (odd, (file,), "valid", "breast 'b0' belongs to patients"),
        (large, (file,), "valid", "the model's window is of"),
        (data, (file, "--out", tmp_path / "file"), "valid", f"{tmp_path / 'file'}: File exists"),
    ]
    for folder, more, split, words in cases:
        assert _run(folder, tmp_path / "out", "--weights", *more, split=split) == 2, words
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("gmic.evaluate: ")
        assert words in line
    assert not (tmp_path / "out").exists()
