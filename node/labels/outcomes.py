"""What was predicted beside what pathology said later: a row a breast, for those who watch a model drift."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import date, datetime

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session, aliased

from node.labels.revisions import newest_pathology
from node.labels.rule import dicom_date
from node.learning_models import Pathology
from node.lifecycle import RunState
from node.models import ImageResult, Run, Study


@dataclass(frozen=True)
class Predicted:
    """One breast: scores in [0, 1], the mean over its images as in the evaluation, and its newest pathology.

    `month` is that of the exam (YYYY-MM), None where the study has no date; `days` counts from the exam to the finding.
    """

    month: str | None
    study_id: uuid.UUID
    study_uid: str
    laterality: str
    model_version: str
    trained: bool
    score_benign: float
    score_malignant: float
    predicted_at: datetime
    benign: bool
    malignant: bool
    found_on: date
    days: int | None
    labelled_at: datetime

    @property
    def late(self) -> bool:
        """Whether the label came after the prediction."""
        return self.labelled_at > self.predicted_at


def outcomes(session: Session) -> list[Predicted]:
    """Every breast with both pathology and scores, by month of the exam (those without a date last).

    Scores are of the study's newest run that succeeded and answers for the node (no shadow); a breast without an image
    that was read, and images whose header gives no one breast, have none.
    """
    labels = newest_pathology(session)
    found = []
    for study, run, laterality, benign, malignant in session.execute(_scores()):
        label = labels.get((study.id, laterality or ""))
        if label is None or run.finished_at is None:
            continue
        day = dicom_date(study.study_date)
        found.append(
            Predicted(
                month=day.strftime("%Y-%m") if day else None,
                study_id=study.id,
                study_uid=study.study_uid,
                laterality=label.laterality,
                model_version=run.model_version,
                trained=run.model is not None and run.model.get("trained") is True,
                score_benign=benign,
                score_malignant=malignant,
                predicted_at=run.finished_at,
                benign=label.benign,
                malignant=label.malignant,
                found_on=label.found_on,
                days=(label.found_on - day).days if day else None,
                labelled_at=label.created_at,
            )
        )
    return sorted(found, key=lambda one: (one.month or "~", one.study_uid, one.laterality))


def _scores() -> Select[Study, Run, str | None, float, float]:
    """A row a breast of every labelled study: its run and its mean scores (benign, malignant)."""
    one = aliased(Run)
    newest = (
        select(one.id)
        .where(one.study_id == Study.id, one.state == RunState.SUCCEEDED, ~one.shadow)
        .order_by(one.created_at.desc())
        .limit(1)
        .correlate(Study)
        .scalar_subquery()
    )
    return (
        select(
            Study,
            Run,
            ImageResult.laterality,
            func.avg(ImageResult.score_benign),
            func.avg(ImageResult.score_malignant),
        )
        .select_from(Study)
        .join(Run, Run.id == newest)
        .join(ImageResult, ImageResult.run_id == Run.id)
        .where(ImageResult.excluded_reason.is_(None))
        .where(Study.id.in_(select(Pathology.study_id)))
        .group_by(Study.id, Run.id, ImageResult.laterality)
    )
