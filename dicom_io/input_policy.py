"""What happens to input that is not as it should be: one entry a case, with where it is said and which test proves it.

docs/inputs.md is this table (`python -m dicom_io.input_policy > docs/inputs.md`); a test compares them, and another
looks for every test named. An image that is read although something is wrong carries a note, a plain sentence in the
report; one that is not read is named in the report with the sentence of its `RefusalCode`.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Final

from pydicom.uid import UID

from dicom_io.errors import RefusalCode

TEST_FOLDERS: Final = (
    "tests/unit/dicom_io/",
    "tests/integration/",
)  # of the tests that policies name


@dataclass(frozen=True)
class Policy:
    """A case; what is done; where it is said; `code` of the refusal where it is left out; `test` as file::function."""

    case: str
    what: str
    said: str
    test: str
    code: RefusalCode | None = None


_NOTE: Final = "note of the image in the report, on the study's page and in `study show`"
_LEFT_OUT: Final = "left out, with the reason, in the report and on the study's page"
_ASIDE: Final = "kept, *not for the model* on the study's page; `tomonode predict` gives the reason"

_FOLDERS: Final = " or ".join(f"`{folder}`" for folder in TEST_FOLDERS)

POLICIES: Final = (
    Policy(
        "no pixel spacing",
        "Read; none is made up. Imager Pixel Spacing, brought to the breast's plane, stands in where it is given.",
        _NOTE,
        "test_dbt.py::test_spacing_that_is_not_given_is_not_invented",
    ),
    Policy(
        "the segmentation of such an image",
        "Made, frame by frame on the source's frames; it claims no place in the patient.",
        "Image Comments of the segmentation",
        "test_seg.py::test_a_header_that_cannot_be_believed_gives_no_geometry_and_a_reason",
    ),
    Policy(
        "several frames at one position",
        "Read in the order of In-Stack Position Number, else as stored; results claim no place in the patient.",
        _NOTE,
        "test_dbt.py::test_repeated_positions_are_told_and_stack_numbers_order_the_slices",
    ),
    Policy(
        "Number of Frames and the pixel data disagree, the per-frame items agree with the pixel data",
        "Read; the pixel data rules.",
        _NOTE,
        "test_dbt.py::test_a_wrong_number_of_frames_gives_way_where_the_groups_agree",
    ),
    Policy(
        "per-frame items and the pixel data disagree, Number of Frames agrees with the pixel data",
        "Read as stored; what the per-frame items say is not believed.",
        _NOTE,
        "test_dbt.py::test_more_groups_than_frames_are_not_believed",
    ),
    Policy(
        "neither agrees with the pixel data",
        "Not read.",
        _LEFT_OUT,
        "test_dbt_refusals.py::test_what_cannot_be_analysed_is_refused_with_its_reason",
        RefusalCode.FRAME_COUNT,
    ),
    Policy(
        "frames stored out of order",
        "Read in the order of their positions; results name the frames as stored.",
        "nothing to say",
        "test_dbt.py::test_slices_come_in_spatial_order_whatever_the_stored_order",
    ),
    Policy(
        "tomosynthesis without a frame of reference",
        "Read; results refer to frames, pixel for pixel, and claim no place in the patient.",
        _NOTE,
        "test_dbt.py::test_a_missing_frame_of_reference_is_told",
    ),
    Policy(
        "breast with an implant, displaced or not",
        "Read like any other.",
        _NOTE,
        "test_dbt.py::test_an_implant_is_read_and_told",
    ),
    Policy(
        "spot compression, magnification, and other views of a part of the breast",
        "Not read: the model learned from whole breasts. An unknown view modifier keeps no image from being read.",
        _LEFT_OUT,
        "test_dbt_refusals.py::test_what_cannot_be_analysed_is_refused_with_its_reason",
        RefusalCode.PARTIAL_VIEW,
    ),
    Policy(
        "several images of one breast in one view",
        "All are read, each with results of its own; none is chosen.",
        _NOTE,
        "test_input_forms.py::test_several_images_of_a_view_are_read_and_each_says_so",
    ),
    Policy(
        "compressed with loss, now or earlier",
        "Read; the ratio is given where the header has it.",
        _NOTE,
        "test_dbt.py::test_loss_is_told_with_its_ratios",
    ),
    Policy(
        "the breast lies at the other side than its laterality says",
        "Read turned by half a turn, as the model expects it; results are in rows and columns as stored.",
        _NOTE,
        "test_dbt.py::test_a_wrong_side_is_turned_and_the_way_back_is_exact",
    ),
    Policy(
        "lateralities of one header contradict each other",
        "Read; that of the frames' anatomy rules, then the image's, then the series'.",
        _NOTE,
        "test_dbt.py::test_sides_that_contradict_each_other_are_told",
    ),
    Policy(
        "no laterality, or both breasts",
        "Not read.",
        _LEFT_OUT,
        "test_dbt_refusals.py::test_what_cannot_be_analysed_is_refused_with_its_reason",
        RefusalCode.MISSING_LATERALITY,
    ),
    Policy(
        "series of CT Image Storage, one object a slice, with side, view and a sign of the breast in the header",
        "Read as one volume in the order of Image Position (Patient); results name the slices. How many belong to it "
        "is not known, so the study closes after its quiet time, and a slice that comes later has it read again. Data "
        "sets for training do not take them.",
        "its own entry in the report",
        "test_sliced_studies.py::test_slices_are_read_as_the_one_object_is",
    ),
    Policy(
        "such a series with a slice missing (`series-gap`), of slices that differ (`series-differs`), without places "
        "(`series-positions`) or of fewer than 5 (`series-short`)",
        "Not read, as a whole.",
        "left out, with the reason, once a series, in the report and on the study's page",
        "test_sliced_studies.py::test_a_missing_slice_leaves_the_series_out_once_and_coming_late_has_it_read",
    ),
    Policy(
        "other CT Image Storage",
        "Not read.",
        _ASIDE,
        "test_recognise.py::test_other_ct_is_no_tomosynthesis",
        RefusalCode.CT_SLICES,
    ),
    Policy(
        "Secondary Capture that holds tomosynthesis in a private form",
        "Recognised by its private groups; kept, answered with success and never read. Where nothing else of the study "
        "can be read, the study is excluded for this reason.",
        "*kept aside*, with the reason, on the study's page and in its history; image library of the report",
        "test_input_forms.py::test_the_private_form_is_kept_aside_and_said_wherever_a_study_is_shown",
        RefusalCode.PRIVATE_TOMOSYNTHESIS,
    ),
    Policy(
        "2D mammogram For Presentation, full-field or synthesized",
        "Read as a volume of one slice: by the model of `TOMONODE_WEIGHTS_2D` where there is one "
        "(`test_model_of_mammograms.py`), else by the one that reads tomosynthesis.",
        "its own entry in the report, whose image library tells one from the other where the header does",
        "test_input_forms.py::test_the_library_of_the_report_lists_what_was_read_and_what_was_not",
    ),
    Policy(
        "2D mammogram For Processing, projections of tomosynthesis",
        "Not read.",
        "*not for the model* on the study's page; image library of the report, with the reason",
        "test_input_forms.py::test_the_library_of_the_report_lists_what_was_read_and_what_was_not",
        RefusalCode.FOR_PROCESSING,
    ),
    Policy(
        "a frame that cannot be decoded",
        "The image is not read; the others of the study are.",
        _LEFT_OUT,
        "test_pixels.py::test_a_damaged_frame_is_named",
        RefusalCode.DECODE_FAILED,
    ),
)


@dataclass(frozen=True)
class Tried:
    """Transfer syntaxes by the ends of their UIDs: with which depths, on whose streams, against which other decoder."""

    tails: tuple[str, ...]
    depths: str
    streams: str
    other: str


_ALL_DEPTHS: Final = "8, 10, 12, 16; signed 8, 12, 16"
_ROOT: Final = "1.2.840.10008.1.2"
TRIED: Final = (
    Tried(("", ".1", ".1.99", ".2"), _ALL_DEPTHS, "pydicom; real files", "pydicom"),
    Tried((".1.98",), _ALL_DEPTHS, "pydicom", "none"),
    Tried((".5",), _ALL_DEPTHS, "pydicom, dcmtk; real files", "dcmtk, pydicom"),
    Tried((".4.50",), "8", "libjpeg-turbo, dcmtk; real files", "dcmtk"),
    Tried((".4.51",), "8, 12", "libjpeg-turbo, dcmtk; real files", "dcmtk"),
    Tried((".4.53", ".4.55"), "8, 12", "dcmtk; real files", "dcmtk"),
    Tried((".4.57", ".4.70"), _ALL_DEPTHS, "libjpeg-turbo, liblj92, dcmtk; real files", "dcmtk"),
    Tried((".4.80", ".4.81"), _ALL_DEPTHS, "CharLS, dcmtk; real files", "dcmtk"),
    Tried((".4.90", ".4.91"), _ALL_DEPTHS, "OpenJPEG; real files", "pydicom (OpenJPEG)"),
    Tried((".4.201", ".4.202", ".4.203"), _ALL_DEPTHS, "OpenJPH", "OpenJPH"),
)

_INTRODUCTION = """# What happens to input

