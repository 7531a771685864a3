"""Segmentations: an independent reader (highdicom) must find every pixel on the frame it was given for."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from io import BytesIO

import highdicom
import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import JPEG2000Lossless

from dicom_io import seg, write
from dicom_io.errors import InvalidFindings
from dicom_io.findings import ImageFindings, Label, Segment
from dicom_io.seg_frames import pack_frames
from tests.support.sources import (
    as_read,
    make_run,
    mammogram,
    random_findings,
    random_masks,
    source,
    tomosynthesis,
)

RUN = make_run()


def reverse_frames() -> Dataset:
    return tomosynthesis(positions=[5, 4, 3, 2, 1, 0])


def shuffled_frames() -> Dataset:
    return tomosynthesis(positions=[3, 0, 5, 1, 4, 2])


def one_position() -> Dataset:
    return tomosynthesis(positions=[1.5] * 6)


def no_frame_of_reference() -> Dataset:
    header = tomosynthesis()
    del header.FrameOfReferenceUID
    return header


def no_spacing() -> Dataset:
    header = tomosynthesis()
    del header.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing
    return header


def more_descriptions_than_frames() -> Dataset:
    header = tomosynthesis(frames=45)
    header.NumberOfFrames = 6
    return header


def fanned_frames() -> Dataset:
    header = tomosynthesis()
    for index, group in enumerate(header.PerFrameFunctionalGroupsSequence):
        item = Dataset()
        item.ImageOrientationPatient = [1, 0, 0, 0, np.cos(index / 9), np.sin(index / 9)]
        group.PlaneOrientationSequence = [item]
    return header


def no_functional_groups() -> Dataset:
    header = tomosynthesis()
    del header.PerFrameFunctionalGroupsSequence
    del header.SharedFunctionalGroupsSequence
    return header


def orientation_per_frame() -> Dataset:
    """As a real vendor writes it: plane orientation and spacing in every frame's item, none shared."""
    header = tomosynthesis()
    shared = header.SharedFunctionalGroupsSequence[0]
    for group in header.PerFrameFunctionalGroupsSequence:
        group.PlaneOrientationSequence = deepcopy(shared.PlaneOrientationSequence)
        group.PixelMeasuresSequence = deepcopy(shared.PixelMeasuresSequence)
    header.SharedFunctionalGroupsSequence = [Dataset()]
    return header


GOOD = [tomosynthesis, reverse_frames, shuffled_frames, orientation_per_frame]
BAD = [
    one_position,
    no_frame_of_reference,
    no_spacing,
    more_descriptions_than_frames,
    fanned_frames,
    no_functional_groups,
]
BOTH: dict[Label, list[int]] = {"malignant": [4, 1, 2], "benign": [0, 2]}


def read_back(dataset: Dataset) -> highdicom.seg.Segmentation:
    return highdicom.seg.segread(BytesIO(write.to_bytes(dataset)))


def stored_masks(dataset: Dataset, findings: ImageFindings) -> NDArray[np.bool_]:
    """(frames, rows, columns, segments) by source frame, as highdicom pairs them."""
    ref = findings.source
    reader = read_back(dataset)
    if not ref.is_multi_frame:
        return reader.get_pixels_by_source_instance([ref.sop_instance_uid]).astype(bool)
    return reader.get_pixels_by_source_frame(
        ref.sop_instance_uid,
        list(range(1, ref.frame_count + 1)),
        assert_missing_frames_are_empty=True,
    ).astype(bool)


def expected_masks(findings: ImageFindings, labels: list[Label]) -> NDArray[np.bool_]:
    ref = findings.source
    expected = np.zeros((ref.frame_count, *ref.shape, len(labels)), dtype=bool)
    for segment in findings.segments:
        for frame, mask in segment.frames.items():
            expected[frame, ..., labels.index(segment.label)] = mask
    return expected


@pytest.mark.parametrize("make", GOOD + BAD)
def test_every_pixel_lies_on_its_own_source_frame(make: Callable[[], Dataset]) -> None:
    findings = random_findings(source(make()), BOTH)
    dataset = seg.build_seg(findings, RUN)
    assert dataset is not None
    stored = stored_masks(dataset, findings)
    assert np.array_equal(stored, expected_masks(findings, ["benign", "malignant"]))


