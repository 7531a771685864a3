"""The attributes of phantom objects, everything but the pixels, complete enough for validators.

Here what all objects share, and Digital Mammography X-Ray For Presentation (PS3.3 A.27); Breast Tomosynthesis is in
`phantom_tomosynthesis`. Doses and the like are placeholders: nothing was exposed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pydicom.dataset import Dataset
from pydicom.valuerep import DSfloat

from dicom_io.codes import BREAST, VIEWS
from dicom_io.syntaxes import MAMMOGRAPHY_PRESENTATION

MODEL: Final = "Voxel phantom"
PLACED_VIEWS: Final = ("CC", "MLO", "ML")


@dataclass(frozen=True)
class Placement:
    """What an object of the study must know of itself; `uid` derives one UID from a name."""

    laterality: str
    view: str
    shape_DHW: tuple[int, int, int]
    spacing_mm: tuple[float, float]
    slice_spacing_mm: float
    bits_stored: int
    window: tuple[float, float]
    number: int  # of the series, from 1
    patient_id: str
    study_date: str
    uid: Callable[..., str]


def mammogram_dataset(place: Placement) -> Dataset:
    """A Digital Mammography X-Ray For Presentation data set without pixel data; one frame."""
    ds = common_attributes(place, MAMMOGRAPHY_PRESENTATION, "")
    ds.ImageType = ["ORIGINAL", "PRIMARY", ""]
    ds.SeriesDescription = (
        f"{place.laterality} {place.view} mammography phantom, not for clinical use"
    )
    ds.PresentationIntentType = "FOR PRESENTATION"
    ds.ImageLaterality = place.laterality
    ds.PatientOrientation = _patient_orientation(place)
    ds.AcquisitionDate, ds.AcquisitionTime = place.study_date, "100000"
    ds.AnatomicRegionSequence = [code_item(BREAST)]
    ds.OrganExposed = "BREAST"
    ds.PositionerType = "MAMMOGRAPHIC"
    ds.ImagerPixelSpacing = decimals(place.spacing_mm)
    ds.PixelIntensityRelationship = "LOG"
    ds.PixelIntensityRelationshipSign = -1
    ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = 0, 1, "US"
    ds.WindowCenter, ds.WindowWidth = decimals(place.window)
    ds.DetectorType = "DIRECT"
    ds.DetectorID = "PHANTOM"
    ds.FieldOfViewOrigin = [0, 0]
    ds.FieldOfViewRotation = "0"
    ds.FieldOfViewHorizontalFlip = "NO"
    ds.KVP = 30
    ds.BodyPartThickness = 50
    ds.CompressionForce = 100
    ds.OrganDose = decimal(0.001)
    return ds


def common_attributes(place: Placement, sop_class: str, flavour: str) -> Dataset:
    """Patient, study, series, equipment and image attributes that both kinds share."""
    _, height, width = place.shape_DHW
    view = next(view for view in VIEWS if view.name == place.view)
    code = code_item((view.sct, "SCT", view.meaning))
    code.ViewModifierCodeSequence = []
    return item_of(
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
        ManufacturerModelName=MODEL,
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


def _patient_orientation(place: Placement) -> list[str]:
    down = {
        "CC": "R" if place.laterality == "L" else "L",
        "MLO": "F" + ("R" if place.laterality == "L" else "L"),
    }
    return ["A" if place.laterality == "L" else "P", down.get(place.view, "F")]


def code_item(code: Sequence[str]) -> Dataset:
    value, scheme, meaning = code
    return item_of(CodeValue=value, CodingSchemeDesignator=scheme, CodeMeaning=meaning)


def item_of(**attributes: Any) -> Dataset:
    ds = Dataset()
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    return ds


def decimal(value: float) -> DSfloat:
    return DSfloat(float(value), auto_format=True)


def decimals(values: Iterable[float]) -> list[DSfloat]:
    return [decimal(value) for value in values]
