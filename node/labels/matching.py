"""Which study a row of labels belongs to: a pure decision, with its reason.

The study's UID decides, else the accession number, else patient ID and study date within some days. Whatever else the
row gives must agree with the study that was found. Nothing is guessed: a row that fits two studies, or does not fit
what the images say, is left to a person.
"""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from enum import StrEnum

from node.errors import InvalidLabel
from node.labels.table import Row
from node.labels.values import check_day, missing_side, reason_and_todo

_LISTED = 5


class Outcome(StrEnum):
    """What becomes of a row."""

    MATCHED = "matched"  # something is written
    UNCHANGED = "unchanged"  # known already
    AMBIGUOUS = "ambiguous"  # fits more than one study
    UNMATCHED = "unmatched"  # fits no study that was received
    CONTRADICTORY = "contradictory"  # does not fit the study, its images, another row or the record
    INVALID = "invalid"  # cannot be read, or cannot be


@dataclass(frozen=True)
class KnownStudy:
    """A received study, as far as matching looks at it; `sides` are those of its images, None one that does not say."""

    id: uuid.UUID
    study_uid: str
    accession_number: str | None
    patient_id: str | None
    study_date: date | None
    sides: frozenset[str | None]


@dataclass(frozen=True)
class Rules:
    """The present day, and how many days a row's study date may be off where it must find the study."""

    today: date
    match_days: int = 3


@dataclass(frozen=True)
class Undecided:
    """Why a row is not taken, what to do, and its study if one was found."""

    outcome: Outcome
    reason: str
    todo: str
    study_uid: str | None = None


@dataclass(frozen=True)
class Located:
    """A row with its study, and by what it was found."""

    row: Row
    study: KnownStudy
    by: str


class Catalogue:
    """The received studies that rows may mean."""

    def __init__(self, studies: Iterable[KnownStudy]) -> None:
        self.by_uid: dict[str, KnownStudy] = {}
        self.by_accession: dict[str, list[KnownStudy]] = defaultdict(list)
        self.by_patient: dict[str, list[KnownStudy]] = defaultdict(list)
        for study in sorted(studies, key=lambda one: one.study_uid):
            self.by_uid[study.study_uid] = study
            if study.accession_number:
                self.by_accession[study.accession_number].append(study)
            if study.patient_id:
                self.by_patient[study.patient_id].append(study)


def locate(row: Row, catalogue: Catalogue, rules: Rules) -> Located | Undecided:
    """The study of a row, which its breast and its day fit; or why there is none."""
    located = _find(row, catalogue, rules)
    if isinstance(located, Undecided):
        return located
    study = located.study
    side = missing_side(row.laterality, study.sides)
    if side is not None:
        return Undecided(
            Outcome.CONTRADICTORY,
            side,
            "compare with the report; give the breast that was imaged, or the other study",
            study.study_uid,
        )
    try:
        if row.finding is not None:
            check_day(row.finding.found_on, study.study_date, rules.today)
    except InvalidLabel as error:
        return Undecided(Outcome.INVALID, *reason_and_todo(error), study.study_uid)
    return located


def _find(row: Row, catalogue: Catalogue, rules: Rules) -> Located | Undecided:
    if row.study_uid is not None:
        study = catalogue.by_uid.get(row.study_uid)
        if study is None:
            return _unmatched("study UID", row.study_uid)
        return _only([study], row, "study UID", rules)
    if row.accession_number is not None:
        studies = catalogue.by_accession.get(row.accession_number, [])
        if studies:
            return _only(studies, row, "accession number", rules)
    if row.patient_id is None or row.study_date is None:
        return _unmatched("accession number")
    return _by_patient(row, row.study_date, catalogue, rules)


def _by_patient(row: Row, wanted: date, catalogue: Catalogue, rules: Rules) -> Located | Undecided:
    days_off: dict[int, list[KnownStudy]] = defaultdict(list)
    for study in catalogue.by_patient.get(row.patient_id or "", []):
        if study.study_date is None or (row.accession_number and study.accession_number):
            continue  # a study that has another accession number than the row is another study
        days = abs((study.study_date - wanted).days)
        if days <= rules.match_days:
            days_off[days].append(study)
    near = days_off.get(0) or [study for studies in days_off.values() for study in studies]
    if not near:
        return _unmatched(f"patient ID and study date (within {rules.match_days} days)")
    return _only(near, row, "patient ID and study date", rules)


def _only(studies: Sequence[KnownStudy], row: Row, by: str, rules: Rules) -> Located | Undecided:
    """The one of these studies that the rest of the row agrees with."""
    disagreement = {study.study_uid: _disagreement(row, study, rules) for study in studies}
    left = [study for study in studies if disagreement[study.study_uid] is None]
    if len(left) == 1:
        return Located(row, left[0], by)
    if left:
        listed = ", ".join(study.study_uid for study in left[:_LISTED])
        more = f" and {len(left) - _LISTED} more" if len(left) > _LISTED else ""
        return Undecided(
            Outcome.AMBIGUOUS,
            f"{by} fits {len(left)} studies: {listed}{more}",
            "give study_uid",
        )
    first = studies[0].study_uid
    return Undecided(
        Outcome.CONTRADICTORY,
        f"found by {by}, but {disagreement[first]}",
        "compare with the study; correct the row, or leave that column empty",
        first if len(studies) == 1 else None,
    )


def _disagreement(row: Row, study: KnownStudy, rules: Rules) -> str | None:
    """What of the row is not as the study has it; what either does not say is no disagreement."""
    for name in ("accession_number", "patient_id"):
        given, held = getattr(row, name), getattr(study, name)
        if given is not None and held is not None and given != held:
            return f"{name} is not the study's"
    if row.study_date is not None and study.study_date is not None:
        days = abs((row.study_date - study.study_date).days)
        if days > rules.match_days:
            return f"study_date is {days} days from the study's"
    return None


def _unmatched(by: str, study_uid: str | None = None) -> Undecided:
    return Undecided(
        Outcome.UNMATCHED,
        f"no study was received with this {by}",
        "send the study and import the file again, or correct the row",
        study_uid,
    )
