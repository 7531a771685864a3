"""Other people's readers take our segmentations and maps for what we mean: the same voxels at the same place.

dcmqi places frames in the patient by itself. What it writes is compared with the masks put in, which this test places
by the positions and directions of the *source's* header; highdicom pairs frames with source frames.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import highdicom
import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset

from dicom_io import write
from dicom_io.findings import LABELS, ImageFindings, Label, Segment, SourceRef
from dicom_io.parametric_map import build_parametric_map
from dicom_io.phantom import PhantomView, write_study
from dicom_io.seg import build_seg
from dicom_io.seg_values import HIGHEST, build_fractional
from tests.support import nrrd
from tests.support.sources import make_run
from tests.unit.workers.breasts import breast

pytestmark = pytest.mark.system

RUN = make_run()
SHAPE = (8, 48, 37)
SCORES: dict[Label, float] = {"benign": 0.25, "malignant": 0.75}
VIEWS: tuple[tuple[Literal["L", "R"], str], ...] = (
    ("L", "CC"),
    ("L", "MLO"),
    ("R", "CC"),
    ("R", "MLO"),
)
CASES = [*(f"{side}-{view}" for side, view in VIEWS), "L-CC reversed", "R-MLO reversed"]


@dataclass(frozen=True)
class Case:
    """A source and what was found in it: masks and levels by label and stored frame."""

    source: SourceRef
    masks: Mapping[Label, Mapping[int, NDArray[np.bool_]]]
    levels: Mapping[Label, Mapping[int, NDArray[np.uint8]]]

    @property
    def findings(self) -> ImageFindings:
        segments = tuple(Segment(label, frames, 0.75) for label, frames in self.masks.items())
        return ImageFindings(self.source, SCORES, segments, levels=self.levels)

    def points_mm(self, frame: int, chosen_HW: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Centres of the chosen pixels in the patient (PS3.3 C.7.6.2.1.1), from the source's header."""
        header = self.source.header
        shared = header.SharedFunctionalGroupsSequence[0]
        group = header.PerFrameFunctionalGroupsSequence[frame]
        first = np.array(group.PlanePositionSequence[0].ImagePositionPatient, dtype=float)
        cosines = shared.PlaneOrientationSequence[0].ImageOrientationPatient
        along_row, down = np.array(cosines, dtype=float).reshape(2, 3)
        row_mm, col_mm = map(float, shared.PixelMeasuresSequence[0].PixelSpacing)
        rows, cols = np.nonzero(chosen_HW)
        found: NDArray[np.float64] = (
            first + cols[:, None] * col_mm * along_row + rows[:, None] * row_mm * down
        )
        return found


@pytest.fixture(scope="module")
def headers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Dataset]:
    """Headers of a four-view study; two of them once more, as if their frames were stored last slice first."""
    views = [PhantomView(s, v, breast(s, SHAPE), (0.1, 0.12), 0.9) for s, v in VIEWS]
    study = write_study(tmp_path_factory.mktemp("study"), views, seed=5)
    files = dict(zip((f"{s}-{v}" for s, v in VIEWS), study.files, strict=True))
    by_name = {name: dcmread(path, stop_before_pixels=True) for name, path in files.items()}
    for name in ("L-CC", "R-MLO"):
        turned = dcmread(files[name], stop_before_pixels=True)
        turned.PerFrameFunctionalGroupsSequence = turned.PerFrameFunctionalGroupsSequence[::-1]
        by_name[f"{name} reversed"] = turned
    return by_name


def case(headers: Mapping[str, Dataset], name: str) -> Case:
    """A lopsided blob of each label that moves and grows from frame to frame, and levels all over."""
    depth, height, width = SHAPE
    side, view = name.split()[0].split("-")
    rng = np.random.default_rng(len(name))
    rows, cols = np.mgrid[:height, :width]
    masks: dict[Label, dict[int, NDArray[np.bool_]]] = {
        "malignant": {f: (rows > 5 + f) & (rows < 20) & (cols > 4) & (cols < 10 + 2 * f) for f in range(2, 6)},
        "benign": {f: (rows - 30) ** 2 + 2 * (cols - 12 - f) ** 2 < 40 for f in (4, 5)},
    }  # fmt: skip
    levels: dict[Label, dict[int, NDArray[np.uint8]]] = {
        label: {
            f: rng.integers(0, HIGHEST, (height, width), dtype=np.uint8, endpoint=True)
            for f in range(depth)
        }
        for label in LABELS
    }
    return Case(SourceRef(headers[name], depth, side, view), masks, levels)


