"""Headers of any DICOM object: fields, forms of files, damage, and what reading one costs."""

from __future__ import annotations

import subprocess
import sys
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from dicom_io import parse
from dicom_io.errors import DicomIoError, UnreadableDataset
from dicom_io.header import read_header
from tests.support.breast_objects import (
    bare,
    edited,
    encode,
    view_file,
    volume,
    with_frames,
    with_syntax,
)
from tests.support.objects import data_set_bytes
from tests.support.shared import ROOT, shared_path

JPEG2000 = "1.2.840.10008.1.2.4.90"


def test_fields_of_a_tomosynthesis_object(tmp_path: Path) -> None:
    path = view_file(tmp_path, "R", "MLO", patient_id="P1", study_date="20200131")
    header, dataset = read_header(path), dcmread(path)
    assert header.sop_instance_uid == dataset.SOPInstanceUID
    assert header.study_instance_uid == dataset.StudyInstanceUID
    assert header.series_instance_uid == dataset.SeriesInstanceUID
    assert header.sop_class_uid == "1.2.840.10008.5.1.4.1.1.13.1.3"
    assert header.transfer_syntax_uid == "1.2.840.10008.1.2.1"
    assert (header.laterality, header.view, header.view_modifiers) == ("R", "MLO", ())
    assert (header.rows, header.columns, header.number_of_frames, header.bits_stored) == (
        60,
        40,
        5,
        10,
    )
    assert (header.patient_id, header.study_date, header.modality) == ("P1", "20200131", "MG")
    assert header.image_type == ("DERIVED", "PRIMARY", "TOMOSYNTHESIS", "NONE")


def test_an_open_file_is_read_and_left_open(tmp_path: Path) -> None:
    path = view_file(tmp_path)
    with path.open("rb") as file:
        assert read_header(file) == read_header(path)
        assert not file.closed


@pytest.mark.parametrize("tail", ["", ".1.99", ".2"])
def test_every_data_set_encoding_gives_the_same_header(tmp_path: Path, tail: str) -> None:
    plain = read_header(view_file(tmp_path / "plain"))
    other = read_header(with_syntax(view_file(tmp_path / "other"), f"1.2.840.10008.1.2{tail}"))
    assert other.transfer_syntax_uid == f"1.2.840.10008.1.2{tail}"
    assert other.sop_instance_uid == plain.sop_instance_uid
    assert (other.laterality, other.view, other.rows) == (plain.laterality, plain.view, plain.rows)


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1"])
def test_a_bare_data_set_is_read_and_its_syntax_guessed(tmp_path: Path, syntax: str) -> None:
    expected = read_header(view_file(tmp_path))
    header = read_header(bare(tmp_path / "L-CC.dcm", syntax))
    assert header.transfer_syntax_uid == syntax
    assert header.sop_instance_uid == expected.sop_instance_uid


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"DICM",
        b"\0" * 128 + b"DICM",
        b"\x89PNG" + bytes(500),
        b"\x08\0" * 300,
        bytes(range(256)) * 9,
    ],
)
def test_garbage_is_unreadable(data: bytes) -> None:
    with pytest.raises(UnreadableDataset):
        read_header(BytesIO(data))


@pytest.mark.parametrize(
    "keyword", ["SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"]
)
@pytest.mark.parametrize("value", [None, "", "../../etc", "1.2." + "3" * 70, "..", "1.2\\1.3"])
def test_identifiers_must_be_there_and_be_uids(
    tmp_path: Path, keyword: str, value: str | None
) -> None:
    def edit(dataset: Dataset) -> None:
        delattr(dataset, keyword) if value is None else setattr(dataset, keyword, value)

    path = view_file(tmp_path)
    dataset = dcmread(path)
    edit(dataset)
    dataset.save_as(path, enforce_file_format=False)
    with pytest.raises(UnreadableDataset, match=keyword):
        read_header(path)


def test_file_meta_information_within_the_data_set_says_nothing_of_the_file(tmp_path: Path) -> None:
    path = view_file(tmp_path)
    content = path.read_bytes()
    data = data_set_bytes(content)
    twice = b"\2\0\x10\0UI\x16\0" + JPEG2000.encode()
    path.write_bytes(content[: len(content) - len(data)] + twice + data)
    assert read_header(path).transfer_syntax_uid == "1.2.840.10008.1.2.1"


def test_a_header_larger_than_any_is_not_read_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parse, "HEADER_LIMIT", 200_000)
    assert read_header(view_file(tmp_path / "small")).rows == 60
    path = view_file(tmp_path / "large")
    items = [Dataset() for _ in range(4000)]
    for item in items:
        item.is_undefined_length_sequence_item = True
    dataset = dcmread(path)
    dataset.ReferencedImageSequence = Sequence(items)
    dataset["ReferencedImageSequence"].is_undefined_length = True
    dataset.save_as(path)
    with pytest.raises(UnreadableDataset, match="header of more than"):
        read_header(path)


