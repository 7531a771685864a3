"""The model on files: studies, what is passed over, and the same bytes for the same files."""

from __future__ import annotations

import json
import os
import re
from datetime import UTC, datetime
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import torch

from dicom_io.errors import UnreadableDataset
from dicom_io.header import read_header
from gmic.engine.reduced import require_bfloat16
from gmic.errors import ConfigError as ModelConfigError
from node.config import Settings
from node.errors import ConfigError
from node.model_version import model_version
from tests.conftest import make_settings
from tests.unit.workers.breasts import write_marked
from workers.errors import NothingReadable
from workers.predict import predict_files
from workers.predictor import Predictor
from workers.volumes import Source, Stopwatch, decoded

SHAPE = (2, 640, 400)
CREATED = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two studies of one image each, one of them unreadable, a copy, and a text."""
    folder = tmp_path_factory.mktemp("inputs")
    good = write_marked(folder / "good", "L", "CC", SHAPE, (0, 300, 90), seed=1)
    (folder / "copy.dcm").write_bytes(good.read_bytes())
    bad = write_marked(folder / "bad", "R", "MLO", SHAPE, (0, 300, 310), seed=2)
    content = bytearray(bad.read_bytes())
    content[-int(np.prod(SHAPE)) * 2 :] = bytes(int(np.prod(SHAPE)) * 2)
    bad.write_bytes(content)
    (folder / "notes.txt").write_text("no DICOM")
    for path in (good, bad):
        os.utime(path, (CREATED.timestamp(), CREATED.timestamp()))
    return folder


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Settings that mark something everywhere."""
    return make_settings(tmp_path_factory.mktemp("home"), segment_threshold=0.001, threads=2)


@pytest.fixture(scope="module")
def written(
    inputs: Path, quick: Settings, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Any], Path, list[str]]:
    out = tmp_path_factory.mktemp("out")
    lines: list[str] = []
    return predict_files([inputs], out, quick, lines.append), out, lines


def test_every_study_is_read_and_everything_else_said(
    written: tuple[dict[str, Any], Path, list[str]], inputs: Path
) -> None:
    summary, out, lines = written
    assert summary == json.loads((out / "summary.json").read_text())
    assert summary["model"]["trained"] is False
    images = {image["laterality"]: image for s in summary["studies"] for image in s["images"]}
    assert len(summary["studies"]) == 2
    assert 0 < images["L"]["score_malignant"] < 1
    assert images["L"]["segments"] >= 1
    assert "threshold" in images[None]["excluded_reason"]
    skipped = {Path(entry["path"]).name: entry["reason"] for entry in summary["skipped"]}
    assert set(skipped) == {"notes.txt", "truth.json", "L-CC.dcm"}
    assert "same SOP Instance UID" in skipped["L-CC.dcm"]
    assert any("left out" in line and "threshold" in line for line in lines)


def test_the_files_are_what_the_summary_says(
    written: tuple[dict[str, Any], Path, list[str]],
) -> None:
    summary, out, _ = written
    kinds = [(file["kind"], file["source"]) for s in summary["studies"] for file in s["files"]]
    assert [kind for kind, _ in kinds].count("SR") == 2
    assert [kind for kind, _ in kinds].count("SEG") == 1
    assert [kind for kind, _ in kinds].count("OVERLAY") >= 1
    for study in summary["studies"]:
        for file in study["files"]:
            path = out / file["path"]
            if file["kind"] == "OVERLAY":
                assert path.read_bytes().startswith(b"\x89PNG")
            else:
                assert pydicom.dcmread(path).StudyInstanceUID == study["study_uid"]


def test_the_same_files_give_the_same_bytes(
    written: tuple[dict[str, Any], Path, list[str]], inputs: Path, quick: Settings, tmp_path: Path
) -> None:
    summary, out, _ = written
    again = predict_files([inputs], tmp_path, quick)
    for before, after in zip(summary["studies"], again["studies"], strict=True):
        assert before["run_id"] == after["run_id"]
        for file in before["files"]:
            digests = {sha256((f / file["path"]).read_bytes()).digest() for f in (out, tmp_path)}
            assert len(digests) == 1, file["path"]


