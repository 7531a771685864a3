"""Series of CT Image Storage that carry tomosynthesis, put together as one image."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from dicom_io.dbt import open_image
from dicom_io.errors import DicomIoError, ImageRefused, RefusalCode
from dicom_io.series import SeriesImage, open_series
from tests.support.breast_edits import setting
from tests.support.breast_objects import edited, encode, view_file, volume, with_frames
from tests.support.shared import shared_path

CT = "1.2.840.10008.5.1.4.1.1.2"
DEPTH = 7
STEP_MM = 1.25
AXES = [
    0.0,
    1.0,
    0.0,
    0.0,
    0.0,
    -1.0,
]  # rows run backwards, columns down; the normal points to the side


def series(folder: Path, laterality: str = "L", view: str = "MLO") -> list[Path]:
    """A study's volume as one CT object a slice, in files named by nothing that tells their order."""
    made = volume(laterality, (DEPTH, 60, 40))
    source = dcmread(view_file(folder / "made", laterality, view, volume_DHW=made))
    for keyword in (
        "SharedFunctionalGroupsSequence",
        "PerFrameFunctionalGroupsSequence",
        "NumberOfFrames",
        "ViewCodeSequence",
    ):
        delattr(source, keyword)
    normal = np.cross(AXES[:3], AXES[3:])
    paths = []
    for index, frame in enumerate(made):
        source.SOPClassUID = source.file_meta.MediaStorageSOPClassUID = CT
        uid = generate_uid(entropy_srcs=[f"slice {index}"])
        source.SOPInstanceUID = source.file_meta.MediaStorageSOPInstanceUID = uid
        source.Modality, source.BodyPartExamined = "CT", "BREAST"
        source.ImageLaterality, source.ViewPosition = laterality, view
        source.InstanceNumber = index + 1
        source.ImageOrientationPatient = AXES
        source.ImagePositionPatient = [
            round(float(x), 6) for x in np.array([10, 20, 30]) + index * STEP_MM * normal
        ]
        source.PixelSpacing, source.SliceThickness = [0.1, 0.1], 1.25
        source.RescaleSlope, source.RescaleIntercept = 1, 0
        source.PixelData = frame.tobytes()
        path = folder / f"{index * 5 % DEPTH}.dcm"
        source.save_as(path)
        paths.append(path)
    return paths


def opened(folder: Path) -> SeriesImage:
    return open_series(sorted(folder.glob("*.dcm")))


@pytest.mark.parametrize(("laterality", "view"), [("L", "MLO"), ("R", "CC")])
def test_slices_become_one_volume_in_order(tmp_path: Path, laterality: str, view: str) -> None:
    paths = series(tmp_path, laterality, view)
    image = opened(tmp_path)
    assert (image.kind, image.laterality, image.view) == ("tomosynthesis", laterality, view)
    assert [one.path for one in image.slices] == paths
    assert (image.number_of_frames, image.rows, image.columns) == (DEPTH, 60, 40)
    assert image.spacing_mm == (0.1, 0.1)
    assert image.slice_spacing_mm == pytest.approx(STEP_MM)
    assert np.diff(image.positions_mm or ()) == pytest.approx([STEP_MM] * (DEPTH - 1))
    assert (image.orientation, image.warnings) == ("consistent", ())
    made = volume(laterality, (DEPTH, 60, 40))
    np.testing.assert_array_equal(image.read_volume(workers=3), made)
    np.testing.assert_array_equal(image.read_frame(2), made[2])


def test_numbers_that_run_the_other_way_turn_the_order(tmp_path: Path) -> None:
    paths = series(tmp_path)
    for index, path in enumerate(paths):
        edited(path, setting(InstanceNumber=DEPTH - index))
    image = opened(tmp_path)
    assert [one.path for one in image.slices] == paths[::-1]
    np.testing.assert_array_equal(image.read_volume(), volume("L", (DEPTH, 60, 40))[::-1])


def test_numbers_that_tell_nothing_leave_the_positions_to_rule(tmp_path: Path) -> None:
    paths = series(tmp_path)
    for path in paths:
        edited(path, setting(InstanceNumber=None))
    found = [one.path for one in opened(tmp_path).slices]
    assert found in (paths, paths[::-1])


def test_a_wrong_side_is_turned_and_slices_keep_their_rows(tmp_path: Path) -> None:
    for path in series(tmp_path, "R"):
        edited(path, setting(ImageLaterality="L"))
    image = opened(tmp_path)
    made = volume("R", (DEPTH, 60, 40))
    np.testing.assert_array_equal(image.read_volume(workers=2), made[:, ::-1, ::-1])
    assert image.flipped
    np.testing.assert_array_equal(image.to_stored(image.read_volume()), made)


def test_slices_may_be_compressed_each_in_its_own_syntax(tmp_path: Path) -> None:
    paths = series(tmp_path)
    made = volume("L", (DEPTH, 60, 40))
    for index, tail in enumerate([".5", ".4.70", ".4.80", ".4.90"]):
        syntax = f"1.2.840.10008.1.2{tail}"
        with_frames(paths[index], [encode(made[index], syntax)], syntax)
    np.testing.assert_array_equal(opened(tmp_path).read_volume(workers=2), made)


