"""Label maps: read back by highdicom, frame for frame, malignant before benign."""

from __future__ import annotations

from io import BytesIO

import highdicom
import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from dicom_io import seg, write
from dicom_io.findings import ImageFindings, Label, Segment
from dicom_io.labelmap import build_labelmap
from tests.support.sources import make_run, mammogram, random_findings, source, tomosynthesis

RUN = make_run()
BOTH: dict[Label, list[int]] = {"malignant": [4, 1, 2], "benign": [0, 2]}


def read_back(dataset: Dataset) -> highdicom.seg.Segmentation:
    return highdicom.seg.segread(BytesIO(write.to_bytes(dataset)))


def expected(findings: ImageFindings) -> NDArray[np.uint8]:
    """Segment numbers (frames, rows, columns); the later label wins."""
    ref = findings.source
    numbers = np.zeros((ref.frame_count, *ref.shape), dtype=np.uint8)
    ranked = sorted(findings.segments, key=lambda segment: segment.label)
    for number, segment in enumerate(ranked, start=1):
        for frame, mask in segment.frames.items():
            numbers[frame][mask] = number
    return numbers


@pytest.mark.parametrize("jpeg2000", [False, True])
@pytest.mark.parametrize("positions", [None, [3, 0, 5, 1, 4, 2], [1.5] * 6])
def test_every_pixel_holds_its_segment_on_its_own_source_frame(
    positions: list[float] | None, jpeg2000: bool
) -> None:
    findings = random_findings(source(tomosynthesis(positions=positions)), BOTH)
    dataset = build_labelmap(findings, RUN, jpeg2000=jpeg2000)
    assert dataset is not None
    assert dataset.NumberOfFrames == 4
    stored = read_back(dataset).get_pixels_by_source_frame(
        findings.source.sop_instance_uid,
        list(range(1, 7)),
        assert_missing_frames_are_empty=True,
        combine_segments=True,
    )
    numbers = expected(findings)
    assert set(np.unique(numbers)) == {0, 1, 2}
    assert np.array_equal(stored, numbers)


def test_a_projection_image_has_a_label_map_too() -> None:
    findings = random_findings(source(mammogram()), {"malignant": [0]})
    dataset = build_labelmap(findings, RUN)
    assert dataset is not None
    stored = read_back(dataset).get_pixels_by_source_instance(
        [findings.source.sop_instance_uid], combine_segments=True
    )
    assert np.array_equal(stored, expected(findings))


def test_segments_are_those_of_the_binary_segmentation() -> None:
    findings = random_findings(source(tomosynthesis()), BOTH)
    labelmap, binary = build_labelmap(findings, RUN), seg.build_seg(findings, RUN)
    assert labelmap is not None
    assert binary is not None
    assert labelmap.SegmentSequence == binary.SegmentSequence
    assert (labelmap.SegmentationType, labelmap.SegmentsOverlap) == ("LABELMAP", "NO")
    assert labelmap.SOPInstanceUID != binary.SOPInstanceUID
    assert labelmap.SeriesInstanceUID != binary.SeriesInstanceUID
    assert "not for clinical use" in labelmap.SeriesDescription
    assert "ab" * 32 in labelmap.ContributingEquipmentSequence[-1].ContributionDescription


def test_nothing_found_gives_none_and_the_same_run_the_same_bytes() -> None:
    ref = source(tomosynthesis())
    empty = Segment("benign", {0: np.zeros(ref.shape, dtype=bool)}, 0.0)
    scores: dict[Label, float] = {"benign": 0.1, "malignant": 0.1}
    assert build_labelmap(ImageFindings(ref, scores, (empty,)), RUN) is None
    findings = random_findings(ref, BOTH)
    first, again = (build_labelmap(findings, RUN) for _ in range(2))
    assert first is not None
    assert again is not None
    assert write.to_bytes(first) == write.to_bytes(again)
