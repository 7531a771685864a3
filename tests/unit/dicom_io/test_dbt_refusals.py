"""What is no image for the analysis: each refusal with its reason."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydicom.dataset import Dataset

from dicom_io.dbt import open_image
from dicom_io.errors import DicomIoError, ImageRefused, RefusalCode, UnreadableDataset
from tests.support.breast_edits import (
    Edit,
    modified,
    of_class,
    setting,
    with_laterality,
    with_view_code,
    without,
)
from tests.support.breast_objects import (
    edited,
    encode,
    shared_item,
    view_file,
    volume,
    with_frames,
    with_syntax,
)
from tests.support.shared import shared_path

JPEG2000 = "1.2.840.10008.1.2.4.90"


def with_slope(value: float) -> Edit:
    return lambda dataset: setattr(
        shared_item(dataset, "PixelValueTransformationSequence"), "RescaleSlope", value
    )


REFUSALS: dict[str, tuple[Edit, RefusalCode]] = {
    "CT slices": (of_class("2"), RefusalCode.CT_SLICES),
    "secondary capture": (of_class("7"), RefusalCode.SECONDARY_CAPTURE),
    "multi-frame secondary capture": (of_class("7.3"), RefusalCode.SECONDARY_CAPTURE),
    "for processing": (of_class("1.2.1"), RefusalCode.FOR_PROCESSING),
    "intent": (setting(PresentationIntentType="FOR PROCESSING"), RefusalCode.FOR_PROCESSING),
    "projections": (of_class("13.1.5"), RefusalCode.PROJECTION),
    "MR": (of_class("4"), RefusalCode.NOT_A_BREAST_IMAGE),
    "structured report": (of_class("88.34"), RefusalCode.DOCUMENT),
    "key objects": (of_class("88.59"), RefusalCode.DOCUMENT),
    "segmentation": (of_class("66.4"), RefusalCode.DOCUMENT),
    "presentation state": (of_class("11.1"), RefusalCode.DOCUMENT),
    "quality control": (setting(QualityControlImage="YES"), RefusalCode.QUALITY_CONTROL),
    "no laterality": (with_laterality(""), RefusalCode.MISSING_LATERALITY),
    "both breasts": (with_laterality("B"), RefusalCode.MISSING_LATERALITY),
    "no view": (without("ViewCodeSequence"), RefusalCode.MISSING_VIEW),
    "unknown view": (with_view_code("R-99999"), RefusalCode.UNKNOWN_VIEW),
    "magnification": (modified("399163009"), RefusalCode.PARTIAL_VIEW),
    "spot compression": (modified("R-102D7"), RefusalCode.PARTIAL_VIEW),
    "colour": (setting(PhotometricInterpretation="RGB", SamplesPerPixel=3), RefusalCode.COLOUR),
    "palette": (setting(PhotometricInterpretation="PALETTE COLOR"), RefusalCode.COLOUR),
    "32 bits": (setting(BitsAllocated=32), RefusalCode.PIXEL_FORMAT),
    "more bits stored than allocated": (setting(BitsStored=20), RefusalCode.PIXEL_FORMAT),
    "high bit below bits stored": (setting(HighBit=3), RefusalCode.PIXEL_FORMAT),
    "no rows": (setting(Rows=0), RefusalCode.PIXEL_FORMAT),
    "slope of zero": (with_slope(0), RefusalCode.PIXEL_FORMAT),
    "no pixels": (without("PixelData"), RefusalCode.NO_PIXELS),
    "fewer frames than stated": (
        lambda ds: setting(NumberOfFrames=9, PerFrameFunctionalGroupsSequence=[Dataset()] * 9)(ds),
        RefusalCode.TRUNCATED,
    ),
    "a frame count nobody agrees with": (
        lambda ds: setting(NumberOfFrames=3, PerFrameFunctionalGroupsSequence=[Dataset()] * 2)(ds),
        RefusalCode.FRAME_COUNT,
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_what_cannot_be_analysed_is_refused_with_its_reason(tmp_path: Path, name: str) -> None:
    edit, code = REFUSALS[name]
    path = edited(view_file(tmp_path, patient_id="SECRET^NAME"), edit)
    with pytest.raises(ImageRefused) as caught:
        open_image(path)
    assert caught.value.code is code
    assert str(caught.value).startswith(code.sentence)
    assert "SECRET" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_syntax_without_a_decoder_is_refused(tmp_path: Path) -> None:
    frames = [encode(frame, JPEG2000) for frame in volume()]
    with pytest.raises(ImageRefused) as caught:
        open_image(with_frames(view_file(tmp_path), frames, "1.2.840.10008.1.2.4.92"))
    assert caught.value.code is RefusalCode.UNSUPPORTED_SYNTAX


def test_encapsulated_pixels_under_a_native_syntax_are_refused(tmp_path: Path) -> None:
    path = with_frames(view_file(tmp_path), [encode(f, JPEG2000) for f in volume()], JPEG2000)
    path.write_bytes(
        path.read_bytes().replace(b"1.2.840.10008.1.2.4.90", b"1.2.840.10008.1.2.1\0\0\0")
    )
    with pytest.raises(ImageRefused) as caught:
        open_image(path)
    assert caught.value.code is RefusalCode.PIXEL_FORMAT


def test_what_is_no_dicom_is_unreadable_and_a_missing_file_is_missing(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("not DICOM")
    with pytest.raises(UnreadableDataset):
        open_image(tmp_path / "x")
    with pytest.raises(FileNotFoundError):
        open_image(tmp_path / "y")


def test_every_odd_object_is_refused_with_a_reason() -> None:
    paths = sorted(shared_path("data", "odd").iterdir()) + sorted(
        shared_path("data", "seg_sr").iterdir()
    )
    for path in paths:
        with pytest.raises(ImageRefused) as caught:
            open_image(path)
        assert caught.value.code in RefusalCode


def test_a_deflated_stream_cut_off_or_damaged_is_unreadable(tmp_path: Path) -> None:
    data = with_syntax(view_file(tmp_path), "1.2.840.10008.1.2.1.99").read_bytes()
    broken = bytearray(data)
    broken[-2000:-1000] = bytes(1000)
    for damaged in (data[:-2000], bytes(broken)):
        (tmp_path / "x.dcm").write_bytes(damaged)
        with pytest.raises(DicomIoError):
            open_image(tmp_path / "x.dcm").read_volume()