def converted(program: str, dataset: Dataset | None, folder: Path) -> Path:
    """What a program of dcmqi makes of an object: the folder with its files."""
    # pip puts it beside the interpreter, which need not be on the PATH
    found = shutil.which(program, path=str(Path(sys.prefix) / "bin"))
    if found is None:
        pytest.skip(f"{program} is not installed: pip install -r requirements-interop.lock")
    assert dataset is not None
    path, out = folder / "object.dcm", folder / "out"
    out.mkdir()
    write.write(dataset, path)
    command = [found, "--inputDICOM", path, "--outputDirectory", out, "-t", "nrrd"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


@pytest.mark.parametrize("name", CASES)
def test_dcmqi_finds_our_masks_where_we_put_them(
    headers: dict[str, Dataset], name: str, tmp_path: Path
) -> None:
    made = case(headers, name)
    out = converted("segimage2itkimage", build_seg(made.findings, RUN), tmp_path)
    for number, label in enumerate(LABELS, start=1):
        volume = nrrd.read(out / f"{number}.nrrd")
        marked = made.masks[label]
        for frame, mask_HW in marked.items():
            assert set(volume.at(made.points_mm(frame, mask_HW))) == {number}
        assert np.count_nonzero(volume.values_kji) == sum(int(m.sum()) for m in marked.values())


@pytest.mark.parametrize("name", ["L-CC", "R-MLO reversed"])
def test_dcmqi_finds_our_scores_where_we_put_them(
    headers: dict[str, Dataset], name: str, tmp_path: Path
) -> None:
    made = case(headers, name)
    levels = {f: a for f, a in made.levels["malignant"].items() if f not in (0, 3, 7)}
    made = replace(made, levels={"malignant": levels})
    parametric = build_parametric_map(made.findings, "malignant", RUN)
    out = converted("paramap2itkimage", parametric, tmp_path)
    (path,) = out.glob("*.nrrd")
    volume = nrrd.read(path)
    everywhere = np.ones(SHAPE[1:], dtype=bool)
    for frame in range(1, 7):
        levels_HW = levels.get(frame, np.zeros(SHAPE[1:]))
        found = volume.at(made.points_mm(frame, everywhere))
        np.testing.assert_allclose(found, levels_HW.ravel() / HIGHEST, atol=1e-6)


def test_dcmqi_finds_the_levels_of_both_labels_where_we_put_them(
    headers: dict[str, Dataset], tmp_path: Path
) -> None:
    made = case(headers, "R-CC")
    out = converted("segimage2itkimage", build_fractional(made.findings, RUN), tmp_path)
    everywhere = np.ones(SHAPE[1:], dtype=bool)
    for number, label in enumerate(LABELS, start=1):
        volume = nrrd.read(out / f"{number}.nrrd")
        for frame, levels_HW in made.levels[label].items():
            found = volume.at(made.points_mm(frame, everywhere))
            np.testing.assert_array_equal(found, levels_HW.ravel())


@pytest.mark.parametrize("name", CASES)
def test_highdicom_pairs_the_same_masks_and_scores_with_the_same_frames(
    headers: dict[str, Dataset], name: str, tmp_path: Path
) -> None:
    made = case(headers, name)
    uid, frames = made.source.sop_instance_uid, list(range(1, SHAPE[0] + 1))
    for build, wanted in ((build_seg, made.masks), (build_fractional, made.levels)):
        dataset = build(made.findings, RUN)
        assert dataset is not None
        write.write(dataset, tmp_path / "object.dcm")
        read = highdicom.seg.segread(tmp_path / "object.dcm")
        values = read.get_pixels_by_source_frame(
            uid, frames, ignore_spatial_locations=False, assert_missing_frames_are_empty=True,
            rescale_fractional=False,
        )  # fmt: skip
        for number, label in enumerate(LABELS):
            for frame in range(SHAPE[0]):
                blank = np.zeros(SHAPE[1:], dtype=np.uint8)
                expected = wanted[label].get(frame, blank)
                np.testing.assert_array_equal(values[frame, :, :, number], expected)