Made from the tables in `dicom_io/input_policy.py` and `dicom_io/errors.py`; a test compares them. For research only,
not for clinical use.

An object of a known class whose header can be read is stored as it came and answered with success, whatever else is
wrong with it; what follows is about reading it. An image is read wherever it can be: what was got around is a note
beside its scores. What is not read never keeps the other images of the study from being read.

## Cases

"""
_SYNTAXES = """
## Transfer syntaxes

Tomosynthesis was made in each, where the syntax allows it with one and with several fragments a frame, with and without
an offset table, and read back: without loss to the same values, with loss to within an error that the test states
(`test_decode_matrix.py`). The other decoder gave the same values, for `.203` within 1 (`test_decode_real.py`).

"""
_REASONS = """
## Reasons for which an object is left out

The sentence is shown, the value seen follows it in brackets; data sets count images left out by the first column.

"""


def markdown() -> str:
    """The whole of docs/inputs.md."""
    cases: list[tuple[str, ...]] = [
        (p.case, p.what, f"{p.said} (`{p.code}`)" if p.code else p.said, f"`{p.test}`")
        for p in POLICIES
    ]
    reasons: list[tuple[str, ...]] = [(f"`{code}`", code.sentence) for code in RefusalCode]
    read: list[tuple[str, ...]] = [
        (f"`{_ROOT}{tail}`", str(UID(_ROOT + tail).name), tried.depths, tried.streams, tried.other)
        for tried in TRIED
        for tail in tried.tails
    ]
    return (
        _INTRODUCTION
        + _table(("case", "what happens", "where it is said", f"proved by, in {_FOLDERS}"), cases)
        + _SYNTAXES
        + _table(("UID", "name", "bits stored", "streams of", "other decoder"), read)
        + _REASONS
        + _table(("reason", "sentence"), reasons)
    )


def _table(titles: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [titles, tuple("---" for _ in titles), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    sys.stdout.write(markdown())
