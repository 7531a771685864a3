"""The other result objects before independent validators, for good, simulated and real source images.

Segmentation and report have theirs in `test_validators`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import DigitalMammographyXRayImageStorageForProcessing

from dicom_io import key_images, seg, write
from dicom_io.cad_sr import build_cad_sr
from dicom_io.findings import DocumentRef, Excluded, ImageFindings, Label, SourceRef
from dicom_io.key_objects import build_key_objects
from dicom_io.labelmap import build_labelmap
from dicom_io.parametric_map import build_parametric_map
from dicom_io.seg_values import build_fractional
from tests.support.shared import shared_path
from tests.support.sources import make_run, mammogram, random_findings, source, tomosynthesis
from tests.support.validators import (
    dcentvfy_errors,
    dciodvfy_errors,
    dsrdump,
    label_map_errors,
    pixelmed_sr_errors,
)

pytestmark = pytest.mark.system

RUN = make_run(trained=False)
SCORES: dict[Label, float] = {"benign": 0.25, "malignant": 0.75}
RAW = Excluded(
    "1.2.3.4",
    DigitalMammographyXRayImageStorageForProcessing,
    "Raw images are not analysed.",
    "1.2.3.5",
)


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
    """Both labels on as many frames as there are, up to three, with levels."""
    frames = range(min(3, ref.frame_count))
    findings = random_findings(ref, {"benign": frames, "malignant": frames})
    level = np.full(ref.shape, 200, dtype=np.uint8)
    return replace(
        findings,
        levels={"benign": {0: level}, "malignant": dict.fromkeys(frames, level)},
        notes=("The laterality attribute was corrected.",),
    )


def write_to(folder: Path, name: str, dataset: Dataset | None) -> Path:
    assert dataset is not None
    write.write(dataset, folder / name)
    return folder / name


def key_picture(findings: ImageFindings) -> Dataset:
    frame_HW = np.arange(np.prod(findings.source.shape), dtype=np.uint32) % 4096
    return key_images.build_key_image(
        findings, 0, frame_HW.reshape(findings.source.shape).astype(np.uint16), RUN
    )


def write_documents(findings: list[ImageFindings], folder: Path) -> tuple[list[Path], list[Path]]:
    """Images (SEG, key images) and documents (CAD SR, key objects) of one study, of a run that replaces another."""
    study = findings[0].source.header
    images, pictures, segmentations = [], [], []
    for number, image in enumerate(findings):
        dataset = seg.build_seg(image, RUN)
        if dataset is not None:
            segmentations.append(seg.reference(dataset, image.source))
            images.append(write_to(folder, f"seg{number}.dcm", dataset))
        picture = key_picture(image)
        pictures.append(key_images.reference(picture, image.source, 0))
        images.append(write_to(folder, f"key{number}.dcm", picture))

    def earlier(tail: str) -> DocumentRef:
        return DocumentRef(
            study.StudyInstanceUID, "1.2.3.6", f"1.2.840.10008.5.1.4.1.1.88.{tail}", "1.2.3.7"
        )

    cad = build_cad_sr(study, findings, [RAW], RUN, predecessor=earlier("50"))
    selection = build_key_objects(
        study, findings, pictures, segmentations, RUN, predecessor=earlier("59")
    )
    documents = [write_to(folder, "cad.dcm", cad), write_to(folder, "key.dcm", selection)]
    return images, documents


@pytest.mark.parametrize("name", SOURCES)
def test_documents_and_key_images_of_every_kind_of_source_are_valid(
    name: str, tmp_path: Path
) -> None:
    images, documents = write_documents([marked(SOURCES[name]())], tmp_path)
    for path in (*images, *documents):
        assert dciodvfy_errors(path) == []
    assert pixelmed_sr_errors(documents[0]) == []


@pytest.mark.parametrize("jpeg2000", [False, True])
@pytest.mark.parametrize("name", SOURCES)
def test_maps_of_every_kind_of_source_are_valid(name: str, jpeg2000: bool, tmp_path: Path) -> None:
    findings = marked(SOURCES[name]())
    paths = [
        write_to(tmp_path, "seg.dcm", seg.build_seg(findings, RUN, jpeg2000=jpeg2000)),
        write_to(tmp_path, "values.dcm", build_fractional(findings, RUN, jpeg2000=jpeg2000)),
    ]
    parametric = build_parametric_map(findings, "malignant", RUN, jpeg2000=jpeg2000)
    if parametric is not None:
        paths.append(write_to(tmp_path, "map.dcm", parametric))
    for path in paths:
        assert dciodvfy_errors(path) == []
    assert (parametric is not None) is (
        name in ("tomosynthesis", "side and view unknown", "simulated")
    )


@pytest.mark.parametrize("jpeg2000", [False, True])
@pytest.mark.parametrize("name", SOURCES)
def test_label_maps_of_every_kind_of_source_are_valid(
    name: str, jpeg2000: bool, tmp_path: Path
) -> None:
    dataset = build_labelmap(marked(SOURCES[name]()), RUN, jpeg2000=jpeg2000)
    assert label_map_errors(write_to(tmp_path, "labelmap.dcm", dataset)) == []


def test_a_study_with_negatives_is_valid_and_consistent_with_its_images(tmp_path: Path) -> None:
    views = (("R", "MLO"), ("R", "CC"), ("L", "MLO"), ("L", "CC"))
    folder = shared_path("data", "victre", "caseA")
    refs = [from_file("victre", "caseA", f"{s}-{v}.dcm", laterality=s, view=v) for s, v in views]
    findings = [marked(refs[0]), *(ImageFindings(ref, SCORES) for ref in refs[1:])]
    images, documents = write_documents(findings, tmp_path)
    assert len(images) == 5
    for path in (*images, *documents):
        assert dciodvfy_errors(path) == []
    for path in documents:
        assert pixelmed_sr_errors(path) == []
    assert dcentvfy_errors([*sorted(folder.glob("*.dcm")), *images, *documents]) == []


def test_a_cad_report_without_a_region_is_valid(tmp_path: Path) -> None:
    quiet = ImageFindings(source(tomosynthesis()), SCORES)
    report = build_cad_sr(quiet.source.header, [quiet], [], RUN)
    path = write_to(tmp_path, "cad.dcm", report)
    assert dciodvfy_errors(path) == []
    assert pixelmed_sr_errors(path) == []


def test_a_cad_report_prints_what_a_reader_must_know(tmp_path: Path) -> None:
    quiet = ImageFindings(source(tomosynthesis(2), laterality="L", view="CC"), SCORES)
    _, (cad, _) = write_documents([marked(source(tomosynthesis())), quiet], tmp_path)
    printed = dsrdump(cad)
    for expected in (
        "Verification Flag   : UNVERIFIED",
        "untrained weights, research, not for clinical use",
        "L CC: No region above the operating point 0.5.",
        "Presentation Optional",
        "Raw images are not analysed.",
        "no probability of malignancy",
        "ab" * 32,
    ):
        assert expected in printed


def test_the_validators_see_errors(tmp_path: Path) -> None:
    findings = marked(source(tomosynthesis()))
    report = build_cad_sr(findings.source.header, [findings], [], RUN)
    assert report is not None
    del report.ContentSequence[4]  # the summary of analyses
    assert any("111065" in line for line in pixelmed_sr_errors(write_to(tmp_path, "c", report)))
    picture = key_picture(findings)
    del picture.ConversionType
    assert any(
        "ConversionType" in line for line in dciodvfy_errors(write_to(tmp_path, "k", picture))
    )
