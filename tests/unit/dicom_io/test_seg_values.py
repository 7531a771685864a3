"""Scores pixel by pixel: an independent reader (highdicom) must find every level on its source frame."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path

import highdicom
import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import JPEG2000Lossless

from dicom_io import write
from dicom_io.errors import InvalidFindings
from dicom_io.findings import ImageFindings, Label, SourceRef
from dicom_io.seg_values import LevelFrames, build_fractional, to_levels
from tests.support.sources import make_run, mammogram, source, tomosynthesis

RUN = make_run()
LATER = make_run(run_id="7c2a1f64-55d4-4a06-8a51-0a4bc2a9d2f1")
SCORES: dict[Label, float] = {"benign": 0.1, "malignant": 0.9}
LABELS: list[Label] = ["benign", "malignant"]


def shuffled() -> Dataset:
    return tomosynthesis(positions=[3, 0, 5, 1, 4, 2])


def no_frame_of_reference() -> Dataset:
    header = tomosynthesis()
    del header.FrameOfReferenceUID
    return header


def with_levels(ref: SourceRef, frames: dict[Label, Sequence[int]]) -> ImageFindings:
    """Random levels on the given frames of each label, no two alike."""
    rng = np.random.default_rng(11)
    levels = {
        label: {f: rng.integers(0, 256, ref.shape, dtype=np.uint8) for f in sorted(given)}
        for label, given in frames.items()
    }
    return ImageFindings(ref, SCORES, levels=levels)


def stored_levels(dataset: Dataset, ref: SourceRef) -> NDArray[np.uint8]:
    """(frames, rows, columns, segments) by source frame, as highdicom pairs them."""
    reader = highdicom.seg.segread(BytesIO(write.to_bytes(dataset)))
    if not ref.is_multi_frame:
        return reader.get_pixels_by_source_instance(
            [ref.sop_instance_uid], rescale_fractional=False
        )
    return reader.get_pixels_by_source_frame(
        ref.sop_instance_uid,
        list(range(1, ref.frame_count + 1)),
        assert_missing_frames_are_empty=True,
        rescale_fractional=False,
    )


@pytest.mark.parametrize("jpeg2000", [False, True])
@pytest.mark.parametrize("make", [tomosynthesis, shuffled, no_frame_of_reference])
def test_every_level_lies_on_its_own_source_frame(
    make: Callable[[], Dataset], jpeg2000: bool
) -> None:
    findings = with_levels(source(make()), {"malignant": [4, 1, 2], "benign": [0, 2]})
    ref = findings.source
    dataset = build_fractional(findings, RUN, jpeg2000=jpeg2000)
    assert dataset is not None
    expected = np.zeros((ref.frame_count, *ref.shape, 2), dtype=np.uint8)
    for label, frames in findings.levels.items():
        for frame, levels in frames.items():
            expected[frame, ..., LABELS.index(label)] = levels
    assert np.array_equal(stored_levels(dataset, ref), expected)
    assert (dataset.file_meta.TransferSyntaxUID == JPEG2000Lossless) is jpeg2000
    assert ("FrameOfReferenceUID" in dataset) is (make is not no_frame_of_reference)


def test_a_projection_image_has_levels_too() -> None:
    findings = with_levels(source(mammogram()), {"malignant": [0]})
    dataset = build_fractional(findings, RUN)
    assert dataset is not None
    stored = stored_levels(dataset, findings.source)
    assert np.array_equal(stored[0, ..., 0], findings.levels["malignant"][0])


def test_it_says_that_levels_are_no_calibrated_probability() -> None:
    findings = with_levels(source(tomosynthesis()), {"malignant": [1]})
    dataset = build_fractional(findings, make_run(trained=False))
    assert dataset is not None
    assert dataset.SegmentationType == "FRACTIONAL"
    assert dataset.MaximumFractionalValue == 255
    assert "not for clinical use" in dataset.SeriesDescription
    (item,) = dataset.SegmentSequence
    for said in ("not calibrated", "no probability of malignancy", "weights are untrained"):
        assert said in item.SegmentDescription
    algorithm = item.SegmentationAlgorithmIdentificationSequence[0]
    assert "ab" * 32 in algorithm.AlgorithmParameters
    assert "ab" * 32 in dataset.ContributingEquipmentSequence[-1].ContributionDescription


def test_frames_and_labels_of_zeros_are_not_stored() -> None:
    ref = source(tomosynthesis())
    nothing = np.zeros(ref.shape, dtype=np.uint8)
    some = nothing.copy()
    some[3, 4] = 1
    levels: dict[Label, dict[int, NDArray[np.uint8]]] = {
        "benign": {0: nothing},
        "malignant": {2: nothing, 3: some},
    }
    dataset = build_fractional(ImageFindings(ref, SCORES, levels=levels), RUN)
    assert dataset is not None
    assert dataset.NumberOfFrames == 1
    assert [item.SegmentLabel[:9] for item in dataset.SegmentSequence] == ["Malignant"]
    assert stored_levels(dataset, ref)[3, 3, 4, 0] == 1
    assert build_fractional(ImageFindings(ref, SCORES), RUN) is None
    quiet = ImageFindings(ref, SCORES, levels={"benign": {0: nothing}})
    assert build_fractional(quiet, RUN) is None


@pytest.mark.parametrize("jpeg2000", [False, True])
def test_the_same_run_gives_the_same_bytes_however_often_it_is_written(
    jpeg2000: bool, tmp_path: Path
) -> None:
    findings = with_levels(source(tomosynthesis()), {"malignant": [0, 1, 2]})
    first, again = (build_fractional(findings, RUN, jpeg2000=jpeg2000) for _ in range(2))
    assert first is not None
    assert again is not None
    write.write(first, tmp_path / "first.dcm")
    assert (tmp_path / "first.dcm").read_bytes() == write.to_bytes(first) == write.to_bytes(again)
    later = build_fractional(findings, LATER)
    assert later is not None
    assert later.SOPInstanceUID != first.SOPInstanceUID


def test_an_odd_number_of_bytes_is_made_even() -> None:
    findings = with_levels(source(tomosynthesis()), {"malignant": [0]})
    dataset = build_fractional(findings, RUN)
    assert dataset is not None
    assert len(dcmread(BytesIO(write.to_bytes(dataset))).PixelData) == 13 * 11 + 1


def test_levels_that_do_not_fit_are_refused_with_the_value_seen() -> None:
    ref = source(tomosynthesis())
    good = np.ones(ref.shape, dtype=np.uint8)
    for frame, levels, seen in (
        (0, good[:, 1:], r"\(13, 10\)"),
        (0, good.astype(np.uint16), "uint16"),
        (6, good, "index 6"),
        (-1, good, "index -1"),
    ):
        findings = ImageFindings(ref, SCORES, levels={"benign": {frame: levels}})
        with pytest.raises(InvalidFindings, match=seen):
            build_fractional(findings, RUN)


def test_cells_become_levels_when_asked_for() -> None:
    cells = {5: np.array([[0.0, 0.5]], dtype=np.float32), 2: np.array([[1, 0.25]], np.float32)}
    asked = []

    def place(cells_hw: NDArray[np.uint8]) -> NDArray[np.uint8]:
        asked.append(cells_hw.tolist())
        return np.repeat(cells_hw, 3, axis=1)

    frames = LevelFrames(cells, place)
    assert (list(frames), len(frames), asked) == ([2, 5], 2, [])
    assert frames[5].tolist() == [[0, 0, 0, 128, 128, 128]]
    assert asked == [[[0, 128]]]


@pytest.mark.parametrize("score", [float("nan"), -0.01, 1.01])
def test_a_score_that_is_none_is_refused(score: float) -> None:
    with pytest.raises(InvalidFindings, match="from 0 to 1"):
        to_levels(np.array([0.5, score], dtype=np.float32))


_DENSE = """
import resource, sys
from pathlib import Path
import numpy as np
from dicom_io import labelmap, parametric_map, seg_values, write
from dicom_io.findings import ImageFindings
from tests.support.sources import make_run, source, tomosynthesis

