"""What a breast counts as, in every place of its window; and what people may write."""

from __future__ import annotations

from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.errors import InvalidLabel
from node.labels import values
from node.labels.rule import BEFORE_DAYS, Truth, Unknown, dicom_date, passed_over, truth_of
from node.learning_models import Pathology

STUDY = date(2026, 3, 1)
DAYS = st.integers(-400, 800)


def pathology(
    days: int, benign: bool = False, malignant: bool = True, revision: int = 3
) -> Pathology:
    found_on = STUDY + timedelta(days=days)
    return Pathology(benign=benign, malignant=malignant, found_on=found_on, revision=revision)


@pytest.mark.parametrize(
    ("found", "asked", "expected"),
    [
        (None, 0, "window-open"),
        (None, 120, "window-open"),  # the last day is still open
        (None, 121, Truth(False, False, None)),
        (0, 0, Truth(False, True, 3)),
        (120, 120, Truth(False, True, 3)),
        (121, 121, Truth(False, False, None)),  # too late to belong to the exam
        (121, 120, "window-open"),
        (-BEFORE_DAYS, 0, Truth(False, True, 3)),
        (-BEFORE_DAYS - 1, 0, "window-open"),  # of an earlier exam
        (-BEFORE_DAYS - 1, 121, Truth(False, False, None)),
    ],
)
def test_the_rule(found: int | None, asked: int, expected: Truth | str) -> None:
    rows = [] if found is None else [pathology(found)]
    answer = truth_of(rows, STUDY, STUDY + timedelta(days=asked), 120)
    assert (answer.reason_code if isinstance(answer, Unknown) else answer) == expected


def test_without_a_study_date_nothing_is_known() -> None:
    answer = truth_of([pathology(5)], None, STUDY, 120)
    assert passed_over([pathology(500)], None, 120) == ""
    assert isinstance(answer, Unknown)
    assert answer.reason_code == "no-study-date"


def test_neither_after_all_is_a_truth_of_its_revision() -> None:
    row = pathology(5, benign=False, malignant=False)
    assert truth_of([row], STUDY, STUDY, 120) == Truth(False, False, 3)


def test_a_finding_outside_the_window_does_not_undo_one_inside() -> None:
    inside, late, early = pathology(20, revision=1), pathology(130, revision=2), pathology(-31)
    said = f"revision 2 of {late.found_on}: outside the window of 120 days, not counted"
    for today in (STUDY, STUDY + timedelta(days=999)):
        assert truth_of([late, inside], STUDY, today, 120) == Truth(False, True, 1)
        assert truth_of([early, late, inside], STUDY, today, 120) == Truth(False, True, 1)
    assert passed_over([late, inside], STUDY, 120) == said
    taken_back = pathology(20, malignant=False, revision=3)
    assert truth_of([taken_back, late, inside], STUDY, STUDY, 120) == Truth(False, False, 3)
    assert passed_over([taken_back, late, inside], STUDY, 120) == ""
    open_ = truth_of([late], STUDY, STUDY, 120)
    assert isinstance(open_, Unknown)
    assert said in open_.reason


@given(found=st.none() | DAYS, asked=DAYS, later=st.integers(0, 400), window=st.integers(0, 500))
def test_what_is_known_stays_known(found: int | None, asked: int, later: int, window: int) -> None:
    """Time alone never changes a truth, and a breast is never negative while its window is open."""
    rows = [] if found is None else [pathology(found)]
    today = STUDY + timedelta(days=asked)
    first = truth_of(rows, STUDY, today, window)
    if isinstance(first, Truth):
        assert truth_of(rows, STUDY, today + timedelta(days=later), window) == first
        assert first.pathology_revision is not None or asked > window
    else:
        assert asked <= window
        assert str(STUDY + timedelta(days=window)) in first.reason


@given(st.dates(date(1900, 1, 1), date(2100, 1, 1)))
def test_days_are_read_in_both_spellings(day: date) -> None:
    assert dicom_date(day.strftime("%Y%m%d")) == day
    assert values.day_of("found_on", f" {day.isoformat()} ") == day
    assert values.day_of("found_on", day.strftime("%Y%m%d")) == day


@pytest.mark.parametrize("text", [None, "", "2026", "20260230", "2026-2-3", "٢٠٢٦٠١٠١", "20261301"])
def test_other_dates_are_none(text: str | None) -> None:
    assert dicom_date(text) is None


@pytest.mark.parametrize("text", ["2026-02-30", "01.03.2026", "03/01/2026", "2026-3-1", "", "soon"])
def test_impossible_days_are_refused(text: str) -> None:
    with pytest.raises(InvalidLabel, match="found_on"):
        values.day_of("found_on", text)


@pytest.mark.parametrize(
    ("text", "side"), [("L", "L"), ("r", "R"), (" Left ", "L"), ("RIGHT", "R")]
)
def test_lateralities(text: str, side: str) -> None:
    assert values.laterality_of(text) == side


@pytest.mark.parametrize("text", ["", "B", "both", "LR", "Müller, Änne"])
def test_other_lateralities_are_refused_without_repeating_a_name(text: str) -> None:
    with pytest.raises(InvalidLabel) as refused:
        values.laterality_of(text)
    assert "Müller" not in str(refused.value)


@pytest.mark.parametrize(("text", "category"), [("0", 0), ("6", 6), ("4A", 4), ("4c", 4)])
def test_categories(text: str, category: int) -> None:
    assert values.category_of(text) == category


@pytest.mark.parametrize("text", ["7", "-1", "5a", "4D", "44", "", "4.0", "²"])
def test_other_categories_are_refused(text: str) -> None:
    with pytest.raises(InvalidLabel, match="BI-RADS"):
        values.category_of(text)


@pytest.mark.parametrize(
    ("days", "fine"), [(-BEFORE_DAYS, True), (-BEFORE_DAYS - 1, False), (100, True), (101, True), (102, False)]
)  # fmt: skip
def test_a_finding_has_its_time(days: int, fine: bool) -> None:
    """Not long before the study, and not after tomorrow (calendars ahead of UTC)."""
    today = STUDY + timedelta(days=100)
    found_on = STUDY + timedelta(days=days)
    if fine:
        values.check_day(found_on, STUDY, today)
    else:
        with pytest.raises(InvalidLabel, match=str(found_on)):
            values.check_day(found_on, STUDY, today)


@pytest.mark.parametrize(
    ("sides", "fits"),
    [
        (frozenset({"L", "R"}), True),
        (frozenset({"L"}), True),
        (frozenset({"B"}), True),
        (frozenset({"R", None}), True),
        (frozenset(), True),
        (frozenset({"R"}), False),
    ],
)
def test_a_label_fits_the_breasts_that_were_imaged(
    sides: frozenset[str | None], fits: bool
) -> None:
    problem = values.missing_side("L", sides)
    assert (problem is None) is fits
    if problem is not None:
        assert "right breast only" in problem
        assert "swapped" in problem


@given(st.text(max_size=300))
def test_a_name_is_one_printable_line(text: str) -> None:
    try:
        kept = values.name_of("source", text)
    except InvalidLabel:
        return
    assert kept == text.strip()
    assert kept.isprintable()
    assert 1 <= len(kept) <= values.MAX_TEXT
