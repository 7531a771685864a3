"""Labels in the database: add a revision, read the newest ones, pair them with what was predicted.

A correction is a new row; nothing is changed or removed. The study's row is locked while a revision is written, so that
two people who correct the same breast get two revisions.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from datetime import date, datetime
from typing import Unpack

from sqlalchemy import select
from sqlalchemy.orm import Session

from node import timeline
from node.errors import InvalidLabel
from node.labels.boxes import add_annotation, newest_annotations
from node.labels.outcomes import Predicted, outcomes
from node.labels.revisions import (
    Breast,
    Origin,
    chunks,
    columns,
    line_of,
    lock,
    newest_assessments,
    newest_pathology,
    pathology_revisions,
)
from node.labels.rule import dicom_date
from node.labels.values import LATERALITIES, Finding, check_day, missing_side, note_of, shown
from node.learning_models import Assessment, Pathology
from node.models import Instance, Study

__all__ = [
    "Breast",
    "Origin",
    "Predicted",
    "add_annotation",
    "add_assessment",
    "add_pathology",
    "finding",
    "newest_annotations",
    "newest_assessments",
    "newest_pathology",
    "outcomes",
    "pathology_revisions",
    "sides_of",
]


def add_pathology(
    session: Session,
    study: Study,
    laterality: str,
    *,
    benign: bool,
    malignant: bool,
    found_on: date,
    note: str | None = None,
    **origin: Unpack[Origin],
) -> Pathology | None:
    """Write what pathology said of one breast, as its next revision.

    Args:
        session: of a writing transaction.
        study: the study.
        laterality: "L" or "R".
        benign: whether a benign finding was proven.
        malignant: whether a malignant finding was proven.
        found_on: day of the biopsy or surgery.
        note: free text.
        **origin: `source`, `author`, `at`, and `import_id` if it came with a file.

    Returns:
        The new row; None where the newest revision says the same, and nothing was written.

    Raises:
        InvalidLabel: the values cannot be, or the study has images of the other breast alone.
    """
    note = note_of(note)
    _check_breast(session, study, laterality)
    check_day(found_on, dicom_date(study.study_date), origin["at"].date())
    lock(session, [study.id])
    newest = newest_pathology(session, [study.id]).get((study.id, laterality))
    said = Finding(benign, malignant, found_on)
    if newest is not None and said == finding(newest) and note in (None, newest.note):
        return None
    revision = 1 if newest is None else newest.revision + 1
    row = Pathology(
        study_id=study.id, laterality=laterality, revision=revision,
        benign=benign, malignant=malignant, found_on=found_on, note=note, **columns(origin),
    )  # fmt: skip
    _keep(session, row, f"pathology {said.word}", origin["at"])
    return row


def add_assessment(
    session: Session, study: Study, laterality: str, *, category: int, **origin: Unpack[Origin]
) -> Assessment | None:
    """Write a radiologist's BI-RADS category (0 to 6) of one breast, as its next revision.

    Returns and raises as `add_pathology`.
    """
    _check_breast(session, study, laterality)
    if not 0 <= category <= 6:
        raise InvalidLabel(f"BI-RADS category is {category}; give 0 to 6")
    lock(session, [study.id])
    newest = newest_assessments(session, [study.id]).get((study.id, laterality))
    if newest is not None and newest.category == category:
        return None
    row = Assessment(
        study_id=study.id, laterality=laterality,
        revision=1 if newest is None else newest.revision + 1, category=category, **columns(origin),
    )  # fmt: skip
    _keep(session, row, f"BI-RADS {category}", origin["at"])
    return row


def finding(row: Pathology) -> Finding:
    """The finding of a row."""
    return Finding(row.benign, row.malignant, row.found_on)


def sides_of(
    session: Session, study_ids: Iterable[uuid.UUID]
) -> dict[uuid.UUID, frozenset[str | None]]:
    """Which breasts the images of each study show; None among them: an image that does not say."""
    found: dict[uuid.UUID, set[str | None]] = {}
    for chunk in chunks(study_ids):
        query = select(Instance.study_id, Instance.laterality).where(
            Instance.is_image, Instance.study_id.in_(chunk)
        )
        for study_id, laterality in session.execute(query.distinct()):
            found.setdefault(study_id, set()).add(laterality)
    return {study_id: frozenset(sides) for study_id, sides in found.items()}


def _check_breast(session: Session, study: Study, laterality: str) -> None:
    if laterality not in LATERALITIES:
        raise InvalidLabel(f"laterality is {shown(laterality)}; give L or R")
    problem = missing_side(laterality, sides_of(session, [study.id]).get(study.id, frozenset()))
    if problem is not None:
        raise InvalidLabel(f"{problem}; give the breast that was imaged")


def _keep(session: Session, row: Pathology | Assessment, what: str, at: datetime) -> None:
    session.add(row)
    session.flush()
    timeline.add(session, row.study_id, at, "label", line_of(row.laterality, row.revision, what))
