"""Patients into train, valid and test, as the 3D-GMIC paper does it (section III). Pure.

They are sorted by the day of their last exam: the first 80 % train, the next 10 % validate, the most recent 10 % test.

A patient is in one split with all exams, those from before the others' last exams too.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from typing import Literal

from node.errors import Conflict

Split = Literal["train", "valid", "test"]

LEAST_PATIENTS = 5
"""With fewer, a split would be empty or more than a patient off its share."""


@dataclass(frozen=True, order=True)
class Exam:
    """One exam of a patient, as far as the split asks."""

    day: date
    study_uid: str
    patient: str


def split_patients(exams: Iterable[Exam]) -> dict[str, Split]:
    """The split of each patient. Patients with one last day go by the first of their study UIDs, in text order, so that
    the same exams give the same split on every node, in whatever order they come.

    Raises:
        Conflict: too few patients.
    """
    last: dict[str, date] = {}
    first_uid: dict[str, str] = {}
    for exam in sorted(exams):
        last[exam.patient] = exam.day
        known = first_uid.get(exam.patient, exam.study_uid)
        first_uid[exam.patient] = min(known, exam.study_uid)
    if len(last) < LEAST_PATIENTS:
        raise Conflict(
            f"{len(last)} patients with eligible exams cannot be split 80/10/10; at least {LEAST_PATIENTS} are needed:"
            " widen --since and --until, or see `tomonode dataset why STUDY`"
        )
    order = sorted(last, key=lambda patient: (last[patient], first_uid[patient]))
    tenth = (len(order) + 5) // 10  # rounded to the nearest
    test, valid = len(order) - tenth, len(order) - 2 * tenth
    return {patient: _split(place, valid, test) for place, patient in enumerate(order)}


def _split(place: int, valid: int, test: int) -> Split:
    if place < valid:
        return "train"
    return "valid" if place < test else "test"
