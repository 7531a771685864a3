"""The same object in little endian: every pixel, every attribute, and nothing in memory but a frame."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import UID

from dicom_io.dbt import open_image
from dicom_io.errors import DicomIoError, ImageRefused, UnreadableDataset
from dicom_io.frames import open_frames
from dicom_io.syntaxes import EXPLICIT_BIG, EXPLICIT_LITTLE, IMPLICIT_LITTLE
from dicom_io.transcode import TARGETS, NotTranscodable, transcode
from tests.support.breast_objects import (
    edited,
    encode,
    view_file,
    volume,
    with_frames,
    with_syntax,
)
from tests.support.objects import data_set_bytes, write_object
from tests.support.shared import shared_path

ROOT_UID = "1.2.840.10008.1.2"
UNCOMPRESSED = ("", ".1", ".1.99", ".2", ".1.98")
LOSSLESS = (".4.57", ".4.70", ".4.80", ".4.90", ".4.201", ".5")


def in_syntax(folder: Path, tail: str, **how: Any) -> Path:
    path = view_file(folder)
    if tail in UNCOMPRESSED:
        return with_syntax(path, ROOT_UID + tail)
    frames = [encode(frame, ROOT_UID + tail) for frame in volume()]
    return with_frames(path, frames, ROOT_UID + tail, **how)


def without_pixels(path: Path) -> dict[str, Any]:
    """The data set as DICOM JSON, less what belongs to its transfer syntax."""
    found: dict[str, Any] = dcmread(path, stop_before_pixels=True).to_json_dict()
    return found


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("tail", [*UNCOMPRESSED, *LOSSLESS])
def test_every_lossless_syntax_gives_the_very_pixels(
    tmp_path: Path, tail: str, target: str
) -> None:
    plain = without_pixels(view_file(tmp_path / "plain"))
    source = in_syntax(tmp_path, tail)
    out = transcode(source, target, tmp_path / "out.dcm")
    made = dcmread(out)
    assert made.file_meta.TransferSyntaxUID == target
    assert made.file_meta.MediaStorageSOPInstanceUID == dcmread(source).SOPInstanceUID
    assert made.PixelData == volume().astype("<u2").tobytes()
    assert made["PixelData"].VR == "OW"
    assert without_pixels(out) == without_pixels(source)
    assert without_pixels(out).keys() == plain.keys()
    np.testing.assert_array_equal(open_image(out).read_volume(), volume())


@pytest.mark.parametrize("table", [True, False])
@pytest.mark.parametrize("tail", [".4.70", ".4.80", ".4.90"])
def test_frames_in_several_fragments(tmp_path: Path, tail: str, table: bool) -> None:
    source = in_syntax(tmp_path, tail, fragments=3, table=table)
    out = transcode(source, EXPLICIT_LITTLE, tmp_path / "out.dcm")
    assert dcmread(out).PixelData == volume().astype("<u2").tobytes()


def signed_file(folder: Path, frames: list[bytes], syntax: str, **cells: int) -> Path:
    def edit(dataset: Dataset) -> None:
        dataset.PixelRepresentation = 1
        for keyword, value in cells.items():
            setattr(dataset, keyword, value)

    return with_frames(edited(view_file(folder), edit), frames, syntax)


@pytest.mark.parametrize("tail", [".4.80", ".4.90", ".5"])
def test_signed_values_keep_their_sign(tmp_path: Path, tail: str) -> None:
    values = np.random.default_rng(3).integers(-512, 512, (5, 60, 40)).astype(np.int16)
    coded = {
        ".4.80": lambda frame: bytes(imagecodecs.jpegls_encode(frame.view(np.uint16) & 1023)),
        ".4.90": lambda frame: bytes(
            imagecodecs.jpeg2k_encode(
                frame, level=0, codecformat="j2k", reversible=True, bitspersample=10
            )
        ),
        ".5": lambda frame: encode(frame.view(np.uint16), ROOT_UID + ".5"),
    }[tail]
    path = signed_file(tmp_path, [coded(frame) for frame in values], ROOT_UID + tail)
    out = transcode(path, EXPLICIT_LITTLE, tmp_path / "out.dcm")
    assert dcmread(out).PixelData == values.astype("<i2").tobytes()


@pytest.mark.parametrize("tail", [".4.50", ".4.57", ".4.80", ".4.90", ".5"])
def test_eight_bits_and_an_odd_number_of_bytes(tmp_path: Path, tail: str) -> None:
    values = (volume(shape=(3, 61, 41)) // 4).astype(np.uint8)
    path = view_file(tmp_path, volume_DHW=volume(shape=(3, 61, 41)))

    def edit(dataset: Dataset) -> None:
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
        dataset.PixelData = values.tobytes()

    coded = {
        ".4.57": lambda frame: bytes(imagecodecs.jpeg8_encode(frame, lossless=True, predictor=6)),
        ".4.90": lambda frame: bytes(
            imagecodecs.jpeg2k_encode(frame, level=0, codecformat="j2k", reversible=True)
        ),
    }.get(tail, lambda frame: encode(frame, ROOT_UID + tail))
    frames = [coded(frame) for frame in values]
    with_frames(edited(path, edit), frames, ROOT_UID + tail)
    made = dcmread(transcode(path, EXPLICIT_LITTLE, tmp_path / "out.dcm"))
    expected = values
    if tail == ".4.50":
        expected = np.stack([imagecodecs.jpeg8_decode(frame) for frame in frames])
        assert made.LossyImageCompression == "01"
        assert made.LossyImageCompressionMethod == "ISO_10918_1"
    assert made.PixelData == expected.tobytes() + b"\0"
    assert made["PixelData"].VR == "OB"


@pytest.mark.parametrize("tail", [".4.90", ".1.98"])
def test_frames_of_one_bit_follow_each_other_without_a_gap(tmp_path: Path, tail: str) -> None:
    bits = (volume(shape=(5, 13, 11)) > 500).astype(np.uint8)
    path = view_file(tmp_path, volume_DHW=volume(shape=(5, 13, 11)))

    def edit(dataset: Dataset) -> None:
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 1, 1, 0
        dataset.PixelData = b"\0\0"

    coded = {
        ".4.90": lambda frame: bytes(
            imagecodecs.jpeg2k_encode(
                frame, level=0, codecformat="j2k", reversible=True, bitspersample=1
            )
        ),
        ".1.98": lambda frame: np.packbits(frame, bitorder="little").tobytes(),
    }[tail]
    with_frames(edited(path, edit), [coded(frame) for frame in bits], ROOT_UID + tail)
    made = dcmread(transcode(path, EXPLICIT_LITTLE, tmp_path / "out.dcm")).PixelData
    np.testing.assert_array_equal(
        np.unpackbits(np.frombuffer(made, np.uint8), bitorder="little")[: bits.size],
        bits.reshape(-1),
    )
    assert len(made) == -(-bits.size // 16) * 2


@pytest.mark.parametrize("target", TARGETS)
def test_words_of_big_endian_are_turned_over_everywhere(tmp_path: Path, target: str) -> None:
    path = view_file(tmp_path)
    with_syntax(path, EXPLICIT_BIG)

    def edit(dataset: Dataset) -> None:
        lut = Dataset()
        lut.LUTDescriptor, lut.ModalityLUTType = [3, 0, 16], "US"
        lut.add_new("LUTData", "OW", b"\x01\x02\x03\x04\x05\x06")
        dataset.ModalityLUTSequence = Sequence([lut])
        dataset.add_new(0x7FE10011, "LO", "TOMONODE TEST")
        dataset.add_new(0x7FE11101, "OF", b"\x01\x02\x03\x04")

    out = transcode(edited(path, edit), target, tmp_path / "out.dcm")
    made = dcmread(out)
    lut = made.ModalityLUTSequence[0]
    assert lut.LUTData in (b"\x02\x01\x04\x03\x06\x05", [0x0102, 0x0304, 0x0506])
    assert bytes(made[0x7FE11101].value) == b"\x04\x03\x02\x01"
    assert made[0x7FE10011].value in ("TOMONODE TEST", b"TOMONODE TEST ")


def test_an_object_without_pixels(tmp_path: Path) -> None:
    path = tmp_path / "report.dcm"
    write_object(path, EXPLICIT_LITTLE)

    def edit(dataset: Dataset) -> None:
        del dataset.PixelData
        dataset.PatientName = "Müller^Änne"
        dataset.SpecificCharacterSet = "ISO_IR 100"

    out = transcode(edited(path, edit), IMPLICIT_LITTLE, tmp_path / "out.dcm")
    assert without_pixels(out) == without_pixels(path)
    assert str(dcmread(out).PatientName) == "Müller^Änne"
    assert UID(dcmread(out).file_meta.TransferSyntaxUID).is_implicit_VR
    back = transcode(out, EXPLICIT_LITTLE, tmp_path / "back.dcm")
    assert data_set_bytes(back.read_bytes()) == data_set_bytes(path.read_bytes())


def test_what_describes_the_compressed_form_goes(tmp_path: Path) -> None:
    path = in_syntax(tmp_path, ".4.90")

    def edit(dataset: Dataset) -> None:
        dataset.ExtendedOffsetTable = b"\0" * 40
        dataset.ExtendedOffsetTableLengths = b"\0" * 40
        dataset.DataSetTrailingPadding = b"\0\0"
        dataset.LossyImageCompression = "01"
        dataset.LossyImageCompressionRatio = "12.5"

    made = dcmread(transcode(edited(path, edit), EXPLICIT_LITTLE, tmp_path / "out.dcm"))
    assert not {"ExtendedOffsetTable", "ExtendedOffsetTableLengths"} & {e.keyword for e in made}
    assert "DataSetTrailingPadding" not in made
    assert (made.LossyImageCompression, made.LossyImageCompressionRatio) == ("01", 12.5)


@pytest.mark.parametrize(
    "name",
    [
        "odd/cornerstone3D__CT0012.fragmented_no_bot_jpeg_baseline.51.dcm",
        "odd/cornerstone3D__CTImage.dcm_JPEGProcess10_12TransferSyntax_1.2.840.10008.1.2.4.55.dcm",
        "odd/cornerstone3D__CTImage.dcm_JPEGProcess6_8TransferSyntax_1.2.840.10008.1.2.4.53.dcm",
        "odd/dicomParser__CT0012.fragmented_no_bot_jpeg_lossless.57.dcm",
        "odd/dicomParser__CT0012.fragmented_no_bot_jpeg_ls.81.dcm",
        "odd/dcmjs__sample-op.dcm",
        "odd/dcmjs-dimse__ebe.dcm",
        "odd/pylibjpeg-data__ELSCINT1_JP2vsJ2K.dcm",
        "real/ge_senographe_mlo.dcm",
    ],
)
def test_real_files(tmp_path: Path, name: str) -> None:
    source = dcmread(shared_path("data", name))
    made = dcmread(transcode(shared_path("data", name), EXPLICIT_LITTLE, tmp_path / "out.dcm"))
    assert made.SOPInstanceUID == source.SOPInstanceUID
    frames = int(source.get("NumberOfFrames") or 1)
    size = frames * source.Rows * source.Columns * source.BitsAllocated // 8
    assert len(made.PixelData) == size + size % 2
    assert made.pixel_array.max() > 0


def refusal(path: Path, target: str = EXPLICIT_LITTLE) -> DicomIoError:
    out = path.with_suffix(".out")
    with pytest.raises(DicomIoError) as caught:
        transcode(path, target, out)
    assert not out.exists()
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize("signed", [False, True])
def test_what_loss_adds_above_the_bits_stored_stays_the_largest_value(
    tmp_path: Path, signed: bool
) -> None:
    """A lossy stream of 16 bits that decodes to a little more than 10 bits hold: white stays white, in every reader."""
    low, high = (-512, 511) if signed else (0, 1023)
    frame = (
        np.linspace(low - 40, high + 40, 60 * 40).reshape(60, 40).astype("i2" if signed else "u2")
    )
    if not signed:
        frame = np.linspace(0, high + 40, 60 * 40).reshape(60, 40).astype("u2")
    stream = bytes(imagecodecs.jpeg2k_encode(frame, level=0, codecformat="j2k", reversible=True))
    path = with_frames(view_file(tmp_path), [stream] * 5, ROOT_UID + ".4.91")
    edited(path, lambda dataset: setattr(dataset, "PixelRepresentation", int(signed)))
    kept = np.clip(frame, low, high)
    transcode(path, EXPLICIT_LITTLE, tmp_path / "out.dcm")
    made = dcmread(tmp_path / "out.dcm").pixel_array
    assert made.dtype == frame.dtype
    assert np.array_equal(made[0], kept)
    assert (
        np.frombuffer(open_frames(path).decoded(0), frame.dtype).reshape(60, 40).tolist()
        == kept.tolist()
    )


def test_an_object_without_its_uids_says_which_is_missing(tmp_path: Path) -> None:
    path = edited(in_syntax(tmp_path, ".1"), lambda dataset: delattr(dataset, "SOPClassUID"))
    assert "SOPClassUID is missing" in str(refusal(path))


def test_what_cannot_be_done_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    good = in_syntax(tmp_path, ".4.90")
    assert isinstance(refusal(good, ROOT_UID + ".4.80"), NotTranscodable)
    colour = edited(good, lambda dataset: setattr(dataset, "SamplesPerPixel", 3))
    assert "only grey" in str(refusal(colour))
    good = in_syntax(tmp_path, ".4.80")
    assert "5 frames, Number of Frames is 4" in str(
        refusal(edited(good, lambda dataset: setattr(dataset, "NumberOfFrames", 4)))
    )
    large = edited(
        in_syntax(tmp_path, ".4.80"),
        lambda dataset: setattr(dataset, "Rows", 65535) or setattr(dataset, "Columns", 65535),
    )
    assert "65535 rows, 65535 columns" in str(refusal(large))
    nonsense = tmp_path / "nonsense.dcm"
    nonsense.write_bytes(b"nonsense" * 100)
    assert isinstance(refusal(nonsense), UnreadableDataset)


def test_damage_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    frames = [encode(frame, ROOT_UID + ".4.80") for frame in volume()]
    frames[3] = frames[3][: len(frames[3]) // 2]
    damaged = with_frames(view_file(tmp_path), frames, ROOT_UID + ".4.80")
    assert "frame 4" in str(refusal(damaged))
    for tail in (".4.90", ".2"):
        cut = in_syntax(tmp_path, tail)
        cut.write_bytes(cut.read_bytes()[:-300])
        assert isinstance(refusal(cut), ImageRefused | UnreadableDataset)


_MEASURE = """
import resource, sys
from pathlib import Path
from dicom_io.transcode import transcode
idle = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
transcode(Path(sys.argv[1]), "1.2.840.10008.1.2.1", Path(sys.argv[2]))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - idle) // 1024)
"""


def test_memory_holds_a_frame_not_the_volume(tmp_path: Path) -> None:
    frame: NDArray[np.uint16] = volume(shape=(1, 1200, 1000))[0]
    path = view_file(tmp_path, volume_DHW=np.stack([frame] * 60))
    coded = encode(frame, ROOT_UID + ".4.80")
    with_frames(path, [coded] * 60, ROOT_UID + ".4.80")
    out = tmp_path / "out.dcm"
    measured = subprocess.run(
        [sys.executable, "-c", _MEASURE, str(path), str(out)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert out.stat().st_size > 60 * frame.nbytes  # 144 MB
    assert int(measured.stdout) < 60  # MB
