"""Headers of source images, as good or as bad as they come, for the tests of the result writers."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread, dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    BreastTomosynthesisImageStorage,
    DigitalMammographyXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
)

from dicom_io.findings import (
    Algorithm,
    Equipment,
    ImageFindings,
    Label,
    Region,
    RunContext,
    Segment,
    SourceRef,
)

ROOT = "1.2.826.0.1.3680043.10.999"
# Odd sizes: 13 x 11 is no multiple of eight, so packed frames begin inside bytes.
ROWS, COLUMNS = 13, 11


def make_run(
    *, trained: bool = True, run_id: str = "0d9f6a3e-1c5b-4a0e-9d53-6a1c3b1f7a10"
) -> RunContext:
    """A run with every field set."""
    return RunContext(
        run_id=run_id,
        created_at=datetime(2026, 3, 4, 23, 30, 15, tzinfo=UTC),
        algorithm=Algorithm("3D-GMIC", "0.1.0", "ab" * 32, trained, {"num_patches": "12"}),
        operating_point=0.5,
        equipment=Equipment("Tomonode project", "Tomonode", "0.1.0", "42", "NODE1"),
    )


def _study(sop_class_uid: str, number: int) -> Dataset:
    header = Dataset()
    header.SpecificCharacterSet = "ISO_IR 100"
    header.SOPClassUID = sop_class_uid
    header.SOPInstanceUID = f"{ROOT}.1.{number}"
    header.StudyInstanceUID = f"{ROOT}.2"
    header.SeriesInstanceUID = f"{ROOT}.3.{number}"
    header.PatientName = "Müller^Änne"
    header.PatientID = "P1"
    header.PatientBirthDate = "19600101"
    header.PatientSex = "F"
    header.StudyDate = "20260304"
    header.StudyTime = "101112"
    header.ReferringPhysicianName = ""
    header.StudyID = "S1"
    header.AccessionNumber = "A1"
    header.Modality = "MG"
    header.Manufacturer = "Maker"
    header.ManufacturerModelName = "Model"
    header.Rows, header.Columns = ROWS, COLUMNS
    return header


def tomosynthesis(
    number: int = 1, frames: int = 6, *, positions: Sequence[float] | None = None
) -> Dataset:
    """Header of a tomosynthesis image. `positions` are the z of the frames in mm; default 1 mm apart, rising."""
    header = _study(BreastTomosynthesisImageStorage, number)
    header.NumberOfFrames = frames
    header.FrameOfReferenceUID = f"{ROOT}.4.{number}"
    header.PositionReferenceIndicator = ""
    orientation, measures, shared = Dataset(), Dataset(), Dataset()
    orientation.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    measures.PixelSpacing = [0.1, 0.2]
    measures.SliceThickness = 1.0
    shared.PlaneOrientationSequence = [orientation]
    shared.PixelMeasuresSequence = [measures]
    header.SharedFunctionalGroupsSequence = [shared]
    header.PerFrameFunctionalGroupsSequence = []
    for z in positions or range(frames):
        position, group = Dataset(), Dataset()
        position.ImagePositionPatient = [-10.5, 20.25, z]
        group.PlanePositionSequence = [position]
        header.PerFrameFunctionalGroupsSequence.append(group)
    return header


def mammogram(number: int = 1) -> Dataset:
    """Header of a projection image: one frame, no frame of reference, spacing only at the detector."""
    header = _study(DigitalMammographyXRayImageStorageForPresentation, number)
    header.ImagerPixelSpacing = [0.1, 0.1]
    header.PatientOrientation = ["P", "L"]
    return header


def as_read(header: Dataset) -> Dataset:
    """The header after a trip through a file, as writers get it from the reader."""
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header.file_meta.MediaStorageSOPClassUID = header.SOPClassUID
    header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID
    buffer = BytesIO()
    dcmwrite(buffer, header, enforce_file_format=True)
    buffer.seek(0)
    return dcmread(buffer, stop_before_pixels=True)


def source(header: Dataset, *, laterality: str | None = "R", view: str | None = "MLO") -> SourceRef:
    """The header, read back, with as many frames as it says."""
    return SourceRef(as_read(header), int(header.get("NumberOfFrames", 1)), laterality, view)


def random_masks(ref: SourceRef, frames: Sequence[int], seed: int) -> dict[int, NDArray[np.bool_]]:
    """A random mask for each given frame, no two alike."""
    rng = np.random.default_rng(seed)
    return {frame: rng.random(ref.shape) < 0.3 for frame in frames}


def random_findings(
    ref: SourceRef, frames: dict[Label, Sequence[int]], seed: int = 7
) -> ImageFindings:
    """Random masks on the given frames of each label, and one region per label."""
    segments, regions = [], []
    for number, (label, indices) in enumerate(frames.items()):
        segments.append(Segment(label, random_masks(ref, indices, seed + number), 0.75))
        first, last = min(indices), max(indices)
        regions.append(Region(label, first, last, first, 4.5, 3.0, (2, 1, 8, 6), 0.75))
    return ImageFindings(ref, {"benign": 0.25, "malignant": 0.75}, tuple(segments), tuple(regions))
