"""Key Object Selection (PS3.3 A.35.4, PS3.16 TID 2010): where to look first, for viewers that know key images.

It lists the key frames of the regions, the pictures made of them and the segmentations, under the title "Of Interest".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from highdicom import sr
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code
from pydicom.uid import KeyObjectSelectionDocumentStorage

from dicom_io import cad_codes as cad
from dicom_io.findings import (
    DocumentRef,
    ImageFindings,
    KeyImageRef,
    RunContext,
    SegmentationRef,
)
from dicom_io.modules import contributing_equipment, start_object
from dicom_io.sr_content import observer, result_sentence, statements
from dicom_io.sr_document import (
    add_document_series,
    add_evidence,
    add_predecessor,
    check_study,
    image_references,
    segmentation_references,
)
from dicom_io.sr_groups import check_frames
from dicom_io.uids import derive_uid

_SERIES_NUMBER = 9004
_OF_INTEREST = Code("113000", "DCM", "Of Interest")
_DESCRIPTION = Code("113012", "DCM", "Key Object Description")


def build_key_objects(
    study: Dataset,
    findings: Sequence[ImageFindings],
    key_images: Iterable[KeyImageRef],
    segmentations: Iterable[SegmentationRef],
    run: RunContext,
    *,
    predecessor: DocumentRef | None = None,
) -> Dataset | None:
    """The selection of one run over one study; None where no region was marked, since then nothing is of interest.

    Args:
        study: header of any instance of the study; patient and study attributes are copied from it.
        findings: every image that was read.
        key_images: `key_images.reference` of the pictures written; those of images without a region are left out.
        segmentations: `seg.reference` of the segmentations written for `findings`.
        run: the run; the same run gives the same bytes.
        predecessor: the selection of an earlier run that this one replaces.

    Raises InvalidFindings where an image belongs to another study or a region lies on a frame that is not there.
    """
    check_study(study, findings)
    marked = [image for image in findings if image.regions]
    if not marked:
        return None
    for image in marked:
        for region in image.regions:
            check_frames(region, image.source)
    sources = {image.source.sop_instance_uid for image in marked}
    pictures = [p for p in key_images if p.source_sop_instance_uid in sources]
    segments = [s for s in segmentations if s.source_sop_instance_uid in sources]
    selection = start_object(
        study,
        run,
        sop_class_uid=KeyObjectSelectionDocumentStorage,
        sop_instance_uid=derive_uid(run.run_id, "key-objects"),
        series_instance_uid=derive_uid(run.run_id, "key-objects-series"),
    )
    selection.ContributingEquipmentSequence = contributing_equipment(
        [image.source.header for image in marked], run
    )
    add_document_series(selection, "KO", "AI key objects", _SERIES_NUMBER, run)
    add_predecessor(selection, predecessor)
    shown = [(p.series_instance_uid, p.sop_class_uid, p.sop_instance_uid) for p in pictures]
    add_evidence(selection, [*image_references(marked), *shown, *segmentation_references(segments)])
    words = [
        *statements(run),
        result_sentence(findings, []).partition(" Inputs")[0],
        *(
            f"Model {one.algorithm.name} {one.algorithm.version}, weights sha256 "
            f"{one.algorithm.weights_sha256}, operating point {one.operating_point:g}."
            for one in run.readers
        ),
    ]
    root = sr.ContainerContentItem(_OF_INTEREST, template_id="2010")
    children = [
        *observer(run),
        cad.text(_DESCRIPTION, "\r\n".join(words), cad.CONTAINS),
        *_key_frames(marked),
        *(cad.image(p.sop_class_uid, p.sop_instance_uid, None, cad.CONTAINS) for p in pictures),
        *(cad.image(s.sop_class_uid, s.sop_instance_uid, None, cad.CONTAINS) for s in segments),
    ]
    selection.update(cad.with_children(root, children))
    return selection


def _key_frames(marked: Sequence[ImageFindings]) -> Iterator[Dataset]:
    """An item for each frame that is the key frame of a region, those of higher scores first."""
    for image in marked:
        source = image.source
        ranked = sorted(image.regions, key=lambda region: -region.score)
        for frame in dict.fromkeys(region.key_frame for region in ranked):
            yield cad.image(*source.frame_reference(frame), cad.CONTAINS)
