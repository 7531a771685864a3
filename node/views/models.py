"""Model versions as a person sees them: states, what was measured, who decided what and why."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from node import model_history, registry
from node.learning_models import Dataset, Evaluation, ModelDecision, ModelVersion

Figure = Mapping[str, float] | None
"""A `value` with the `low` and `high` end of its interval; None where a class had no case."""


@dataclass(frozen=True)
class EvaluationRow:
    """One evaluation: breast-wise areas under the ROC curve, and the paired difference to the other version."""

    id: uuid.UUID
    created_at: datetime
    dataset: str
    against: str | None
    malignant: Figure
    malignant_difference: Figure
    benign: Figure
    benign_difference: Figure


@dataclass(frozen=True)
class DecisionRow:
    """Who changed what a version is used for, and why."""

    at: datetime
    event: str
    from_state: str | None
    to_state: str
    by: str
    approved_by: str | None
    reason: str | None
    overridden: bool
    evaluation_id: uuid.UUID | None


@dataclass(frozen=True)
class ModelRow:
    """One version, with its newest evaluation and its newest decision."""

    version: str
    state: str
    trained: bool
    sha256: str
    description: str
    licence: str
    dataset: str | None
    training_run_id: uuid.UUID | None
    created_by: str
    created_at: datetime
    evaluation: EvaluationRow | None
    decision: DecisionRow | None


@dataclass(frozen=True)
class ModelPage:
    """All that is known of one version; evaluations are newest first, decisions oldest first."""

    row: ModelRow
    size_bytes: int
    architecture: Mapping[str, Any]
    preprocessing: Mapping[str, Any]
    operating_points: Mapping[str, Any]
    metrics: Mapping[str, Any]
    dataset_hash: str | None
    code_version: str
    evaluations: list[EvaluationRow]
    decisions: list[DecisionRow]


def model_list(session: Session) -> list[ModelRow]:
    """All versions, newest first."""
    return [_row(session, version) for version in registry.versions(session)]


def model_page(session: Session, version: str) -> ModelPage:
    """One version by its name.

    Raises:
        NotFound: no such version.
    """
    found = registry.find(session, version)
    same = ("size_bytes", "architecture", "preprocessing", "operating_points", "metrics")
    more = ("dataset_hash", "code_version")
    return ModelPage(
        row=_row(session, found),
        evaluations=_evaluations(session, found),
        decisions=_decisions(session, found),
        **{name: getattr(found, name) for name in (*same, *more)},
    )


def _row(session: Session, found: ModelVersion) -> ModelRow:
    dataset = session.get(Dataset, found.dataset_id) if found.dataset_id else None
    same = ("version", "state", "trained", "sha256", "description", "licence", "training_run_id")
    return ModelRow(
        dataset=dataset.name if dataset else None,
        created_by=found.created_by,
        created_at=found.created_at,
        evaluation=next(iter(_evaluations(session, found)), None),
        decision=next(reversed(_decisions(session, found)), None),
        **{name: getattr(found, name) for name in same},
    )


def _evaluations(session: Session, found: ModelVersion) -> list[EvaluationRow]:
    return [_evaluation(row) for row in registry.evaluations(session, found.id)]


def _evaluation(row: Evaluation) -> EvaluationRow:
    breast = row.summary["breast"]
    malignant, benign = breast["malignant"], breast.get("benign", {})
    return EvaluationRow(
        id=row.id,
        created_at=row.created_at,
        dataset=row.summary["dataset"],
        against=row.summary["against"],
        malignant=malignant["auc"],
        malignant_difference=malignant["difference"],
        benign=benign.get("auc"),
        benign_difference=benign.get("difference"),
    )


def _decisions(session: Session, found: ModelVersion) -> list[DecisionRow]:
    return [_decision(one) for one in model_history.decisions(session, found.id)]


def _decision(one: ModelDecision) -> DecisionRow:
    names = DecisionRow.__dataclass_fields__
    return DecisionRow(**{name: getattr(one, name) for name in names})
