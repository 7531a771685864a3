"""What readers drew, written by highdicom on phantom objects and read back: pixels, frames, labels, refusals."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset

from dicom_io.drawn import DrawnObject, read_drawn
from dicom_io.errors import InvalidDrawing
from dicom_io.outline import Outline
from dicom_io.phantom import PhantomView, write_study
from tests.support.breast_objects import volume
from tests.support.drawings import draw, rectangle

SHAPE = (4, 60, 40)
ONE, TWO = rectangle(SHAPE[1:], 10, 5, 6, 8), rectangle(SHAPE[1:], 12, 20, 3, 2)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    view = PhantomView("L", "CC", volume("L", SHAPE, 1), (0.1, 0.1))
    return write_study(tmp_path_factory.mktemp("image"), [view], seed=11).files[0]


def only(drawn: DrawnObject) -> Outline:
    """The outline of an object with one drawing."""
    [drawing] = drawn.drawings
    assert drawing.problem == ""
    assert drawing.outline is not None
    return drawing.outline


def test_each_segment_keeps_its_pixels_its_frames_and_its_label(
    image: Path, tmp_path: Path
) -> None:
    first = ("malignant", {1: ONE, 3: ONE | TWO})
    path = draw(tmp_path / "s", image, first, ("benign", {0: TWO}), (None, {2: ONE}))
    drawn = read_drawn(path)
    assert drawn.shape == SHAPE[1:]
    assert [(d.segment, d.label, d.numbered) for d in drawn.drawings] == [
        (1, "malignant", True), (2, "benign", True), (3, None, True),
    ]  # fmt: skip
    outline = drawn.drawings[0].outline
    assert outline is not None
    assert (outline.frames, outline.row, outline.col) == ((1, 3), 10, 5)
    for mask, wanted in zip(outline.masks_NHW, (ONE, ONE | TWO), strict=True):
        np.testing.assert_array_equal(mask, wanted[10:16, 5:22])
    np.testing.assert_array_equal(outline.projected(SHAPE[1:]), ONE | TWO)
    assert outline.central == (3, (10, 5, 6, 17))
    again = Outline.from_bytes(outline.to_bytes())
    assert (again.frames, again.row, again.col) == (outline.frames, outline.row, outline.col)
    np.testing.assert_array_equal(again.masks_NHW, outline.masks_NHW)


def test_of_a_fractional_segment_half_a_pixel_counts(image: Path, tmp_path: Path) -> None:
    shares = {1: ONE * 0.5 + TWO * 0.45, 2: TWO * 0.49}
    path = draw(tmp_path / "s", image, ("benign", shares), kind="FRACTIONAL")
    outline = only(read_drawn(path))
    assert outline.frames == (1,)
    np.testing.assert_array_equal(outline.projected(SHAPE[1:]), ONE)


def test_an_image_of_one_frame_needs_no_frame_number(tmp_path: Path) -> None:
    view = PhantomView("R", "CC", volume("R", (1, 60, 40), 1), (0.1, 0.1), kind="mammogram")
    image = write_study(tmp_path, [view], seed=12).files[0]
    drawn = read_drawn(draw(tmp_path / "s", image, ("malignant", {0: ONE})))
    assert only(drawn).frames == (0,)
    assert drawn.drawings[0].numbered is False


def _lose_sources(seg: Dataset) -> None:
    del seg.PerFrameFunctionalGroupsSequence[0].DerivationImageSequence


def _two_sources(seg: Dataset) -> None:
    sequence = (
        seg.PerFrameFunctionalGroupsSequence[0].DerivationImageSequence[0].SourceImageSequence
    )
    other = deepcopy(sequence[0])
    other.ReferencedFrameNumber = 1
    sequence.append(other)


def _two_numbers(seg: Dataset) -> None:
    groups = seg.PerFrameFunctionalGroupsSequence[0]
    groups.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber = [1, 2]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"algorithm": "AUTOMATIC"}, "an algorithm made it"),
        ({"edit": _lose_sources}, "frame 1 does not name one source frame"),
        ({"edit": _two_sources}, "frame 1 does not name one source frame"),
    ],
)
def test_a_segment_that_cannot_be_used_says_why(
    image: Path, tmp_path: Path, options: dict[str, object], words: str
) -> None:
    drawn = read_drawn(draw(tmp_path / "s", image, ("malignant", {1: ONE}), **options))  # type: ignore[arg-type]
    [drawing] = drawn.drawings
    assert drawing.outline is None
    assert words in drawing.problem


def test_a_segment_without_a_pixel_says_so(image: Path, tmp_path: Path) -> None:
    path = draw(tmp_path / "s", image, ("malignant", {1: ONE * 0.4}), kind="FRACTIONAL")
    assert "it marks no pixel" in read_drawn(path).drawings[0].problem


def test_what_is_no_segmentation_is_refused(image: Path, tmp_path: Path) -> None:
    text, cut = tmp_path / "t", tmp_path / "c"
    text.write_text("no DICOM")
    whole = draw(tmp_path / "s", image, ("malignant", {1: ONE}))
    cut.write_bytes(whole.read_bytes()[:-200])
    twice = draw(tmp_path / "n", image, ("malignant", {1: ONE}), edit=_two_numbers)
    for path, words in (
        (text, "no DICOM file"),
        (image, "no DICOM Segmentation"),
        (cut, "cannot be read"),
        (twice, "cannot be read"),
    ):
        with pytest.raises(InvalidDrawing, match=words):
            read_drawn(path)
