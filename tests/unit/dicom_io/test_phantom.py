"""Phantom studies: valid objects, exact pixels, truth in stated coordinates, the same files every time."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread

from dicom_io.dbt import open_image
from dicom_io.errors import InvalidPhantom
from dicom_io.phantom import SYNTAXES, LesionTruth, PhantomView, Syntax, write_study
from tests.support.breast_objects import volume
from tests.support.validators import dcentvfy_errors

LESION = LesionTruth("malignant", (2.0, 30.5, 12.0), (1, 25, 8, 4, 36, 17), {"radius_mm": 0.5})


def study_views() -> list[PhantomView]:
    views = [
        PhantomView(
            side,
            view,
            volume(side),
            (0.1, 0.09),
            1.5,
            (LESION,) if (side, view) == ("L", "CC") else (),
        )
        for side in ("L", "R")
        for view in ("CC", "MLO", "ML")
    ]
    flat = [
        PhantomView(side, view, volume(side, (1, 60, 40)), (0.1, 0.1), kind="mammogram")
        for side, view in (("L", "CC"), ("R", "MLO"))
    ]
    return [*views, *flat]


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_every_view_reads_back_exactly(tmp_path: Path, syntax: Syntax) -> None:
    views = study_views()
    study = write_study(tmp_path, views, seed=3, syntax=syntax)
    assert len(study.files) == len(views)
    for path, view in zip(study.files, views, strict=True):
        image = open_image(path)
        assert (image.laterality, image.view, image.orientation) == (
            view.laterality,
            view.view,
            "consistent",
        )
        assert image.header.study_instance_uid == study.study_instance_uid
        assert image.header.transfer_syntax_uid == SYNTAXES[syntax]
        assert image.spacing_mm == view.spacing_mm
        np.testing.assert_array_equal(image.read_volume(), view.volume_DHW)


@pytest.mark.system
@pytest.mark.parametrize("syntax", SYNTAXES)
def test_objects_are_valid_without_a_warning(tmp_path: Path, syntax: Syntax) -> None:
    study = write_study(tmp_path, study_views(), seed=3, syntax=syntax)
    assert dcentvfy_errors(study.files) == []  # skips where the validators are not installed
    for path in study.files:
        done = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, check=False)
        lines = (done.stdout + done.stderr).split()
        assert lines in (["BreastTomosynthesisImage"], ["MammographyImageForPresentation"])


def test_the_same_arguments_give_the_same_bytes(tmp_path: Path) -> None:
    first = write_study(tmp_path / "a", study_views(), seed=3)
    second = write_study(tmp_path / "b", study_views(), seed=3)
    for one, other in zip((*first.files, first.truth), (*second.files, second.truth), strict=True):
        assert one.read_bytes() == other.read_bytes()


def test_another_seed_shares_no_uid(tmp_path: Path) -> None:
    def uids(seed: int) -> set[str]:
        found = set()
        for path in write_study(tmp_path / str(seed), study_views(), seed=seed).files:
            dataset = dcmread(path, stop_before_pixels=True)
            found |= {dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.SOPInstanceUID}
        return found

    one, other = uids(1), uids(2)
    assert len(one) == len(other) == 17
    assert not one & other


def test_truth_is_in_stored_frames_counted_from_one(tmp_path: Path) -> None:
    study = write_study(tmp_path, study_views(), seed=3)
    truth = json.loads(study.truth.read_text())
    assert truth["study_instance_uid"] == study.study_instance_uid
    assert "1-based" in truth["conventions"]
    assert [entry["file"] for entry in truth["files"]] == [path.name for path in study.files]
    first, *others = truth["files"]
    assert (first["laterality"], first["view"]) == ("L", "CC")
    assert (first["frames"], first["rows"], first["cols"]) == (5, 60, 40)
    assert first["sop_instance_uid"] == dcmread(study.files[0]).SOPInstanceUID
    assert first["lesions"] == [
        {
            "label": "malignant",
            "radius_mm": 0.5,
            "center_zyx": [3.0, 30.5, 12.0],
            "box": {"frames": [2, 5], "rows": [25, 36], "cols": [8, 17]},
        }
    ]
    assert not any(entry["lesions"] for entry in others)


def test_views_are_taken_one_by_one(tmp_path: Path) -> None:
    def views() -> Iterator[PhantomView]:
        for index in range(3):
            assert len(list(tmp_path.glob("*.dcm"))) == index  # the one before is on disk already
            yield PhantomView("L", "CC", volume(), (0.1, 0.1))

    study = write_study(tmp_path, views(), seed=1)
    assert [path.name for path in study.files] == ["L-CC.dcm", "L-CC-2.dcm", "L-CC-3.dcm"]


def test_the_chest_wall_lies_where_the_patient_axes_say(tmp_path: Path) -> None:
    for side, sign in (("L", 1.0), ("R", -1.0)):
        (path,) = write_study(
            tmp_path, [PhantomView(side, "CC", volume(side), (0.1, 0.1))], seed=1
        ).files
        dataset = dcmread(path, stop_before_pixels=True)
        axes = [
            float(x)
            for x in dataset.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0][0x200037]
        ]
        corner = (
            dataset.PerFrameFunctionalGroupsSequence[0]
            .PlanePositionSequence[0]
            .ImagePositionPatient
        )
        row = np.array(axes[:3])
        chest = np.array(corner, float) + (0 if side == "L" else 39 * 0.1) * row
        front = np.array(corner, float) + (39 * 0.1 if side == "L" else 0) * row
        assert chest[1] == pytest.approx(0.0, abs=1e-6)
        assert front[1] < 0  # the front of the patient: -y (PS3.3 C.7.6.2.1.1)
        assert np.sign(chest[0]) == sign  # the left breast lies at +x


@pytest.mark.parametrize(
    "wrong",
    [
        {"laterality": "B"},
        {"view": "LM"},
        {"spacing_mm": (0.1, 0.0)},
        {"slice_spacing_mm": -1.0},
        {"volume_DHW": volume().astype(np.float32)},
        {"volume_DHW": volume()[0]},
        {"volume_DHW": volume()[:0]},
        {"kind": "mammogram"},  # five slices
    ],
)
def test_what_no_object_can_hold_is_refused(wrong: dict[str, object]) -> None:
    arguments = {
        "laterality": "L",
        "view": "CC",
        "volume_DHW": volume(),
        "spacing_mm": (0.1, 0.1),
    } | wrong
    with pytest.raises(InvalidPhantom):
        PhantomView(**arguments)  # type: ignore[arg-type]


def test_an_unknown_syntax_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidPhantom, match="jpeg2000"):
        write_study(tmp_path, [], seed=1, syntax="jpeg")  # type: ignore[arg-type]
