"""De-identified copies: nothing of the patient is left in any byte, pixels are untouched, the object stays valid."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread, dcmwrite
from pydicom.datadict import DicomDictionary
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileDataset
from pydicom.tag import Tag

from dicom_io.dbt import open_image
from dicom_io.deidentify import _KEPT_TEXTS, Disguise, burned_in, write_deidentified
from dicom_io.errors import ImageRefused
from tests.support.breast_objects import edited, encode, view_file, volume, with_frames, with_syntax
from tests.support.shared import shared_path
from tests.support.validators import dciodvfy_errors

SECRET = "Überbein-Geheimnis"
SECRET_UID = "1.2.276.0.999.123454321.1"
MARKS = {
    **dict.fromkeys(("LO", "SH", "ST", "LT", "UT", "UC", "PN", "AE", "UR"), "secretmark"),
    "CS": "secretmark", "UI": SECRET_UID, "DA": "19871231", "DT": "19871231235959.123456",
    "TM": "235959.123456", "AS": "077Y",
    **dict.fromkeys(("OB", "OW", "OB or OW", "OL", "OF", "OD", "OV", "UN"), b"secretmarksecretmark----"),
}  # fmt: skip
LEAKS = (b"secretmark", SECRET_UID.encode(), b"19871231", b"235959", b"077Y", b"Geheimnis")
_STRUCTURE = {0x00080005, 0x00080016, 0x00080018, 0x00280006, 0x7FE00001, 0x7FE00002}


def uid(source: str) -> str:
    return f"2.25.{int(hashlib.sha256(source.encode()).hexdigest()[:30], 16)}"


DISGUISE = Disguise("P0", -100, uid)


def deidentified(source: Path) -> Path:
    target = source.with_suffix(".out")
    write_deidentified(source, target, DISGUISE)
    return target


def every_attribute() -> Iterator[DataElement]:
    """Every attribute of the standard that could hold a patient's data, filled with it."""
    for number, (vr, *_) in DicomDictionary.items():
        tag = Tag(number)
        if (
            vr in MARKS
            and tag.group > 2
            and tag < 0x7FE00000
            and tag not in _KEPT_TEXTS | _STRUCTURE
        ):
            yield DataElement(tag, vr[:2], MARKS[vr])


def fill(dataset: Dataset) -> None:
    """Put the patient's data into every attribute, into private ones, overlays and curves."""
    for element in every_attribute():
        if element.tag not in dataset or not dataset[element.tag].value:
            dataset.add(element)
    for group in (0x0009, 0x0029, 0x2001):
        dataset.private_block(group, "secretmark", create=True).add_new(1, "LO", "secretmark")
    dataset.add(DataElement(0x60003000, "OW", b"secretmark"))
    dataset.add(DataElement(0x60020022, "LO", "secretmark"))
    dataset.add(DataElement(0x50003000, "OW", b"secretmark"))


def deep(dataset: Dataset) -> None:
    """The same at the top, in shared and per-frame groups, and in a sequence of their own sequences."""
    fill(dataset)
    item = dataset.SharedFunctionalGroupsSequence[0]
    fill(item)
    fill(item.FrameAnatomySequence[0])
    for frame in dataset.PerFrameFunctionalGroupsSequence:
        fill(frame.FrameContentSequence[0])
    unknown = Dataset()
    fill(unknown)
    dataset.XRay3DAcquisitionSequence[0].PerProjectionAcquisitionSequence[
        0
    ].ReferencedImageSequence = [unknown]


def test_no_byte_of_the_patient_is_left(tmp_path: Path) -> None:
    source = edited(view_file(tmp_path, patient_id="secretmark", study_date="19871231"), deep)
    assert all(mark in source.read_bytes() for mark in LEAKS[:-1])

    content = deidentified(source).read_bytes()

    assert [mark for mark in LEAKS if mark in content] == []
    assert open_image(source.with_suffix(".out")).number_of_frames == 5


@pytest.mark.parametrize("charset", ["ISO_IR 100", "ISO_IR 192"])
def test_a_name_in_another_script_is_gone(charset: str, tmp_path: Path) -> None:
    def named(dataset: FileDataset) -> None:
        dataset.SpecificCharacterSet = charset
        dataset.PatientName, dataset.OtherPatientIDs = SECRET, SECRET
        dataset.PerFrameFunctionalGroupsSequence[0].FrameContentSequence[0].FrameComments = SECRET

    content = deidentified(edited(view_file(tmp_path), named)).read_bytes()

    assert b"Geheimnis" not in content


def test_the_file_meta_group_and_the_preamble_are_ours(tmp_path: Path) -> None:
    def sent(dataset: FileDataset) -> None:
        dataset.preamble = b"secretmark".ljust(128)
        dataset.file_meta.SourceApplicationEntityTitle = "secretmark"
        dataset.file_meta.PrivateInformationCreatorUID = SECRET_UID
        dataset.file_meta.PrivateInformation = b"secretmark"

    content = deidentified(edited(view_file(tmp_path), sent)).read_bytes()

    assert b"secretmark" not in content
    assert SECRET_UID.encode() not in content


def test_what_follows_the_pixels_is_left_behind(tmp_path: Path) -> None:
    source = edited(
        view_file(tmp_path), lambda ds: ds.add(DataElement(0xFFFCFFFC, "OB", b"secretmark"))
    )

    assert b"secretmark" not in deidentified(source).read_bytes()


