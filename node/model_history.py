"""What was decided about model versions, what was measured of them, and what they learned from. Reading only."""

from __future__ import annotations

import uuid

from sqlalchemy import select
from sqlalchemy.orm import Session

from node.learning_models import ModelDecision, ModelVersion, TrainingRun
from node.lifecycle import ModelEvent

REGISTER, ROLLBACK, RESTORE = "REGISTER", "ROLLBACK", "RESTORE"
"""Events of decisions beside those of `ModelEvent`: a new version; the one a rollback takes away, and the one it brings
back."""


def decisions(session: Session, version_id: uuid.UUID | None = None) -> list[ModelDecision]:
    """What was decided, oldest first: of one version, or of all."""
    query = select(ModelDecision).order_by(ModelDecision.id)
    if version_id is not None:
        query = query.where(ModelDecision.version_id == version_id)
    return list(session.execute(query).scalars())


def learned_from(session: Session, version: ModelVersion) -> list[uuid.UUID]:
    """The data sets that a version learned from: its own, and those of the versions it was trained from."""
    found: list[uuid.UUID] = []
    seen: set[uuid.UUID] = set()
    row: ModelVersion | None = version
    while row is not None and row.id not in seen:
        seen.add(row.id)
        if row.dataset_id is not None:
            found.append(row.dataset_id)
        training = session.get(TrainingRun, row.training_run_id) if row.training_run_id else None
        base = training.base_version if training else None
        row = session.execute(
            select(ModelVersion).where(ModelVersion.version == base)
        ).scalar_one_or_none()
    return found


def previous(session: Session) -> ModelVersion | None:
    """The version that a rollback would go to: promotions pile up, and each rollback takes the topmost away."""
    pile: list[uuid.UUID] = []
    for decision in decisions(session):
        if decision.event == ModelEvent.PROMOTE:
            pile.append(decision.version_id)
        elif decision.event == ROLLBACK:
            pile.pop()
    return session.get_one(ModelVersion, pile[-2]) if len(pile) > 1 else None
