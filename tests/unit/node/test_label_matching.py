"""The matching table: which study a row belongs to, what becomes of it, and what holds for all files."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import replace
from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.labels.judging import Breast, Decision, Said, decide
from node.labels.matching import Catalogue, KnownStudy, Outcome, Rules, locate
from node.labels.table import LabelTable, Row
from node.labels.values import Finding

TODAY = date(2026, 11, 1)
DAY = date(2026, 3, 1)
FOUND = date(2026, 3, 20)
MALIGNANT, BENIGN = Finding(False, True, FOUND), Finding(True, False, FOUND)
BOTH = Finding(True, True, FOUND)


def on(year: int, month: int, day: int) -> Finding:
    return replace(MALIGNANT, found_on=date(year, month, day))


def study(number: int, **changes: object) -> KnownStudy:
    values: dict[str, object] = {
        "id": uuid.UUID(int=number), "study_uid": f"1.2.{number}", "accession_number": f"A{number}",
        "patient_id": f"P{number}", "study_date": DAY, "sides": frozenset({"L", "R"}), **changes,
    }  # fmt: skip
    return KnownStudy(**values)  # type: ignore[arg-type]


STUDIES = (
    study(1),
    study(2, sides=frozenset({"R"})),
    study(3, accession_number="TWICE", patient_id="P3"),
    study(4, accession_number="TWICE", patient_id="P4"),
    study(5, accession_number=None, patient_id="P5", study_date=DAY),
    study(6, accession_number=None, patient_id="P5", study_date=DAY + timedelta(days=3)),
    study(7, accession_number=None, patient_id="P7"),
    study(8, accession_number=None, patient_id="P7"),
    study(9, accession_number=None, patient_id=None, study_date=None),
    study(10, accession_number=None, patient_id="P10"),
)


def row(number: int = 2, **changes: object) -> Row:
    values: dict[str, object] = {
        "number": number, "study_uid": None, "accession_number": None, "patient_id": None,
        "study_date": None, "laterality": "L", "finding": MALIGNANT, "category": None, "source": None,
        **changes,
    }  # fmt: skip
    return Row(**values)  # type: ignore[arg-type]


def judge(rows: Sequence[Row], said: dict[Breast, Said] | None = None) -> Decision:
    catalogue, rules = Catalogue(STUDIES), Rules(TODAY)
    table = LabelTable("UTF-8", "comma", (), tuple(rows), ())
    return decide(table, [locate(one, catalogue, rules) for one in rows], said or {})


def by_patient(patient_id: str, days: int, **changes: object) -> Row:
    return row(patient_id=patient_id, study_date=DAY + timedelta(days=days), **changes)


@pytest.mark.parametrize(
    ("one", "outcome", "study_uid", "words"),
    [
        (row(study_uid="1.2.1"), "matched", "1.2.1", "by study UID"),
        (row(accession_number="A1"), "matched", "1.2.1", "by accession number"),
        (by_patient("P1", 0), "matched", "1.2.1", "by patient ID and study date"),
        (by_patient("P1", 3), "matched", "1.2.1", "by patient ID and study date"),
        (by_patient("P1", -3), "matched", "1.2.1", "by patient ID and study date"),
        (by_patient("P1", 4), "unmatched", None, "within 3 days"),
        (row(study_uid="9.9"), "unmatched", "9.9", "no study was received with this study UID"),
        (row(study_uid="9.9", accession_number="A1"), "unmatched", "9.9", "study UID"),
        (row(accession_number="NOPE"), "unmatched", None, "accession number"),
        (by_patient("NOBODY", 0), "unmatched", None, "patient ID"),
        # the UID decides, and the rest of the row must agree
        (row(study_uid="1.2.1", accession_number="A1"), "matched", "1.2.1", "by study UID"),
        (row(study_uid="1.2.1", accession_number="A2"), "contradictory", "1.2.1", "accession_number is not"),
        (row(study_uid="1.2.1", patient_id="P2"), "contradictory", "1.2.1", "patient_id is not"),
        (row(study_uid="1.2.1", study_date=DAY + timedelta(days=9)), "contradictory", "1.2.1", "9 days from"),
        (row(study_uid="1.2.9", patient_id="P9", accession_number="A9"), "matched", "1.2.9", "by study UID"),
        # an accession number of two studies
        (row(accession_number="TWICE"), "ambiguous", None, "fits 2 studies: 1.2.3, 1.2.4"),
        (row(accession_number="TWICE", patient_id="P4"), "matched", "1.2.4", "by accession number"),
        (row(accession_number="TWICE", patient_id="P5"), "contradictory", None, "patient_id is not"),
        # an accession number that is not here: the patient's study must not have another one
        (by_patient("P1", 0, accession_number="NOPE"), "unmatched", None, "patient ID"),
        (by_patient("P10", 0, accession_number="NOPE"), "matched", "1.2.10", "by patient ID"),
        # two studies of one patient: the exact day decides, else nothing does
        (by_patient("P5", 0), "matched", "1.2.5", "by patient ID"),
        (by_patient("P5", 3), "matched", "1.2.6", "by patient ID"),
        (by_patient("P5", 1), "ambiguous", None, "fits 2 studies: 1.2.5, 1.2.6"),
        (by_patient("P5", -1), "matched", "1.2.5", "by patient ID"),
        (by_patient("P7", 0), "ambiguous", None, "fits 2 studies: 1.2.7, 1.2.8"),
        # the breast and the day must fit the study
        (row(study_uid="1.2.2"), "contradictory", "1.2.2", "right breast only"),
        (row(study_uid="1.2.2", laterality="R"), "matched", "1.2.2", "by study UID"),
        (row(study_uid="1.2.1", finding=on(2026, 12, 1)), "invalid", "1.2.1", "in the future"),
        (row(study_uid="1.2.1", finding=on(2025, 12, 1)), "invalid", "1.2.1", "90 days before"),
        (row(study_uid="1.2.9", finding=on(2020, 1, 1)), "matched", "1.2.9", "study UID"),
        (row(study_uid="1.2.1", finding=None, category=4), "matched", "1.2.1", "BI-RADS 4"),
    ],
)  # fmt: skip
def test_the_matching_table(one: Row, outcome: str, study_uid: str | None, words: str) -> None:
    decision = judge([one])
    [verdict] = decision.verdicts
    assert (verdict.outcome.value, verdict.study_uid) == (outcome, study_uid)
    assert words in verdict.reason
    assert bool(verdict.todo) is (outcome != "matched")
    assert len(decision.changes) == (outcome == "matched")


def outcomes(decision: Decision) -> list[str]:
    return [verdict.outcome.value for verdict in decision.verdicts]


def left(number: int, finding: Finding | None = None, category: int | None = None) -> Row:
    return row(number, study_uid="1.2.1", finding=finding, category=category)


def right(number: int, finding: Finding | None = None, category: int | None = None) -> Row:
    return replace(left(number, finding, category), laterality="R")


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([left(2, MALIGNANT), left(3, MALIGNANT)], ["matched", "unchanged"]),
        ([left(2, MALIGNANT), left(3, BENIGN)], ["contradictory", "contradictory"]),
        ([left(2, MALIGNANT), right(3, BENIGN)], ["matched", "matched"]),
        ([left(2, MALIGNANT), left(3, None, 5)], ["matched", "matched"]),
        ([left(2, MALIGNANT, 5), left(3, None, 5)], ["matched", "unchanged"]),
        ([left(2, MALIGNANT, 5), left(3, None, 4), left(4, MALIGNANT)], ["contradictory", "contradictory", "matched"]),
        ([left(2, MALIGNANT), replace(left(3, BENIGN), study_uid=None, accession_number="A1")], ["contradictory"] * 2),
        ([left(2, MALIGNANT), left(3, replace(MALIGNANT, found_on=FOUND + timedelta(1)))], ["contradictory"] * 2),
    ],
)  # fmt: skip
def test_rows_of_one_breast(rows: list[Row], expected: list[str]) -> None:
    decision = judge(rows)
    assert outcomes(decision) == expected
    assert {change.row.number for change in decision.changes} == {
        one.number for one, word in zip(rows, expected, strict=True) if word == "matched"
    }


ID = uuid.UUID(int=1)


@pytest.mark.parametrize(
    ("said", "new", "outcome", "words"),
    [
        (Said(), MALIGNANT, "matched", "revision 1"),
        (Said((MALIGNANT,)), MALIGNANT, "unchanged", "on record"),
        (Said((BENIGN,)), MALIGNANT, "matched", "revision 2, before benign of 2026-03-20"),
        (Said((MALIGNANT, BENIGN)), MALIGNANT, "contradictory", "was corrected: revision 2 says benign"),
        (Said((MALIGNANT, BENIGN, MALIGNANT)), MALIGNANT, "unchanged", "on record"),
        (Said((MALIGNANT, BENIGN)), BOTH, "matched", "revision 3"),
    ],
)  # fmt: skip
def test_a_row_beside_what_is_on_record(said: Said, new: Finding, outcome: str, words: str) -> None:
    [verdict] = judge([left(2, new)], {(ID, "L"): said}).verdicts
    assert verdict.outcome.value == outcome
    assert words in verdict.reason


def test_swapped_breasts_are_named() -> None:
    said = {(ID, "L"): Said((MALIGNANT,)), (ID, "R"): Said((BENIGN,))}
    decision = judge([left(2, BENIGN), right(3, MALIGNANT), right(4, None, 2)], said)
    assert outcomes(decision) == ["contradictory", "contradictory", "matched"]
    assert "left and right may be swapped" in decision.verdicts[0].reason
    # equal breasts cannot be told apart, and one breast alone is a correction
    assert outcomes(judge([left(2, BENIGN)], said)) == ["matched"]
    same = {(ID, side): Said((MALIGNANT,)) for side in "LR"}
    assert outcomes(judge([left(2, MALIGNANT), right(3, MALIGNANT)], same)) == ["unchanged"] * 2


NEITHER = Finding(False, False, FOUND)
LATER = replace(MALIGNANT, found_on=FOUND + timedelta(days=60))


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        # a row of one breast is all the file says, or the other one is said to have nothing
        ([right(2, MALIGNANT)], ["contradictory"]),
        ([right(2, MALIGNANT), left(3, NEITHER)], ["contradictory"] * 2),
        ([right(2, MALIGNANT), left(3, replace(NEITHER, found_on=DAY))], ["contradictory"] * 2),
        # other findings, other days, and both breasts named
        ([right(2, LATER)], ["matched"]),
        ([right(2, BENIGN)], ["matched"]),
        ([right(2, BOTH), left(3, NEITHER)], ["matched"] * 2),
        ([left(2, NEITHER)], ["matched"]),
        ([left(2, MALIGNANT), right(3, MALIGNANT)], ["unchanged", "matched"]),
        ([left(2, MALIGNANT), right(3, NEITHER)], ["unchanged", "matched"]),
        ([right(2, None, 5)], ["matched"]),
    ],
)
@pytest.mark.parametrize("silent", [Said(), Said((NEITHER,))])
def test_a_mirrored_file_is_a_swap_where_one_breast_has_nothing(
    rows: list[Row], expected: list[str], silent: Said
) -> None:
    said = {(ID, "L"): Said((MALIGNANT,)), (ID, "R"): silent}
    if rows[-1] == right(3, NEITHER) and silent.findings:
        expected = ["unchanged", "unchanged"]
    decision = judge(rows, said)
    assert outcomes(decision) == expected
    for verdict in decision.verdicts:
        if verdict.outcome is Outcome.CONTRADICTORY:
            assert "left and right may be swapped" in verdict.reason
            assert "`tomonode label set`" in verdict.todo


def test_exchanged_categories_cast_doubt_on_pathology() -> None:
    said = {(ID, "L"): Said((), (5,)), (ID, "R"): Said((), (1,))}
    swapped = judge([right(2, MALIGNANT, 5), left(3, None, 1)], said)
    assert outcomes(swapped) == ["contradictory"] * 2
    assert not swapped.changes
    assert outcomes(judge([left(2, MALIGNANT, 5), right(3, None, 1)], said)) == [
        "matched", "unchanged",
    ]  # fmt: skip
    assert outcomes(judge([right(2, MALIGNANT, 5)], said)) == ["matched"]
    assert outcomes(judge([right(2, None, 4), left(3, None, 2)], said)) == ["matched"] * 2


@pytest.mark.parametrize(("days", "late"), [(365, False), (366, True)])
def test_a_finding_outside_the_window_is_said_in_every_report(days: int, late: bool) -> None:
    studies = [study(1, study_date=TODAY - timedelta(days=400))]
    found = replace(MALIGNANT, found_on=TODAY - timedelta(days=400 - days))
    rules, catalogue = Rules(TODAY), Catalogue(studies)
    table = LabelTable("UTF-8", "comma", (), (left(2, found),), ())
    located = [locate(one, catalogue, rules) for one in table.rows]
    for said, outcome in (({}, "matched"), ({(ID, "L"): Said((found,))}, "unchanged")):
        [verdict] = decide(table, located, said).verdicts
        assert verdict.outcome.value == outcome
        assert ("outside the window of 365 days, not counted" in verdict.reason) is late


FINDINGS = st.builds(Finding, st.booleans(), st.booleans(), st.sampled_from([FOUND, DAY]))
ROWS = st.lists(
    st.builds(
        row,
        study_uid=st.sampled_from([None, "1.2.1", "1.2.2", "1.2.3", "9.9"]),
        accession_number=st.sampled_from([None, "A1", "TWICE", "NOPE"]),
        patient_id=st.sampled_from([None, "P1", "P5", "P7"]),
        study_date=st.sampled_from([None, DAY, DAY + timedelta(days=2), DAY + timedelta(days=40)]),
        laterality=st.sampled_from("LR"),
        finding=st.none() | FINDINGS,
        category=st.none() | st.integers(0, 6),
    ),
    max_size=8,
).map(lambda rows: [replace(one, number=index) for index, one in enumerate(rows, start=2)])


def applied(decision: Decision, said: dict[Breast, Said]) -> dict[Breast, Said]:
    """What is on record once the changes are written; each is the next revision."""
    after = dict(said)
    for change in decision.changes:
        key = (change.study_id, change.row.laterality)
        before = after.get(key, Said())
        if isinstance(change.value, Finding):
            assert change.revision == len(before.findings) + 1
            after[key] = replace(before, findings=(*before.findings, change.value))
        else:
            assert change.revision == len(before.categories) + 1
            after[key] = replace(before, categories=(*before.categories, change.value))
    return after


@given(first=ROWS, second=ROWS)
def test_every_file_is_taken_once(first: list[Row], second: list[Row]) -> None:
    """A verdict a row; the same file again writes nothing; nothing on record is ever removed or repeated."""
    said: dict[Breast, Said] = {}
    for rows in (first, second, first):
        decision = judge(rows, said)
        assert [verdict.row for verdict in decision.verdicts] == [one.number for one in rows]
        matched = {v.row for v in decision.verdicts if v.outcome is Outcome.MATCHED}
        assert {change.row.number for change in decision.changes} == matched
        after = applied(decision, said)
        assert not judge(rows, after).changes
        for breast, before in said.items():
            assert after[breast].findings[: len(before.findings)] == before.findings
            assert after[breast].categories[: len(before.categories)] == before.categories
        for one in after.values():
            assert len(set(one.findings)) == len(one.findings)
            assert len(set(one.categories)) == len(one.categories)
        said = after


@given(rows=ROWS, seed=st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(rows: list[Row], seed: object) -> None:
    mixed = list(rows)
    seed.shuffle(mixed)  # type: ignore[attr-defined]
    assert applied(judge(mixed), {}) == applied(judge(rows), {})
