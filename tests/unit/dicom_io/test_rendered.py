"""Pictures of stored frames: the window is the standard's, the size what was asked for."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.pixels import apply_windowing

from dicom_io.errors import ImageRefused, RefusalCode
from dicom_io.frames import open_frames
from dicom_io.rendered import (
    FUNCTIONS,
    JPEG,
    THUMBNAIL,
    Window,
    apply,
    render,
    thumbnail,
    window_of,
)
from tests.support.breast_objects import edited, encode, view_file, volume, with_frames
from tests.unit.dicom_io.test_frames import image

J2K = "1.2.840.10008.1.2.4.90"


def levels(picture: bytes) -> np.ndarray:
    return np.asarray(Image.open(BytesIO(picture)))


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize(("centre", "width"), [(500.0, 300.0), (100.5, 2.0), (600.0, 900.0)])
def test_a_window_is_what_pydicom_makes_of_it(centre: float, width: float, function: str) -> None:
    values = np.arange(1024, dtype=np.uint16).reshape(32, 32)
    dataset = Dataset()
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsStored, dataset.PixelRepresentation = 8, 0  # its output range is the input's
    dataset.WindowCenter, dataset.WindowWidth, dataset.VOILUTFunction = centre, width, function
    theirs = apply_windowing(values, dataset)
    ours = apply(values.astype(np.float32), Window(centre, width, function))  # type: ignore[arg-type]
    assert np.abs(ours.astype(float) - theirs).max() <= 0.51


def test_a_width_of_one_is_a_threshold() -> None:
    values = np.array([[9.0, 9.4, 9.6, 10.0]], np.float32)
    assert apply(values, Window(10, 1)).tolist() == [[0, 0, 255, 255]]


def test_the_objects_own_window_or_the_clients(tmp_path: Path) -> None:
    frames = open_frames(view_file(tmp_path))
    own = window_of(frames.dataset, 2)
    assert own is not None
    values = volume()[2].astype(np.float32)
    np.testing.assert_array_equal(levels(render(frames, 2)), apply(values, own))
    other = Window(300, 100, "LINEAR_EXACT")
    np.testing.assert_array_equal(levels(render(frames, 2, window=other)), apply(values, other))


def test_compressed_frames_and_inverted_ones(tmp_path: Path) -> None:
    path = view_file(tmp_path)
    plain = levels(render(open_frames(path), 1))
    with_frames(path, [encode(frame, J2K) for frame in volume()], J2K)
    np.testing.assert_array_equal(levels(render(open_frames(path), 1)), plain)
    edited(path, lambda dataset: setattr(dataset, "PhotometricInterpretation", "MONOCHROME1"))
    np.testing.assert_array_equal(levels(render(open_frames(path), 1)), 255 - plain)


def test_sizes(tmp_path: Path) -> None:
    frames = open_frames(view_file(tmp_path, volume_DHW=volume(shape=(3, 600, 400))))
    assert levels(render(frames, 0)).shape == (600, 400)
    assert levels(render(frames, 0, size=(100, 100))).shape == (100, 67)
    assert levels(render(frames, 0, size=(9000, 9000))).shape == (600, 400)
    small = thumbnail(frames)
    assert small.startswith(b"\xff\xd8\xff")
    assert levels(small).shape == (THUMBNAIL, 133)


def test_jpeg_comes_close(tmp_path: Path) -> None:
    frames = open_frames(view_file(tmp_path))
    exact = levels(render(frames, 0)).astype(int)
    lossy = levels(render(frames, 0, JPEG, quality=100)).astype(int)
    assert np.abs(exact - lossy).mean() < 2


def test_a_mask_is_black_and_white(tmp_path: Path) -> None:
    mask = np.zeros((8, 8), np.bool_)
    mask[2:4, 3:7] = True
    packed = np.packbits(mask.reshape(-1), bitorder="little").tobytes()
    path = image(tmp_path / "seg.dcm", packed, Rows=8, Columns=8, BitsAllocated=1)
    np.testing.assert_array_equal(levels(render(open_frames(path), 0)) == 255, mask)


def test_signed_and_rescaled_values(tmp_path: Path) -> None:
    values = np.array([[-1000, -500], [0, 1000]], "<i2")
    path = image(tmp_path / "x.dcm", values.tobytes(), Rows=2, Columns=2, BitsAllocated=16)

    def edit(dataset: Dataset) -> None:
        dataset.PixelRepresentation = 1
        dataset.RescaleSlope, dataset.RescaleIntercept = 2, 100
        dataset.WindowCenter, dataset.WindowWidth = 100, 4000
        dataset.VOILUTFunction = "LINEAR_EXACT"

    got = levels(render(open_frames(edited(path, edit)), 0))
    assert got.tolist() == [[0, 64], [128, 255]]


@pytest.mark.parametrize("planar", [0, 1])
def test_colour(tmp_path: Path, planar: int) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    stored = rgb if planar == 0 else np.ascontiguousarray(rgb.transpose(2, 0, 1))
    path = image(
        tmp_path / "rgb.dcm", stored.tobytes(), Rows=4, Columns=6, SamplesPerPixel=3,
        PhotometricInterpretation="RGB", PlanarConfiguration=planar,
    )  # fmt: skip
    np.testing.assert_array_equal(levels(render(open_frames(path), 0)), rgb)


def test_what_is_not_drawn_is_refused(tmp_path: Path) -> None:
    path = image(
        tmp_path / "x.dcm", bytes(16), Rows=4, Columns=4, PhotometricInterpretation="PALETTE COLOR"
    )
    with pytest.raises(ImageRefused) as refused:
        render(open_frames(path), 0)
    assert refused.value.code is RefusalCode.COLOUR


def test_frames_of_one_value(tmp_path: Path) -> None:
    path = image(tmp_path / "x.dcm", bytes([7] * 16), Rows=4, Columns=4)
    assert levels(render(open_frames(path), 0)).max() == 0
