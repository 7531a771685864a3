"""The CAD report: what it says, that every mark lies on the frame it was given for, and what it never says."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from io import BytesIO

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import DigitalMammographyXRayImageStorageForProcessing

from dicom_io import write
from dicom_io.cad_sr import build_cad_sr
from dicom_io.errors import InvalidFindings
from dicom_io.findings import DocumentRef, Excluded, ImageFindings, Label, Region, RunContext
from tests.support.sources import make_run, mammogram, random_findings, source, tomosynthesis

RUN = make_run()
LATER = make_run(run_id="7c2a1f64-55d4-4a06-8a51-0a4bc2a9d2f1")
SCORES: dict[Label, float] = {"benign": 0.125, "malignant": 0.0625}
RAW = Excluded(
    "1.2.3.4", DigitalMammographyXRayImageStorageForProcessing, "Raw images are not analysed."
)
PLACED = replace(RAW, series_instance_uid="1.2.3.5")


def study() -> list[ImageFindings]:
    """Tomosynthesis with regions on three key frames, a mammogram with one, and one image without."""
    marked = random_findings(source(tomosynthesis(1)), {"benign": [4, 5], "malignant": [1, 2]})
    other = Region("malignant", 0, 3, 3, 7.25, 2.5, (6, 0, 9, 4), 0.625)
    return [
        replace(marked, regions=(*marked.regions, other)),
        random_findings(source(mammogram(2), view="CC"), {"malignant": [0]}),
        ImageFindings(source(tomosynthesis(3), laterality="L", view="CC"), SCORES),
    ]


def build(
    findings: Sequence[ImageFindings] | None = None,
    excluded: Sequence[Excluded] = (),
    run: RunContext = RUN,
    predecessor: DocumentRef | None = None,
) -> Dataset:
    """The report after a trip through a file."""
    images = study() if findings is None else findings
    header = images[0].source.header
    report = build_cad_sr(header, images, excluded, run, predecessor=predecessor)
    assert report is not None
    return dcmread(BytesIO(write.to_bytes(report)))


def items(node: Dataset) -> Iterator[Dataset]:
    for child in node.get("ContentSequence", []):
        yield child
        yield from items(child)


def named(node: Dataset, meaning: str) -> list[Dataset]:
    return [
        item
        for item in items(node)
        if "ConceptNameCodeSequence" in item
        and item.ConceptNameCodeSequence[0].CodeMeaning == meaning
    ]


def at(report: Dataset, identifier: Sequence[int]) -> Dataset:
    """The content item at a place, counted from the root, which is 1."""
    node = report
    assert identifier[0] == 1
    for position in identifier[1:]:
        node = node.ContentSequence[position - 1]
    return node


def target(report: Dataset, reference: Dataset) -> tuple[str, int | None]:
    """Image and frame number that a relationship by reference leads to."""
    image = at(report, reference.ReferencedContentItemIdentifier)
    assert image.ValueType == "IMAGE"
    (sop,) = image.ReferencedSOPSequence
    return sop.ReferencedSOPInstanceUID, sop.get("ReferencedFrameNumber")


def value(node: Dataset, meaning: str) -> str:
    (item,) = named(node, meaning)
    return str(item.ConceptCodeSequence[0].CodeMeaning)


def test_every_mark_lies_on_its_frame_in_stored_rows_and_columns() -> None:
    report, images = build(), study()
    expected = [(image.source, region) for image in images for region in image.regions]
    found = named(report, "Single Image Finding")
    assert len(found) == len(expected) == 4
    for item, (ref, region) in zip(found, expected, strict=True):
        (centre,), (outline,) = named(item, "Center"), named(item, "Outline")
        number = region.key_frame + 1 if ref.is_multi_frame else None
        for shape in (centre, outline):
            (reference,) = shape.ContentSequence
            assert target(report, reference) == (ref.sop_instance_uid, number)
        row0, col0, row1, col1 = region.box
        assert centre.GraphicData == [region.centre_col + 0.5, region.centre_row + 0.5]
        assert outline.GraphicType == "POLYLINE"
        assert outline.GraphicData == [col0, row0, col1, row0, col1, row1, col0, row1, col0, row0]


def test_the_library_gives_side_view_spacing_and_place_of_every_frame_marked() -> None:
    library = named(build(), "Image Library")[0]
    entries = [item for item in library.ContentSequence if item.ValueType == "IMAGE"]
    assert [e.ReferencedSOPSequence[0].get("ReferencedFrameNumber") for e in entries] == [
        *(None, 2, 4, 5),
        None,
        None,
    ]
    assert [value(e, "Image Laterality") for e in entries[3:]] == [
        "Right breast",
        "Right breast",
        "Left breast",
    ]
    assert [value(e, "Image View") for e in entries[3:5]] == [
        "medio-lateral oblique",
        "cranio-caudal",
    ]
    for entry, spacing in ((entries[3], (0.1, 0.2)), (entries[4], (0.1, 0.1))):
        for meaning, expected in zip(("Vertical", "Horizontal"), spacing, strict=True):
            (number,) = named(entry, f"{meaning} Pixel Spacing")
            assert number.MeasuredValueSequence[0].NumericValue == expected
    heights = [named(e, "Image Position (Patient) Z") for e in entries]
    assert [h[0].MeasuredValueSequence[0].NumericValue if h else None for h in heights] == [
        *(None, 1, 3, 4),
        None,
        None,
    ]


def test_scores_of_every_image_are_there_and_no_probability_is_claimed() -> None:
    report = build()
    scores = named(report, "Image score, malignant (model output)")
    assert [s.MeasuredValueSequence[0].NumericValue for s in scores] == [0.75, 0.75, 0.0625]
    assert [value(s, "Laterality") for s in scores] == [
        "Right breast",
        "Right breast",
        "Left breast",
    ]
    described = [str(named(s, "Calculation Description")[0].TextValue) for s in scores]
    for text, image in zip(described, study(), strict=True):
        assert image.source.sop_instance_uid in text
        assert "no probability of malignancy" in text
    assert named(report, "Certainty of Finding") == []
    assert named(report, "Probability of cancer") == []
    regions = named(report, "Region score (model output)")
    assert [s.MeasuredValueSequence[0].NumericValue for s in regions] == [0.75, 0.75, 0.625, 0.75]
    assert [value(f, "Rendering Intent")[:21] for f in named(report, "Single Image Finding")] == [
        "Presentation Optional"
    ] * 4


def test_an_image_without_a_region_is_a_successful_detection_without_an_impression() -> None:
    quiet = study()[2]
    report = build([quiet])
    assert value(report, "CAD Processing and Findings Summary").endswith("without findings")
    assert named(report, "Individual Impression/Recommendation") == []
    (performed,) = named(report, "Detection Performed")
    assert target(report, performed.ContentSequence[-1]) == (quiet.source.sop_instance_uid, None)
    assert value(report, "Summary of Detections") == "Succeeded"
    assert value(report, "Summary of Analyses") == "Not Attempted"
    (words,) = named(report, "Impression Description")
    assert "L CC: No region above the operating point 0.5." in words.TextValue


def test_a_study_without_a_readable_image_has_none() -> None:
    assert build_cad_sr(source(tomosynthesis()).header, [], [RAW], RUN) is None


def test_images_left_out_are_failed_detections_where_their_series_is_known() -> None:
    unplaced, placed = build(excluded=[RAW]), build(excluded=[PLACED])
    for report in (unplaced, placed):
        assert value(report, "CAD Processing and Findings Summary").startswith("Not all")
        (words,) = named(report, "Impression Description")
        assert "1.2.3.4: Raw images are not analysed." in words.TextValue
    assert value(unplaced, "Summary of Detections") == "Succeeded"
    assert value(placed, "Summary of Detections") == "Partially Succeeded"
    (failed,) = named(placed, "Failed Detections")
    (image,) = (item for item in items(failed) if item.ValueType == "IMAGE")
    assert image.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == "1.2.3.4"


def test_a_document_left_out_is_no_failed_detection() -> None:
    document = Excluded("1.2.3.6", "1.2.840.10008.5.1.4.1.1.88.34", "A document.", "1.2.3.7")
    assert named(build(excluded=[document]), "Failed Detections") == []


def test_evidence_lists_exactly_what_the_content_refers_to() -> None:
    report = build(excluded=[PLACED])
    referenced = {
        str(sop.ReferencedSOPInstanceUID)
        for item in items(report)
        for sop in item.get("ReferencedSOPSequence", [])
    }
    (study_item,) = report.CurrentRequestedProcedureEvidenceSequence
    listed = [
        str(sop.ReferencedSOPInstanceUID)
        for series in study_item.ReferencedSeriesSequence
        for sop in series.ReferencedSOPSequence
    ]
    assert sorted(listed) == sorted(referenced)
    assert len(listed) == 4


@pytest.mark.parametrize("trained", [True, False])
def test_algorithm_weights_and_notices_are_everywhere(trained: bool) -> None:
    report = build(run=make_run(trained=trained))
    for node in (*named(report, "Single Image Finding"), *named(report, "Detection Performed")):
        assert [str(n.TextValue) for n in named(node, "Algorithm Name")] == ["3D-GMIC"]
        parameters = [str(p.TextValue) for p in named(node, "Algorithm Parameters")]
        assert "weights_sha256 = " + "ab" * 32 in parameters
    for text in named(report, "Selected Region Description"):
        assert "not for clinical use" in text.TextValue
    (words,) = named(report, "Impression Description")
    assert words.TextValue.startswith("Research use only, not for clinical use.")
    assert ("weights are untrained" in words.TextValue) is not trained
    assert "research, not for clinical use" in report.SeriesDescription
    assert "ab" * 32 in report.ContributingEquipmentSequence[-1].ContributionDescription
    assert (report.VerificationFlag, report.PreliminaryFlag) == ("UNVERIFIED", "PRELIMINARY")


def test_a_later_report_names_the_one_it_replaces() -> None:
    earlier = build()
    predecessor = DocumentRef(
        earlier.StudyInstanceUID,
        earlier.SeriesInstanceUID,
        earlier.SOPClassUID,
        earlier.SOPInstanceUID,
    )
    later = build(run=LATER, predecessor=predecessor)
    assert "PredecessorDocumentsSequence" not in earlier
    (series,) = later.PredecessorDocumentsSequence[0].ReferencedSeriesSequence
    assert series.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == earlier.SOPInstanceUID
    assert later.SOPInstanceUID != earlier.SOPInstanceUID


def test_the_same_run_gives_the_same_bytes() -> None:
    header = study()[0].source.header
    first, again = (build_cad_sr(header, study(), [PLACED], RUN) for _ in range(2))
    assert first is not None
    assert again is not None
    assert write.to_bytes(first) == write.to_bytes(again)


def test_what_does_not_fit_is_refused_with_the_value_seen() -> None:
    ref = source(tomosynthesis())
    region = Region("benign", 4, 6, 5, 1.0, 1.0, (0, 0, 2, 2), 0.5)
    with pytest.raises(InvalidFindings, match="4 to 6"):
        build([ImageFindings(ref, SCORES, regions=(region,))])
    with pytest.raises(InvalidFindings, match=r"1\.5"):
        build([ImageFindings(ref, {"benign": 0.5, "malignant": 1.5})])
    other = tomosynthesis()
    other.StudyInstanceUID = "1.2.3"
    with pytest.raises(InvalidFindings, match="another study"):
        build([ImageFindings(ref, SCORES), ImageFindings(source(other), SCORES)])