frames, rows, columns = 70, 2457, 1890
header = tomosynthesis(frames=frames)
header.Rows, header.Columns = rows, columns
ref = source(header)
cells = {f: np.full((3, 2), (f + 1) / 100, dtype=np.float32) for f in range(frames)}
place = lambda hw: hw.repeat(rows // 3, axis=0).repeat(columns // 2, axis=1)
levels = {"malignant": seg_values.LevelFrames(cells, place)}
findings = ImageFindings(ref, {"benign": 0.0, "malignant": 0.7}, levels=levels)
idle = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
write.write(seg_values.build_fractional(findings, make_run()), Path(sys.argv[1]))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - idle)
"""


def test_memory_does_not_grow_with_the_frames(tmp_path: Path) -> None:
    """70 dense frames of a large detector, 325 MB: less than half of it above what an idle process needs."""
    path = tmp_path / "dense.dcm"
    done = subprocess.run(
        [sys.executable, "-c", _DENSE, str(path)], capture_output=True, text=True, check=True
    )
    assert path.stat().st_size > 70 * 2457 * 1890
    assert int(done.stdout) < 150_000  # KiB
    last = dcmread(path, specific_tags=["NumberOfFrames"])
    assert last.NumberOfFrames == 70
    with path.open("rb") as file:
        file.seek(-2457 * 1890, 2)
        assert set(file.read()) == {round(0.7 * 255)}
