"""A tomosynthesis object as some makers send it: a series of CT Image Storage, one object a slice."""

from __future__ import annotations

from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian, generate_uid

_MULTI_FRAME = (
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
    "NumberOfFrames",
    "ViewCodeSequence",
    "DimensionOrganizationSequence",
    "DimensionIndexSequence",
    "XRay3DAcquisitionSequence",
    "ContributingSourcesSequence",
)


def as_ct_series(source: Path, folder: Path, study_uid: str, side: str, view: str) -> list[Path]:
    """The slices of an uncompressed tomosynthesis object, by stored frame, in a study of their own."""
    folder.mkdir(parents=True, exist_ok=True)
    dataset = dcmread(source)
    shared = dataset.SharedFunctionalGroupsSequence[0]
    frames = dataset.PerFrameFunctionalGroupsSequence
    size = dataset.Rows * dataset.Columns * dataset.BitsAllocated // 8
    pixels = dataset.PixelData
    for keyword in _MULTI_FRAME:
        if keyword in dataset:
            delattr(dataset, keyword)
    dataset.StudyInstanceUID = study_uid
    dataset.SeriesInstanceUID = generate_uid(entropy_srcs=[study_uid, side, view])
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = CTImageStorage
    dataset.Modality, dataset.BodyPartExamined = "CT", "BREAST"
    dataset.ImageLaterality, dataset.ViewPosition = side, view
    dataset.ImageOrientationPatient = shared.PlaneOrientationSequence[0].ImageOrientationPatient
    dataset.PixelSpacing = shared.PixelMeasuresSequence[0].PixelSpacing
    dataset.SliceThickness = shared.PixelMeasuresSequence[0].SliceThickness
    dataset.RescaleSlope, dataset.RescaleIntercept = 1, 0
    return [
        _slice(dataset, number, item, pixels[number * size : (number + 1) * size], folder)
        for number, item in enumerate(frames)
    ]


def _slice(dataset: Dataset, number: int, item: Dataset, pixels: bytes, folder: Path) -> Path:
    uid = UID(generate_uid(entropy_srcs=[dataset.SeriesInstanceUID, str(number)]))
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = uid
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.InstanceNumber = number + 1
    dataset.ImagePositionPatient = item.PlanePositionSequence[0].ImagePositionPatient
    dataset.PixelData = pixels
    path = folder / f"{number}.dcm"
    dataset.save_as(path)
    return path
