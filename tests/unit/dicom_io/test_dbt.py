"""Opening breast images: metadata, geometry, frame order, the way back to stored frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from dicom_io.dbt import open_image
from tests.support.breast_edits import Edit, modified, setting, with_view_code, without
from tests.support.breast_objects import edited, encode, view_file, volume, with_frames
from tests.support.shared import shared_path

JPEG_BASELINE = "1.2.840.10008.1.2.4.50"


def test_metadata_of_a_tomosynthesis_object(tmp_path: Path) -> None:
    image = open_image(view_file(tmp_path, "R", "MLO", spacing_mm=(0.085, 0.09)))
    assert (image.kind, image.laterality, image.view, image.view_family) == (
        "tomosynthesis",
        "R",
        "MLO",
        "MLO",
    )
    assert (image.number_of_frames, image.rows, image.columns) == (5, 60, 40)
    assert image.spacing_mm == (0.085, 0.09)
    assert (image.slice_spacing_mm, image.slice_thickness_mm) == (1.0, 1.0)
    assert image.source_frames == (0, 1, 2, 3, 4)
    assert image.frame_of_reference_uid == image.dataset.FrameOfReferenceUID
    assert not image.duplicate_positions
    assert image.warnings == ()
    assert "PixelData" not in image.dataset
    np.testing.assert_allclose(np.diff(image.positions_mm or ()), 1.0, atol=1e-6)


def test_a_mammogram_has_one_slice_and_imager_spacing(tmp_path: Path) -> None:
    made = volume("R", (1, 60, 40))
    path = view_file(tmp_path, "R", "MLO", volume_DHW=made, kind="mammogram")
    image = open_image(edited(path, setting(EstimatedRadiographicMagnificationFactor="1.25")))
    assert (image.kind, image.number_of_frames, image.laterality, image.view) == (
        "mammogram",
        1,
        "R",
        "MLO",
    )
    assert image.spacing_mm == pytest.approx((0.08, 0.08))
    assert image.positions_mm is None
    np.testing.assert_array_equal(image.read_volume(), made)


def test_spacing_that_is_not_given_is_not_invented(tmp_path: Path) -> None:
    def edit(dataset: Dataset) -> None:
        del dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence

    image = open_image(edited(view_file(tmp_path), edit))
    assert image.spacing_mm is None
    assert image.slice_thickness_mm is None
    assert image.slice_spacing_mm == pytest.approx(1.0)  # from the positions
    assert image.warnings == (
        "the header gives no pixel spacing: nothing is measured in millimetres",
    )


def reordered(order: list[int]) -> Edit:
    """Store the frames, and what is said of them, in another order."""

    def edit(dataset: Dataset) -> None:
        frames = np.frombuffer(dataset.PixelData, "<u2").reshape(5, -1)
        dataset.PixelData = frames[order].tobytes()
        groups = list(dataset.PerFrameFunctionalGroupsSequence)
        dataset.PerFrameFunctionalGroupsSequence = [groups[index] for index in order]

    return edit


@pytest.mark.parametrize("order", [[0, 2, 1, 3, 4], [3, 0, 1, 4, 2], [4, 3, 2, 1, 0]])
def test_slices_come_in_spatial_order_whatever_the_stored_order(
    tmp_path: Path, order: list[int]
) -> None:
    image = open_image(edited(view_file(tmp_path), reordered(order)))
    slices = [order[stored] for stored in image.source_frames]
    assert slices in ([0, 1, 2, 3, 4], [4, 3, 2, 1, 0])
    np.testing.assert_array_equal(image.read_volume(), volume()[slices])
    for slice_index, stored in enumerate(image.source_frames):
        np.testing.assert_array_equal(image.read_frame(stored), volume()[slices[slice_index]])


def test_an_object_stored_from_the_other_end_is_left_as_it_is(tmp_path: Path) -> None:
    image = open_image(edited(view_file(tmp_path), reordered([4, 3, 2, 1, 0])))
    assert image.source_frames == (0, 1, 2, 3, 4)


def test_repeated_positions_are_told_and_stack_numbers_order_the_slices(tmp_path: Path) -> None:
    def edit(dataset: Dataset) -> None:
        reordered([0, 2, 1, 3, 4])(dataset)
        for frame in dataset.PerFrameFunctionalGroupsSequence:
            frame.PlanePositionSequence[0].ImagePositionPatient = [1, 2, 3]

    image = open_image(edited(view_file(tmp_path), edit))
    assert image.duplicate_positions
    assert image.source_frames == (0, 2, 1, 3, 4)
    assert any("position" in warning for warning in image.warnings)


def test_without_positions_or_stack_numbers_the_stored_order_stands(tmp_path: Path) -> None:
    def edit(dataset: Dataset) -> None:
        for frame in dataset.PerFrameFunctionalGroupsSequence:
            del frame.PlanePositionSequence
            del frame.FrameContentSequence

    image = open_image(edited(view_file(tmp_path), edit))
    assert image.positions_mm is None
    assert image.source_frames == (0, 1, 2, 3, 4)


@pytest.mark.parametrize("stated", [2, 9])
def test_a_wrong_number_of_frames_gives_way_where_the_groups_agree(
    tmp_path: Path, stated: int
) -> None:
    image = open_image(edited(view_file(tmp_path), setting(NumberOfFrames=stated)))
    assert image.number_of_frames == 5
    assert any("frame counts disagree" in warning for warning in image.warnings)
    np.testing.assert_array_equal(image.read_volume(), volume())


def test_more_groups_than_frames_are_not_believed(tmp_path: Path) -> None:
    def edit(dataset: Dataset) -> None:
        dataset.PerFrameFunctionalGroupsSequence = [
            *dataset.PerFrameFunctionalGroupsSequence,
            Dataset(),
        ]

    image = open_image(edited(view_file(tmp_path), edit))
    assert image.number_of_frames == 5
    assert image.positions_mm is None
    assert len(image.warnings) == 1


@pytest.mark.parametrize("laterality", ["L", "R"])
@pytest.mark.parametrize("ask_first", [True, False])
def test_a_wrong_side_is_turned_and_the_way_back_is_exact(
    tmp_path: Path, laterality: str, ask_first: bool
) -> None:
    other = "R" if laterality == "L" else "L"
    stored = volume(other)
    stored[1, 13, 20] = 1023
    image = open_image(view_file(tmp_path, laterality, volume_DHW=stored))
    if ask_first:
        assert image.orientation == "flipped"
    volume_DHW = image.read_volume(workers=2)
    assert image.flipped
    np.testing.assert_array_equal(volume_DHW, stored[:, ::-1, ::-1])
    assert volume_DHW.flags.c_contiguous
    np.testing.assert_array_equal(image.to_stored(volume_DHW), stored)
    np.testing.assert_array_equal(image.read_frame(1), stored[1])
    slice_index, row, column = np.unravel_index(int(volume_DHW.argmax()), volume_DHW.shape)
    assert image.source_frames[int(slice_index)] == 1
    assert image.stored_point(float(row), float(column)) == (13.0, 20.0)


@pytest.mark.parametrize("laterality", ["L", "R"])
@pytest.mark.parametrize("view", ["CC", "MLO"])
def test_a_right_side_is_left_alone(tmp_path: Path, laterality: str, view: str) -> None:
    image = open_image(view_file(tmp_path, laterality, view))
    volume_DHW = image.read_volume()
    assert (image.orientation, image.flipped) == ("consistent", False)
    np.testing.assert_array_equal(volume_DHW, volume(laterality))
    assert image.to_stored(volume_DHW) is volume_DHW
    assert image.stored_point(3.0, 4.0) == (3.0, 4.0)


def test_sides_that_contradict_each_other_are_told(tmp_path: Path) -> None:
    image = open_image(edited(view_file(tmp_path), setting(ImageLaterality="R")))
    assert image.laterality == "L"
    assert any("laterality" in warning for warning in image.warnings)


@pytest.mark.parametrize(
    ("code", "view", "family"),
    [
        ("R-10242", "CC", "CC"),
        ("R-10226", "MLO", "MLO"),
        ("399352003", "LM", "MLO"),
        ("R-1024A", "XCCL", "CC"),
    ],
)
def test_views_by_old_and_new_codes(tmp_path: Path, code: str, view: str, family: str) -> None:
    image = open_image(edited(view_file(tmp_path, view="ML"), with_view_code(code)))
    assert (image.view, image.view_family) == (view, family)


def test_a_whole_breast_modifier_is_kept(tmp_path: Path) -> None:
    assert open_image(edited(view_file(tmp_path), modified("399209000"))).view_modifiers == ("ID",)


def test_a_missing_frame_of_reference_is_told(tmp_path: Path) -> None:
    image = open_image(edited(view_file(tmp_path), without("FrameOfReferenceUID")))
    assert image.frame_of_reference_uid is None
    assert len(image.warnings) == 1
    assert "no frame of reference" in image.warnings[0]
    np.testing.assert_array_equal(image.read_volume(), volume())


@pytest.mark.parametrize(
    ("edit", "note"),
    [
        (setting(BreastImplantPresent="YES"), "an implant, which is in this view"),
        (modified("399209000"), "an implant, which is displaced from this view"),
        (setting(BreastImplantPresent="NO"), None),
        (setting(BreastImplantPresent=""), None),
    ],
)
def test_an_implant_is_read_and_told(tmp_path: Path, edit: Edit, note: str | None) -> None:
    image = open_image(edited(view_file(tmp_path), edit))
    np.testing.assert_array_equal(image.read_volume(), volume())
    assert [note in warning for warning in image.warnings if note] == [True] * bool(note)
    assert len(image.warnings) == bool(note)


@pytest.mark.parametrize(
    ("attributes", "note"),
    [
        ({"LossyImageCompressionRatio": 12.5}, "(12.5 to 1)"),
        ({"LossyImageCompressionRatio": [10, 3]}, "(10 to 1 and then 3 to 1)"),
        ({}, "(ratio not given)"),
        ({"LossyImageCompressionRatio": -1}, "(ratio not given)"),
    ],
)
def test_loss_is_told_with_its_ratios(
    tmp_path: Path, attributes: dict[str, object], note: str
) -> None:
    path = edited(view_file(tmp_path), setting(LossyImageCompression="01", **attributes))
    assert open_image(path).warnings == (f"the image was compressed with loss {note}",)


def test_loss_that_only_the_syntax_shows_is_told(tmp_path: Path) -> None:
    frames = [encode((frame // 4).astype(np.uint8), JPEG_BASELINE) for frame in volume()]
    path = with_frames(view_file(tmp_path), frames, JPEG_BASELINE)
    (note,) = open_image(path).warnings
    assert "with loss (ratio not given), which its header does not say" in note


def test_the_real_hologic_header_opens() -> None:
    image = open_image(shared_path("data", "real", "hologic_bto_header.dcm"))
    assert (image.laterality, image.view, image.number_of_frames) == ("L", "CC", 4)
    assert image.spacing_mm is None
    assert any("45 per-frame items" in warning for warning in image.warnings)
    assert image.read_volume().shape == (4, 128, 128)
    assert image.orientation == "undecided"  # its pixels are noise


def test_the_real_mammogram_opens() -> None:
    image = open_image(shared_path("data", "real", "ge_senographe_mlo.dcm"))
    assert (image.kind, image.laterality, image.view, image.orientation) == (
        "mammogram",
        "R",
        "MLO",
        "consistent",
    )
    assert image.spacing_mm == pytest.approx((0.09409, 0.09409), abs=1e-5)
    assert image.window == (2653.0, 900.0)
    volume_DHW = image.read_volume()
    assert volume_DHW.shape == (1, 3062, 2394)
    assert volume_DHW.max() < 4096


@pytest.mark.parametrize("name", ["L-CC", "L-MLO", "R-CC", "R-MLO"])
def test_simulated_views_open(name: str) -> None:
    path = shared_path("data", "victre", "caseA", f"{name}.dcm")
    image = open_image(path)
    assert f"{image.laterality}-{image.view}" == name
    assert (image.orientation, image.spacing_mm, image.slice_spacing_mm) == (
        "consistent",
        (0.1, 0.1),
        1.0,
    )
    assert image.number_of_frames == dcmread(path, stop_before_pixels=True).NumberOfFrames
    assert image.read_frame(0).max() < 1024
