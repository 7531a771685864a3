"""The content tree of the report: TID 1500 "Measurement Report" (PS3.16 Annex A).

    Imaging Measurement Report
    ├── language, observer (the device), procedure
    ├── Image Library             every image of the study, with side and view; why it was not read, where it was not
    ├── Imaging Measurements      where a region was marked
    │   └── for each region       class, score, key frame, and its segment (TID 1411) or its box (TID 1410)
    └── Qualitative Evaluations   overall result
        ├── analysis (TID 1501)   algorithm, parameters, weights, operating point
        ├── for each image (1501) both scores and the result, also where nothing was found
        └── statements, inputs left out and why

The groups without a region of interest stand under Qualitative Evaluations, an extension the template allows:
pixelmed's validator reads every group under Imaging Measurements by the template of the first kind it finds there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from highdicom import sr
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import UID, BreastTomosynthesisImageStorage

from dicom_io import result_codes as names
from dicom_io.findings import (
    Excluded,
    ImageFindings,
    RunContext,
    SegmentationRef,
)
from dicom_io.sr_groups import analysis_groups, image_group, region_groups, text_item
from dicom_io.sr_library import image_library
from dicom_io.uids import derive_uid

_CONTAINS = sr.RelationshipTypeValues.CONTAINS
_MODIFIES = sr.RelationshipTypeValues.HAS_CONCEPT_MOD
_ENGLISH = Code("en-US", "RFC5646", "English (United States)")
_QUALITATIVE = Code("C0034375", "UMLS", "Qualitative Evaluations")
_TOMOSYNTHESIS = Code("450566007", "SCT", "Digital breast tomosynthesis")


def report_tree(
    findings: Sequence[ImageFindings],
    excluded: Sequence[Excluded],
    segmentations: Mapping[str, SegmentationRef],
    run: RunContext,
    unread: Sequence[Excluded] = (),
) -> Dataset:
    """The root content item. `segmentations` is keyed by the source's SOP Instance UID; `unread` are images that no
    model is asked to read, for the image library.

    Raises InvalidFindings where a score is no number in [0, 1] or a region lies on a frame that is not there.
    """
    root = sr.ContainerContentItem(codes.DCM.ImagingMeasurementReport, template_id="1500")
    content = sr.ContentSequence(is_root=False)
    content.extend(sr.LanguageOfContentItemAndDescendants(_ENGLISH))
    content.extend(observer(run))
    content.append(_coded(codes.DCM.ProcedureReported, _procedure(findings), _MODIFIES))
    library = image_library([image.source for image in findings], [*excluded, *unread])
    if library is not None:
        content.append(library)
    regions = region_groups(findings, segmentations, run)
    if regions:
        content.append(_container(codes.DCM.ImagingMeasurements, regions))
    content.append(_evaluations(findings, excluded, run))
    root.ContentSequence = content
    return root


def observer(run: RunContext) -> Any:
    """TID 1001 "Observation Context": the device that observed."""
    equipment = run.equipment
    device = sr.DeviceObserverIdentifyingAttributes(
        # The same device is the same observer in every run.
        uid=derive_uid(
            "device", equipment.manufacturer, equipment.model_name, equipment.serial_number
        ),
        name=equipment.station_name,
        manufacturer_name=equipment.manufacturer,
        model_name=equipment.model_name,
        serial_number=equipment.serial_number,
    )
    context = sr.ObserverContext(
        observer_type=codes.DCM.Device, observer_identifying_attributes=device
    )
    return sr.ObservationContext(observer_device_context=context)


def _procedure(findings: Sequence[ImageFindings]) -> Code:
    sources = [image.source for image in findings]
    if any(one.slices or one.sop_class_uid == BreastTomosynthesisImageStorage for one in sources):
        return _TOMOSYNTHESIS
    return names.MAMMOGRAPHY


def _evaluations(
    findings: Sequence[ImageFindings], excluded: Sequence[Excluded], run: RunContext
) -> Any:
    """The overall result first, then the results of the images, then what a reader must know."""
    groups = [*analysis_groups(run), *(image_group(image, run) for image in findings)]
    return _container(
        _QUALITATIVE,
        [
            _coded(names.PROCESSING_SUMMARY, overall(findings, excluded), _CONTAINS),
            text_item(names.RESULT, result_sentence(findings, excluded)),
            *(text_item(names.STATEMENT, statement) for statement in statements(run)),
            *(item for group in groups for item in group),
            *(text_item(names.INPUT_LEFT_OUT, left_out(item)) for item in excluded),
        ],
    )


def result_sentence(findings: Sequence[ImageFindings], excluded: Sequence[Excluded]) -> str:
    """The result in numbers."""
    regions = sum(len(image.regions) for image in findings)
    return (
        f"Images analysed: {len(findings)}. Regions marked: {regions}. "
        f"Inputs left out: {len(excluded)}."
    )


def statements(run: RunContext) -> list[str]:
    """What a reader must know, in every report: research only, the weights, what a score is not."""
    caveats = dict.fromkeys(names.caveat_of(one.algorithm) for one in run.readers)
    return [names.NOTICE, *filter(None, caveats), names.SCORE_NOTICE]


def _container(name: Code, content: Sequence[Any]) -> Any:
    container = sr.ContainerContentItem(name, relationship_type=_CONTAINS)
    container.ContentSequence = sr.ContentSequence(content)
    return container


def _coded(name: Code, value: Code, relationship: Any) -> Any:
    return sr.CodeContentItem(name, value, relationship)


def overall(findings: Sequence[ImageFindings], excluded: Sequence[Excluded]) -> Code:
    """CID 6047. An input left out is never silently a success."""
    if not findings:
        return names.NONE_SUCCEEDED
    found = any(image.regions for image in findings)
    if excluded:
        return names.SOME_WITH_FINDINGS if found else names.SOME_WITHOUT_FINDINGS
    return names.WITH_FINDINGS if found else names.WITHOUT_FINDINGS


def left_out(item: Excluded) -> str:
    """What was left out and why, for people."""
    return f"{UID(item.sop_class_uid).name} {item.sop_instance_uid}: {item.reason}"
