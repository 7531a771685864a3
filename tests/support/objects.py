"""Small and large DICOM files for tests of the network: in every transfer syntax, mismatched, or garbage."""

from __future__ import annotations

import struct
from pathlib import Path

from pydicom import dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid

BREAST_TOMOSYNTHESIS = "1.2.840.10008.5.1.4.1.1.13.1.3"


def header(**attributes: object) -> Dataset:
    """A data set with UIDs of its own and what a work list shows; `attributes` by keyword replace what is there."""
    dataset = Dataset()
    dataset.SOPClassUID = BREAST_TOMOSYNTHESIS
    dataset.SOPInstanceUID = generate_uid()
    dataset.StudyDate = "20260304"
    dataset.AccessionNumber = "ACC1"
    dataset.Modality = "MG"
    dataset.PatientName = "Secret^Name"
    dataset.PatientID = "SECRET-ID"
    dataset.PatientBirthDate = "19600101"
    dataset.StudyInstanceUID = generate_uid()
    dataset.SeriesInstanceUID = generate_uid()
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows = dataset.Columns = 16
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 10, 9
    dataset.PixelRepresentation = 0
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return dataset


def write_object(path: Path, syntax: str = ExplicitVRLittleEndian, **attributes: object) -> Dataset:
    """Write a DICOM file in a transfer syntax; compressed frames hold bytes that no decoder has to like."""
    dataset = header(**attributes)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    if "PixelData" not in dataset:
        frame = bytes(range(256)) * 2
        compressed = UID(syntax).is_encapsulated
        dataset.PixelData = encapsulate([frame]) if compressed else frame
        dataset["PixelData"].VR = "OB" if compressed else "OW"
        dataset["PixelData"].is_undefined_length = compressed
    dcmwrite(path, dataset, enforce_file_format=True)
    return dataset


def write_large(path: Path, pixel_bytes: int) -> Dataset:
    """Write an object whose pixel data is a hole in the file: large to send, and nothing on this side's disk."""
    dataset = header()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dcmwrite(path, dataset, enforce_file_format=True)
    with path.open("ab") as file:
        file.write(struct.pack("<HH2sHL", 0x7FE0, 0x0010, b"OW", 0, pixel_bytes))
        file.truncate(file.tell() + pixel_bytes)
    return dataset


def data_set_bytes(content: bytes) -> bytes:
    """What follows the file meta information of a DICOM file (its group length leads it: PS3.10 7.1)."""
    assert content[128:132] == b"DICM"
    (length,) = struct.unpack("<L", content[140:144])
    return content[144 + length :]


def replace_data_set(path: Path, content: bytes) -> None:
    """Keep preamble and file meta information, and put other bytes in place of the data set."""
    whole = path.read_bytes()
    head = whole[: len(whole) - len(data_set_bytes(whole))]
    path.write_bytes(head + content)
