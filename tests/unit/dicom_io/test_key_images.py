"""Key images as viewers get them: the picture, its banner, what it is a picture of."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import Dataset

from dicom_io import key_images, write
from dicom_io.errors import InvalidFindings
from dicom_io.findings import ImageFindings, Label, Region, RunContext, Segment, SourceRef
from dicom_io.overlay import key_slice_png, slice_title
from dicom_io.result_codes import STYLES, caveat_of
from tests.support.sources import as_read, make_run, mammogram, source, tomosynthesis

RUN = make_run(trained=False)
SCORES: dict[Label, float] = {"benign": 0.1, "malignant": 0.8}


def large(frames: int = 6) -> SourceRef:
    header = tomosynthesis(frames=frames)
    header.Rows, header.Columns = 400, 601
    return source(header)


def grey(ref: SourceRef) -> NDArray[np.uint16]:
    return np.full(ref.shape, 500, dtype=np.uint16)


def marked(ref: SourceRef) -> ImageFindings:
    """A square of malignant suspicion on frame index 2."""
    mask = np.zeros(ref.shape, dtype=bool)
    mask[90:111, 140:161] = True
    region = Region("malignant", 2, 2, 2, 100.0, 150.0, (90, 140, 111, 161), 0.8)
    return ImageFindings(ref, SCORES, (Segment("malignant", {2: mask}, 0.8),), (region,))


def build(findings: ImageFindings, frame: int, run: RunContext = RUN) -> Dataset:
    image = key_images.build_key_image(
        findings, frame, grey(findings.source), run, window=(500, 1000)
    )
    return dcmread(BytesIO(write.to_bytes(image)))


def test_the_picture_is_that_of_the_overlay_banner_and_caveat_included() -> None:
    findings = marked(large())
    image = build(findings, 2)
    expected = key_slice_png(
        grey(findings.source),
        {"malignant": findings.segments[0].frames[2]},
        findings.regions,
        slice_title(findings.source, 2),
        caveat=caveat_of(RUN.algorithm),
        window=(500, 1000),
    )
    assert np.array_equal(image.pixel_array, np.asarray(Image.open(BytesIO(expected))))
    assert (image.pixel_array[400:] == (255, 214, 90)).all(axis=2).any()
    outline = np.argwhere((image.pixel_array[:400] == STYLES["malignant"].rgb).all(axis=2))
    # The score is written above the box, in the same colour; below and beside it there is the outline alone.
    assert (outline.max(axis=0)[0], outline.min(axis=0)[1]) == (110, 140)


def test_marks_are_drawn_on_their_frame_alone() -> None:
    quiet = build(marked(large()), 3).pixel_array
    assert not (quiet[:400] == STYLES["malignant"].rgb).all(axis=2).any()


def test_it_names_its_source_frame_and_is_no_mammogram() -> None:
    findings = marked(large())
    image = build(findings, 2)
    (reference,) = image.SourceImageSequence
    assert reference.ReferencedSOPInstanceUID == findings.source.sop_instance_uid
    assert reference.ReferencedFrameNumber == 3
    assert (image.Modality, image.ConversionType, image.BurnedInAnnotation) == ("OT", "WSD", "NO")
    assert (image.SamplesPerPixel, image.PhotometricInterpretation) == (3, "RGB")
    assert image.Laterality == "R"
    assert image.StudyInstanceUID == findings.source.header.StudyInstanceUID
    assert image.SeriesInstanceUID != findings.source.header.SeriesInstanceUID


def test_a_projection_image_is_named_without_a_frame_and_without_marks_too() -> None:
    ref = source(mammogram(), laterality=None, view=None)
    image = build(ImageFindings(ref, SCORES), 0)
    assert "ReferencedFrameNumber" not in image.SourceImageSequence[0]
    assert not image.Laterality


def test_notices_and_weights_are_in_the_header_too() -> None:
    for run, untrained in ((RUN, True), (make_run(), False)):
        image = build(marked(large()), 2, run)
        assert "not for clinical use" in image.SeriesDescription
        assert "not for clinical use" in image.ImageComments
        assert ("weights are untrained" in image.ImageComments) is untrained
        assert "ab" * 32 in image.DerivationDescription
        assert "ab" * 32 in image.ContributingEquipmentSequence[-1].ContributionDescription


def test_loss_of_the_source_is_passed_on() -> None:
    header = tomosynthesis()
    header.LossyImageCompression = "01"
    header.LossyImageCompressionRatio = 12.5
    ref = SourceRef(as_read(header), 6, "R", "MLO")
    image = build(ImageFindings(ref, SCORES), 0)
    assert (image.LossyImageCompression, image.LossyImageCompressionRatio) == ("01", 12.5)
    assert build(ImageFindings(source(tomosynthesis()), SCORES), 0).LossyImageCompression == "00"


def test_uids_follow_from_run_and_frame() -> None:
    findings = marked(large())
    first, again, other = (build(findings, frame) for frame in (2, 2, 3))
    assert first == again
    assert other.SOPInstanceUID != first.SOPInstanceUID
    assert other.SeriesInstanceUID == first.SeriesInstanceUID
    later = build(findings, 2, make_run(run_id="7c2a1f64-55d4-4a06-8a51-0a4bc2a9d2f1"))
    assert later.SOPInstanceUID != first.SOPInstanceUID
    ref = key_images.reference(first, findings.source, 2)
    assert (ref.sop_instance_uid, ref.frame) == (first.SOPInstanceUID, 2)


def test_what_does_not_fit_is_refused_with_the_value_seen() -> None:
    findings = marked(large())
    with pytest.raises(InvalidFindings, match="index 6"):
        key_images.build_key_image(findings, 6, grey(findings.source), RUN)
    with pytest.raises(InvalidFindings, match=r"\(400, 600\)"):
        key_images.build_key_image(findings, 2, grey(findings.source)[:, 1:], RUN)
    mask = np.zeros((3, 3), dtype=bool)
    wrong = replace(findings, segments=(Segment("benign", {2: mask}, 0.1),))
    with pytest.raises(InvalidFindings, match="mask"):
        key_images.build_key_image(wrong, 2, grey(findings.source), RUN)
