"""What every document of a run shares (PS3.3 C.17.1, C.17.2): its series, that it is unverified, its references."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pydicom.dataset import Dataset

from dicom_io.errors import InvalidFindings
from dicom_io.findings import (
    DocumentRef,
    Excluded,
    ImageFindings,
    RunContext,
    SegmentationRef,
    SourceRef,
)
from dicom_io.modules import reference_item, series_description

Reference = tuple[str, str, str]
"""Series Instance UID, SOP Class UID and SOP Instance UID of something a document refers to."""


def check_study(study: Dataset, findings: Sequence[ImageFindings]) -> None:
    """Raises InvalidFindings where an image is not of the document's study."""
    for image in findings:
        if image.source.header.StudyInstanceUID != study.StudyInstanceUID:
            raise InvalidFindings("an image belongs to another study than the report")


def add_document_series(
    document: Dataset, modality: str, subject: str, series_number: int, run: RunContext
) -> None:
    """SR Document Series and Key Object Document Series modules (PS3.3 C.17.1, C.17.6.1)."""
    document.Modality = modality
    document.SeriesNumber = series_number
    document.InstanceNumber = 1
    document.SeriesDescription = series_description(subject, run)
    document.ReferencedPerformedProcedureStepSequence = []


def add_report(
    report: Dataset,
    subject: str,
    series_number: int,
    run: RunContext,
    predecessor: DocumentRef | None,
) -> None:
    """SR Document Series and SR Document General modules (PS3.3 C.17.1, C.17.2) of a model's unverified statement."""
    add_document_series(report, "SR", subject, series_number, run)
    report.PerformedProcedureCodeSequence = []
    report.CompletionFlag = "COMPLETE"
    report.VerificationFlag = "UNVERIFIED"
    report.PreliminaryFlag = "PRELIMINARY"
    add_predecessor(report, predecessor)


def add_predecessor(document: Dataset, predecessor: DocumentRef | None) -> None:
    """Name the document that this one replaces (Predecessor Documents Sequence), where there is one."""
    if predecessor is None:
        return
    series = Dataset()
    series.SeriesInstanceUID = predecessor.series_instance_uid
    series.ReferencedSOPSequence = [
        reference_item(predecessor.sop_class_uid, predecessor.sop_instance_uid)
    ]
    item = Dataset()
    item.StudyInstanceUID = predecessor.study_instance_uid
    item.ReferencedSeriesSequence = [series]
    document.PredecessorDocumentsSequence = [item]


def add_evidence(document: Dataset, references: Iterable[Reference]) -> None:
    """Every instance the content refers to, once, by series (PS3.3 C.17.2, type 1C); all of its own study."""
    by_series: dict[str, list[Dataset]] = {}
    for series_uid, sop_class_uid, sop_instance_uid in dict.fromkeys(references):
        by_series.setdefault(series_uid, []).append(reference_item(sop_class_uid, sop_instance_uid))
    if not by_series:
        return
    item = Dataset()
    item.StudyInstanceUID = document.StudyInstanceUID
    item.ReferencedSeriesSequence = []
    for uid, instances in by_series.items():
        series = Dataset()
        series.SeriesInstanceUID = uid
        series.ReferencedSOPSequence = instances
        item.ReferencedSeriesSequence.append(series)
    document.CurrentRequestedProcedureEvidenceSequence = [item]


def image_references(findings: Iterable[ImageFindings]) -> list[Reference]:
    """The images that were read."""
    return [one for image in findings for one in _source_references(image.source)]


def unread_references(items: Iterable[Excluded]) -> list[Reference]:
    """The images that were not read, those that the image library lists."""
    sources = [item.source for item in items if item.source is not None]
    return [one for source in sources for one in _source_references(source)]


def _source_references(source: SourceRef) -> list[Reference]:
    return [(str(source.header.SeriesInstanceUID), *one) for one in source.instances]


def segmentation_references(segmentations: Iterable[SegmentationRef]) -> list[Reference]:
    """The segmentations that were written."""
    return [
        (seg.series_instance_uid, seg.sop_class_uid, seg.sop_instance_uid) for seg in segmentations
    ]
