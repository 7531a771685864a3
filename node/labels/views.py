"""What is shown of labels: of one study with every revision, of all in a list, and the imports that brought them."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, TypeVar

from sqlalchemy import func, select, union_all
from sqlalchemy.orm import Session

from node.labels import boxes
from node.labels.revisions import newest_assessments, newest_pathology
from node.labels.rule import WINDOW_DAYS, Truth, dicom_date, passed_over, truth_of
from node.labels.store import sides_of
from node.labels.values import LATERALITIES, finding_word
from node.learning_models import Assessment, LabelImport, Pathology
from node.models import Instance, Study

_Row = TypeVar("_Row", Pathology, Assessment)
_View = TypeVar("_View")


@dataclass(frozen=True)
class PathologyView:
    """One revision of what pathology said; `finding` is a word of `node.labels.values.FINDINGS`."""

    revision: int
    finding: str
    benign: bool
    malignant: bool
    found_on: date
    source: str
    author: str
    note: str | None
    created_at: datetime


@dataclass(frozen=True)
class AssessmentView:
    """One revision of a BI-RADS category."""

    revision: int
    category: int
    source: str
    author: str
    created_at: datetime


@dataclass(frozen=True)
class BoxView:
    """One revision of a box; frame, row and column from 0, in stored pixels.

    `drawn_in` names the segmentation and its segment where it is the box around a mask.
    """

    sop_uid: str
    number: int
    revision: int
    label: str
    frame: int
    row: int
    col: int
    height: int
    width: int
    drawn_in: str | None
    withdrawn: bool
    source: str
    author: str
    created_at: datetime


@dataclass(frozen=True)
class BreastView:
    """One breast of one study, revisions newest first. `counts_as` is a finding, "negative" or "unknown"; `because`
    says by what: a revision, the window that has passed, or what is waited for."""

    laterality: str
    counts_as: str
    because: str
    pathology: tuple[PathologyView, ...]
    assessments: tuple[AssessmentView, ...]


@dataclass(frozen=True)
class StudyLabels:
    """All labels of one study; no patient attribute."""

    study_uid: str
    breasts: tuple[BreastView, ...]
    boxes: tuple[BoxView, ...]


@dataclass(frozen=True)
class LabelRow:
    """The newest labels of one breast, for a list."""

    study_uid: str
    laterality: str
    finding: str | None
    found_on: date | None
    category: int | None
    revisions: int
    source: str
    author: str
    created_at: datetime


@dataclass(frozen=True)
class ImportRow:
    """One import of a file."""

    id: uuid.UUID
    source: str
    sha256: str
    author: str
    created_at: datetime
    counts: dict[str, Any]


def study_labels(
    session: Session, study: Study, today: date, window_days: int = WINDOW_DAYS
) -> StudyLabels:
    """The labels of a study: of every breast that its images show or that has a label, right before left."""
    proven = _revisions(session, Pathology, study.id)
    read = _revisions(session, Assessment, study.id)
    imaged = sides_of(session, [study.id]).get(study.id, frozenset())
    both = imaged & {"B", None}
    labelled = {row.laterality for row in proven} | {row.laterality for row in read}
    shown = [side for side in reversed(LATERALITIES) if both or side in imaged or side in labelled]
    return StudyLabels(
        study_uid=study.study_uid,
        breasts=tuple(
            _breast(
                side,
                [row for row in proven if row.laterality == side],
                [row for row in read if row.laterality == side],
                (dicom_date(study.study_date), today, window_days),
            )
            for side in shown
        ),
        boxes=_boxes(session, study.id),
    )


def _breast(
    side: str,
    proven: list[Pathology],
    read: list[Assessment],
    when: tuple[date | None, date, int],
) -> BreastView:
    truth = truth_of(proven, *when)
    late = passed_over(proven, when[0], when[2])
    if not isinstance(truth, Truth):
        counts_as, because = "unknown", truth.reason
    elif truth.pathology_revision is None:
        counts_as, because = "negative", f"no pathology within {when[2]} days of the study"
        because += f"; {late}" if late else ""
    else:
        counts_as = finding_word(truth.benign, truth.malignant)
        because = f"pathology, revision {truth.pathology_revision}"
        because += f"; {late}" if late else ""
    return BreastView(
        side,
        counts_as,
        because,
        tuple(_pathology(row) for row in proven),
        tuple(_filled(AssessmentView, row) for row in read),
    )


def _pathology(row: Pathology) -> PathologyView:
    return _filled(PathologyView, row, finding=finding_word(row.benign, row.malignant))


def _boxes(session: Session, study_id: uuid.UUID) -> tuple[BoxView, ...]:
    query = select(Instance.id, Instance.sop_uid).where(Instance.study_id == study_id)
    uids = {row.id: row.sop_uid for row in session.execute(query)}
    rows = boxes.revisions(session, study_id)
    return tuple(_filled(BoxView, row, sop_uid=uids[row.instance_id]) for row in rows)


def label_list(session: Session, limit: int = 100, offset: int = 0) -> list[LabelRow]:
    """Breasts with a label, the one labelled last first."""
    given = union_all(
        select(Pathology.study_id, Pathology.laterality, Pathology.created_at),
        select(Assessment.study_id, Assessment.laterality, Assessment.created_at),
    ).subquery()
    breast = (given.c.study_id, given.c.laterality)
    query = (
        select(*breast)
        .group_by(*breast)
        .order_by(func.max(given.c.created_at).desc(), *breast)
        .limit(limit)
        .offset(offset)
    )
    keys = [(row.study_id, row.laterality) for row in session.execute(query)]
    ids = {study_id for study_id, _ in keys}
    proven, read = newest_pathology(session, ids), newest_assessments(session, ids)
    named = select(Study.id, Study.study_uid).where(Study.id.in_(ids))
    uids = {row.id: row.study_uid for row in session.execute(named)}
    out = []
    for key in keys:
        finding, assessment = proven.get(key), read.get(key)
        last = max((row for row in (finding, assessment) if row), key=lambda row: row.created_at)
        out.append(
            LabelRow(
                study_uid=uids[key[0]],
                laterality=key[1],
                finding=finding_word(finding.benign, finding.malignant) if finding else None,
                found_on=finding.found_on if finding else None,
                category=assessment.category if assessment else None,
                revisions=sum(row.revision for row in (finding, assessment) if row),
                source=last.source,
                author=last.author,
                created_at=last.created_at,
            )
        )
    return out


def import_list(session: Session, limit: int = 100) -> list[ImportRow]:
    """The imports of files, newest first."""
    query = select(LabelImport).order_by(LabelImport.created_at.desc(), LabelImport.id).limit(limit)
    return [_filled(ImportRow, row) for row in session.execute(query).scalars()]


def _revisions(session: Session, table: type[_Row], study_id: uuid.UUID) -> list[_Row]:
    """Newest first."""
    query = select(table).where(table.study_id == study_id)
    return list(session.execute(query.order_by(table.revision.desc())).scalars())


def _filled(view: type[_View], row: object, **values: object) -> _View:
    """A view with the row's values of its fields, and the given ones."""
    names = (name for name in view.__annotations__ if name not in values)
    return view(**{name: getattr(row, name) for name in names}, **values)
