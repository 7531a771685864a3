"""Trainings as a person sees them: a list, and one with its epochs and the end of its log."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from node import trainings
from node.config import Settings
from node.learning_models import Dataset, ModelVersion, TrainingEpoch, TrainingRun
from node.lifecycle import TrainingState

_LOG_LINES = 20
_LOG_BYTES = 16384


@dataclass(frozen=True)
class TrainingRow:
    """One training. `best` is the highest validation metric so far, `model` the version it made."""

    id: uuid.UUID
    state: str
    why: str
    dataset: str
    recipe: str
    base_version: str | None
    seed: int
    epoch: int | None
    best: float | None
    model: str | None
    attempt: int
    used_s: float
    requested_by: str
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    worker: str | None


@dataclass(frozen=True)
class EpochRow:
    """The figures of one epoch."""

    stage: str
    epoch: int
    seconds: float
    metrics: dict[str, Any]
    at: datetime


@dataclass(frozen=True)
class TrainingPage:
    """All that is known of one training; `wanted` is what was asked of a running one."""

    row: TrainingRow
    wanted: str | None
    config: dict[str, Any]
    code_version: str
    request_hash: str
    max_attempts: int
    time_limit_s: float
    disk_limit_mb: int
    error_code: str | None
    epochs: list[EpochRow]
    log: list[str]


def training_list(session: Session, limit: int = 100) -> list[TrainingRow]:
    """Trainings, newest first."""
    query = select(TrainingRun).order_by(TrainingRun.created_at.desc()).limit(limit)
    return [_row(session, run) for run in session.execute(query).scalars()]


def training_page(session: Session, name: str, settings: Settings) -> TrainingPage:
    """One training by its id.

    Raises:
        NotFound: no such training.
    """
    run = trainings.find(session, name)
    columns = ("config", "code_version", "request_hash", "max_attempts", "time_limit_s")
    more = ("disk_limit_mb", "error_code", "wanted")
    return TrainingPage(
        row=_row(session, run),
        epochs=[
            EpochRow(e.stage, e.epoch, e.seconds, e.metrics, e.at) for e in _epochs(session, run)
        ],
        log=_log_tail(settings.training_root / "runs" / str(run.id) / "log.txt"),
        **{column: getattr(run, column) for column in (*columns, *more)},
    )


def _row(session: Session, run: TrainingRun) -> TrainingRow:
    metrics = [e.metrics["metric"] for e in _epochs(session, run) if "metric" in e.metrics]
    same = ("id", "state", "recipe", "base_version", "seed", "epoch", "attempt", "used_s")
    more = ("requested_by", "created_at", "started_at", "finished_at", "worker")
    return TrainingRow(
        why=_why(run),
        dataset=session.get_one(Dataset, run.dataset_id).name,
        best=max(metrics, default=None),
        model=session.execute(
            select(ModelVersion.version).where(ModelVersion.training_run_id == run.id).limit(1)
        ).scalar_one_or_none(),
        **{column: getattr(run, column) for column in (*same, *more)},
    )


def _epochs(session: Session, run: TrainingRun) -> list[TrainingEpoch]:
    query = select(TrainingEpoch).where(TrainingEpoch.training_run_id == run.id)
    rows = session.execute(query).scalars()
    return sorted(rows, key=lambda one: (one.at, one.stage, one.epoch))


def _why(run: TrainingRun) -> str:
    """Why it is where it is, and what it waits for."""
    last = f": {run.error}" if run.error else ""
    if run.state == TrainingState.QUEUED:
        return f"waits for a training worker{last}"
    if run.state == TrainingState.RUNNING:
        asked = f"; asked to {run.wanted}" if run.wanted else ""
        return f"attempt {run.attempt} of {run.max_attempts} on {run.worker}{asked}"
    if run.state == TrainingState.PAUSED:
        return f"`tomonode train resume` goes on from its checkpoint{last}"
    return run.error or ""


def _log_tail(path: Path) -> list[str]:
    """The last lines of a training's log; none where its folder is on another host."""
    if not path.is_file():
        return []
    return path.read_bytes()[-_LOG_BYTES:].decode(errors="replace").splitlines()[-_LOG_LINES:]
