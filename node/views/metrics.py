"""What a monitor reads: counts by state, queues, scores and input of the last 30 days, late outcomes, disk room."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from node import drift, outbox
from node.config import Settings
from node.drift import Quantiles
from node.labels.outcomes import outcomes
from node.learning_models import TrainingRun
from node.lifecycle import DeliveryState, RunState, TrainingState
from node.models import Delivery, Run
from node.views.drift import measured, scored
from node.views.overview import overview

RECENT_DAYS = 30
_LEVELS = {"p05": "0.05", "p25": "0.25", "p50": "0.5", "p75": "0.75", "p95": "0.95"}

Sample = tuple[dict[str, str], float]
"""Labels and a value."""


@dataclass(frozen=True)
class Metric:
    """One gauge: its name without prefix, what it is, its samples."""

    name: str
    help: str
    samples: list[Sample]


def metrics(session: Session, settings: Settings, at: datetime) -> list[Metric]:
    """All gauges, as they are now. A state that nothing is in has a sample of 0."""
    seen = overview(session, settings, at)
    studies = [({"status": word}, float(count)) for word, count in seen.by_status.items()]
    disk: list[Sample] = (
        [({}, float(seen.disk_free_bytes))] if seen.disk_free_bytes is not None else []
    )
    return [
        Metric("studies", "Studies by status.", studies),
        Metric("runs", "Runs by state; in shadow or not.", _runs(session)),
        Metric("deliveries", "Deliveries by state.", _states(session, Delivery, DeliveryState)),
        Metric("trainings", "Trainings by state.", _states(session, TrainingRun, TrainingState)),
        Metric("queue_depth", "Work that is due and that no worker has begun, by queue.", _due(session, at)),
        Metric("outbox_messages", "Messages that the broker does not have yet.", [({}, float(outbox.depth(session)))]),
        *_scores(session, at),
        *_outcomes(session),
        *_input(session, at),
        Metric("disk_free_bytes", "Room left on the file system of the blob store.", disk),
    ]  # fmt: skip


def _states(
    session: Session, table: type[Delivery] | type[TrainingRun], states: Iterable[StrEnum]
) -> list[Sample]:
    counted = select(table.state, func.count()).group_by(table.state)
    found = {row[0]: row[1] for row in session.execute(counted)}
    return [({"state": state.value}, float(found.get(state.value, 0))) for state in states]


def _runs(session: Session) -> list[Sample]:
    counted = select(Run.state, Run.shadow, func.count()).group_by(Run.state, Run.shadow)
    found = {(state, shadow): count for state, shadow, count in session.execute(counted)}
    return [
        (
            {"state": state.value, "shadow": str(shadow).lower()},
            float(found.get((state, shadow), 0)),
        )
        for state in RunState
        for shadow in (False, True)
    ]


def _due(session: Session, at: datetime) -> list[Sample]:
    waiting: dict[str, tuple[type[Run] | type[Delivery] | type[TrainingRun], StrEnum]] = {
        outbox.INFER[1]: (Run, RunState.QUEUED),
        outbox.DELIVER[1]: (Delivery, DeliveryState.PENDING),
        outbox.TRAIN[1]: (TrainingRun, TrainingState.QUEUED),
    }
    found = []
    for queue, (table, state) in waiting.items():
        counted = select(func.count()).where(table.state == state, table.not_before <= at)
        found.append(({"queue": queue}, float(session.execute(counted).scalar_one())))
    return found


def _scores(session: Session, at: datetime) -> list[Metric]:
    rows = scored(session, at - timedelta(days=RECENT_DAYS))
    breasts: list[Sample] = []
    levels: list[Sample] = []
    for version, part in drift.grouped(rows, lambda row: row.version).items():
        trained = str(all(row.trained for row in part)).lower()
        labels = {"model_version": version, "trained": trained}
        breasts.append((labels, float(len(part))))
        for name in ("malignant", "benign"):
            spread = drift.quantiles([getattr(row, name) for row in part])
            more = {**labels, "class": name}
            levels += _levels(spread, more)
    when = f"that were read in the last {RECENT_DAYS} days"
    return [
        Metric("scored_breasts", f"Breasts {when}, by model version.", breasts),
        Metric("score", f"Quantiles of the scores of breasts {when}; research use only.", levels),
    ]


def _outcomes(session: Session) -> list[Metric]:
    found: list[Sample] = []
    areas: list[Sample] = []
    for total in drift.outcome_months(outcomes(session)):
        if total.month is not None:
            continue
        labels = {"model_version": total.version, "trained": str(total.trained).lower()}
        for name in ("malignant", "benign", "neither"):
            found.append(({**labels, "finding": name}, float(getattr(total, name))))
        if total.malignant_auc is not None:
            for end in ("value", "low", "high"):
                areas.append(({**labels, "end": end}, getattr(total.malignant_auc, end)))
    which = "breasts whose pathology came after they were read"
    return [
        Metric("late_outcomes", f"Findings of {which}, by model version.", found),
        Metric("late_malignant_auc", f"Malignant AUC among {which}, and its 95 % interval; research use only.", areas),
    ]  # fmt: skip


def _input(session: Session, at: datetime) -> list[Metric]:
    found = measured(session, at - timedelta(days=RECENT_DAYS))
    grey = [
        sample
        for key in ("p05", "p50", "p95")
        for sample in _levels(getattr(found, f"intensity_{key}"), {"in_image": _LEVELS[key]})
    ]
    when = f"images that were read in the last {RECENT_DAYS} days"
    return [
        Metric("measured_images", f"Measured {when}.", [({}, float(found.images))]),
        Metric("pixel_spacing_mm", f"Quantiles of the pixel spacing of {when}.", _levels(found.pixel_spacing_mm)),
        Metric("slice_spacing_mm", f"Quantiles of the slice spacing of {when}.", _levels(found.slice_spacing_mm)),
        Metric("intensity", f"Quantiles, over {when}, of quantiles of the grey values in the breast.", grey),
    ]  # fmt: skip


def _levels(spread: Quantiles | None, labels: Mapping[str, str] | None = None) -> list[Sample]:
    """A sample a quantile; none of nothing."""
    if spread is None:
        return []
    more = labels or {}
    return [({**more, "quantile": q}, getattr(spread, key)) for key, q in _LEVELS.items()]
