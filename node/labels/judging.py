"""What a file of labels changes: rows of one breast beside each other and beside what is on record; pure.

A row repeats what is known, says something new, or contradicts. New are only values that no revision ever had: a row
that says what a later revision corrected is an old export, and going back is left to a person.
"""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field

from node.labels.matching import KnownStudy, Located, Outcome, Undecided
from node.labels.rule import outside, within
from node.labels.table import LabelTable, Row
from node.labels.values import LATERALITIES, Finding, reason_and_todo

Breast = tuple[uuid.UUID, str]

_PATHOLOGY, _BIRADS = "pathology", "BI-RADS"


@dataclass(frozen=True)
class Said:
    """What is on record of one breast, the first revision first."""

    findings: tuple[Finding, ...] = ()
    categories: tuple[int, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """What becomes of one row of the file, why, and what to do."""

    row: int
    outcome: Outcome
    study_uid: str | None
    laterality: str | None
    reason: str
    todo: str = ""


@dataclass(frozen=True)
class Change:
    """A revision to be written."""

    row: Row
    study_id: uuid.UUID
    revision: int
    value: Finding | int


@dataclass
class Decision:
    """A verdict a row, in their order, and what is to be written."""

    verdicts: list[Verdict] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)


def decide(
    table: LabelTable, located: Sequence[Located | Undecided], said: Mapping[Breast, Said]
) -> Decision:
    """Judge every row of a file.

    Args:
        table: the file.
        located: of each of its rows, in their order, the study or why there is none.
        said: what is on record of the breasts of these studies.
    """
    decision = Decision()
    for refused in table.refused:
        reason, todo = reason_and_todo(refused.reason)
        decision.verdicts.append(
            Verdict(refused.number, Outcome.INVALID, refused.study_uid, None, reason, todo)
        )
    breasts: dict[Breast, list[Located]] = defaultdict(list)
    for row, place in zip(table.rows, located, strict=True):
        if isinstance(place, Undecided):
            decision.verdicts.append(_undecided(row, place))
        else:
            breasts[place.study.id, row.laterality].append(place)
    swapped = {study_id: _swapped(study_id, breasts, said) for study_id, _ in breasts}
    for breast, places in breasts.items():
        _judge(places, said.get(breast, Said()), swapped[breast[0]], decision)
    decision.verdicts.sort(key=lambda verdict: verdict.row)
    return decision


def _judge(
    places: Sequence[Located], said: Said, swapped: frozenset[str], decision: Decision
) -> None:
    """Rows of one breast, in the order of the file."""
    given_by: dict[str, int] = {}
    for place in places:
        row, uid = place.row, place.study.study_uid
        problem = _problem(row, places, said, swapped)
        if problem is not None:
            decision.verdicts.append(_undecided(row, problem, uid))
            continue
        outcome, notes = Outcome.UNCHANGED, []
        for part, value in _parts(row):
            history = _history(said, part)
            late = _late(value, place.study)
            if history and history[-1] == value:
                notes.append(f"{part} is on record" + (f" ({late})" if late else ""))
            elif part in given_by:
                notes.append(f"{part} is that of row {given_by[part]}")
            else:
                outcome = Outcome.MATCHED
                given_by[part] = row.number
                decision.changes.append(Change(row, place.study.id, len(history) + 1, value))
                before = f", before {_word(history[-1])}" if history else ""
                before += f"; {late}" if late else ""
                notes.append(f"{part} {_word(value)} (revision {len(history) + 1}{before})")
        reason = f"by {place.by}: {', '.join(notes)}"
        decision.verdicts.append(Verdict(row.number, outcome, uid, row.laterality, reason))


def _problem(
    row: Row, places: Sequence[Located], said: Said, swapped: frozenset[str]
) -> Undecided | None:
    for part, value in _parts(row):
        for other in places:
            if any(name == part and said_there != value for name, said_there in _parts(other.row)):
                return Undecided(
                    Outcome.CONTRADICTORY,
                    f"row {other.row.number} says another {part} of the same breast",
                    "leave one row a breast; benign and malignant may both be 1",
                )
        if part in swapped:
            return Undecided(
                Outcome.CONTRADICTORY,
                "the record has the breasts of this study the other way round: left and right may be swapped",
                "compare with the report; if it is meant, write it with `tomonode label set` or `label assess`, which"
                " adds a revision",
            )
        history = _history(said, part)
        if value in history[:-1] and value != history[-1]:
            return Undecided(
                Outcome.CONTRADICTORY,
                f"{part} {_word(value)} was corrected: revision {len(history)} says {_word(history[-1])}",
                "bring the file up to date; to go back, use `tomonode label set` or `label assess`",
            )
    return None


def _swapped(
    study_id: uuid.UUID, breasts: Mapping[Breast, Sequence[Located]], said: Mapping[Breast, Said]
) -> frozenset[str]:
    """Parts of a study's rows not to be taken: the file says of each breast what is on record of the other one.

    A breast without a row, or without a record, has no finding, as most breasts have none; then the findings must be of
    one day, for a later one in the other breast is no swap. Exchanged BI-RADS categories cast doubt on pathology too.
    """
    rows = [breasts.get((study_id, side), ()) for side in LATERALITIES]
    before = [said.get((study_id, side), Said()) for side in LATERALITIES]
    named = [{place.row.finding for place in places} - {None} for places in rows]
    known = [set(one.findings[-1:]) for one in before]
    read = [{place.row.category for place in places} - {None} for places in rows]
    if _mirrored(read, [set(one.categories[-1:]) for one in before]):
        return frozenset({_PATHOLOGY, _BIRADS})
    if _mirrored(_flags(named), _flags(known)) or _mirrored(_proven(named), _proven(known)):
        return frozenset({_PATHOLOGY})
    return frozenset()


def _mirrored(new: Sequence[Set[object]], old: Sequence[Set[object]]) -> bool:
    """Whether either breast of the file is the other one of the record, each of one word, and not the same."""
    return all(len(one) == 1 for one in (*new, *old)) and [*new] == [*old][::-1] != [*old]


def _flags(breasts: Sequence[Set[Finding | None]]) -> list[set[object]]:
    return [{(one.benign, one.malignant) for one in found if one} for found in breasts]


def _proven(breasts: Sequence[Set[Finding | None]]) -> list[set[object]]:
    """Findings with their day; None of a breast in which nothing was found or of which nothing is said."""
    return [
        {one if one and (one.benign or one.malignant) else None for one in found or {None}}
        for found in breasts
    ]


def _parts(row: Row) -> Iterator[tuple[str, Finding | int]]:
    if row.finding is not None:
        yield _PATHOLOGY, row.finding
    if row.category is not None:
        yield _BIRADS, row.category


def _history(said: Said, part: str) -> Sequence[Finding | int]:
    return said.findings if part == _PATHOLOGY else said.categories


def _late(value: Finding | int, study: KnownStudy) -> str:
    """What a person must know of a finding that does not belong to the exam; "" of others."""
    if isinstance(value, int) or study.study_date is None:
        return ""
    return "" if within(value.found_on, study.study_date) else outside()


def _word(value: Finding | int) -> str:
    return f"{value.word} of {value.found_on}" if isinstance(value, Finding) else str(value)


def _undecided(row: Row, why: Undecided, study_uid: str | None = None) -> Verdict:
    uid = why.study_uid or study_uid
    return Verdict(row.number, why.outcome, uid, row.laterality, why.reason, why.todo)
