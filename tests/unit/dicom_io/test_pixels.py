"""Frames: every transfer syntax, fragments, and stored values as grey values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset

from dicom_io.dbt import open_image
from dicom_io.errors import ImageRefused, RefusalCode
from dicom_io.pixels import PixelFormat, normalise
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

ROOT_UID = "1.2.840.10008.1.2"
UNCOMPRESSED = ("", ".1", ".1.99", ".2", ".1.98")
LOSSLESS = (".4.57", ".4.70", ".4.80", ".4.90", ".4.201", ".5")


def compressed(folder: Path, tail: str, **how: Any) -> Path:
    frames = [encode(frame, ROOT_UID + tail) for frame in volume()]
    return with_frames(view_file(folder), frames, ROOT_UID + tail, **how)


@pytest.mark.parametrize("tail", UNCOMPRESSED)
def test_uncompressed_forms_give_the_stored_values(tmp_path: Path, tail: str) -> None:
    image = open_image(with_syntax(view_file(tmp_path), ROOT_UID + tail))
    np.testing.assert_array_equal(image.read_volume(workers=2), volume())


@pytest.mark.parametrize("tail", LOSSLESS)
def test_lossless_forms_give_the_stored_values(tmp_path: Path, tail: str) -> None:
    image = open_image(compressed(tmp_path, tail))
    assert image.header.transfer_syntax_uid == ROOT_UID + tail
    np.testing.assert_array_equal(image.read_volume(workers=2), volume())


@pytest.mark.parametrize(
    "same", [(".4.80", ".4.81"), (".4.90", ".4.91"), (".4.201", ".4.202"), (".4.201", ".4.203")]
)
def test_sibling_syntaxes_share_a_decoder(tmp_path: Path, same: tuple[str, str]) -> None:
    frames = [encode(frame, ROOT_UID + same[0]) for frame in volume()]
    path = with_frames(view_file(tmp_path), frames, ROOT_UID + same[1])
    np.testing.assert_array_equal(open_image(path).read_volume(), volume())


@pytest.mark.parametrize(("tail", "bits"), [(".4.50", 8), (".4.51", 12)])
def test_lossy_jpeg_comes_close(tmp_path: Path, tail: str, bits: int) -> None:
    rows, columns = np.mgrid[:60, :40]
    frame_HW = np.where(columns < 30, 100 + rows, 0).astype(np.uint8 if bits == 8 else np.uint16)

    def edit(dataset: Dataset) -> None:
        dataset.BitsStored, dataset.HighBit = bits, bits - 1
        dataset.BitsAllocated = 8 if bits == 8 else 16
        dataset.PixelData = np.stack([frame_HW] * 5).tobytes()

    path = edited(view_file(tmp_path), edit)
    with_frames(path, [encode(frame_HW, ROOT_UID + tail)] * 5, ROOT_UID + tail)
    volume_DHW = open_image(path).read_volume()
    assert np.abs(volume_DHW[2].astype(int) - frame_HW).max() < 40
    assert np.abs(volume_DHW[2].astype(int) - frame_HW).mean() < 2


@pytest.mark.parametrize("table", [True, False])
@pytest.mark.parametrize("tail", [".4.70", ".4.80", ".4.90"])
def test_frames_in_several_fragments(tmp_path: Path, tail: str, table: bool) -> None:
    image = open_image(compressed(tmp_path, tail, fragments=3, table=table))
    np.testing.assert_array_equal(image.read_volume(), volume())


def test_an_offset_table_that_makes_no_sense_is_not_believed(tmp_path: Path) -> None:
    path = compressed(tmp_path, ".4.80", fragments=3)
    data = path.read_bytes()
    at = data.rindex(b"\xe0\x7f\x10\x00") + 12 + 8
    path.write_bytes(data[:at] + b"\x07\0\0\0" * 5 + data[at + 20 :])
    np.testing.assert_array_equal(open_image(path).read_volume(), volume())


def test_a_single_frame_in_fragments(tmp_path: Path) -> None:
    made = volume(shape=(1, 60, 40))
    path = view_file(tmp_path, volume_DHW=made, kind="mammogram")
    syntax = ROOT_UID + ".4.90"
    with_frames(path, [encode(made[0], syntax)], syntax, fragments=4, table=False)
    np.testing.assert_array_equal(open_image(path).read_volume(), made)


def test_eight_bit_run_length_frames(tmp_path: Path) -> None:
    made = (volume() // 4).astype(np.uint8)

    def edit(dataset: Dataset) -> None:
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
        dataset.PixelData = made.tobytes()

    path = with_frames(
        edited(view_file(tmp_path), edit),
        [encode(f, ROOT_UID + ".5") for f in made],
        ROOT_UID + ".5",
    )
    np.testing.assert_array_equal(open_image(path).read_volume(), made)


@pytest.mark.parametrize("tail", LOSSLESS)
def test_a_damaged_frame_is_named(tmp_path: Path, tail: str) -> None:
    frames = [encode(frame, ROOT_UID + tail) for frame in volume()]
    frames[3] = frames[3][: len(frames[3]) // 2]
    image = open_image(with_frames(view_file(tmp_path), frames, ROOT_UID + tail))
    with pytest.raises(ImageRefused, match="frame 4") as caught:
        image.read_volume(workers=2)
    assert (caught.value.code, caught.value.frame) == (RefusalCode.DECODE_FAILED, 3)


@pytest.mark.parametrize("tail", LOSSLESS)
def test_a_code_stream_of_another_size_is_refused(tmp_path: Path, tail: str) -> None:
    frames = [encode(frame, ROOT_UID + tail) for frame in volume(shape=(5, 90, 70))]
    image = open_image(with_frames(view_file(tmp_path), frames, ROOT_UID + tail))
    with pytest.raises(ImageRefused) as caught:
        image.read_volume()
    assert caught.value.code is RefusalCode.DECODE_FAILED


@pytest.mark.parametrize("form", ["native", ".4.90"])
def test_a_file_cut_off_is_refused(tmp_path: Path, form: str) -> None:
    path = view_file(tmp_path) if form == "native" else compressed(tmp_path, form)
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(ImageRefused) as caught:
        open_image(path)
    assert caught.value.code is RefusalCode.TRUNCATED


def test_a_file_that_shrinks_after_opening_is_refused(tmp_path: Path) -> None:
    image = open_image(path := view_file(tmp_path))
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(ImageRefused) as caught:
        image.read_volume()
    assert caught.value.code is RefusalCode.TRUNCATED


def grey(
    stored: list[int], dtype: str = "u2", rescale: tuple[float, float] = (1.0, 0.0), **form: Any
) -> list[int]:
    values: dict[str, Any] = {
        "rows": 1,
        "columns": len(stored),
        "bits_allocated": 16,
        "bits_stored": 10,
        "high_bit": 9,
        "signed": False,
        "inverted": False,
        "padding": None,
        "rescale": (rescale,),
        "transfer_syntax_uid": "",
    }
    out_HW: NDArray[np.uint16] = np.empty((1, len(stored)), np.uint16)
    normalise(np.array([stored], dtype), PixelFormat(**(values | form)), rescale, out_HW)
    found: list[int] = out_HW[0].tolist()
    return found


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (grey([0, 1, 1023]), [0, 1, 1023]),
        (grey([0xFC00, 0xFFFF]), [0, 1023]),  # bits above those stored are not pixels
        (grey([0x0040, 0xFFC0], high_bit=15), [1, 1023]),  # nor those below
        (grey([0, 1, 1023], inverted=True), [1023, 1022, 0]),
        (grey([0, 4095], inverted=True, bits_stored=12, high_bit=11), [4095, 0]),
        (grey([5, 0x3FF, 0x200], signed=True), [5, 0, 0]),  # -1 and -512 are below black
        (grey([5, -1, -512], "i2", signed=True), [5, 0, 0]),
        (grey([0, -512, 511], "i2", signed=True, inverted=True, rescale=(1, 512)), [511, 1023, 0]),
        (grey([0, 10, 11], rescale=(2.0, -10.0)), [0, 10, 12]),
        (grey([1, 3], rescale=(0.5, 0.0)), [0, 2]),  # halves to even
        (grey([1023], rescale=(100.0, 0.0)), [65535]),
        (grey([0, 3], padding=(0, 4)), [0, 3]),  # dark padding is left as it is
        (grey([0, 3, 500], padding=(0, 4), inverted=True), [0, 0, 523]),
        (grey([1023, 500], padding=(1023, 1023)), [0, 500]),
        (grey([0, 1], ">u2"), [0, 1]),
        (grey([0, 255], "u1", bits_allocated=8, bits_stored=8, high_bit=7), [0, 255]),
    ],
)
def test_stored_values_become_grey_values(found: list[int], expected: list[int]) -> None:
    assert found == expected


def test_monochrome1_and_rescale_of_an_object(tmp_path: Path) -> None:
    def edit(dataset: Dataset) -> None:
        dataset.PhotometricInterpretation = "MONOCHROME1"
        dataset.PixelData = (1023 - volume()).tobytes()
        item = shared_item(dataset, "PixelValueTransformationSequence")
        item.RescaleSlope, item.RescaleIntercept = 2, 7

    image = open_image(edited(view_file(tmp_path), edit))
    np.testing.assert_array_equal(image.read_volume(), 2 * volume() + 7)
    assert image.orientation == "consistent"


def test_each_frame_has_its_own_rescale(tmp_path: Path) -> None:
    def edit(dataset: Dataset) -> None:
        del dataset.SharedFunctionalGroupsSequence[0].PixelValueTransformationSequence
        for index, frame in enumerate(dataset.PerFrameFunctionalGroupsSequence):
            item = Dataset()
            item.RescaleSlope, item.RescaleIntercept, item.RescaleType = 1, index, "US"
            frame.PixelValueTransformationSequence = [item]

    image = open_image(edited(view_file(tmp_path), edit))
    np.testing.assert_array_equal(
        image.read_volume(), volume() + np.arange(5, dtype=np.uint16)[:, None, None]
    )


def as_mammogram(path: Path, out: Path) -> Path:
    """The object with the class, side and view of a mammogram, its pixels and syntax untouched."""
    dataset = dcmread(path)
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.1.2"
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.ImageLaterality, dataset.ViewPosition = "L", "CC"
    dataset.save_as(out)
    return out


def odd_volume(name: str, out: Path) -> NDArray[np.uint16]:
    return open_image(as_mammogram(shared_path("data", "odd", name), out / "x.dcm")).read_volume()


def test_one_object_in_five_encodings_from_elsewhere(tmp_path: Path) -> None:
    names = [
        "dicomParser__CT0012.fragmented_no_bot_jpeg_lossless.57.dcm",
        "dicomParser__CT0012.fragmented_no_bot_jpeg_lossless.70.dcm",
        "dicomParser__CT0012.fragmented_no_bot_jpeg_ls.80.dcm",
        "dicomParser__CT0012.not_fragmented_bot_jpeg_ls.80.dcm",
        "dicomParser__CT0012.not_fragmented_no_bot_jpeg_ls.80.dcm",
    ]
    first, *others = [odd_volume(name, tmp_path) for name in names]
    assert first.shape == (2, 512, 512)
    assert first.max() > first.min()
    for other in others:
        np.testing.assert_array_equal(other, first)


@pytest.mark.parametrize(
    "name",
    [
        "cornerstone3D__CTImage.dcm_JPEGProcess1TransferSyntax_1.2.840.10008.1.2.4.50.dcm",
        "cornerstone3D__CTImage.dcm_JPEGProcess2_4TransferSyntax_1.2.840.10008.1.2.4.51.dcm",
        "cornerstone3D__CTImage.dcm_JPEGProcess6_8TransferSyntax_1.2.840.10008.1.2.4.53.dcm",
        "cornerstone3D__CTImage.dcm_JPEGProcess10_12TransferSyntax_1.2.840.10008.1.2.4.55.dcm",
        "cornerstone3D__CT0012.fragmented_no_bot_jpeg_baseline.51.dcm",
        "dicomParser__CT0012.fragmented_no_bot_jpeg_ls.81.dcm",
        "pylibjpeg-data__ELSCINT1_JP2vsJ2K.dcm",
        "pylibjpeg-data__OsirixFake16BitsStoredFakeSpacing.dcm",
        "dcmjs__sample-op.dcm",
    ],
)
def test_code_streams_from_elsewhere_decode(tmp_path: Path, name: str) -> None:
    assert odd_volume(name, tmp_path).std() > 1


@pytest.mark.parametrize(
    "name",
    ["cornerstone3D__TestPattern_JPEG-Baseline_YBR422.dcm", "highdicom__sm_image_jpegls.dcm"],
)
def test_colour_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ImageRefused) as caught:
        odd_volume(name, tmp_path)
    assert caught.value.code is RefusalCode.COLOUR
