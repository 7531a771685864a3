"""Stored frames one by one: as they lie in the file, and uncompressed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread, dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from dicom_io.errors import ImageRefused, RefusalCode
from dicom_io.frames import MEDIA_TYPES, OCTETS, open_frames
from dicom_io.seg_frames import pack_frames
from dicom_io.syntaxes import TRANSFER_SYNTAXES
from tests.support.breast_objects import encode, view_file, volume, with_frames, with_syntax
from tests.support.shared import shared_path

ROOT_UID = "1.2.840.10008.1.2"


def image(
    path: Path, pixel_bytes: bytes, syntax: str = ExplicitVRLittleEndian, **attributes: Any
) -> Path:
    """A file with pixel data of any form."""
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.7.4", "1.2.3"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.2.4", "1.2.5"
    given = {"SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2", "BitsAllocated": 8}
    for keyword, value in {**given, **attributes}.items():
        if keyword != "vr":
            setattr(dataset, keyword, value)
    dataset.BitsStored, dataset.HighBit = dataset.BitsAllocated, dataset.BitsAllocated - 1
    dataset.PixelRepresentation = 0
    compressed = UID(syntax).is_encapsulated
    vr = attributes.get("vr", "OB" if compressed else "OW")
    dataset.add_new(0x7FE00010, vr, pixel_bytes + b"\0" * (len(pixel_bytes) % 2))
    dataset["PixelData"].is_undefined_length = compressed
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    dcmwrite(path, dataset, enforce_file_format=True)
    return path


@pytest.mark.parametrize("tail", ["", ".1", ".1.99", ".2", ".1.98"])
def test_uncompressed_frames_come_little_endian(tmp_path: Path, tail: str) -> None:
    frames = open_frames(with_syntax(view_file(tmp_path), ROOT_UID + tail))
    assert (frames.count, frames.media_type) == (5, OCTETS)
    assert frames.transfer_syntax_uid == ExplicitVRLittleEndian
    for index, frame in enumerate(volume()):
        assert frames.read(index) == frame.astype("<u2").tobytes()
        assert frames.decoded(index) == frames.read(index)
    if tail != ".1.98":
        assert b"".join(frames.value()) == volume().astype("<u2").tobytes()


@pytest.mark.parametrize("fragments", [1, 3])
@pytest.mark.parametrize("tail", [".4.70", ".4.80", ".4.90", ".4.201", ".5"])
def test_compressed_frames_come_as_they_are(tmp_path: Path, tail: str, fragments: int) -> None:
    streams = [encode(frame, ROOT_UID + tail) for frame in volume()]
    fragments = 1 if tail == ".5" else fragments
    path = with_frames(view_file(tmp_path), streams, ROOT_UID + tail, fragments=fragments)
    frames = open_frames(path)
    assert frames.media_type == MEDIA_TYPES[ROOT_UID + tail]
    assert frames.transfer_syntax_uid == ROOT_UID + tail
    for index, (stream, frame) in enumerate(zip(streams, volume(), strict=True)):
        assert frames.read(index).rstrip(b"\0") == stream.rstrip(b"\0")
        assert frames.decoded(index) == frame.astype("<u2").tobytes()


def test_the_byte_that_makes_a_length_even_is_not_sent(tmp_path: Path) -> None:
    streams = [encode(frame, ROOT_UID + ".4.90") for frame in volume(shape=(9, 60, 40))]
    assert any(len(stream) % 2 for stream in streams)
    path = view_file(tmp_path, volume_DHW=volume(shape=(9, 60, 40)))
    frames = open_frames(with_frames(path, streams, ROOT_UID + ".4.90"))
    assert [frames.read(index) for index in range(9)] == streams


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ExplicitVRBigEndian])
@pytest.mark.parametrize("shape", [(4, 5, 7), (3, 16, 8), (5, 3, 3)])
def test_frames_of_one_bit_begin_on_a_byte(
    tmp_path: Path, shape: tuple[int, int, int], syntax: str
) -> None:
    masks = np.random.default_rng(1).random(shape) < 0.4
    packed = pack_frames(masks)
    if syntax == ExplicitVRBigEndian:
        packed = np.frombuffer(packed, "<u2").astype(">u2").tobytes()
    path = image(
        tmp_path / "seg.dcm", packed, syntax,
        NumberOfFrames=shape[0], Rows=shape[1], Columns=shape[2], BitsAllocated=1,
    )  # fmt: skip
    frames = open_frames(path)
    assert frames.count == shape[0]
    for index, mask in enumerate(masks):
        assert frames.read(index) == np.packbits(mask.reshape(-1), bitorder="little").tobytes()


@pytest.mark.parametrize("vr", ["OW", "OB"])
def test_eight_bits_in_big_endian_words(tmp_path: Path, vr: str) -> None:
    cells = np.arange(3 * 15, dtype=np.uint8)
    stored = np.append(cells, np.uint8(0))
    if vr == "OW":
        stored = stored.reshape(-1, 2)[:, ::-1]
    path = image(
        tmp_path / "x.dcm", stored.tobytes(), ExplicitVRBigEndian,
        NumberOfFrames=3, Rows=3, Columns=5, vr=vr,
    )  # fmt: skip
    frames = open_frames(path)
    assert [frames.read(n) for n in range(3)] == [c.tobytes() for c in cells.reshape(3, 15)]


def test_colour_and_wide_cells(tmp_path: Path) -> None:
    colour = bytes(range(24))
    path = image(
        tmp_path / "rgb.dcm", colour * 2, NumberOfFrames=2, Rows=2, Columns=4, SamplesPerPixel=3,
        PhotometricInterpretation="RGB", PlanarConfiguration=0,
    )  # fmt: skip
    assert open_frames(path).read(1) == colour
    values = np.arange(8, dtype=np.uint32) * 70_000
    path = image(
        tmp_path / "wide.dcm", values.astype(">u4").tobytes(), ExplicitVRBigEndian,
        Rows=2, Columns=4, BitsAllocated=32,
    )  # fmt: skip
    assert open_frames(path).read(0) == values.astype("<u4").tobytes()
    half = image(
        tmp_path / "422.dcm", bytes(range(16)), Rows=2, Columns=4, SamplesPerPixel=3,
        PhotometricInterpretation="YBR_FULL_422", PlanarConfiguration=0,
    )  # fmt: skip
    assert open_frames(half).read(0) == bytes(range(16))


def test_what_fills_the_last_byte_is_no_frame(tmp_path: Path) -> None:
    path = image(tmp_path / "x.dcm", b"\7\0", Rows=1, Columns=1)
    assert open_frames(path).count == 1


def test_there_is_no_such_frame(tmp_path: Path) -> None:
    frames = open_frames(view_file(tmp_path))
    for index in (-1, 5):
        with pytest.raises(IndexError, match="of 5"):
            frames.read(index)


def test_damage_is_said(tmp_path: Path) -> None:
    path = view_file(tmp_path)
    path.write_bytes(path.read_bytes()[:-2000])
    frames = open_frames(path)
    assert frames.read(3)
    with pytest.raises(ImageRefused) as refused:
        frames.read(4)
    assert refused.value.code is RefusalCode.TRUNCATED


@pytest.mark.parametrize(
    ("attributes", "code"),
    [
        ({"Rows": 0, "Columns": 4}, RefusalCode.PIXEL_FORMAT),
        ({"Rows": 65535, "Columns": 65535}, RefusalCode.PIXEL_FORMAT),
        ({"Rows": 2, "Columns": 2, "BitsAllocated": 12}, RefusalCode.PIXEL_FORMAT),
        ({"Rows": 200, "Columns": 200}, RefusalCode.TRUNCATED),
    ],
)
def test_headers_that_cannot_be(
    tmp_path: Path, attributes: dict[str, int], code: RefusalCode
) -> None:
    with pytest.raises(ImageRefused) as refused:
        open_frames(image(tmp_path / "x.dcm", bytes(16), **attributes))
    assert refused.value.code is code


def test_no_pixels(tmp_path: Path) -> None:
    path = view_file(tmp_path)
    dataset = dcmread(path)
    del dataset.PixelData
    dataset.save_as(path)
    with pytest.raises(ImageRefused) as refused:
        open_frames(path)
    assert refused.value.code is RefusalCode.NO_PIXELS


def test_a_deflated_object_that_claims_too_much(tmp_path: Path) -> None:
    path = image(
        tmp_path / "x.dcm", bytes(64), DeflatedExplicitVRLittleEndian, Rows=4, Columns=4,
        NumberOfFrames=4,
    )  # fmt: skip
    assert open_frames(path).read(3) == bytes(16)


def test_compressed_colour_is_not_decoded(tmp_path: Path) -> None:
    path = image(
        tmp_path / "x.dcm", encapsulate([b"\xff\xd8\xff\xe0 not one \xff\xd9"]),
        "1.2.840.10008.1.2.4.50", Rows=2, Columns=2, SamplesPerPixel=3,
        PhotometricInterpretation="YBR_FULL_422",
    )  # fmt: skip
    frames = open_frames(path)
    assert frames.read(0).endswith(b"\xff\xd9")
    with pytest.raises(ImageRefused) as refused:
        frames.decoded(0)
    assert refused.value.code is RefusalCode.COLOUR


def test_a_real_segmentation_reads_as_pydicom_reads_it() -> None:
    path = shared_path("data", "seg_sr", "dcmqi__seg.dcm")
    theirs = dcmread(path).pixel_array
    frames = open_frames(path)
    assert frames.count == len(theirs)
    for index, mask in enumerate(theirs):
        assert frames.read(index) == np.packbits(mask.reshape(-1), bitorder="little").tobytes()


def test_every_syntax_that_is_accepted_has_a_media_type(tmp_path: Path) -> None:
    uncompressed = {ROOT_UID + tail for tail in ("", ".1", ".1.99", ".2", ".1.98")}
    assert set(TRANSFER_SYNTAXES) == uncompressed | set(MEDIA_TYPES)
    assert ImplicitVRLittleEndian not in MEDIA_TYPES
