"""The report: one Comprehensive 3D SR (PS3.3 A.35.13) per study, also where nothing was found.

It is a model's statement, so it stays unverified and preliminary; a report of a later run names the one it replaces.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pydicom.dataset import Dataset
from pydicom.uid import Comprehensive3DSRStorage

from dicom_io.findings import DocumentRef, Excluded, ImageFindings, RunContext, SegmentationRef
from dicom_io.modules import contributing_equipment, start_object
from dicom_io.result_codes import private_scheme_item
from dicom_io.sr_content import report_tree
from dicom_io.sr_document import (
    add_evidence,
    add_report,
    check_study,
    image_references,
    segmentation_references,
    unread_references,
)
from dicom_io.uids import derive_uid

_SERIES_NUMBER = 9000


def build_sr(
    study: Dataset,
    findings: Sequence[ImageFindings],
    excluded: Sequence[Excluded],
    segmentations: Iterable[SegmentationRef],
    run: RunContext,
    unread: Sequence[Excluded] = (),
    *,
    predecessor: DocumentRef | None = None,
) -> Dataset:
    """The report of one run over one study.

    Args:
        study: header of any instance of the study; patient and study attributes are copied from it.
        findings: every image that was read, those without a region included. May be empty.
        excluded: every instance that was not read, and why.
        segmentations: `seg.reference` of the segmentations written for `findings`.
        run: the run; the same run gives the same bytes.
        unread: images of the study that the model is not asked to read, for the image library alone.
        predecessor: the report of an earlier run that this one replaces.

    Raises InvalidFindings where an image belongs to another study, a score is no number in [0, 1], or a region lies
    on a frame that is not there.
    """
    check_study(study, findings)
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
    add_report(report, "AI report", _SERIES_NUMBER, run, predecessor)
    add_evidence(
        report,
        [
            *image_references(findings),
            *unread_references([*excluded, *unread]),
            *segmentation_references(by_source.values()),
        ],
    )
    report.update(report_tree(findings, excluded, by_source, run, unread))
    return report