@pytest.mark.parametrize("make", [shuffled_frames, no_frame_of_reference])
def test_compressed_frames_hold_the_same_pixels(make: Callable[[], Dataset]) -> None:
    findings = random_findings(source(make()), BOTH)
    dataset = seg.build_seg(findings, RUN, jpeg2000=True)
    assert dataset is not None
    assert dataset.file_meta.TransferSyntaxUID == JPEG2000Lossless
    stored = stored_masks(dataset, findings)
    assert np.array_equal(stored, expected_masks(findings, ["benign", "malignant"]))
    native = seg.build_seg(findings, RUN)
    assert native is not None
    for packed in (dataset, native):
        packed.pop("PixelData")
    assert dataset == native


def test_a_projection_image_has_a_segmentation_too() -> None:
    findings = random_findings(source(mammogram()), {"malignant": [0]})
    dataset = seg.build_seg(findings, RUN)
    assert dataset is not None
    assert np.array_equal(stored_masks(dataset, findings), expected_masks(findings, ["malignant"]))
    assert "FrameOfReferenceUID" not in dataset
    assert list(dataset.PatientOrientation) == ["P", "L"]
    assert "PixelMeasuresSequence" not in dataset.SharedFunctionalGroupsSequence[0]


@pytest.mark.parametrize("make", GOOD)
def test_geometry_is_that_of_the_source_frame(make: Callable[[], Dataset]) -> None:
    header = make()
    dataset = seg.build_seg(random_findings(source(header), BOTH), RUN)
    assert dataset is not None
    assert dataset.FrameOfReferenceUID == header.FrameOfReferenceUID
    shared = dataset.SharedFunctionalGroupsSequence[0]
    assert shared.PixelMeasuresSequence[0].PixelSpacing == [0.1, 0.2]
    assert shared.PlaneOrientationSequence[0].ImageOrientationPatient == [1, 0, 0, 0, 1, 0]
    heights = {}
    for item in dataset.PerFrameFunctionalGroupsSequence:
        image = item.DerivationImageSequence[0].SourceImageSequence[0]
        given = header.PerFrameFunctionalGroupsSequence[image.ReferencedFrameNumber - 1]
        position = item.PlanePositionSequence[0].ImagePositionPatient
        assert position == given.PlanePositionSequence[0].ImagePositionPatient
        assert image.SpatialLocationsPreserved == "YES"
        heights[item.FrameContentSequence[0].DimensionIndexValues[1]] = position[2]
    ranked = [heights[rank] for rank in sorted(heights)]
    assert ranked == sorted(ranked)


@pytest.mark.parametrize("make", BAD)
def test_a_header_that_cannot_be_believed_gives_no_geometry_and_a_reason(
    make: Callable[[], Dataset],
) -> None:
    dataset = seg.build_seg(random_findings(source(make()), BOTH), RUN)
    assert dataset is not None
    assert "FrameOfReferenceUID" not in dataset
    assert "PlaneOrientationSequence" not in dataset.SharedFunctionalGroupsSequence[0]
    assert all("PlanePositionSequence" not in i for i in dataset.PerFrameFunctionalGroupsSequence)
    assert "No position in the patient is claimed: " in dataset.ImageComments


def test_only_frames_with_a_pixel_are_stored() -> None:
    ref = source(tomosynthesis())
    masks = random_masks(ref, [1, 3], seed=1) | {2: np.zeros(ref.shape, dtype=bool)}
    findings = ImageFindings(
        ref, {"benign": 0, "malignant": 1}, (Segment("malignant", masks, 1.0),)
    )
    dataset = seg.build_seg(findings, RUN)
    assert dataset is not None
    assert dataset.NumberOfFrames == 2
    numbers = [
        item.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber
        for item in dataset.PerFrameFunctionalGroupsSequence
    ]
    assert numbers == [2, 4]


def test_frames_follow_segment_then_source_frame() -> None:
    dataset = seg.build_seg(random_findings(source(tomosynthesis()), BOTH), RUN)
    assert dataset is not None
    order = [
        (
            item.SegmentIdentificationSequence[0].ReferencedSegmentNumber,
            item.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber,
        )
        for item in dataset.PerFrameFunctionalGroupsSequence
    ]
    assert order == [(1, 1), (1, 3), (2, 2), (2, 3), (2, 5)]