@pytest.mark.parametrize("compressed", [False, True])
def test_pixel_data_cut_off_anywhere_is_unreadable(tmp_path: Path, compressed: bool) -> None:
    path = view_file(tmp_path)
    if compressed:
        with_frames(path, [encode(frame, JPEG2000) for frame in volume()], JPEG2000)
    data = path.read_bytes()
    start = data.rindex(b"\xe0\x7f\x10\x00") + 20
    for keep in range(start, len(data) - 16, (len(data) - start) // 23):
        with pytest.raises(UnreadableDataset, match="cut off"):
            read_header(BytesIO(data[:keep]))


def test_a_header_cut_off_never_raises_anything_else(tmp_path: Path) -> None:
    data = view_file(tmp_path).read_bytes()
    end = data.rindex(b"\xe0\x7f\x10\x00")
    refused = 0
    for keep in range(0, end, 61):
        try:
            read_header(BytesIO(data[:keep]))
        except DicomIoError:
            refused += 1
    assert refused > end // 61 * 0.9  # the few others end between two elements, without pixel data


def test_a_deflated_stream_cut_off_is_unreadable(tmp_path: Path) -> None:
    data = with_syntax(view_file(tmp_path), "1.2.840.10008.1.2.1.99").read_bytes()
    with pytest.raises(UnreadableDataset):
        read_header(BytesIO(data[: 132 + 400]))


def test_sequences_nested_without_end_are_unreadable() -> None:
    opening = b"\x40\x00\x30\xa7SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    with pytest.raises(UnreadableDataset):
        read_header(BytesIO(b"\x08\0\x05\0CS\x0a\0ISO_IR 100" + opening * 5000))


def test_a_malformed_optional_attribute_counts_as_absent(tmp_path: Path) -> None:
    path = view_file(tmp_path)
    data = path.read_bytes()
    at = data.index(b"\x28\x00\x08\x00IS") + 8
    path.write_bytes(data[:at] + b"x " + data[at + 2 :])
    assert read_header(path).number_of_frames is None


def test_laterality_of_the_first_frame_stands_in_for_a_shared_one(tmp_path: Path) -> None:
    def move(dataset: Dataset) -> None:
        shared = dataset.SharedFunctionalGroupsSequence[0]
        for frame in dataset.PerFrameFunctionalGroupsSequence:
            frame.FrameAnatomySequence = shared.FrameAnatomySequence
        del shared.FrameAnatomySequence

    assert read_header(edited(view_file(tmp_path, "R"), move)).laterality == "R"


def test_old_view_codes_and_unknown_modifiers(tmp_path: Path) -> None:
    def edit(dataset: Dataset) -> None:
        code = dataset.ViewCodeSequence[0]
        code.CodeValue, code.CodingSchemeDesignator = "R-10226", "SNM3"
        known, unknown = Dataset(), Dataset()
        known.CodeValue, unknown.CodeValue = "R-102D5", "Z-1"
        code.ViewModifierCodeSequence = Sequence([known, unknown])

    header = read_header(edited(view_file(tmp_path), edit))
    assert (header.view, header.view_modifiers) == ("MLO", ("ID", "Z-1"))


def test_a_gigabyte_costs_no_memory(tmp_path: Path) -> None:
    path = view_file(tmp_path)
    data = path.read_bytes()
    start = data.rindex(b"\xe0\x7f\x10\x00")
    gigabyte = 1 << 30
    with path.open("wb") as file:  # a sparse file: nothing is written to disk
        file.write(data[: start + 8] + gigabyte.to_bytes(4, "little"))
        file.truncate(start + 12 + gigabyte)
    code = (
        "import resource, sys\n"
        "from dicom_io.header import read_header\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "assert read_header(sys.argv[1]).rows == 60\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    grown_kib = int(subprocess.check_output([sys.executable, "-c", code, str(path)], cwd=ROOT))
    assert grown_kib < 16 * 1024


def test_reading_headers_loads_no_decoder_or_writer() -> None:
    heavy = {"highdicom", "imagecodecs", "cv2", "torch", "dicom_io.pixels"}
    code = f"import sys, dicom_io.header; print(*({heavy!r} & set(sys.modules)))"
    assert subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True).strip() == ""


def test_nothing_is_warned_about_odd_values(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    path = edited(view_file(tmp_path), lambda dataset: setattr(dataset, "StudyDate", "20200101"))
    path.write_bytes(path.read_bytes().replace(b"20200101", b"DOE^JANE"))
    assert read_header(path).study_date == "DOE^JANE"
    assert not [warning for warning in recwarn if "DOE" in str(warning.message)]


@pytest.mark.parametrize("folder", ["odd", "real", "seg_sr"])
def test_odd_and_real_objects_have_headers(folder: str) -> None:
    paths = sorted(shared_path("data", folder).iterdir())
    assert paths
    for path in paths:
        header, dataset = read_header(path), dcmread(path, force=True, stop_before_pixels=True)
        assert header.sop_instance_uid == dataset.SOPInstanceUID
        assert header.transfer_syntax_uid == dataset.file_meta.get(
            "TransferSyntaxUID", header.transfer_syntax_uid
        )