def test_each_slice_has_its_own_scale_and_no_offset_cuts_tissue_off(tmp_path: Path) -> None:
    for index, path in enumerate(series(tmp_path)):
        edited(path, setting(RescaleSlope=index + 1, RescaleIntercept=-1024))
    slopes = np.arange(1, DEPTH + 1, dtype=np.uint16)[:, None, None]
    np.testing.assert_array_equal(
        opened(tmp_path).read_volume(), volume("L", (DEPTH, 60, 40)) * slopes
    )


def test_a_missing_frame_of_reference_is_told(tmp_path: Path) -> None:
    for path in series(tmp_path):
        edited(path, lambda dataset: delattr(dataset, "FrameOfReferenceUID"))
    (note,) = opened(tmp_path).warnings
    assert "no frame of reference" in note


def at(x: float, y: float = 20.0) -> Callable[[Dataset], None]:
    """Another place of a slice; the first one's is at x = 10, y = 20, and the normal runs along -x."""
    return setting(ImagePositionPatient=[x, y, 30])


REFUSED = {
    "another side": (setting(ImageLaterality="R"), RefusalCode.SERIES_DIFFERS, "laterality"),
    "another view": (setting(ViewPosition="CC"), RefusalCode.SERIES_DIFFERS, "view"),
    "another series": (
        setting(SeriesInstanceUID="1.2.3"),
        RefusalCode.SERIES_DIFFERS,
        "series: slice 3",
    ),
    "another reference": (
        setting(FrameOfReferenceUID="1.2.3"),
        RefusalCode.SERIES_DIFFERS,
        "frame of reference",
    ),
    "another size": (
        setting(Rows=40, Columns=60),
        RefusalCode.SERIES_DIFFERS,
        "pixel format: slice 3",
    ),
    "another spacing": (setting(PixelSpacing=[0.2, 0.2]), RefusalCode.SERIES_DIFFERS, "spacing"),
    "another orientation": (
        setting(ImageOrientationPatient=[1, 0, 0, 0, 1, 0]),
        RefusalCode.SERIES_DIFFERS,
        "orientation: slice 3",
    ),
    "beside the others": (at(7.5, 23), RefusalCode.SERIES_DIFFERS, "3.0 mm beside"),
    "no position": (
        setting(ImagePositionPatient=None),
        RefusalCode.SERIES_POSITIONS,
        "none given: slice 3",
    ),
    "one place for two": (at(8.75), RefusalCode.SERIES_POSITIONS, "slice 2, slice 3"),
    "no laterality": (setting(ImageLaterality=""), RefusalCode.CT_SLICES, "no tomosynthesis"),
    "a chest": (
        setting(BodyPartExamined="CHEST", ImageType=["ORIGINAL", "PRIMARY", "AXIAL"]),
        RefusalCode.CT_SLICES,
        "no tomosynthesis",
    ),
    "colour": (setting(PhotometricInterpretation="RGB"), RefusalCode.COLOUR, "RGB"),
    "two frames": (setting(NumberOfFrames=2), RefusalCode.TRUNCATED, ""),
    "quality control": (setting(QualityControlImage="YES"), RefusalCode.QUALITY_CONTROL, ""),
}


@pytest.mark.parametrize("name", REFUSED)
def test_slices_that_do_not_fit_are_refused_as_a_whole(tmp_path: Path, name: str) -> None:
    edit, code, detail = REFUSED[name]
    edited(series(tmp_path)[2], edit)
    with pytest.raises(ImageRefused) as caught:
        opened(tmp_path)
    assert caught.value.code is code
    assert detail in caught.value.detail


def test_a_missing_slice_is_seen(tmp_path: Path) -> None:
    series(tmp_path)[3].unlink()
    with pytest.raises(ImageRefused, match=r"2\.50 mm instead of 1\.25 mm after slice 3") as caught:
        opened(tmp_path)
    assert caught.value.code is RefusalCode.SERIES_GAP


@pytest.mark.parametrize("count", [0, 1, 4])
def test_too_few_slices_are_no_volume(tmp_path: Path, count: int) -> None:
    with pytest.raises(ImageRefused, match=f"{count} of at least 5") as caught:
        open_series(series(tmp_path)[:count])
    assert caught.value.code is RefusalCode.SERIES_SHORT


def test_a_damaged_slice_is_named(tmp_path: Path) -> None:
    paths = series(tmp_path)
    syntax = "1.2.840.10008.1.2.4.90"
    frame = encode(volume("L", (DEPTH, 60, 40))[4], syntax)
    with_frames(paths[4], [frame[: len(frame) // 2]], syntax)
    image = opened(tmp_path)
    with pytest.raises(ImageRefused) as caught:
        image.read_volume(workers=2)
    assert (caught.value.code, caught.value.frame) == (RefusalCode.DECODE_FAILED, 4)


def test_one_slice_by_itself_is_refused_as_ct(tmp_path: Path) -> None:
    with pytest.raises(ImageRefused) as caught:
        open_image(series(tmp_path)[0])
    assert caught.value.code is RefusalCode.CT_SLICES


def test_other_ct_is_no_series_of_a_breast() -> None:
    with pytest.raises(DicomIoError):
        open_series([shared_path("data", "odd", "dcmqi__IMG0001.dcm")] * 6)
