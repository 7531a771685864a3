"""The selection of key objects: exactly what was marked, and none where nothing was."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from dicom_io import key_images, seg, write
from dicom_io.errors import InvalidFindings
from dicom_io.findings import (
    DocumentRef,
    ImageFindings,
    KeyImageRef,
    Label,
    Region,
    RunContext,
    SegmentationRef,
)
from dicom_io.key_objects import build_key_objects
from tests.support.sources import make_run, mammogram, random_findings, source, tomosynthesis

RUN = make_run()
SCORES: dict[Label, float] = {"benign": 0.1, "malignant": 0.2}


def study() -> tuple[list[ImageFindings], list[KeyImageRef], list[SegmentationRef]]:
    """Two images with regions and one without; a picture of each, and their segmentations."""
    images = [
        random_findings(source(tomosynthesis(1)), {"benign": [4, 5], "malignant": [1, 2]}),
        random_findings(source(mammogram(2)), {"malignant": [0]}),
        ImageFindings(source(tomosynthesis(3)), SCORES),
    ]
    frame_HW = np.full(images[0].source.shape, 7, dtype=np.uint16)
    pictures = []
    for image, frame in zip(images, (4, 0, 3), strict=True):
        picture = key_images.build_key_image(image, frame, frame_HW, RUN)
        pictures.append(key_images.reference(picture, image.source, frame))
    written = [(seg.build_seg(image, RUN), image.source) for image in images]
    return images, pictures, [seg.reference(s, ref) for s, ref in written if s is not None]


def build(run: RunContext = RUN, predecessor: DocumentRef | None = None) -> Dataset:
    images, pictures, segmentations = study()
    selection = build_key_objects(
        images[0].source.header, images, pictures, segmentations, run, predecessor=predecessor
    )
    assert selection is not None
    return dcmread(BytesIO(write.to_bytes(selection)))


def selected(selection: Dataset) -> list[tuple[str, int | None]]:
    return [
        (sop.ReferencedSOPInstanceUID, sop.get("ReferencedFrameNumber"))
        for item in selection.ContentSequence
        if item.ValueType == "IMAGE"
        for sop in item.ReferencedSOPSequence
    ]


def test_it_selects_key_frames_pictures_and_segmentations_of_marked_images() -> None:
    images, pictures, segmentations = study()
    first, second, _ = (image.source.sop_instance_uid for image in images)
    assert selected(build()) == [
        (first, 5),
        (first, 2),
        (second, None),
        *((p.sop_instance_uid, None) for p in pictures[:2]),
        *((s.sop_instance_uid, None) for s in segmentations),
    ]


def test_evidence_lists_exactly_what_is_selected() -> None:
    selection = build()
    (study_item,) = selection.CurrentRequestedProcedureEvidenceSequence
    listed = [
        str(sop.ReferencedSOPInstanceUID)
        for series in study_item.ReferencedSeriesSequence
        for sop in series.ReferencedSOPSequence
    ]
    assert sorted(listed) == sorted({uid for uid, _ in selected(selection)})


def test_title_notices_weights_and_device() -> None:
    selection = build(make_run(trained=False))
    assert selection.ConceptNameCodeSequence[0].CodeMeaning == "Of Interest"
    assert selection.ContentTemplateSequence[0].TemplateIdentifier == "2010"
    assert selection.Modality == "KO"
    assert "research, not for clinical use" in selection.SeriesDescription
    (words,) = (
        str(item.TextValue)
        for item in selection.ContentSequence
        if item.ValueType == "TEXT"
        and item.ConceptNameCodeSequence[0].CodeMeaning == "Key Object Description"
    )
    assert words.startswith("Research use only, not for clinical use.")
    assert "weights are untrained" in words
    assert "Images analysed: 3. Regions marked: 3." in words
    assert "ab" * 32 in words
    assert "ab" * 32 in selection.ContributingEquipmentSequence[-1].ContributionDescription


def test_a_study_without_a_region_has_none() -> None:
    images, pictures, _ = study()
    quiet = images[2]
    assert build_key_objects(quiet.source.header, [quiet], pictures, [], RUN) is None
    assert build_key_objects(quiet.source.header, [], [], [], RUN) is None


def test_a_later_selection_names_the_one_it_replaces() -> None:
    earlier = build()
    predecessor = DocumentRef(
        earlier.StudyInstanceUID,
        earlier.SeriesInstanceUID,
        earlier.SOPClassUID,
        earlier.SOPInstanceUID,
    )
    later = build(make_run(run_id="7c2a1f64-55d4-4a06-8a51-0a4bc2a9d2f1"), predecessor)
    assert "PredecessorDocumentsSequence" not in earlier
    (series,) = later.PredecessorDocumentsSequence[0].ReferencedSeriesSequence
    assert series.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == earlier.SOPInstanceUID
    assert later.SOPInstanceUID != earlier.SOPInstanceUID
    assert build() == earlier


def test_what_does_not_fit_is_refused() -> None:
    ref = source(tomosynthesis())
    region = Region("benign", 4, 6, 5, 1.0, 1.0, (0, 0, 2, 2), 0.5)
    with pytest.raises(InvalidFindings, match="4 to 6"):
        build_key_objects(ref.header, [ImageFindings(ref, SCORES, regions=(region,))], [], [], RUN)
