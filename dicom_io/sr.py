"""The report: one Comprehensive 3D SR (PS3.3 A.35.13) per study, also where nothing was found.

It is a model's statement, so it stays unverified and preliminary; a report of a later run names the one it replaces.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pydicom.dataset import Dataset
from pydicom.uid import Comprehensive3DSRStorage

from dicom_io.errors import InvalidFindings
from dicom_io.findings import DocumentRef, Excluded, ImageFindings, RunContext, SegmentationRef
from dicom_io.modules import (
    contributing_equipment,
    reference_item,
    series_description,
    start_object,
)
from dicom_io.result_codes import private_scheme_item
from dicom_io.sr_content import report_tree
from dicom_io.uids import derive_uid

_SERIES_NUMBER = 9000


def build_sr(
    study: Dataset,
    findings: Sequence[ImageFindings],
    excluded: Sequence[Excluded],
    segmentations: Iterable[SegmentationRef],
    run: RunContext,
) -> Dataset:
    """The report of one run over one study.

    Args:
        study: header of any instance of the study; patient and study attributes are copied from it.
        findings: every image that was read, those without a region included. May be empty.
        excluded: every instance that was not read, and why.
        segmentations: `seg.reference` of the segmentations written for `findings`.
        run: the run; the same run gives the same bytes.

    Raises InvalidFindings where an image belongs to another study, a score is no number in [0, 1], or a region lies
    on a frame that is not there.
    """
    for image in findings:
        if image.source.header.StudyInstanceUID != study.StudyInstanceUID:
            raise InvalidFindings("an image belongs to another study than the report")
    by_source = {seg.source_sop_instance_uid: seg for seg in segmentations}
    report = start_object(
        study,
        run,
        sop_class_uid=Comprehensive3DSRStorage,
        sop_instance_uid=derive_uid(run.run_id, "sr"),
        series_instance_uid=derive_uid(run.run_id, "sr-series"),
    )
    report.ContributingEquipmentSequence = contributing_equipment(
        [i.source.header for i in findings], run
    )
    report.CodingSchemeIdentificationSequence = [private_scheme_item()]
    _add_document(report, run)
    evidence = _evidence(report, findings, list(by_source.values()))
    if evidence:
        report.CurrentRequestedProcedureEvidenceSequence = evidence
    report.update(report_tree(findings, excluded, by_source, run))
    return report


def _add_document(report: Dataset, run: RunContext) -> None:
    """SR Document Series and SR Document General modules (PS3.3 C.17.1, C.17.2)."""
    report.Modality = "SR"
    report.SeriesNumber = _SERIES_NUMBER
    report.InstanceNumber = 1
    report.SeriesDescription = series_description("AI report", run)
    report.ReferencedPerformedProcedureStepSequence = []
    report.PerformedProcedureCodeSequence = []
    report.CompletionFlag = "COMPLETE"
    report.VerificationFlag = "UNVERIFIED"
    report.PreliminaryFlag = "PRELIMINARY"
    if run.predecessor is not None:
        report.PredecessorDocumentsSequence = [_predecessor(run.predecessor)]


def _predecessor(document: DocumentRef) -> Dataset:
    series = Dataset()
    series.SeriesInstanceUID = document.series_instance_uid
    series.ReferencedSOPSequence = [
        reference_item(document.sop_class_uid, document.sop_instance_uid)
    ]
    item = Dataset()
    item.StudyInstanceUID = document.study_instance_uid
    item.ReferencedSeriesSequence = [series]
    return item


def _evidence(
    report: Dataset, findings: Sequence[ImageFindings], segmentations: Sequence[SegmentationRef]
) -> list[Dataset]:
    """Every instance the content refers to, by series (PS3.3 C.17.2, type 1C; all are of the report's own study)."""
    by_series: dict[str, list[Dataset]] = {}
    for image in findings:
        source = image.source
        by_series.setdefault(str(source.header.SeriesInstanceUID), []).append(
            reference_item(source.sop_class_uid, source.sop_instance_uid)
        )
    for seg in segmentations:
        by_series.setdefault(seg.series_instance_uid, []).append(
            reference_item(seg.sop_class_uid, seg.sop_instance_uid)
        )
    if not by_series:
        return []
    item = Dataset()
    item.StudyInstanceUID = report.StudyInstanceUID
    item.ReferencedSeriesSequence = []
    for uid, instances in by_series.items():
        series = Dataset()
        series.SeriesInstanceUID = uid
        series.ReferencedSOPSequence = instances
        item.ReferencedSeriesSequence.append(series)
    return [item]
