from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from gmic import weights
from gmic.config import GMIC3DConfig
from gmic.errors import DataError
from gmic.evaluate.duke import DukeTables, counted, image_side, oriented, read_duke
from gmic.evaluate.duke_reader import VolumeReader
from gmic.evaluate.duke_run import evaluate_duke
from gmic.evaluate.found import FoundBox, boxes_of, strongest
from gmic.evaluate.froc import read_predictions
from gmic.evaluate.scores import read_scores
from gmic.geometry import PatchBox, ReceptiveField
from gmic.inference import Predictor
from gmic.preprocess import preprocess

PATHS = "PatientID,StudyUID,View,descriptive_path,classic_path"
LABELS = "PatientID,StudyUID,View,Normal,Actionable,Benign,Cancer"
BOXES = "PatientID,StudyUID,View,Subject,Slice,X,Y,Width,Height,Class,AD,VolumeSlices"
CONFIG = GMIC3DConfig(
    window_shape=(96, 64),
    patch_size=32,
    num_patches=3,
    top_t_fraction=0.1,
    slice_margin=1,
    stem_channels=8,
    stage_channels=(8, 16),
    stage_strides=(1, 2),
    attention_channels=16,
)
FRAME = (120, 90)


def breast(side: str, depth: int = 6, seed: int = 0) -> NDArray[np.uint16]:
    """A bright half disc at its chest wall, wider below than above, brightening over the slices."""
    rows, cols = np.indices(FRAME)
    inside = np.hypot((rows - 65) / 50, cols / 60) < 1
    noise = np.random.default_rng(seed).integers(0, 400, (depth, *FRAME))
    volume = np.where(inside, 400 + noise, 0).astype(np.uint16)
    return volume if side == "L" else volume[:, :, ::-1]


def write(path: Path, header: str, *rows: str) -> Path:
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def tables(folder: Path) -> DukeTables:
    """Seven images: two cancers, one benign, two normal, one actionable, one of an unknown view."""
    views = {
        ("DBT-P1", "lcc"): "0,0,0,1",
        ("DBT-P1", "lmlo2"): "0,0,0,1",
        ("DBT-P1", "rcc"): "1,0,0,0",
        ("DBT-P2", "rmlo"): "0,0,1,0",
        ("DBT-P3", "lcc"): "1,0,0,0",
        ("DBT-P3", "rcc"): "0,1,0,0",
        ("DBT-P3", "spot"): "1,0,0,0",
    }
    images = folder / "images"
    images.mkdir()
    paths, labels = [], []
    for number, ((patient, view), marks) in enumerate(views.items()):
        paths.append(f"{patient},S{patient[-1]},{view},long/{number}.npy,{number}.npy")
        labels.append(f"{patient},S{patient[-1]},{view},{marks}")
        np.save(images / f"{number}.npy", breast(view[0].upper(), seed=number))
    boxes = [
        "DBT-P1,S1,lcc,DBT-P1,2,10,30,12,16,cancer,0,6",
        "DBT-P1,S1,lmlo2,DBT-P1,3,20,40,10,10,cancer,1,6",
        "DBT-P2,S2,rmlo,DBT-P2,1,60,50,14,14,benign,0,6",
    ]
    return DukeTables(
        write(folder / "BCS-DBT file-paths-train.csv", PATHS, *paths),
        write(folder / "BCS-DBT labels-train.csv", LABELS, *labels),
        images,
        write(folder / "BCS-DBT boxes-train.csv", BOXES, *boxes),
    )


def load(path: Path) -> NDArray[np.uint16]:
    try:
        volume: NDArray[np.uint16] = np.load(path)
    except ValueError as error:
        raise DataError(f"{path.name} is no volume") from error
    return volume


@pytest.fixture(scope="module")
def reader() -> VolumeReader:
    torch.set_num_threads(1)
    model, info = weights.seeded(CONFIG, 3)
    return VolumeReader([Predictor(model, info, device="cpu")])


def test_the_tables_are_joined(tmp_path: Path) -> None:
    images, left_out = read_duke(tables(tmp_path))
    first, second, third, fourth, *_ = images
    assert first.image_id == "DBT-P1/S1/lcc"
    assert (first.laterality, first.view, first.labels) == ("L", "CC", (0, 1))
    assert first.path == tmp_path / "images" / "0.npy"
    (box,) = first.boxes
    assert box.label == "malignant"
    assert (box.lesion.x, box.lesion.y, box.lesion.width, box.lesion.height) == (10, 30, 12, 16)
    assert (box.lesion.slice_index, box.lesion.slices) == (2, 6)
    assert (second.laterality, second.view) == ("L", "MLO")
    assert (third.labels, third.boxes) == ((0, 0), ())
    assert fourth.labels == (1, 0)
    assert first.scored((0.1, 0.2)).breast_id == second.scored((0.1, 0.2)).breast_id
    assert first.scored((0.1, 0.2)).breast_id != third.scored((0.1, 0.2)).breast_id
    assert [(each.name, each.kind) for each in left_out] == [("DBT-P3/S3/spot", "unknown view")]


