"""The DICOM JSON model: against pydicom's own and dcmtk's, and where the two say nothing."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import dcmread, dcmwrite
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from dicom_io.errors import UnreadableDataset
from dicom_io.json_model import bulk_value, dumps, is_bulk_path, to_json
from dicom_io.parse import PixelElement, parse
from tests.support.breast_objects import view_file
from tests.support.shared import shared_path

CHARACTER_SET = "00080005"
PIXELS = "7FE00010"


def parsed_json(path: Path, **how: Any) -> dict[str, Any]:
    with path.open("rb") as file:
        parsed = parse(file)
    big = parsed.transfer_syntax_uid == ExplicitVRBigEndian
    return to_json(
        parsed.dataset, lambda at: f"bulk/{at}", pixels=parsed.pixels, big_endian=big, **how
    )


def sent(dataset: Dataset, syntax: str = ExplicitVRLittleEndian) -> Dataset:
    """The data set as it is read again from bytes in a transfer syntax."""
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    dataset.SOPClassUID, dataset.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.7", "1.2.3"
    buffer = BytesIO()
    dcmwrite(buffer, dataset, enforce_file_format=True)
    return parse(buffer).dataset


def same_as_pydicom(path: Path) -> None:
    """Every element that pydicom gives has the same VR and value here, pixel data and character sets aside."""
    theirs = json.loads(dcmread(path, force=True).to_json(10**9, suppress_invalid_tags=True))
    ours = parsed_json(path, limit=10**9)
    json.loads(dumps(ours))
    for tag, element in theirs.items():
        if int(tag, 16) not in (0x00080005, 0xFFFCFFFC) and not int(tag, 16) >= 0x7FE00000:
            assert _plain(ours[tag]) == _plain(element), tag


def _plain(model: Any) -> Any:
    """Without what the two may write differently: item character sets, null beside an absent value, long numbers."""
    if isinstance(model, list):
        return [_plain(entry) for entry in model]
    if not isinstance(model, dict):
        return None if model in ("", {}) else model
    kept = {k: _plain(v) for k, v in model.items() if k != CHARACTER_SET}
    if kept.get("Value") in ([], [None]):
        del kept["Value"]
    if kept.get("InlineBinary") == "":
        del kept["InlineBinary"]
    return kept or None


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_a_tomosynthesis_object_is_what_pydicom_makes_of_it(tmp_path: Path, syntax: str) -> None:
    path = view_file(tmp_path)
    dataset = dcmread(path)
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    dcmwrite(path, dataset, implicit_vr=syntax == ImplicitVRLittleEndian, little_endian=True)
    same_as_pydicom(path)
    assert parsed_json(path)[PIXELS] == {"vr": "OW", "BulkDataURI": f"bulk/{PIXELS}"}


@pytest.mark.parametrize(
    "name", ["CT_small.dcm", "MR_small.dcm", "rtplan.dcm", "reportsi.dcm", "MR_small_bigendian.dcm"]
)
def test_files_of_pydicom_are_what_pydicom_makes_of_them(name: str) -> None:
    path = get_testdata_file(name, download=False)
    assert isinstance(path, str)
    same_as_pydicom(Path(path))


@pytest.mark.parametrize(
    "name", ["seg_sr/dcmqi__seg.dcm", "seg_sr/dcmqi__sr.dcm", "real/hologic_bto_header.dcm"]
)
def test_real_objects_are_what_pydicom_makes_of_them(name: str) -> None:
    same_as_pydicom(shared_path("data", *name.split("/")))


def test_dcmtk_says_the_same(tmp_path: Path) -> None:
    program = shutil.which("dcm2json")
    if program is None:
        pytest.skip("dcm2json is not installed; apt-get install dcmtk")
    path = view_file(tmp_path)
    dataset = dcmread(path)
    dataset.SpecificCharacterSet = "ISO_IR 100"
    dataset.PatientName = "Müller^Änne"
    del dataset.PixelData
    dataset.save_as(path)
    done = subprocess.run([program, "-fc", path], capture_output=True, check=True)
    theirs = {k: v for k, v in json.loads(done.stdout).items() if k[:4] != "0002"}
    ours = parsed_json(path)
    assert _numbers(ours) == _numbers(theirs)
    assert ours["00100010"]["Value"] == [{"Alphabetic": "Müller^Änne"}]


def _numbers(model: Any) -> Any:
    """Numbers that are text (dcmtk gives decimal strings as they stand) as numbers of six digits; no character sets."""
    if isinstance(model, list):
        return [_numbers(entry) for entry in model]
    if not isinstance(model, dict):
        return model
    if model.get("vr") in ("DS", "FL", "FD", "IS") and "Value" in model:
        return {"vr": model["vr"], "Value": [f"{float(value):.6g}" for value in model["Value"]]}
    return {key: _numbers(value) for key, value in model.items() if key != CHARACTER_SET}


def test_names_have_their_groups() -> None:
    dataset = Dataset()
    dataset.SpecificCharacterSet = ["", "ISO 2022 IR 87"]
    dataset.PatientName = "Yamada^Tarou=山田^太郎=やまだ^たろう"
    dataset.OtherPatientNames = ["Doe^Jane", "", "=山田"]
    model = to_json(sent(dataset))
    assert model[CHARACTER_SET] == {"vr": "CS", "Value": ["ISO_IR 192"]}
    assert model["00100010"]["Value"] == [
        {"Alphabetic": "Yamada^Tarou", "Ideographic": "山田^太郎", "Phonetic": "やまだ^たろう"}
    ]
    assert model["00101001"]["Value"] == [{"Alphabetic": "Doe^Jane"}, None, {"Ideographic": "山田"}]


def test_values_of_every_kind() -> None:
    dataset = Dataset()
    dataset.FrameIncrementPointer = [0x00181063, 0x0020000D]
    dataset.PixelSpacing = ["0.10", "1e-1"]
    dataset.InstanceNumber = "07"
    dataset.AccessionNumber = ""
    dataset.ImageType = ["DERIVED", "", "X"]
    dataset.add_new(0x00091002, "UV", 2**60)
    dataset.add_new(0x00091003, "FD", [1.5, float("nan"), float("inf")])
    dataset.add_new(0x00091004, "OB", b"\1\2")
    dataset.add_new(0x00091005, "UT", "a\\b")
    dataset.ReferencedStudySequence = Sequence([])
    dataset.ReferencedSeriesSequence = Sequence([Dataset()])
    model = to_json(sent(dataset))
    assert model["00280009"] == {"vr": "AT", "Value": ["00181063", "0020000D"]}
    assert model["00280030"] == {"vr": "DS", "Value": [0.1, 0.1]}
    assert model["00200013"] == {"vr": "IS", "Value": [7]}
    assert model["00080050"] == {"vr": "SH"}
    assert model["00080008"] == {"vr": "CS", "Value": ["DERIVED", None, "X"]}
    assert model["00091002"] == {"vr": "UV", "Value": [str(2**60)]}
    assert model["00091003"] == {"vr": "FD", "Value": [1.5, None, None]}
    assert model["00091004"] == {"vr": "OB", "InlineBinary": "AQI="}
    assert model["00091005"] == {"vr": "UT", "Value": ["a\\b"]}
    assert model["00081110"] == {"vr": "SQ"}
    assert model["00081115"] == {"vr": "SQ", "Value": [{}]}
    assert list(model) == sorted(model)
    assert not [tag for tag in model if tag.startswith("0002") or tag.endswith("0000")]


def test_a_bad_value_is_left_out_and_costs_no_other() -> None:
    plain = Dataset()
    plain.InstanceNumber = "12"
    plain.Rows = 4
    buffer = BytesIO()
    plain.file_meta = FileMetaDataset()
    plain.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    plain.SOPClassUID, plain.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.7", "1.2.3"
    dcmwrite(buffer, plain, enforce_file_format=True)
    broken = buffer.getvalue().replace(b"IS\x02\x0012", b"IS\x02\x00x?")
    model = to_json(parse(BytesIO(broken)).dataset)
    assert "00200013" not in model
    assert model["00280010"] == {"vr": "US", "Value": [4]}


@pytest.mark.parametrize("signed", [0, 1])
def test_a_vr_that_implicit_syntax_leaves_open(signed: int) -> None:
    dataset = Dataset()
    dataset.PixelRepresentation = signed
    dataset.add_new(0x00280106, "SS" if signed else "US", -2 if signed else 65534)
    table = Dataset()
    table.add_new(0x00283002, "US", [3, 0, 16])
    table.add_new(0x00283006, "OW", b"\1\0\2\0\3\0")
    dataset.ModalityLUTSequence = [table]
    model = to_json(sent(dataset, ImplicitVRLittleEndian))
    assert model["00280106"] == (
        {"vr": "SS", "Value": [-2]} if signed else {"vr": "US", "Value": [65534]}
    )
    assert model["00283000"]["Value"][0]["00283006"] == {"vr": "OW", "InlineBinary": "AQACAAMA"}


def test_long_values_and_pixels_are_bulk_and_can_be_found_again() -> None:
    item = Dataset()
    item.add_new(0x00091010, "OW", bytes(range(200)) * 8)
    icon = Dataset()
    icon.add_new(0x7FE00010, "OW", b"\1\2\3\4")
    dataset = Dataset()
    dataset.ReferencedSeriesSequence = [Dataset(), item]
    dataset.IconImageSequence = [icon]
    read = sent(dataset)
    pixels = PixelElement(0, None, "OB", 0x7FE00010)
    model = to_json(read, lambda path: f"/b/{path}", pixels=pixels)
    path = "00081115/2/00091010"
    assert model["00081115"]["Value"][1]["00091010"] == {"vr": "OW", "BulkDataURI": f"/b/{path}"}
    assert bulk_value(read, path) == bytes(range(200)) * 8
    inner = f"00880200/1/{PIXELS}"
    assert model["00880200"]["Value"][0][PIXELS] == {"vr": "OW", "BulkDataURI": f"/b/{inner}"}
    assert bulk_value(read, inner) == b"\1\2\3\4"
    assert model[PIXELS] == {"vr": "OB", "BulkDataURI": f"/b/{PIXELS}"}
    assert "00091010" not in to_json(read)["00081115"]["Value"][1]


@pytest.mark.parametrize(
    "path", ["", "1", "00081115/2", "00081115/0/00091010", "../x", "00081115/9/00091010", "0008"]
)
def test_a_path_that_leads_nowhere(path: str) -> None:
    dataset = Dataset()
    dataset.ReferencedSeriesSequence = [Dataset()]
    assert bulk_value(dataset, path) is None


def test_binary_values_of_big_endian_objects_are_turned() -> None:
    dataset = Dataset()
    dataset.add_new(0x00091010, "OW", b"\0\1\0\2")
    dataset.add_new(0x00091011, "OF", b"\x3f\x80\0\0")
    dataset.add_new(0x00091012, "OB", b"\0\1\0\2")
    model = to_json(dataset, big_endian=True)
    assert base64.b64decode(model["00091010"]["InlineBinary"]) == b"\1\0\2\0"
    assert base64.b64decode(model["00091011"]["InlineBinary"]) == b"\0\0\x80\x3f"
    assert base64.b64decode(model["00091012"]["InlineBinary"]) == b"\0\1\0\2"
    assert bulk_value(dataset, "00091010", big_endian=True) == b"\1\0\2\0"


def test_every_path_given_is_one(tmp_path: Path) -> None:
    paths: list[str] = []
    with view_file(tmp_path).open("rb") as file:
        parsed = parse(file)
    to_json(parsed.dataset, lambda at: paths.append(at) or at, pixels=parsed.pixels, limit=0)  # type: ignore[func-returns-value]
    assert paths
    assert all(map(is_bulk_path, paths))


@settings(deadline=None, max_examples=50, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_damaged_data_sets_give_json_or_are_refused(data: st.DataObject) -> None:
    dataset = Dataset()
    dataset.PatientName = "A^B"
    dataset.PixelSpacing = [0.1, 0.1]
    item = Dataset()
    item.CodeValue = "1"
    dataset.ViewCodeSequence = [item]
    dataset.SOPClassUID, dataset.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.7", "1.2.3"
    dataset.file_meta = FileMetaDataset()
    syntax = data.draw(st.sampled_from([ExplicitVRLittleEndian, ImplicitVRLittleEndian]))
    dataset.file_meta.TransferSyntaxUID = syntax
    buffer = BytesIO()
    dcmwrite(buffer, dataset, enforce_file_format=True)
    content = bytearray(buffer.getvalue())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(150, len(content) - 1))
        content[at] = data.draw(st.integers(0, 255))
    try:
        parsed = parse(BytesIO(bytes(content)))
    except UnreadableDataset:
        return
    json.loads(dumps(to_json(parsed.dataset, lambda path: path)))
