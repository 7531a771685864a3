"""The attributes of phantom objects, everything but the pixels: Breast Tomosynthesis (PS3.3 A.55) and Digital
Mammography X-Ray For Presentation (A.27), complete enough for validators.

Doses, positions of the tube and the like are placeholders: nothing was exposed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.valuerep import DSfloat

from dicom_io.codes import BREAST, VIEWS
from dicom_io.syntaxes import BREAST_TOMOSYNTHESIS, MAMMOGRAPHY_PRESENTATION

PROJECTIONS: Final = 15
SCAN_ARC_DEG: Final = 15.0
CENTRE_MM: Final = 80.0  # from the middle of the body to the middle of a breast
_MODEL: Final = "Voxel phantom"
_DIAGONAL: Final = 0.70710678
# Unit vectors of the image's downward direction for a left breast; x is mirrored for a right one. Rows run from the
# chest wall to the front (left breast), so the slices' normal points from the tube to the detector.
_DOWN: Final = {
    "CC": (-1.0, 0.0, 0.0),
    "MLO": (-_DIAGONAL, 0.0, -_DIAGONAL),
    "ML": (0.0, 0.0, -1.0),
    "LM": (0.0, 0.0, -1.0),
}
PLACED_VIEWS: Final = tuple(_DOWN)


@dataclass(frozen=True)
class Placement:
    """What an object of the study must know of itself; `uid` derives one UID from a name."""

    laterality: str
    view: str
    shape_DHW: tuple[int, int, int]  # noqa: N815
    spacing_mm: tuple[float, float]
    slice_spacing_mm: float
    bits_stored: int
    window: tuple[float, float]
    number: int  # of the series, from 1
    patient_id: str
    study_date: str
    uid: Callable[..., str]

    @property
    def name(self) -> str:
        """Like "L-CC"."""
        return f"{self.laterality}-{self.view}"


def tomosynthesis_dataset(place: Placement) -> Dataset:
    """A Breast Tomosynthesis data set without pixel data."""
    ds = _common(place, BREAST_TOMOSYNTHESIS, "TOMOSYNTHESIS")
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
        _item(
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


def mammogram_dataset(place: Placement) -> Dataset:
    """A Digital Mammography X-Ray For Presentation data set without pixel data; one frame."""
    ds = _common(place, MAMMOGRAPHY_PRESENTATION, "")
    ds.ImageType = ["ORIGINAL", "PRIMARY", ""]
    ds.SeriesDescription = (
        f"{place.laterality} {place.view} mammography phantom, not for clinical use"
    )
    ds.PresentationIntentType = "FOR PRESENTATION"
    ds.ImageLaterality = place.laterality
    ds.PatientOrientation = _patient_orientation(place)
    ds.AcquisitionDate, ds.AcquisitionTime = place.study_date, "100000"
    ds.AnatomicRegionSequence = [_code(BREAST)]
    ds.OrganExposed = "BREAST"
    ds.PositionerType = "MAMMOGRAPHIC"
    ds.ImagerPixelSpacing = _decimals(place.spacing_mm)
    ds.PixelIntensityRelationship = "LOG"
    ds.PixelIntensityRelationshipSign = -1
    ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = 0, 1, "US"
    ds.WindowCenter, ds.WindowWidth = _decimals(place.window)
    ds.DetectorType = "DIRECT"
    ds.DetectorID = "PHANTOM"
    ds.FieldOfViewOrigin = [0, 0]
    ds.FieldOfViewRotation = "0"
    ds.FieldOfViewHorizontalFlip = "NO"
    ds.KVP = 30
    ds.BodyPartThickness = 50
    ds.CompressionForce = 100
    ds.OrganDose = _decimal(0.001)
    return ds


def _common(place: Placement, sop_class: str, flavour: str) -> Dataset:
    """Patient, study, series, equipment and image attributes that both kinds share."""
    _, height, width = place.shape_DHW
    view = next(view for view in VIEWS if view.name == place.view)
    code = _code((view.sct, "SCT", view.meaning))
    code.ViewModifierCodeSequence = []
    return _item(
        SpecificCharacterSet="ISO_IR 192",
        ImageType=["DERIVED", "PRIMARY", flavour, "NONE"],
        SOPClassUID=sop_class,
        SOPInstanceUID=place.uid("instance", place.number),
        StudyInstanceUID=place.uid("study"),
        SeriesInstanceUID=place.uid("series", place.number),
        StudyDate=place.study_date,
        StudyTime="100000",
        SeriesDate=place.study_date,
        SeriesTime="100000",
        ContentDate=place.study_date,
        ContentTime="100000",
        AccessionNumber=place.patient_id[:16],
        Modality="MG",
        Manufacturer="tomonode",
        ManufacturerModelName=_MODEL,
        DeviceSerialNumber="1",
        SoftwareVersions="1",
        ReferringPhysicianName="",
        StudyDescription="Phantom study, not for clinical use",
        PatientName="Phantom^Synthetic",
        PatientID=place.patient_id,
        PatientBirthDate="",
        PatientSex="O",
        PatientComments="Synthetic data: no patient.",
        BodyPartExamined="BREAST",
        StudyID="1",
        SeriesNumber=place.number,
        InstanceNumber=1,
        SamplesPerPixel=1,
        PhotometricInterpretation="MONOCHROME2",
        Rows=height,
        Columns=width,
        BitsAllocated=16,
        BitsStored=place.bits_stored,
        HighBit=place.bits_stored - 1,
        PixelRepresentation=0,
        QualityControlImage="NO",
        BurnedInAnnotation="NO",
        BreastImplantPresent="NO",
        PartialView="NO",
        LossyImageCompression="00",
        PresentationLUTShape="IDENTITY",
        AcquisitionContextSequence=[],
        ViewCodeSequence=[code],
    )


def _volume_description() -> Dataset:
    return _item(
        PixelPresentation="MONOCHROME",
        VolumetricProperties="VOLUME",
        VolumeBasedCalculationTechnique="TOMOSYNTHESIS",
    )


def _contributing_source(place: Placement) -> Dataset:
    return _item(
        AcquisitionDateTime=place.study_date + "100000",
        Manufacturer="tomonode",
        ManufacturerModelName=_MODEL,
        DeviceSerialNumber="1",
        SoftwareVersions="1",
        DetectorType="DIRECT",
        DetectorID="PHANTOM",
        DateOfLastDetectorCalibration=place.study_date,
        TimeOfLastDetectorCalibration="080000",
        DetectorElementSpacing=_decimals(place.spacing_mm),
        Rows=place.shape_DHW[1],
        Columns=place.shape_DHW[2],
        BitsStored=14,
        LossyImageCompression="00",
    )


def _acquisition(place: Placement) -> Dataset:
    _, height, width = place.shape_DHW
    step = SCAN_ARC_DEG / (PROJECTIONS - 1)
    angles = [-SCAN_ARC_DEG / 2 + step * index for index in range(PROJECTIONS)]
    return _item(
        KVP=30,
        DistanceSourceToDetector=700,
        DistanceSourceToPatient=650,
        EstimatedRadiographicMagnificationFactor=1,
        FieldOfViewShape="RECTANGLE",
        FilterType="FLAT",
        Grid="NONE",
        FocalSpots=_decimal(0.3),
        AnodeTargetMaterial="TUNGSTEN",
        BodyPartThickness=50,
        CompressionForce=100,
        PaddleDescription="24x30",
        DetectorTemperature=30,
        FieldOfViewOrigin=[0, 0],
        HalfValueLayer=_decimal(0.5),
        FilterMaterial="ALUMINUM",
        FilterThicknessMinimum=_decimal(0.7),
        FilterThicknessMaximum=_decimal(0.7),
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
            _item(
                KVP=30,
                RelativeXRayExposure=100,
                PositionerPrimaryAngle=_decimal(angle),
                ExposureTimeInms=40.0,
                XRayTubeCurrentInmA=100.0,
                ExposureInmAs=4.0,
                OrganDose=_decimal(0.001),
                EntranceDoseInmGy=_decimal(0.4),
            )
            for angle in angles
        ],
    )


def _add_dimensions(ds: Dataset, place: Placement) -> None:
    organisation = place.uid("dimensions", place.number)
    ds.DimensionOrganizationSequence = [_item(DimensionOrganizationUID=organisation)]
    ds.DimensionIndexSequence = [
        _item(
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
    anatomy = _item(AnatomicRegionSequence=[_code(BREAST)], FrameLaterality=place.laterality)
    measures = _item(
        PixelSpacing=_decimals(place.spacing_mm),
        SliceThickness=_decimal(place.slice_spacing_mm),
        SpacingBetweenSlices=_decimal(place.slice_spacing_mm),
    )
    centre, width = _decimals(place.window)
    return _item(
        FrameAnatomySequence=[anatomy],
        PixelMeasuresSequence=[measures],
        PlaneOrientationSequence=[_item(ImageOrientationPatient=_decimals([*row, *down]))],
        FrameVOILUTSequence=[_item(WindowCenter=centre, WindowWidth=width)],
        PixelValueTransformationSequence=[
            _item(RescaleIntercept=0, RescaleSlope=1, RescaleType="US")
        ],
    )


def _frame_groups(place: Placement) -> Iterable[Dataset]:
    corner, normal = _corner(place), np.cross(*_axes(place))
    for index in range(place.shape_DHW[0]):
        kind = _volume_description()
        kind.FrameType = ["DERIVED", "PRIMARY", "TOMOSYNTHESIS", "NONE"]
        kind.ReconstructionIndex = 1
        content = _item(
            StackID="1",
            InStackPositionNumber=index + 1,
            FrameAcquisitionNumber=1,
            DimensionIndexValues=[1, index + 1],
        )
        position = corner + index * place.slice_spacing_mm * normal
        yield _item(
            XRay3DFrameTypeSequence=[kind],
            FrameContentSequence=[content],
            PlanePositionSequence=[_item(ImagePositionPatient=_decimals(position))],
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


def _patient_orientation(place: Placement) -> list[str]:
    down = {
        "CC": "R" if place.laterality == "L" else "L",
        "MLO": "F" + ("R" if place.laterality == "L" else "L"),
    }
    return ["A" if place.laterality == "L" else "P", down.get(place.view, "F")]


def _code(code: Sequence[str]) -> Dataset:
    value, scheme, meaning = code
    return _item(CodeValue=value, CodingSchemeDesignator=scheme, CodeMeaning=meaning)


def _item(**attributes: Any) -> Dataset:
    ds = Dataset()
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    return ds


def _decimal(value: float) -> DSfloat:
    return DSfloat(float(value), auto_format=True)


def _decimals(values: Iterable[float]) -> list[DSfloat]:
    return [_decimal(value) for value in values]
