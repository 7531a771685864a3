"""The written policies: the page is the table, every policy has its test, every case of the node's own is there."""

from __future__ import annotations

import ast

import pytest

from dicom_io.errors import RefusalCode
from dicom_io.findings import ImageFindings
from dicom_io.input_policy import POLICIES, TEST_FOLDERS, Policy, markdown
from dicom_io.sr import build_sr
from dicom_io.syntaxes import TRANSFER_SYNTAXES
from tests.support.shared import ROOT
from tests.support.sources import make_run, source, tomosynthesis

WORDS = (  # what a reader of the page looks for
    "spacing",
    "position",
    "Number of Frames",
    "per-frame items",
    "frame of reference",
    "implant",
    "spot compression",
    "part of the breast",
    "one view",
    "loss",
    "laterality",
    "CT Image Storage",
    "Secondary Capture",
    "2D mammogram",
    "synthesized",
)


def test_the_page_is_made_of_the_table() -> None:
    page = (ROOT / "docs" / "inputs.md").read_text()
    assert page == markdown(), "run: python -m dicom_io.input_policy > docs/inputs.md"


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.case)
def test_every_policy_names_a_test_that_is_there(policy: Policy) -> None:
    file, function = policy.test.split("::")
    [path] = [path for folder in TEST_FOLDERS if (path := ROOT / folder / file).exists()]
    tree = ast.parse(path.read_text())
    assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("word", WORDS)
def test_every_case_is_there(word: str) -> None:
    assert any(word in policy.case for policy in POLICIES)


def test_every_reason_has_its_sentence_on_the_page() -> None:
    page = markdown()
    for code in RefusalCode:
        assert f"| `{code}` | {code.sentence} |" in page


def test_every_transfer_syntax_that_is_accepted_was_tried() -> None:
    page = markdown()
    for uid in TRANSFER_SYNTAXES:
        assert page.count(f"| `{uid}` |") == 1


def test_every_image_of_one_view_is_in_the_report() -> None:
    images = [
        ImageFindings(
            source(tomosynthesis(number), laterality="L", view="CC"),
            {"benign": 0.125, "malignant": 0.25},
        )
        for number in (1, 2)
    ]
    report = build_sr(images[0].source.header, images, (), (), make_run())
    evidence = report.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
    named = {str(r.ReferencedSOPInstanceUID) for s in evidence for r in s.ReferencedSOPSequence}
    assert named == {image.source.sop_instance_uid for image in images}
    # Each has its two scores.
    assert [str(report).count(f"'{score}'") for score in (0.125, 0.25)] == [2, 2]