def test_another_date_is_another_run(
    written: tuple[dict[str, Any], Path, list[str]], inputs: Path, quick: Settings, tmp_path: Path
) -> None:
    bad = next((inputs / "bad").glob("*.dcm"))
    summary = predict_files([bad], tmp_path, quick, created_at=datetime(2026, 4, 1, tzinfo=UTC))
    assert summary["studies"][0]["run_id"] not in {s["run_id"] for s in written[0]["studies"]}


def test_files_that_are_no_dicom_alone_are_an_error(tmp_path: Path, quick: Settings) -> None:
    (tmp_path / "notes.txt").write_text("no DICOM")
    with pytest.raises(NothingReadable, match="none of 1 files is DICOM"):
        predict_files([tmp_path], tmp_path / "out", quick)


def test_a_truncated_file_alone_is_named_with_its_reason(tmp_path: Path, quick: Settings) -> None:
    whole = write_marked(tmp_path / "whole", "L", "CC", SHAPE, (0, 300, 90)).read_bytes()
    cut = tmp_path / "cut.dcm"
    cut.write_bytes(whole[:400])
    with pytest.raises(UnreadableDataset) as reason:
        read_header(cut)
    with pytest.raises(NothingReadable, match="none of 1 files is DICOM") as raised:
        predict_files([cut], tmp_path / "out", quick)
    assert f"{cut}: {reason.value}" in str(raised.value)


def test_what_is_loaded_is_what_runs_are_queued_for(quick: Settings) -> None:
    identity = Predictor.load(quick).identity
    assert identity.version == model_version(quick)
    assert identity.operating_point == quick.segment_threshold
    assert len(identity.weights_sha256) == 64


def _texts(path: Path) -> str:
    """Every value of a DICOM file, as text."""
    values = pydicom.dcmread(path, stop_before_pixels=True).iterall()
    return "\n".join(str(element.value) for element in values if element.VR != "SQ")


def test_results_say_which_engine_made_them(
    written: tuple[dict[str, Any], Path, list[str]], inputs: Path, quick: Settings, tmp_path: Path
) -> None:
    try:
        require_bfloat16(torch.device("cpu"))
    except ModelConfigError as error:
        pytest.skip(str(error))
    summary, out, _ = written
    faster = quick.model_copy(update={"engine": "bfloat16", "device": "cpu"})
    again = predict_files([inputs / "copy.dcm"], tmp_path, faster)
    assert (summary["model"]["engine"], again["model"]["engine"]) == ("exact", "bfloat16")
    assert again["studies"][0]["run_id"] not in {s["run_id"] for s in summary["studies"]}
    for found, folder, engine in ((summary, out, "exact"), (again, tmp_path, "bfloat16")):
        files = [f for s in found["studies"] for f in s["files"] if f["kind"] in ("SEG", "SR")]
        assert {f["kind"] for f in files} == {"SEG", "SR"}
        for file in files:
            said = re.findall(r"engine ?= ?(\w+)", _texts(folder / file["path"]))
            assert set(said) == {engine}, file["path"]


def test_an_engine_that_cannot_run_is_one_line(
    quick: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"cpu_name": "an old one"})
    faster = quick.model_copy(update={"engine": "bfloat16", "device": "cpu"})
    with pytest.raises(
        ConfigError, match=r"TOMONODE_ENGINE='bfloat16'.*an old one.*use engine 'exact'"
    ):
        Predictor.load(faster)


@pytest.mark.parametrize("ahead", [False, True])
def test_decoding_ahead_changes_nothing_but_time(inputs: Path, ahead: bool) -> None:
    paths = [inputs / "copy.dcm", inputs / "notes.txt", next((inputs / "bad").glob("*.dcm"))]
    sources = [Source(partial(Path, path), path.name, "") for path in paths]
    found = list(decoded(sources, Stopwatch(), ahead=ahead))
    assert [source for source, _ in found] == sources
    first, second, third = (decode for _, decode in found)
    with pytest.raises(UnreadableDataset):
        second()
    for decode, path in ((first, paths[0]), (third, paths[2])):
        image, volume = decode()
        assert image.header.sop_instance_uid == read_header(path).sop_instance_uid
        assert np.array_equal(volume, pydicom.dcmread(path).pixel_array)