def test_what_does_not_fit_is_left_out_and_named(tmp_path: Path) -> None:
    set_ = tables(tmp_path)
    (tmp_path / "images" / "1.npy").unlink()
    with set_.labels.open("a") as file:
        file.write("DBT-P1,S1,lcc,1,0,0,0\nDBT-P9,S9,lcc,1,0,0,0\n")
    assert set_.boxes is not None
    with set_.boxes.open("a") as file:
        file.write("DBT-P8,S8,lcc,DBT-P8,1,1,1,5,5,benign,0,6\n")
    images, left_out = read_duke(set_)
    assert len(images) == 5
    assert images[0].labels == (0, 1)  # the first row rules
    assert counted(left_out) == {
        "file missing": 1,
        "unknown view": 1,
        "label given twice": 1,
        "no file path": 1,
        "box without a label": 1,
    }


@pytest.mark.parametrize(
    ("table", "row", "message"),
    [
        ("labels", "DBT-P9,S9,lcc,1,0,0,x", "line 9: Cancer is 'x'"),
        ("labels", "DBT-P9,S9,lcc,0,0,0,0", "line 9: no label is 1"),
        ("paths", ",S9,lcc,a,b", "line 9: PatientID is empty"),
        ("boxes", "P,S,lcc,P,1,1,1,5,5,tumour,0,6", "line 5: Class is 'tumour'"),
        ("boxes", "P,S,lcc,P,1,1,1,5,5,benign,0,0", "line 5: VolumeSlices is 0"),
        ("boxes", "P,S,lcc,P,1,1,1,wide,5,benign,0,6", "line 5: Width is 'wide'"),
    ],
)
def test_bad_rows_of_the_tables(tmp_path: Path, table: str, row: str, message: str) -> None:
    set_ = tables(tmp_path)
    with getattr(set_, table).open("a") as file:
        file.write(row + "\n")
    with pytest.raises(DataError, match=message):
        read_duke(set_)


def test_the_brighter_edge_decides_the_side() -> None:
    left, right = breast("L"), breast("R")
    assert (image_side(left[0]), image_side(right[0])) == ("L", "R")
    assert oriented(left, "L") is left
    turned = oriented(right, "L")
    assert (turned == right[:, ::-1, ::-1]).all()
    assert image_side(turned[0]) == "L"
    # Both edges black, as in an image with a frame: the halves decide.
    framed = np.pad(right[0], 1)
    assert image_side(framed) == "R"


def test_a_box_is_a_patch_in_the_volumes_own_pixels() -> None:
    """In a right breast, whose window is mirrored, the box still lies where the patch was."""
    volume = breast("R")
    window, transform = preprocess(volume, "R", "CC", window_shape=(96, 64))
    patch = PatchBox(2, 40, 8, 60, 24, 0.5, 0.5)
    field = ReceptiveField(8, 2.0, 31)
    saliency = np.zeros((2, 6, 12, 8), np.float32)
    saliency[1, 2, 5, 2] = 0.7  # centre (42, 18): inside
    saliency[0, 2, 4, 2] = 0.9  # centre (34, 18): above
    (box,) = boxes_of([patch], saliency, field, transform)
    assert box.score == pytest.approx(0.7)
    seen = volume[2, box.row0 : box.row1, box.col0 : box.col1][:, ::-1].astype(float)
    shown = window[2, 40:60, 8:24].astype(float)
    assert np.corrcoef(seen.ravel(), shown.ravel())[0, 1] == pytest.approx(1.0)


def test_boxes_near_a_stronger_one_are_dropped() -> None:
    boxes = [FoundBox(5, 0, x, 20, x + 20, score) for x, score in ((0, 0.5), (90, 0.9), (300, 0.1))]
    far_slice = FoundBox(20, 0, 90, 20, 110, 0.3)
    kept = strongest([*boxes, far_slice], slices=40)
    assert [box.score for box in kept] == [0.9, 0.3, 0.1]


def test_the_whole_evaluation(tmp_path: Path, reader: VolumeReader) -> None:
    set_ = tables(tmp_path)
    (tmp_path / "images" / "4.npy").write_bytes(b"not an array")
    np.save(tmp_path / "images" / "5.npy", np.zeros((6, *FRAME), np.uint16))
    out = tmp_path / "out"
    lines: list[str] = []
    outcome = evaluate_duke(set_, load, reader, out, model="seeded", say=lines.append)
    assert outcome.scored == 4
    reasons = {each.name: each.kind for each in outcome.left_out}
    assert reasons == {
        "DBT-P3/S3/spot": "unknown view",
        "DBT-P3/S3/lcc": "cannot be opened",
        "DBT-P3/S3/rcc": "cannot be read",
    }
    with (out / "left_out.csv").open() as file:
        assert {row["name"]: row["kind"] for row in csv.DictReader(file)} == reasons
    assert lines[0] == "6 images, 0 with scores, 6 to read now"

    scores = {score.image_id: score for score in read_scores(out / "scores.csv")}
    volume = np.load(tmp_path / "images" / "2.npy")
    assert scores["DBT-P1/S1/rcc"].scores == reader(volume, "R", "CC").scores
    assert {p.volume.view for p in read_predictions(out / "predictions.csv")} <= {
        "lcc",
        "lmlo2",
        "rcc",
        "rmlo",
    }
    report = json.loads(outcome.report_json.read_text())
    assert report["images"] == 4
    assert report["breasts"] == 3
    assert [table["title"] for table in report["tables"]] == [
        "Detection (DBTex)",
        "Images left out",
    ]
    page = outcome.report_html.read_text()
    assert "3 left out: 1 unknown view, 1 cannot be opened, 1 cannot be read" in page
    assert page.count("data:image/webp") >= 4  # the worst cases were painted
    gallery = page[page.index("<h2>Saliency</h2>") : page.index("<h2>Worst cases</h2>")]
    assert gallery.count("data:image/webp") == 3  # the three images with boxes
    for name in ("DBT-P1/S1/lcc", "DBT-P1/S1/lmlo2", "DBT-P2/S2/rmlo"):
        assert f"<figcaption>{name}: proven " in gallery


