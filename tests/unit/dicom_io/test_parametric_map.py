"""Parametric maps: the scores an independent reader (highdicom) gets, and where it finds them."""

from __future__ import annotations

from io import BytesIO

import highdicom
import numpy as np
import pytest
from pydicom.dataset import Dataset

from dicom_io import write
from dicom_io.errors import InvalidFindings
from dicom_io.findings import ImageFindings, Label
from dicom_io.parametric_map import build_parametric_map
from tests.support.sources import make_run, source, tomosynthesis

RUN = make_run()
SCORES: dict[Label, float] = {"benign": 0.1, "malignant": 0.9}


def findings(header: Dataset | None = None) -> ImageFindings:
    """Malignant levels on frames 4, 1 and 3 of frames stored in no order of place; benign ones on frame 0."""
    ref = source(header or tomosynthesis(positions=[3, 0, 5, 1, 4, 2]))
    rng = np.random.default_rng(5)
    levels = {
        label: {f: rng.integers(0, 256, ref.shape, dtype=np.uint8) for f in frames}
        for label, frames in {"malignant": (4, 1, 3), "benign": (0,)}.items()
    }
    return ImageFindings(ref, SCORES, levels=levels)


@pytest.mark.parametrize("jpeg2000", [False, True])
def test_scores_are_read_back_frame_for_frame_where_they_belong(jpeg2000: bool) -> None:
    given = findings()
    dataset = build_parametric_map(given, "malignant", RUN, jpeg2000=jpeg2000)
    assert dataset is not None
    image = highdicom.imread(BytesIO(write.to_bytes(dataset)))
    scores = image.get_frames(apply_real_world_transform=True)
    blank = np.zeros(given.source.shape)
    # in the order of their places, 0 to 4 mm; two between the marked ones hold nothing
    for score, item, frame in zip(
        scores, dataset.PerFrameFunctionalGroupsSequence, (1, 3, 5, 0, 4), strict=True
    ):
        levels = given.levels["malignant"].get(frame, blank)
        assert score == pytest.approx(levels / 255, abs=1e-12 if jpeg2000 else 1e-7)
        (origin,) = item.DerivationImageSequence[0].SourceImageSequence
        assert origin.ReferencedFrameNumber == frame + 1
        assert origin.ReferencedSOPInstanceUID == given.source.sop_instance_uid
        place = item.PlanePositionSequence[0].ImagePositionPatient
        (own,) = given.source.header.PerFrameFunctionalGroupsSequence[frame].PlanePositionSequence
        assert place == own.ImagePositionPatient


@pytest.mark.parametrize(("jpeg2000", "one"), [(False, 1), (True, 255)])
def test_it_says_what_its_numbers_are(jpeg2000: bool, one: int) -> None:
    run = make_run(trained=False)
    dataset = build_parametric_map(findings(), "benign", run, jpeg2000=jpeg2000)
    assert dataset is not None
    mapping = dataset.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence[0]
    meaning = mapping.QuantityDefinitionSequence[0].ConceptCodeSequence[0].CodeMeaning
    assert meaning == "Score of a pixel, benign (model output)"
    assert mapping.RealWorldValueSlope * one == 1
    assert "not for clinical use" in dataset.SeriesDescription
    assert "weights are untrained" in dataset.ImageComments
    assert dataset.ContentQualification == "RESEARCH"
    assert "ab" * 32 in dataset.ContributingEquipmentSequence[-1].ContributionDescription


def test_there_is_none_without_levels_or_a_place_in_the_patient() -> None:
    ref = source(tomosynthesis())
    assert build_parametric_map(ImageFindings(ref, SCORES), "benign", RUN) is None
    header = tomosynthesis()
    del header.FrameOfReferenceUID
    assert build_parametric_map(findings(header), "malignant", RUN) is None


def test_labels_are_objects_of_their_own_and_a_run_gives_the_same_bytes() -> None:
    first, again, other = (
        build_parametric_map(findings(), label, RUN)
        for label in ("malignant", "malignant", "benign")
    )
    assert first is not None
    assert again is not None
    assert other is not None
    assert write.to_bytes(first) == write.to_bytes(again)
    assert other.SOPInstanceUID != first.SOPInstanceUID
    assert other.SeriesInstanceUID != first.SeriesInstanceUID


def test_levels_that_do_not_fit_are_refused() -> None:
    ref = source(tomosynthesis())
    wrong = ImageFindings(ref, SCORES, levels={"benign": {6: np.ones(ref.shape, np.uint8)}})
    with pytest.raises(InvalidFindings, match="index 6"):
        build_parametric_map(wrong, "benign", RUN)
