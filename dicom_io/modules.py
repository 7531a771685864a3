"""The DICOM modules every result shares: whose it is, which study, which device, which run.

Patient and study attributes are copied from the source as they are, in the source's own character sets, so a name
in any script stays what it was. Values that would make the result invalid (a birth date of zeros) are left empty.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime, timedelta, timezone

from pydicom import config
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sr.coding import Code
from pydicom.uid import ExplicitVRLittleEndian
from pydicom.valuerep import validate_value

from dicom_io.findings import RunContext
from dicom_io.header import text, values
from dicom_io.result_codes import NOTICE, caveat_of, code_item
from dicom_io.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

# Type 2 attributes of the Patient and General Study modules (PS3.3 C.7.1.1, C.7.2.1): written even when empty.
_TYPE_2 = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
    "StudyID",
    "AccessionNumber",
)
# Other attributes of the Patient, General Study and Patient Study modules that archives match or people read.
_OPTIONAL = (
    "IssuerOfPatientID",
    "PatientBirthTime",
    "OtherPatientNames",
    "PatientComments",
    "QualityControlSubject",
    "StudyDescription",
    "IssuerOfAccessionNumberSequence",
    "ConsultingPhysicianName",
    "PhysiciansOfRecord",
    "ProcedureCodeSequence",
    "PatientAge",
    "PatientSize",
    "PatientWeight",
    "TimezoneOffsetFromUTC",
)
_CLINICAL_TRIAL_GROUP = 0x0012
_CHECKED_VRS = frozenset({"DA", "TM", "AS", "DS", "IS"})
_SEXES = frozenset({"M", "F", "O", ""})
_LONG_STRING = 64


def start_object(
    source: Dataset,
    run: RunContext,
    *,
    sop_class_uid: str,
    sop_instance_uid: str,
    series_instance_uid: str,
) -> Dataset:
    """A data set with the file meta, patient, study, series, equipment and SOP common modules of a result.

    Args:
        source: header of an image of the same study; nothing in it is changed.
        run: gives dates and device.
    """
    result = Dataset()
    result.file_meta = FileMetaDataset()
    result.file_meta.MediaStorageSOPClassUID = sop_class_uid
    result.file_meta.MediaStorageSOPInstanceUID = sop_instance_uid
    result.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    result.file_meta.ImplementationClassUID = IMPLEMENTATION_CLASS_UID
    result.file_meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
    copy_patient_and_study(source, result)
    result.SOPClassUID = sop_class_uid
    result.SOPInstanceUID = sop_instance_uid
    result.SeriesInstanceUID = series_instance_uid
    _stamp(result, local_time(run.created_at, source))
    _describe_equipment(result, run)
    result.ContributingEquipmentSequence = contributing_equipment([source], run)
    return result


def copy_patient_and_study(source: Dataset, target: Dataset) -> None:
    """Copy the Patient, Clinical Trial and General Study modules with the source's character sets.

    Type 2 attributes that are missing or hold an impossible value become empty; optional ones are left out.
    """
    if source.get("SpecificCharacterSet"):
        target.SpecificCharacterSet = source.SpecificCharacterSet
    target.StudyInstanceUID = source.StudyInstanceUID
    for keyword in _TYPE_2:
        setattr(target, keyword, None)
    for keyword in (*_TYPE_2, *_OPTIONAL):
        if values(source, keyword) and _is_valid(source, keyword):
            target[keyword] = source[keyword]
    for element in source.group_dataset(_CLINICAL_TRIAL_GROUP):
        target.add(element)


def _is_valid(source: Dataset, keyword: str) -> bool:
    element = source[keyword]
    if keyword == "PatientSex":
        return element.value in _SEXES
    if element.VR not in _CHECKED_VRS:
        return True
    try:
        validate_value(element.VR, str(element.value), config.RAISE)
    except ValueError:
        return False
    return True


def local_time(moment: datetime, source: Dataset) -> datetime:
    """`moment` on the clock the source's dates are read by: its Timezone Offset From UTC, where it has one.

    That attribute applies to every date of an object (PS3.3 C.12.1.1), and it is copied from the source.
    """
    match = re.fullmatch(r"([+-])(\d{2})(\d{2})", text(source, "TimezoneOffsetFromUTC"))
    if match is None:
        return moment
    sign = -1 if match[1] == "-" else 1
    return moment.astimezone(timezone(sign * timedelta(hours=int(match[2]), minutes=int(match[3]))))


def _stamp(result: Dataset, moment: datetime) -> None:
    date, time = moment.strftime("%Y%m%d"), moment.strftime("%H%M%S")
    for stem in ("InstanceCreation", "Series", "Content"):
        setattr(result, f"{stem}Date", date)
        setattr(result, f"{stem}Time", time)


def _describe_equipment(result: Dataset, run: RunContext) -> None:
    equipment = run.equipment
    result.Manufacturer = equipment.manufacturer
    result.ManufacturerModelName = equipment.model_name
    result.DeviceSerialNumber = equipment.serial_number
    result.SoftwareVersions = equipment.software_version
    result.StationName = equipment.station_name
    if equipment.institution_name:
        result.InstitutionName = equipment.institution_name


def contributing_equipment(sources: Iterable[Dataset], run: RunContext) -> list[Dataset]:
    """Items of Contributing Equipment Sequence (PS3.3 C.12.1.1): each acquisition device once, and the models."""
    items: list[Dataset] = []
    for source in sources:
        item = _acquisition_device(source)
        if item is not None and item not in items:
            items.append(item)
    return [*items, *(_model_device(one) for one in run.readers)]


def _acquisition_device(source: Dataset) -> Dataset | None:
    if not text(source, "Manufacturer"):
        return None
    item = Dataset()
    item.PurposeOfReferenceCodeSequence = [
        code_item(Code("109101", "DCM", "Acquisition Equipment"))
    ]
    for keyword in (
        "Manufacturer",
        "ManufacturerModelName",
        "DeviceSerialNumber",
        "SoftwareVersions",
        "StationName",
    ):
        if values(source, keyword):
            item[keyword] = source[keyword]
    return item


def _model_device(run: RunContext) -> Dataset:
    item = Dataset()
    item.PurposeOfReferenceCodeSequence = [code_item(Code("109102", "DCM", "Processing Equipment"))]
    item.Manufacturer = run.equipment.manufacturer
    item.ManufacturerModelName = run.algorithm.name
    item.SoftwareVersions = run.algorithm.version
    item.ContributionDateTime = run.created_at.strftime("%Y%m%d%H%M%S%z")
    item.ContributionDescription = (
        f"Model {run.algorithm.name} {run.algorithm.version}, weights sha256 {run.algorithm.weights_sha256}. "
        + disclaimer(run)
    )
    return item


def reference_item(sop_class_uid: str, sop_instance_uid: str) -> Dataset:
    """A reference to an instance (PS3.3 10.8)."""
    item = Dataset()
    item.ReferencedSOPClassUID = sop_class_uid
    item.ReferencedSOPInstanceUID = sop_instance_uid
    return item


def copy_lossy_compression(source: Dataset, target: Dataset) -> None:
    """Say of a result whether its source was ever compressed with loss, and how (PS3.3 C.7.6.1.1.5)."""
    lossy = text(source, "LossyImageCompression") == "01"
    target.LossyImageCompression = "01" if lossy else "00"
    for keyword in ("LossyImageCompressionRatio", "LossyImageCompressionMethod"):
        if lossy and values(source, keyword):
            target[keyword] = source[keyword]


def disclaimer(run: RunContext) -> str:
    """The sentence every result carries, with what there is to know of the weights."""
    caveats = dict.fromkeys(caveat_of(one.algorithm) for one in run.readers)
    return " ".join([NOTICE, *filter(None, caveats)])


def series_description(subject: str, run: RunContext) -> str:
    """At most 64 characters (LO): the subject gives way before the warnings do."""
    trained = all(one.algorithm.trained for one in run.readers)
    untrained = "" if trained else ", untrained weights"
    warning = f"{untrained}, research, not for clinical use"
    return subject[: _LONG_STRING - len(warning)].rstrip() + warning