def test_a_turned_file_gives_the_same_scores_and_boxes(
    tmp_path: Path, reader: VolumeReader
) -> None:
    set_ = tables(tmp_path)
    path = tmp_path / "images" / "0.npy"
    evaluate_duke(set_, load, reader, tmp_path / "a", model="m", limit=1, pictures=False)
    np.save(path, np.load(path)[:, ::-1, ::-1])
    evaluate_duke(set_, load, reader, tmp_path / "b", model="m", limit=1, pictures=False)
    for name in ("scores.csv", "predictions.csv"):
        assert (tmp_path / "a" / name).read_text() == (tmp_path / "b" / name).read_text()


def counting(calls: list[str], fail_after: int | None = None) -> Callable[[Path], object]:
    def open_volume(path: Path) -> NDArray[np.uint16]:
        if fail_after is not None and len(calls) == fail_after:
            raise KeyboardInterrupt
        calls.append(path.name)
        return load(path)

    return open_volume


def test_a_run_goes_on_where_it_was_cut_off(tmp_path: Path, reader: VolumeReader) -> None:
    set_ = tables(tmp_path)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    evaluate_duke(set_, load, reader, whole, model="m", pictures=False)
    calls: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        evaluate_duke(set_, counting(calls, 3), reader, cut, model="m", pictures=False)  # type: ignore[arg-type]
    # Cut off in the middle of a row, and after the boxes of an image but before its scores.
    with (cut / "predictions.csv").open("a") as file:
        file.write("DBT-P2,S2,rmlo,1,2,3,4,5,1,0.5\nDBT-P2,S2,rm")
    scores = cut / "scores.csv"
    scores.write_bytes(scores.read_bytes()[:-5])
    calls.clear()
    evaluate_duke(set_, counting(calls), reader, cut, model="m", pictures=False)  # type: ignore[arg-type]
    assert calls == ["2.npy", "3.npy", "4.npy", "5.npy"]
    for name in ("scores.csv", "predictions.csv", "report.json"):
        assert (cut / name).read_text() == (whole / name).read_text()
    calls.clear()
    outcome = evaluate_duke(set_, counting(calls), reader, cut, model="m", pictures=False)  # type: ignore[arg-type]
    assert calls == []
    assert outcome.scored == 6


def test_a_limit_leaves_the_rest_for_later(tmp_path: Path, reader: VolumeReader) -> None:
    set_ = tables(tmp_path)
    out = tmp_path / "out"
    for expected in (4, 6):
        outcome = evaluate_duke(set_, load, reader, out, model="m", limit=4, pictures=False)
        assert outcome.scored == expected


def test_a_folder_of_another_model_is_refused(tmp_path: Path, reader: VolumeReader) -> None:
    set_ = tables(tmp_path)
    evaluate_duke(set_, load, reader, tmp_path / "out", model="one", limit=1, pictures=False)
    with pytest.raises(DataError, match=r"holds results of .*'one'"):
        evaluate_duke(set_, load, reader, tmp_path / "out", model="two")


def test_a_set_without_a_readable_image(tmp_path: Path, reader: VolumeReader) -> None:
    set_ = tables(tmp_path)
    for path in (tmp_path / "images").iterdir():
        path.write_bytes(b"not an array")
    with pytest.raises(DataError, match="no image could be read"):
        evaluate_duke(set_, load, reader, tmp_path / "out", model="m")


def test_several_models_and_draws_are_averaged() -> None:
    predictors = [Predictor(*weights.seeded(CONFIG, seed), device="cpu") for seed in (1, 2)]
    volume = breast("L")
    both = VolumeReader(predictors)(volume, "L", "CC").scores
    alone = [VolumeReader([p])(volume, "L", "CC").scores for p in predictors]
    assert both == pytest.approx(np.mean(alone, axis=0))
    drawn = VolumeReader(predictors[:1], draws=2)
    assert drawn(volume, "L", "CC") == drawn(volume, "L", "CC")
    assert drawn(volume, "L", "CC").scores != alone[0]
    with pytest.raises(DataError, match="draws is -1"):
        VolumeReader(predictors, draws=-1)