def test_nothing_found_gives_no_segmentation() -> None:
    ref = source(tomosynthesis())
    empty = Segment("benign", {0: np.zeros(ref.shape, dtype=bool)}, 0.0)
    scores: dict[Label, float] = {"benign": 0.1, "malignant": 0.1}
    assert seg.build_seg(ImageFindings(ref, scores), RUN) is None
    assert seg.build_seg(ImageFindings(ref, scores, (empty,)), RUN) is None


def test_segments_are_numbered_from_one_benign_first() -> None:
    ref = source(tomosynthesis())
    both = seg.build_seg(random_findings(ref, BOTH), RUN)
    only = seg.build_seg(random_findings(ref, {"malignant": [0]}), RUN)
    assert both is not None
    assert only is not None
    assert seg.reference(both, ref).segment_numbers == {"benign": 1, "malignant": 2}
    assert seg.reference(only, ref).segment_numbers == {"malignant": 1}
    assert seg.reference(only, ref).source_sop_instance_uid == ref.sop_instance_uid


def test_overlap_of_the_labels_is_stated() -> None:
    ref = source(tomosynthesis())
    mask = np.zeros(ref.shape, dtype=bool)
    mask[3, 4] = True
    scores: dict[Label, float] = {"benign": 0.6, "malignant": 0.6}
    apart = (Segment("benign", {0: mask}, 1.0), Segment("malignant", {1: mask}, 1.0))
    same = (Segment("benign", {0: mask}, 1.0), Segment("malignant", {0: mask}, 1.0))
    for segments, stated in ((apart, "NO"), (same, "YES")):
        dataset = seg.build_seg(ImageFindings(ref, scores, segments), RUN)
        assert dataset is not None
        assert dataset.SegmentsOverlap == stated


def test_the_same_run_gives_the_same_bytes_and_another_run_another_instance() -> None:
    header = tomosynthesis()
    first = seg.build_seg(random_findings(source(header), BOTH), RUN)
    again = seg.build_seg(random_findings(source(header), BOTH), RUN)
    other = seg.build_seg(
        random_findings(source(header), BOTH),
        make_run(run_id="7c2a1f64-55d4-4a06-8a51-0a4bc2a9d2f1"),
    )
    assert first is not None
    assert again is not None
    assert other is not None
    assert write.to_bytes(first) == write.to_bytes(again)
    assert other.SOPInstanceUID != first.SOPInstanceUID
    assert other.SeriesInstanceUID != first.SeriesInstanceUID


def test_the_source_header_is_left_as_it_was() -> None:
    ref = source(shuffled_frames())
    before = deepcopy(ref.header)
    seg.build_seg(random_findings(ref, BOTH), RUN)
    assert ref.header == before


@pytest.mark.parametrize("trained", [True, False])
def test_warnings_are_on_every_level(trained: bool) -> None:
    dataset = seg.build_seg(
        random_findings(source(tomosynthesis()), BOTH), make_run(trained=trained)
    )
    assert dataset is not None
    assert "research, not for clinical use" in dataset.SeriesDescription
    assert len(dataset.SeriesDescription) <= 64
    assert ("untrained weights" in dataset.SeriesDescription) is not trained
    for item in dataset.SegmentSequence:
        assert "research, not for clinical use" in item.SegmentLabel
        assert ("weights are untrained" in item.SegmentDescription) is not trained
        assert item.SegmentAlgorithmType == "AUTOMATIC"
        algorithm = item.SegmentationAlgorithmIdentificationSequence[0]
        assert algorithm.AlgorithmName == "3D-GMIC"
        assert "ab" * 32 in algorithm.AlgorithmParameters


