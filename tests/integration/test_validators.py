"""Segmentations and reports before independent validators, for good, simulated and real source images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import DigitalMammographyXRayImageStorageForProcessing

from dicom_io import seg, write
from dicom_io.dbt import open_image
from dicom_io.findings import (
    DocumentRef,
    Excluded,
    ImageFindings,
    Label,
    Region,
    Segment,
    SourceRef,
)
from dicom_io.phantom import PhantomView, write_study
from dicom_io.sr import build_sr
from tests.support.shared import shared_path
from tests.support.sources import make_run, mammogram, random_findings, source, tomosynthesis
from tests.support.validators import (
    beyond_procedure,
    dcentvfy_errors,
    dciodvfy_errors,
    dsrdump,
    pixelmed_sr_errors,
)

pytestmark = pytest.mark.system

RUN = make_run(trained=False)
RAW = Excluded(
    "1.2.3.4", DigitalMammographyXRayImageStorageForProcessing, "Raw images are not analysed."
)
SCORES: dict[Label, float] = {"benign": 0.25, "malignant": 0.75}


def from_file(*parts: str, laterality: str, view: str) -> SourceRef:
    header = dcmread(shared_path("data", *parts), stop_before_pixels=True)
    return SourceRef(header, int(header.get("NumberOfFrames", 1)), laterality, view)


def no_geometry() -> SourceRef:
    header = tomosynthesis()
    del header.FrameOfReferenceUID
    return source(header)


SOURCES: dict[str, Callable[[], SourceRef]] = {
    "tomosynthesis": lambda: source(tomosynthesis()),
    "no frame of reference": no_geometry,
    "projection": lambda: source(mammogram()),
    "side and view unknown": lambda: source(tomosynthesis(), laterality=None, view=None),
    "simulated": lambda: from_file("victre", "caseA", "R-MLO.dcm", laterality="R", view="MLO"),
    "real tomosynthesis": lambda: from_file(
        "real", "hologic_bto_header.dcm", laterality="L", view="CC"
    ),
    "real mammogram": lambda: from_file(
        "real", "ge_senographe_mlo.dcm", laterality="R", view="MLO"
    ),
}


def marked(ref: SourceRef) -> ImageFindings:
    """Both labels on as many frames as there are, up to three."""
    frames = range(min(3, ref.frame_count))
    findings = random_findings(ref, {"benign": frames, "malignant": frames})
    return replace(findings, notes=("The laterality attribute was corrected.",))


def write_results(findings: list[ImageFindings], folder: Path) -> tuple[list[Path], Path]:
    """Writes the segmentations and the report of one study; gives their paths."""
    paths, references = [], []
    for number, image in enumerate(findings):
        dataset = seg.build_seg(image, RUN)
        if dataset is not None:
            references.append(seg.reference(dataset, image.source))
            paths.append(folder / f"seg{number}.dcm")
            write.write(dataset, paths[-1])
    study = findings[0].source.header
    predecessor = DocumentRef(
        study.StudyInstanceUID, "1.2.3.5", "1.2.840.10008.5.1.4.1.1.88.34", "1.2.3.6"
    )
    report = build_sr(study, findings, [RAW], references, RUN, predecessor=predecessor)
    write.write(report, folder / "sr.dcm")
    return paths, folder / "sr.dcm"


@pytest.mark.parametrize("name", SOURCES)
def test_results_of_every_kind_of_source_are_valid(name: str, tmp_path: Path) -> None:
    segmentations, report = write_results([marked(SOURCES[name]())], tmp_path)
    assert len(segmentations) == 1
    for path in (*segmentations, report):
        assert dciodvfy_errors(path) == []
    assert beyond_procedure(pixelmed_sr_errors(report)) == []


def test_a_study_with_negatives_is_valid_and_consistent_with_its_images(tmp_path: Path) -> None:
    views = (("R", "MLO"), ("R", "CC"), ("L", "MLO"), ("L", "CC"))
    folder = shared_path("data", "victre", "caseA")
    refs = [from_file("victre", "caseA", f"{s}-{v}.dcm", laterality=s, view=v) for s, v in views]
    findings = [marked(refs[0]), *(ImageFindings(ref, SCORES) for ref in refs[1:])]
    segmentations, report = write_results(findings, tmp_path)
    assert len(segmentations) == 1
    for path in (*segmentations, report):
        assert dciodvfy_errors(path) == []
    assert beyond_procedure(pixelmed_sr_errors(report)) == []
    assert dcentvfy_errors([*sorted(folder.glob("*.dcm")), *segmentations, report]) == []


def test_a_phantom_study_written_opened_and_marked_is_valid_and_consistent(tmp_path: Path) -> None:
    """Mammogram and tomosynthesis of both sides, through the reader, as the node meets them."""
    rng = np.random.default_rng(3)
    views = []
    for side, view, kind in (
        ("L", "CC", "tomosynthesis"),
        ("R", "MLO", "tomosynthesis"),
        ("R", "CC", "mammogram"),
    ):
        volume = np.zeros((1 if kind == "mammogram" else 5, 90, 61), dtype=np.uint16)
        breast = np.s_[:, 10:80, :40] if side == "L" else np.s_[:, 10:80, 21:]
        volume[breast] = rng.integers(300, 900, volume[breast].shape)
        views.append(PhantomView(side, view, volume, (0.1, 0.1), kind=kind))
    study = write_study(tmp_path / "study", views, seed=5)
    findings = [marked(SourceRef.of(open_image(path))) for path in study.files]
    assert [f"{f.source.laterality} {f.source.view}" for f in findings] == ["L CC", "R MLO", "R CC"]
    segmentations, report = write_results(findings, tmp_path)
    assert len(segmentations) == 3
    for path in (*segmentations, report):
        assert dciodvfy_errors(path) == []
    assert beyond_procedure(pixelmed_sr_errors(report)) == []
    assert dcentvfy_errors([*study.files, *segmentations, report]) == []


def test_a_report_with_a_box_and_no_segmentation_is_valid(tmp_path: Path) -> None:
    boxed = Region("malignant", 1, 4, 2, 6.0, 5.0, (3, 2, 9, 8), 0.75)
    findings = [
        ImageFindings(source(tomosynthesis(1)), SCORES, regions=(boxed,)),
        ImageFindings(source(tomosynthesis(2)), SCORES),
    ]
    segmentations, report = write_results(findings, tmp_path)
    assert segmentations == []
    assert dciodvfy_errors(report) == []
    assert beyond_procedure(pixelmed_sr_errors(report)) == []


def test_a_report_without_a_readable_image_is_valid(tmp_path: Path) -> None:
    report: Dataset = build_sr(source(tomosynthesis()).header, [], [RAW], [], RUN)
    write.write(report, tmp_path / "sr.dcm")
    assert dciodvfy_errors(tmp_path / "sr.dcm") == []
    assert beyond_procedure(pixelmed_sr_errors(tmp_path / "sr.dcm")) == []


def test_a_report_prints_what_a_reader_must_know(tmp_path: Path) -> None:
    quiet = ImageFindings(source(tomosynthesis(2), laterality="L", view="CC"), SCORES)
    _, report = write_results([marked(source(tomosynthesis())), quiet], tmp_path)
    printed = dsrdump(report)
    for expected in (
        "Verification Flag   : UNVERIFIED",
        "untrained weights, research, not for clinical use",
        "R MLO, region 2, malignant suspicion, key frame 1",
        "L CC, whole image",
        "No region above the operating point 0.5.",
        "Raw images are not analysed.",
        "no probability of malignancy",
        "The weights are untrained",
        "ab" * 32,
    ):
        assert expected in printed


def test_the_validators_see_errors(tmp_path: Path) -> None:
    ref = source(tomosynthesis())
    mask = np.ones(ref.shape, dtype=bool)
    broken = seg.build_seg(ImageFindings(ref, SCORES, (Segment("benign", {0: mask}, 1.0),)), RUN)
    assert broken is not None
    del broken.SegmentSequence[0].SegmentAlgorithmType
    write.write(broken, tmp_path / "seg.dcm")
    assert any("SegmentAlgorithmType" in line for line in dciodvfy_errors(tmp_path / "seg.dcm"))
