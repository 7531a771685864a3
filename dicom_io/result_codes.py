"""Codes, names and colours of the results (PS3.16): what a segmentation and a report call things.

Concepts the standard has no code for are in one private scheme, `99TOMONODE`, declared in every object that uses
it. A score has a private name on purpose: the standard's nearest code says "probability of cancer", and a model
output is not one.
"""

from __future__ import annotations

from dataclasses import dataclass

from pydicom.dataset import Dataset
from pydicom.sr.coding import Code

from dicom_io import codes
from dicom_io.findings import Algorithm, Label, RunContext

NOTICE = "Research use only, not for clinical use."
UNTRAINED_NOTICE = "The weights are untrained: scores and regions mean nothing."
SCORE_NOTICE = "Scores are model outputs between 0 and 1. They are not calibrated and are no probability of malignancy."

PRIVATE_SCHEME = "99TOMONODE"


def _private(value: str, meaning: str) -> Code:
    return Code(value, PRIVATE_SCHEME, meaning)


BREAST = Code(*codes.BREAST)
SIDES = {"L": Code("7771000", "SCT", "Left"), "R": Code("24028007", "SCT", "Right")}
BREASTS = {
    "L": Code("80248007", "SCT", "Left breast"),
    "R": Code("73056007", "SCT", "Right breast"),
}
VIEWS = {view.name: Code(view.sct, "SCT", view.meaning) for view in codes.VIEWS}  # CID 4014

LESION = Code("52988006", "SCT", "Lesion")
ABNORMAL_STRUCTURE = Code("49755003", "SCT", "Morphologically Abnormal Structure")
SUSPECTED = Code("415684004", "SCT", "Suspected")
CLASSES: dict[Label, Code] = {
    "benign": Code("30807003", "SCT", "Benign"),
    "malignant": Code("21594007", "SCT", "Malignant"),
}
MAMMOGRAPHY = Code("71651007", "SCT", "Mammography")

SOURCE_IMAGE = Code("121322", "DCM", "Source image for image processing operation")

MODEL_CLASS = _private("model-class", "Class scored by the model, not a diagnosis")
OPERATING_POINT = _private(
    "operating-point", "Operating point: score from which a region is reported"
)
IMAGE_SCORES: dict[Label, Code] = {
    "benign": _private("image-benign", "Image score, benign (model output)"),
    "malignant": _private("image-malignant", "Image score, malignant (model output)"),
}
PIXEL_SCORES: dict[Label, Code] = {
    "benign": _private("pixel-benign", "Score of a pixel, benign (model output)"),
    "malignant": _private("pixel-malignant", "Score of a pixel, malignant (model output)"),
}
REGION_SCORE = _private("region-score", "Region score (model output)")
KEY_FRAME = _private("key-frame", "Key frame number")
FIRST_FRAME = _private("first-frame", "First frame number")
LAST_FRAME = _private("last-frame", "Last frame number")
CENTRE_ROW = _private("centre-row", "Centre row on the key frame, counted from 0")
CENTRE_COLUMN = _private("centre-column", "Centre column on the key frame, counted from 0")
INPUT_LEFT_OUT = _private("input-left-out", "Input left out, and why")
STATEMENT = _private("statement", "Statement")
RESULT = _private("result", "Result")

PROCESSING_SUMMARY = Code("111017", "DCM", "CAD Processing and Findings Summary")
WITH_FINDINGS = Code("111242", "DCM", "All algorithms succeeded; with findings")
WITHOUT_FINDINGS = Code("111241", "DCM", "All algorithms succeeded; without findings")
SOME_WITH_FINDINGS = Code("111244", "DCM", "Not all algorithms succeeded; with findings")
SOME_WITHOUT_FINDINGS = Code("111243", "DCM", "Not all algorithms succeeded; without findings")
NONE_SUCCEEDED = Code("111245", "DCM", "No algorithms succeeded; without findings")


@dataclass(frozen=True)
class LabelStyle:
    """How a label is named and coloured. `rgb` is sRGB, 0 to 255; the same colour in SEG and pictures."""

    title: str
    rgb: tuple[int, int, int]


STYLES: dict[Label, LabelStyle] = {
    "benign": LabelStyle("Benign suspicion", (40, 200, 190)),
    "malignant": LabelStyle("Malignant suspicion", (255, 106, 26)),
}


def image_title(laterality: str | None, view: str | None) -> str:
    """ "R MLO", "L", or "Breast image" where neither is known."""
    return " ".join(part for part in (laterality, view) if part) or "Breast image"


def segment_label(label: Label) -> str:
    """Segment Label of a label (LO, at most 64 characters)."""
    return f"{STYLES[label].title}, research, not for clinical use"


def caveat_of(algorithm: Algorithm) -> str:
    """What a reader must know of the weights, with every result; empty where there is nothing."""
    return algorithm.caveat if algorithm.trained else UNTRAINED_NOTICE


def algorithm_parameters(run: RunContext) -> dict[str, str]:
    """All parameters of a run by name, the weights' hash, the operating point and the training state first."""
    algorithm = run.algorithm
    return {
        "weights_sha256": algorithm.weights_sha256,
        "weights": "trained" if algorithm.trained else "untrained",
        "operating_point": f"{run.operating_point:g}",
        **algorithm.parameters,
    }


def private_scheme_item() -> Dataset:
    """The item of Coding Scheme Identification Sequence (PS3.3 C.12.1.1) for the private codes."""
    item = Dataset()
    item.CodingSchemeDesignator = PRIVATE_SCHEME
    item.CodingSchemeName = "Tomonode result concepts"
    item.CodingSchemeResponsibleOrganization = "Tomonode"
    return item


def code_item(code: Code) -> Dataset:
    """A code as the item of a code sequence (PS3.3 8.8)."""
    item = Dataset()
    item.CodeValue = code.value
    item.CodingSchemeDesignator = code.scheme_designator
    item.CodeMeaning = code.meaning
    return item