def test_uids_dates_and_the_mark_of_deidentification(tmp_path: Path) -> None:
    source = view_file(tmp_path, study_date="20200229")
    before, after = dcmread(source), dcmread(deidentified(source))

    for name in ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID"):
        assert after[name].value == uid(before[name].value)
    organisation = before.DimensionOrganizationSequence[0].DimensionOrganizationUID
    assert after.DimensionIndexSequence[0].DimensionOrganizationUID == uid(organisation)
    assert after.file_meta.MediaStorageSOPInstanceUID == after.SOPInstanceUID
    assert after.SOPClassUID == before.SOPClassUID
    assert (after.StudyDate, after.StudyTime) == ("20191121", "")
    assert after.ContributingSourcesSequence[0].AcquisitionDateTime == "20191121"
    assert (after.PatientID, after.PatientName, after.PatientBirthDate) == ("P0", "P0", "")
    assert (after.PatientIdentityRemoved, after.LongitudinalTemporalInformationModified) == (
        "YES",
        "MODIFIED",
    )
    codes = [item.CodeValue for item in after.DeidentificationMethodCodeSequence]
    assert codes == ["113100", "113107"]


@pytest.mark.parametrize(
    "syntax",
    [f"1.2.840.10008.1.2{tail}" for tail in ("", ".1", ".2", ".1.98")] + ["1.2.840.10008.1.2.4.90"],
)
def test_pixels_are_the_same_bytes_in_every_form(syntax: str, tmp_path: Path) -> None:
    def padded(dataset: FileDataset) -> None:
        dataset.add(DataElement("PixelPaddingValue", "US", 5))  # in Implicit VR: US or SS

    source = edited(view_file(tmp_path), padded)
    if syntax.endswith(".90"):
        frames = [encode(frame_HW, syntax) for frame_HW in volume()]
        source = with_frames(source, frames, syntax, fragments=3)
    else:
        source = with_syntax(source, syntax)

    target = deidentified(source)

    before, after = dcmread(source), dcmread(target)
    assert after.file_meta.TransferSyntaxUID == syntax
    assert after.PixelData == before.PixelData
    assert after.PixelPaddingValue == 5
    np.testing.assert_array_equal(
        open_image(target).read_volume(), open_image(source).read_volume()
    )


def test_a_deflated_object_is_written_plain(tmp_path: Path) -> None:
    source = with_syntax(view_file(tmp_path), "1.2.840.10008.1.2.1.99")

    target = deidentified(source)

    assert dcmread(target).file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.1"
    np.testing.assert_array_equal(open_image(target).read_volume(), volume())


def test_the_extended_offset_table_stays(tmp_path: Path) -> None:
    syntax = "1.2.840.10008.1.2.4.90"
    frames = [encode(frame_HW, syntax) for frame_HW in volume()]
    frames = [frame + b"\0" * (len(frame) % 2) for frame in frames]
    source = with_frames(view_file(tmp_path), frames, syntax, table=False)
    offsets = np.cumsum([0, *(8 + len(frame) for frame in frames)])[:-1]

    def extended(dataset: FileDataset) -> None:
        dataset.ExtendedOffsetTable = offsets.astype("<u8").tobytes()
        dataset.ExtendedOffsetTableLengths = np.array([len(f) for f in frames], "<u8").tobytes()

    target = deidentified(edited(source, extended))

    np.testing.assert_array_equal(open_image(target).read_volume(), volume())


@pytest.mark.parametrize("kind", ["tomosynthesis", "mammogram"])
@pytest.mark.system
def test_a_valid_object_stays_valid(kind: str, tmp_path: Path) -> None:
    pixels = volume(shape=(1 if kind == "mammogram" else 3, 60, 40))
    source = view_file(tmp_path, kind=kind, volume_DHW=pixels)
    assert dciodvfy_errors(source) == []

    assert dciodvfy_errors(deidentified(source)) == []


@pytest.mark.parametrize("name", ["hologic_bto_header.dcm", "ge_senographe_mlo.dcm"])
def test_real_headers_keep_what_the_model_reads(name: str, tmp_path: Path) -> None:
    source = shared_path("data", "real", name)
    target = tmp_path / name
    write_deidentified(source, target, DISGUISE)

    before, after = open_image(source), open_image(target)
    for attribute in (
        "laterality",
        "view",
        "spacing_mm",
        "positions_mm",
        "source_frames",
        "window",
        "kind",
    ):
        assert getattr(after, attribute) == getattr(before, attribute)
    np.testing.assert_array_equal(after.read_frame(0), before.read_frame(0))
    left = {str(dcmread(source).get(word)) for word in ("PatientName", "PatientID", "StudyID")}
    assert not left & {str(element.value) for element in dcmread(target).iterall()}


@pytest.mark.parametrize(
    ("annotation", "features", "found"),
    [
        ("NO", "NO", "NO"),
        ("YES", "NO", "YES"),
        ("NO", "YES", "YES"),
        (None, None, ""),
        ("no", None, "NO"),
    ],
)
def test_burned_in_writing_is_what_the_object_says(
    annotation: str | None, features: str | None, found: str, tmp_path: Path
) -> None:
    def stated(dataset: FileDataset) -> None:
        for name, value in (
            ("BurnedInAnnotation", annotation),
            ("RecognizableVisualFeatures", features),
        ):
            del dataset[name]
            if value is not None:
                setattr(dataset, name, value)

    assert burned_in(edited(view_file(tmp_path), stated)) == found


def test_an_object_without_pixels_is_refused(tmp_path: Path) -> None:
    source = view_file(tmp_path)
    dataset = dcmread(source)
    del dataset.PixelData
    dcmwrite(source, dataset)

    with pytest.raises(ImageRefused, match="no pixel data"):
        deidentified(source)
