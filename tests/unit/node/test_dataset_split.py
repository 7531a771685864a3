"""The split by patient: properties that hold for every set of exams."""

from __future__ import annotations

from collections import Counter
from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.datasets.rule import SHARES
from node.datasets.split import LEAST_PATIENTS, Exam, split_patients
from node.errors import Conflict

ORDER = list(SHARES)


@st.composite
def cohorts(draw: st.DrawFn, least: int = LEAST_PATIENTS) -> list[Exam]:
    """Exams of `least` to 60 patients, up to five each, many on the same days; in any order."""
    patients = draw(st.integers(least, 60))
    days = st.integers(0, draw(st.sampled_from([0, 10, 3000])))
    exams = [
        Exam(
            date(2016, 1, 1) + timedelta(days=draw(days)), f"1.2.{patient}.{number}", f"p{patient}"
        )
        for patient in range(patients)
        for number in range(draw(st.integers(1, 5)))
    ]
    return draw(st.permutations(exams))


@given(cohorts())
def test_each_patient_is_in_one_split_and_its_share_is_right_within_a_patient(
    exams: list[Exam],
) -> None:
    splits = split_patients(exams)

    assert splits.keys() == {exam.patient for exam in exams}
    found = Counter(splits.values())
    for split, percent in SHARES.items():
        assert abs(found[split] - percent * len(splits) / 100) <= 1
        assert found[split] >= 1


@given(cohorts())
def test_who_was_seen_last_is_tested(exams: list[Exam]) -> None:
    splits = split_patients(exams)

    last: dict[str, date] = {}
    for exam in exams:
        last[exam.patient] = max(exam.day, last.get(exam.patient, exam.day))
    places = [ORDER.index(splits[patient]) for patient in sorted(last, key=lambda p: last[p])]
    days = sorted(last.values())
    for earlier, later in zip(range(len(days)), range(1, len(days)), strict=False):
        assert places[earlier] <= places[later] or days[earlier] == days[later]


@given(cohorts(), st.randoms())
def test_order_and_names_of_patients_change_nothing(exams: list[Exam], random: object) -> None:
    shuffled = list(exams)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    renamed = [Exam(exam.day, exam.study_uid, f"other {exam.patient}") for exam in shuffled]

    splits = split_patients(exams)

    assert split_patients(shuffled) == splits
    assert split_patients(renamed) == {f"other {name}": split for name, split in splits.items()}


@pytest.mark.parametrize("patients", [0, 1, LEAST_PATIENTS - 1])
def test_too_few_patients_are_refused(patients: int) -> None:
    exams = [
        Exam(date(2020, 1, n + 1), f"1.2.{n}.{k}", f"p{n}")
        for n in range(patients)
        for k in range(9)
    ]

    with pytest.raises(Conflict, match=f"^{patients} patients .* at least {LEAST_PATIENTS}"):
        split_patients(exams)


def test_an_early_exam_goes_where_the_last_one_is() -> None:
    exams = [Exam(date(2020, 1, n + 1), f"1.2.{n}", f"p{n}") for n in range(10)]
    early = Exam(date(2019, 1, 1), "1.2.99", "p9")

    assert split_patients([*exams, early]) == split_patients(exams)
    assert split_patients(exams)["p9"] == "test"