@pytest.mark.parametrize(
    ("charset", "name"),
    [
        ("ISO_IR 100", "Müller^Änne"),
        ("ISO_IR 192", "山田^太郎"),
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
        (["ISO 2022 IR 13", "ISO 2022 IR 87"], "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう"),
        ("ISO_IR 144", "Люкceмбypг"),
        ("GB18030", "Wang^XiaoDong=王^小东"),
        (None, "Plain^Name"),
    ],
)
def test_names_in_any_script_survive(charset: str | list[str] | None, name: str) -> None:
    header = tomosynthesis()
    del header.SpecificCharacterSet
    if charset is not None:
        header.SpecificCharacterSet = charset
    header.PatientName = name
    ref = source(header)
    dataset = seg.build_seg(random_findings(ref, BOTH), RUN)
    assert dataset is not None
    stored = dcmread(BytesIO(write.to_bytes(dataset)))
    assert stored.PatientName == name
    assert stored.get("SpecificCharacterSet") == ref.header.get("SpecificCharacterSet")


def test_missing_and_impossible_patient_values_are_left_empty() -> None:
    header = tomosynthesis()
    for keyword in (
        "PatientName",
        "StudyID",
        "AccessionNumber",
        "ReferringPhysicianName",
        "StudyTime",
    ):
        delattr(header, keyword)
    header.PatientBirthDate = "00000000"
    header.PatientSex = "X"
    header.PatientAge = "000Y"
    dataset = seg.build_seg(random_findings(source(header), BOTH), RUN)
    assert dataset is not None
    stored = dcmread(BytesIO(write.to_bytes(dataset)))
    for keyword in (
        "PatientName",
        "StudyID",
        "AccessionNumber",
        "StudyTime",
        "PatientBirthDate",
        "PatientSex",
    ):
        assert keyword in stored
        assert not stored[keyword].value


def test_dates_are_on_the_clock_of_the_source() -> None:
    header = tomosynthesis()
    header.TimezoneOffsetFromUTC = "+0130"
    dataset = seg.build_seg(random_findings(source(header), BOTH), RUN)
    assert dataset is not None
    assert (dataset.ContentDate, dataset.ContentTime) == ("20260305", "010015")
    assert dataset.TimezoneOffsetFromUTC == "+0130"


def test_findings_that_do_not_fit_are_refused_with_the_value_seen() -> None:
    ref = source(tomosynthesis())
    good = random_findings(ref, {"malignant": [0]})
    mask = good.segments[0].frames[0]
    for frames, seen in (
        ({0: mask[:, :-1]}, r"\(13, 10\)"),
        ({0: mask.astype(np.uint8)}, "uint8"),
        ({6: mask}, "index 6"),
        ({-1: mask}, "index -1"),
    ):
        with pytest.raises(InvalidFindings, match=seen):
            seg.build_seg(replace(good, segments=(Segment("malignant", frames, 1.0),)), RUN)
    with pytest.raises(InvalidFindings, match="two segments"):
        seg.build_seg(replace(good, segments=good.segments * 2), RUN)


def test_bits_of_frames_follow_without_a_gap() -> None:
    frames = [np.arange(13).reshape(1, 13) % 3 == k for k in range(3)]
    packed = pack_frames(frames)
    bits = np.unpackbits(np.frombuffer(packed, np.uint8), bitorder="little")
    assert np.array_equal(bits[:39], np.concatenate([f.ravel() for f in frames]))
    assert not bits[39:].any()
    assert len(packed) % 2 == 0


def test_a_malformed_optional_attribute_is_left_out() -> None:
    header = tomosynthesis()
    header.add_new("PatientWeight", "DS", "62.5")
    ref = source(header)
    raw = ref.header.get_item("PatientWeight")
    ref.header._dict[raw.tag] = raw._replace(value=b"heavy ")  # as a careless device writes it
    dataset = seg.build_seg(random_findings(ref, BOTH), RUN)
    assert dataset is not None
    assert "PatientWeight" not in dataset
    assert as_read(header).PatientWeight == 62.5


def test_a_caveat_of_the_weights_is_in_the_description_of_every_segment() -> None:
    run = make_run()
    warned = replace(run, algorithm=replace(run.algorithm, caveat="Never saw a patient."))
    for given in (run, warned):
        dataset = seg.build_seg(random_findings(source(tomosynthesis()), BOTH), given)
        assert dataset is not None
        for item in dataset.SegmentSequence:
            assert ("Never saw a patient." in item.SegmentDescription) is (given is warned)
