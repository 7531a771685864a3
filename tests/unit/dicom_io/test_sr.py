"""The report: what it must say, read back through highdicom and pydicom."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO

import highdicom
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import DigitalMammographyXRayImageStorageForProcessing

from dicom_io import seg, write
from dicom_io.errors import InvalidFindings
from dicom_io.findings import (
    DocumentRef,
    Excluded,
    ImageFindings,
    Region,
    RunContext,
    SegmentationRef,
    SourceRef,
)
from dicom_io.sr import build_sr
from tests.support.sources import make_run, mammogram, random_findings, source, tomosynthesis

RUN = make_run()
RAW = Excluded(
    "1.2.3.4", DigitalMammographyXRayImageStorageForProcessing, "Raw images are not analysed."
)


def study() -> tuple[list[ImageFindings], list[SegmentationRef]]:
    """Four images: one with a segmentation, one with a region but none, two without a region."""
    marked = random_findings(
        source(tomosynthesis(1), laterality="R", view="MLO"), {"malignant": [2, 3, 4]}
    )
    boxed = random_findings(source(tomosynthesis(2), laterality="R", view="CC"), {"benign": [0]})
    boxed = replace(boxed, segments=())
    negatives = [
        ImageFindings(
            source(tomosynthesis(n), laterality="L", view=v), {"benign": 0.125, "malignant": 0.0625}
        )
        for n, v in ((3, "MLO"), (4, "CC"))
    ]
    dataset = seg.build_seg(marked, RUN)
    assert dataset is not None
    return [marked, boxed, *negatives], [seg.reference(dataset, marked.source)]


def report(
    run: RunContext = RUN,
    excluded: tuple[Excluded, ...] = (),
    predecessor: DocumentRef | None = None,
) -> Dataset:
    images, segmentations = study()
    header = images[0].source.header
    return build_sr(header, images, excluded, segmentations, run, predecessor=predecessor)


def content(dataset: Dataset) -> highdicom.sr.MeasurementReport:
    return highdicom.sr.srread(BytesIO(write.to_bytes(dataset))).content


def items(node: Dataset) -> Iterator[Dataset]:
    for child in node.get("ContentSequence", []):
        yield child
        yield from items(child)


def texts(node: Dataset, name: str) -> list[str]:
    """Values of all TEXT items below a node with this name."""
    return [
        str(item.TextValue)
        for item in items(node)
        if item.ValueType == "TEXT" and item.ConceptNameCodeSequence[0].CodeMeaning == name
    ]


def numbers(node: Dataset) -> dict[str, float]:
    return {
        item.ConceptNameCodeSequence[0].CodeValue: float(item.MeasuredValueSequence[0].NumericValue)
        for item in items(node)
        if item.ValueType == "NUM"
    }


def group(dataset: Dataset, title: str) -> Dataset:
    """The measurement group whose tracking identifier begins so."""
    found = [
        item
        for item in items(dataset)
        if item.ValueType == "CONTAINER"
        and any(text.startswith(title) for text in texts_of_children(item, "Tracking Identifier"))
    ]
    assert len(found) == 1
    return found[0]


def texts_of_children(node: Dataset, name: str) -> list[str]:
    return [
        str(item.TextValue)
        for item in node.get("ContentSequence", [])
        if item.ValueType == "TEXT" and item.ConceptNameCodeSequence[0].CodeMeaning == name
    ]


def codes(node: Dataset, name: str) -> list[str]:
    return [
        str(item.ConceptCodeSequence[0].CodeMeaning)
        for item in items(node)
        if item.ValueType == "CODE" and item.ConceptNameCodeSequence[0].CodeMeaning == name
    ]


def test_it_is_an_unverified_measurement_report() -> None:
    dataset = report()
    assert dataset.VerificationFlag == "UNVERIFIED"
    assert dataset.PreliminaryFlag == "PRELIMINARY"
    assert dataset.Modality == "SR"
    assert dataset.ContentTemplateSequence[0].TemplateIdentifier == "1500"
    assert isinstance(content(dataset), highdicom.sr.MeasurementReport)


def test_every_image_has_both_scores_side_and_view_negatives_included() -> None:
    dataset = report()
    for title, view, side, scores, result in (
        (
            "R MLO, whole",
            "medio-lateral oblique",
            "Right",
            (0.25, 0.75),
            "Regions marked: 1 malignant.",
        ),
        ("R CC, whole", "cranio-caudal", "Right", (0.25, 0.75), "Regions marked: 1 benign."),
        (
            "L MLO, whole",
            "medio-lateral oblique",
            "Left",
            (0.125, 0.0625),
            "No region above the operating point 0.5.",
        ),
        (
            "L CC, whole",
            "cranio-caudal",
            "Left",
            (0.125, 0.0625),
            "No region above the operating point 0.5.",
        ),
    ):
        node = group(dataset, title)
        measured = numbers(node)
        assert (measured["image-benign"], measured["image-malignant"]) == scores
        assert codes(node, "Image View") == [view]
        assert codes(node, "Laterality") == [side]
        assert texts(node, "Result") == [result]


def test_a_region_with_a_segmentation_refers_to_its_segment_and_frames() -> None:
    images, segmentations = study()
    dataset = report()
    (found,) = content(dataset).get_volumetric_roi_measurement_groups()
    segment = found.referenced_segment
    assert segment.referenced_sop_instance_uid == segmentations[0].sop_instance_uid
    assert segment.referenced_segment_numbers == [segmentations[0].segment_numbers["malignant"]]
    (image,) = segment.source_images_for_segmentation
    assert image.referenced_sop_instance_uid == images[0].source.sop_instance_uid
    assert image.referenced_frame_numbers == [3, 4, 5]
    node = group(dataset, "R MLO, region 1")
    measured = numbers(node)
    assert measured["region-score"] == 0.75
    assert (measured["key-frame"], measured["first-frame"], measured["last-frame"]) == (3, 3, 5)
    assert (measured["centre-row"], measured["centre-column"]) == (4.5, 3)
    assert codes(node, "Class scored by the model, not a diagnosis") == ["Malignant"]


def test_a_region_without_a_segmentation_has_its_box_on_the_key_frame() -> None:
    images, _ = study()
    (found,) = content(report()).get_planar_roi_measurement_groups()
    assert found.roi.value.tolist() == [[1, 2], [6, 2], [6, 8], [1, 8], [1, 2]]
    (image,) = found.roi.ContentSequence
    reference = image.ReferencedSOPSequence[0]
    assert reference.ReferencedSOPInstanceUID == images[1].source.sop_instance_uid
    assert reference.ReferencedFrameNumber == 1


def test_algorithm_parameters_weights_and_operating_point_are_there() -> None:
    node = group(report(), "Analysis of the study")
    assert texts(node, "Algorithm Name") == ["3D-GMIC"]
    assert texts(node, "Algorithm Version") == ["0.1.0"]
    parameters = texts(node, "Algorithm Parameters")
    assert "weights_sha256 = " + "ab" * 32 in parameters
    assert "num_patches = 12" in parameters
    assert numbers(node)["operating-point"] == 0.5


def test_the_library_holds_every_input_read_with_side_and_view() -> None:
    images, _ = study()
    library = next(
        item
        for item in report().ContentSequence
        if item.ConceptNameCodeSequence[0].CodeMeaning == "Image Library"
    )
    entries = [item for item in items(library) if item.ValueType == "IMAGE"]
    assert [e.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for e in entries] == [
        image.source.sop_instance_uid for image in images
    ]
    assert [codes(e, "Image Laterality") + codes(e, "Image View") for e in entries] == [
        ["Right", "medio-lateral oblique"],
        ["Right", "cranio-caudal"],
        ["Left", "medio-lateral oblique"],
        ["Left", "cranio-caudal"],
    ]


def test_inputs_left_out_are_named_with_the_reason() -> None:
    dataset = report(excluded=(RAW,))
    (line,) = texts(dataset, "Input left out, and why")
    assert "For Processing" in line
    assert line.endswith("1.2.3.4: Raw images are not analysed.")
    summaries = codes(dataset, "CAD Processing and Findings Summary")
    assert summaries[0] == "Not all algorithms succeeded; with findings"


def test_a_study_without_a_readable_image_has_a_report_that_says_so() -> None:
    dataset = build_sr(source(tomosynthesis()).header, [], [RAW], [], RUN)
    assert codes(dataset, "CAD Processing and Findings Summary") == [
        "No algorithms succeeded; without findings"
    ]
    assert texts(dataset, "Result") == [
        "Images analysed: 0. Regions marked: 0. Inputs left out: 1."
    ]
    assert "CurrentRequestedProcedureEvidenceSequence" not in dataset


def test_evidence_lists_exactly_what_the_content_refers_to() -> None:
    dataset = report()
    referenced = {
        str(reference.ReferencedSOPInstanceUID)
        for item in items(dataset)
        if "ReferencedSOPSequence" in item
        for reference in item.ReferencedSOPSequence
    }
    (study_item,) = dataset.CurrentRequestedProcedureEvidenceSequence
    listed = [
        str(instance.ReferencedSOPInstanceUID)
        for series in study_item.ReferencedSeriesSequence
        for instance in series.ReferencedSOPSequence
    ]
    assert set(listed) == referenced
    assert len(listed) == len(referenced) == 5
    assert study_item.StudyInstanceUID == dataset.StudyInstanceUID


@pytest.mark.parametrize("trained", [True, False])
def test_notices_are_there_and_untrained_weights_are_named(trained: bool) -> None:
    dataset = report(make_run(trained=trained))
    statements = texts(dataset, "Statement")
    assert "Research use only, not for clinical use." in statements
    assert any("no probability of malignancy" in statement for statement in statements)
    assert any("weights are untrained" in statement for statement in statements) is not trained
    assert "research, not for clinical use" in dataset.SeriesDescription
    assert ("untrained weights" in dataset.SeriesDescription) is not trained


def test_a_caveat_of_the_weights_is_a_statement_and_takes_no_other_one_away() -> None:
    run = make_run()
    said = "The weights never saw a patient."
    plain = texts(report(run), "Statement")
    warned = texts(report(replace(run, algorithm=replace(run.algorithm, caveat=said))), "Statement")
    assert said not in plain
    assert sorted(warned) == sorted([*plain, said])


def test_a_later_report_names_the_one_it_replaces() -> None:
    earlier = report()
    predecessor = DocumentRef(
        earlier.StudyInstanceUID,
        earlier.SeriesInstanceUID,
        earlier.SOPClassUID,
        earlier.SOPInstanceUID,
    )
    later = report(make_run(run_id="7c2a1f64-55d4-4a06-8a51-0a4bc2a9d2f1"), predecessor=predecessor)
    assert "PredecessorDocumentsSequence" not in earlier
    (item,) = later.PredecessorDocumentsSequence
    (series,) = item.ReferencedSeriesSequence
    assert series.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == earlier.SOPInstanceUID
    assert later.SOPInstanceUID != earlier.SOPInstanceUID


def test_the_same_run_gives_the_same_bytes() -> None:
    assert write.to_bytes(report(excluded=(RAW,))) == write.to_bytes(report(excluded=(RAW,)))


def test_devices_are_named_once_each() -> None:
    dataset = report()
    purposes = [
        item.PurposeOfReferenceCodeSequence[0].CodeMeaning
        for item in dataset.ContributingEquipmentSequence
    ]
    assert purposes == ["Acquisition Equipment", "Processing Equipment"]
    assert "ab" * 32 in dataset.ContributingEquipmentSequence[-1].ContributionDescription
    assert dataset.Manufacturer == "Tomonode project"


def test_notes_of_an_image_are_comments() -> None:
    images, segmentations = study()
    noted = replace(images[3], notes=("The laterality attribute was corrected.",))
    dataset = build_sr(images[0].source.header, [*images[:3], noted], [], segmentations, RUN)
    assert texts(group(dataset, "L CC, whole"), "Comment") == [
        "The laterality attribute was corrected."
    ]


def test_a_projection_image_is_referred_to_without_frame_numbers() -> None:
    findings = random_findings(source(mammogram(), laterality=None, view=None), {"malignant": [0]})
    dataset = build_sr(findings.source.header, [findings], [], [], RUN)
    assert not any(
        "ReferencedFrameNumber" in reference
        for item in items(dataset)
        for reference in item.get("ReferencedSOPSequence", [])
    )
    assert "key-frame" not in numbers(dataset)
    assert "Breast image, whole image" in texts(dataset, "Tracking Identifier")


@pytest.mark.parametrize("score", [float("nan"), float("inf"), -0.01, 1.01])
def test_a_score_that_is_none_is_refused(score: float) -> None:
    ref = source(tomosynthesis())
    bad = ImageFindings(ref, {"benign": 0.5, "malignant": score})
    with pytest.raises(InvalidFindings, match="malignant"):
        build_sr(ref.header, [bad], [], [], RUN)


def test_regions_and_images_that_do_not_fit_are_refused() -> None:
    ref = source(tomosynthesis())
    region = Region("benign", 4, 6, 5, 1.0, 1.0, (0, 0, 2, 2), 0.5)
    scores = {"benign": 0.5, "malignant": 0.5}
    with pytest.raises(InvalidFindings, match="4 to 6"):
        build_sr(ref.header, [ImageFindings(ref, scores, regions=(region,))], [], [], RUN)
    other = tomosynthesis()
    other.StudyInstanceUID = "1.2.3"
    with pytest.raises(InvalidFindings, match="another study"):
        build_sr(ref.header, [ImageFindings(source(other), scores)], [], [], RUN)


def test_a_name_in_another_script_survives() -> None:
    header = tomosynthesis()
    header.SpecificCharacterSet = ["", "ISO 2022 IR 87"]
    header.PatientName = "Yamada^Tarou=山田^太郎=やまだ^たろう"
    ref: SourceRef = source(header)
    dataset = build_sr(
        ref.header, [ImageFindings(ref, {"benign": 0.1, "malignant": 0.1})], [], [], RUN
    )
    stored = dcmread(BytesIO(write.to_bytes(dataset)))
    assert stored.PatientName == "Yamada^Tarou=山田^太郎=やまだ^たろう"
