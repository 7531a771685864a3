"""The attributes of a Breast Tomosynthesis phantom (PS3.3 A.55), everything but the pixels.

Doses, angles and the like are placeholders: nothing was exposed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from dicom_io.codes import BREAST
from dicom_io.phantom_dataset import (
    MODEL,
    Placement,
    code_item,
    common_attributes,
    decimal,
    decimals,
    item_of,
)
from dicom_io.syntaxes import BREAST_TOMOSYNTHESIS

PROJECTIONS: Final = 15
SCAN_ARC_DEG: Final = 15.0
CENTRE_MM: Final = 80.0  # from the middle of the body to the middle of a breast
_DIAGONAL: Final = 0.70710678
# Unit vectors of the image's downward direction for a left breast; x is mirrored for a right one. Rows run from the
# chest wall to the front (left breast), so the slices' normal points from the tube to the detector.
_DOWN: Final = {
    "CC": (-1.0, 0.0, 0.0),
    "MLO": (-_DIAGONAL, 0.0, -_DIAGONAL),
    "ML": (0.0, 0.0, -1.0),
}


def tomosynthesis_dataset(place: Placement) -> Dataset:
    """A Breast Tomosynthesis data set without pixel data."""
    ds = common_attributes(place, BREAST_TOMOSYNTHESIS, "TOMOSYNTHESIS")
    ds.SeriesDescription = (
        f"{place.laterality} {place.view} tomosynthesis phantom, not for clinical use"
    )
    ds.ContentQualification = "RESEARCH"
    ds.RecognizableVisualFeatures = "NO"
    ds.update(_volume_description())
    ds.NumberOfFrames = place.shape_DHW[0]
    ds.FrameOfReferenceUID = place.uid("frame-of-reference")
    ds.PositionReferenceIndicator = ""
    ds.ContributingSourcesSequence = [_contributing_source(place)]
    ds.XRay3DAcquisitionSequence = [_acquisition(place)]
    ds.XRay3DReconstructionSequence = [
        item_of(
            ApplicationName="tomonode phantom",
            ApplicationVersion="1",
            ApplicationManufacturer="tomonode",
            AlgorithmType="FILTER_BACK_PROJ",
            AlgorithmDescription="None: voxels of a phantom",
            ReconstructionDescription="Phantom",
            AcquisitionIndex=1,
        )
    ]
    _add_dimensions(ds, place)
    ds.SharedFunctionalGroupsSequence = [_shared_groups(place)]
    ds.PerFrameFunctionalGroupsSequence = list(_frame_groups(place))
    return ds


def _volume_description() -> Dataset:
    return item_of(
        PixelPresentation="MONOCHROME",
        VolumetricProperties="VOLUME",
        VolumeBasedCalculationTechnique="TOMOSYNTHESIS",
    )


def _contributing_source(place: Placement) -> Dataset:
    return item_of(
        AcquisitionDateTime=place.study_date + "100000",
        Manufacturer="tomonode",
        ManufacturerModelName=MODEL,
        DeviceSerialNumber="1",
        SoftwareVersions="1",
        DetectorType="DIRECT",
        DetectorID="PHANTOM",
        DateOfLastDetectorCalibration=place.study_date,
        TimeOfLastDetectorCalibration="080000",
        DetectorElementSpacing=decimals(place.spacing_mm),
        Rows=place.shape_DHW[1],
        Columns=place.shape_DHW[2],
        BitsStored=14,
        LossyImageCompression="00",
    )


def _acquisition(place: Placement) -> Dataset:
    _, height, width = place.shape_DHW
    step = SCAN_ARC_DEG / (PROJECTIONS - 1)
    angles = [-SCAN_ARC_DEG / 2 + step * index for index in range(PROJECTIONS)]
    return item_of(
        KVP=30,
        DistanceSourceToDetector=700,
        DistanceSourceToPatient=650,
        EstimatedRadiographicMagnificationFactor=1,
        FieldOfViewShape="RECTANGLE",
        FilterType="FLAT",
        Grid="NONE",
        FocalSpots=decimal(0.3),
        AnodeTargetMaterial="TUNGSTEN",
        BodyPartThickness=50,
        CompressionForce=100,
        PaddleDescription="24x30",
        DetectorTemperature=30,
        FieldOfViewOrigin=[0, 0],
        HalfValueLayer=decimal(0.5),
        FilterMaterial="ALUMINUM",
        FilterThicknessMinimum=decimal(0.7),
        FilterThicknessMaximum=decimal(0.7),
        ExposureControlMode="AUTOMATIC",
        ExposureControlModeDescription="AEC",
        ExposureTimeInms=600.0,
        XRayTubeCurrentInmA=100.0,
        ExposureInmAs=60.0,
        XRayReceptorType="DIGITAL_DETECTOR",
        FieldOfViewDimensionsInFloat=[width * place.spacing_mm[1], height * place.spacing_mm[0]],
        PrimaryPositionerScanArc=SCAN_ARC_DEG,
        PrimaryPositionerScanStartAngle=angles[0],
        PrimaryPositionerIncrement=step,
        PerProjectionAcquisitionSequence=[
            item_of(
                KVP=30,
                RelativeXRayExposure=100,
                PositionerPrimaryAngle=decimal(angle),
                ExposureTimeInms=40.0,
                XRayTubeCurrentInmA=100.0,
                ExposureInmAs=4.0,
                OrganDose=decimal(0.001),
                EntranceDoseInmGy=decimal(0.4),
            )
            for angle in angles
        ],
    )


def _add_dimensions(ds: Dataset, place: Placement) -> None:
    organisation = place.uid("dimensions", place.number)
    ds.DimensionOrganizationSequence = [item_of(DimensionOrganizationUID=organisation)]
    ds.DimensionIndexSequence = [
        item_of(
            DimensionOrganizationUID=organisation,
            DimensionIndexPointer=Tag(keyword),
            FunctionalGroupPointer=Tag("FrameContentSequence"),
            DimensionDescriptionLabel=label,
        )
        for keyword, label in (
            ("StackID", "Stack ID"),
            ("InStackPositionNumber", "In-Stack Position Number"),
        )
    ]


def _shared_groups(place: Placement) -> Dataset:
    row, down = _axes(place)
    anatomy = item_of(AnatomicRegionSequence=[code_item(BREAST)], FrameLaterality=place.laterality)
    measures = item_of(
        PixelSpacing=decimals(place.spacing_mm),
        SliceThickness=decimal(place.slice_spacing_mm),
        SpacingBetweenSlices=decimal(place.slice_spacing_mm),
    )
    centre, width = decimals(place.window)
    return item_of(
        FrameAnatomySequence=[anatomy],
        PixelMeasuresSequence=[measures],
        PlaneOrientationSequence=[item_of(ImageOrientationPatient=decimals([*row, *down]))],
        FrameVOILUTSequence=[item_of(WindowCenter=centre, WindowWidth=width)],
        PixelValueTransformationSequence=[
            item_of(RescaleIntercept=0, RescaleSlope=1, RescaleType="US")
        ],
    )


def _frame_groups(place: Placement) -> Iterator[Dataset]:
    corner, normal = _corner(place), np.cross(*_axes(place))
    for index in range(place.shape_DHW[0]):
        kind = _volume_description()
        kind.FrameType = ["DERIVED", "PRIMARY", "TOMOSYNTHESIS", "NONE"]
        kind.ReconstructionIndex = 1
        content = item_of(
            StackID="1",
            InStackPositionNumber=index + 1,
            FrameAcquisitionNumber=1,
            DimensionIndexValues=[1, index + 1],
        )
        position = corner + index * place.slice_spacing_mm * normal
        yield item_of(
            XRay3DFrameTypeSequence=[kind],
            FrameContentSequence=[content],
            PlanePositionSequence=[item_of(ImagePositionPatient=decimals(position))],
        )


def _axes(place: Placement) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Directions along a row and down a column in the patient (PS3.3 C.7.6.2.1.1)."""
    x, y, z = _DOWN[place.view]
    return (
        ((0.0, -1.0, 0.0), (x, y, z)) if place.laterality == "L" else ((0.0, 1.0, 0.0), (-x, y, z))
    )


def _corner(place: Placement) -> Any:
    """Centre of the first pixel of the first frame: chest wall at y = 0, the volume around the breast's middle."""
    depth, height, width = place.shape_DHW
    row, down = (np.array(axis) for axis in _axes(place))
    middle = np.array([CENTRE_MM if place.laterality == "L" else -CENTRE_MM, 0.0, 0.0])
    corner = middle - down * place.spacing_mm[0] * (height - 1) / 2
    corner -= np.cross(row, down) * place.slice_spacing_mm * (depth - 1) / 2
    return corner if place.laterality == "L" else corner - row * place.spacing_mm[1] * (width - 1)
