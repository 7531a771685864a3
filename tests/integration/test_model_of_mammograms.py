"""A model for 2D mammograms beside that for tomosynthesis: each image is read by its own, and its results name it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from dicom_io.phantom import PhantomView, write_study
from node import results
from node.config import Settings
from node.db import now
from node.errors import ConfigError
from node.model_version import model_version_2d
from node.models import Peer
from tests.conftest import make_settings
from tests.support.reading_node import ReadingNode, reading_node
from tests.support.validators import dcentvfy_errors, dciodvfy_errors
from tests.support.versions import weights_file
from tests.unit.workers.breasts import breast
from workers.predict import predict_files

STACK, FLAT = (2, 300, 200), (1, 300, 200)


def study(folder: Path) -> tuple[str, tuple[Path, ...]]:
    """Tomosynthesis of L-CC and a mammogram of L-MLO."""
    views = [
        PhantomView("L", "CC", breast("L", STACK, 2), (0.1, 0.1)),
        PhantomView("L", "MLO", breast("L", FLAT, 3), (0.1, 0.1), kind="mammogram"),
    ]
    made = write_study(folder, views, seed=5)
    return made.study_instance_uid, made.files


def scores(files: tuple[Path, ...], out: Path, settings: Settings) -> dict[str, float]:
    """The malignant score by view, as one model reads both."""
    summary = predict_files(files, out, settings)
    return {image["view"]: image["score_malignant"] for image in summary["studies"][0]["images"]}


def archive(node: ReadingNode) -> None:
    """A peer that gets every document, so that each is made."""
    with node.db.transaction() as session:
        kinds = [results.SEG, results.SR, results.CAD_SR, results.KEY_OBJECTS]
        session.add(
            Peer(name="archive", kind="DICOM", ae_title="PACS", host="127.0.0.1", port=9, results=kinds,
                 created_at=now(session))
        )  # fmt: skip


def versions(dataset: Dataset) -> list[str]:
    """Every Algorithm Version in a document, in its order."""
    found = [
        str(item.TextValue)
        for item in dataset.get("ContentSequence", [])
        if item.get("ValueType") == "TEXT" and item.ConceptNameCodeSequence[0].CodeValue == "111003"
    ]
    return found + [v for item in dataset.get("ContentSequence", []) for v in versions(item)]


@pytest.mark.system
def test_each_image_is_read_by_the_model_for_its_kind(tmp_path: Path) -> None:
    stack, flat = (weights_file(tmp_path, seed) for seed in (5, 9))
    settings = make_settings(tmp_path / "home", threads=1, weights=stack, weights_2d=flat)
    uid, files = study(tmp_path / "study")
    alone = {
        path: scores(files, tmp_path / path.stem, settings.model_copy(update=only))
        for path in (stack, flat)
        for only in [{"weights": path, "weights_2d": None}]
    }
    with reading_node(settings) as node:
        archive(node)
        node.send(*files)
        run = node.read(uid)
        found = {image.view: image.score_malignant for image in run.images}
        assert found == {"CC": alone[stack]["CC"], "MLO": alone[flat]["MLO"]}
        assert alone[stack]["MLO"] != alone[flat]["MLO"]
        check_named(run.model or {})
        check_objects(node.objects(run), files)


def check_named(model: dict[str, Any]) -> None:
    assert (model["version"], model["reads"]) == ("small-5", "dbt")
    assert (model["mammograms"]["version"], model["mammograms"]["reads"]) == ("small-9", "2d")


def check_objects(made: list[tuple[str, Path]], files: tuple[Path, ...]) -> None:
    """Each SEG names the model that made it, documents name both; all are valid."""
    by_source = {}
    for kind, path in made:
        assert dciodvfy_errors(path) == [], kind
        dataset = dcmread(path)
        devices = [
            str(item.SoftwareVersions)
            for item in dataset.ContributingEquipmentSequence
            if item.PurposeOfReferenceCodeSequence[0].CodeValue == "109102"
        ]
        if kind == results.SEG:
            [identification] = dataset.SegmentSequence[
                0
            ].SegmentationAlgorithmIdentificationSequence
            source = dataset.SourceImageSequence[0].ReferencedSOPInstanceUID
            by_source[str(source)] = str(identification.AlgorithmVersion)
            assert devices == [by_source[str(source)]]
        elif kind != results.KEY_OBJECTS:
            assert set(versions(dataset)) == {"small-5", "small-9"}
        if kind != results.SEG:
            assert devices == ["small-5", "small-9"]
    stack, flat = (str(dcmread(path, stop_before_pixels=True).SOPInstanceUID) for path in files)
    assert by_source == {stack: "small-5", flat: "small-9"}
    assert dcentvfy_errors([*files, *(path for _, path in made)]) == []


def test_a_study_without_mammograms_names_no_model_for_them(tmp_path: Path) -> None:
    stack, flat = (weights_file(tmp_path, seed) for seed in (5, 9))
    settings = make_settings(tmp_path / "home", threads=1, weights=stack, weights_2d=flat)
    _, (tomosynthesis, _) = study(tmp_path / "study")
    predict_files([tomosynthesis], tmp_path / "out", settings)
    [report] = (tmp_path / "out").glob("study-*/sr.dcm")
    assert set(versions(dcmread(report))) == {"small-5"}


def test_weights_that_cannot_be_read_are_said_before_anything_runs(tmp_path: Path) -> None:
    path = tmp_path / "flat.safetensors"
    path.write_bytes(b"no weights")
    settings = make_settings(tmp_path, weights_2d=path)
    with pytest.raises(ConfigError, match=r"flat\.safetensors .*TOMONODE_WEIGHTS_2D"):
        model_version_2d(settings)
    assert model_version_2d(make_settings(tmp_path)) is None
