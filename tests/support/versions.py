"""Model versions for tests: small weights that load in milliseconds, registry rows, frozen data sets around files."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import insert
from sqlalchemy.orm import Session

from gmic import weights
from gmic.config import GMIC3DConfig
from node import registry
from node.datasets import store
from node.datasets.content import content_hash
from node.db import now
from node.learning_models import Dataset, DatasetItem, Evaluation, ModelVersion
from node.registry import Facts
from tests.unit.gmic.small import CONFIG

RULE: dict[str, Any] = {
    "since": "2026-01-01",
    "until": "2026-03-31",
    "kind": "dbt",
    "window_days": 365,
}


def weights_file(
    folder: Path, seed: int, name: str = "small", config: GMIC3DConfig = CONFIG
) -> Path:
    """A weights file of ours that says it was trained, with a threshold that marks something."""
    model, info = weights.seeded(config, seed)
    path = folder / f"{name}-{seed}.safetensors"
    card = dataclasses.replace(
        info, name=name, version=str(seed), trained=True, segment_threshold=0.001
    )
    weights.save(model, path, card)
    return path


def register(session: Session, version: str, **changed: Any) -> ModelVersion:
    """A candidate whose weights nobody looks at."""
    digest = uuid.uuid4().hex * 2
    facts: dict[str, Any] = {
        "version": version, "sha256": digest, "size_bytes": 1, "architecture": {}, "preprocessing": {},
        "operating_points": {}, "trained": True, "description": "for a test", "licence": "none",
        "code_version": "0", **changed,
    }  # fmt: skip
    return registry.register(session, Facts(**facts), "tester", now(session))


def freeze(
    session: Session, name: str, items: Sequence[DatasetItem] = (), **changed: Any
) -> Dataset:
    """A data set row with these images."""
    at = changed.pop("at", datetime.now(UTC))
    rule = {**RULE, **changed}
    row = Dataset(
        id=uuid.uuid4(), name=name, rule=rule, content_hash=content_hash(rule, items, []), counts={},
        created_by="tester", created_at=at,
    )  # fmt: skip
    session.add(row)
    session.flush()
    for item in items:
        item.dataset_id = row.id
        session.add(item)
    session.flush()
    return row


def tamper(session: Session, name: str) -> None:
    """Add an image to a frozen data set, behind the node's back."""
    found = store.find(session, name)
    item = store.items(session, found.id)[0]
    values = {c.key: getattr(item, c.key) for c in DatasetItem.__table__.columns}
    session.execute(insert(DatasetItem), [{**values, "sop_uid": "1.2.3.4.5"}])


def evaluate(
    session: Session,
    version: ModelVersion,
    against: ModelVersion | None,
    dataset: Dataset,
    difference_low: float | None = 0.01,
    minutes: float = 0,
) -> Evaluation:
    """An evaluation that says what it is told to, so many minutes from now."""
    figures = {"value": 0.8, "low": 0.7, "high": 0.9}
    difference = {"value": 0.05, "low": difference_low, "high": 0.1}
    malignant = {
        "positives": 20,
        "auc": figures,
        "difference": difference if against and difference_low is not None else None,
    }
    summary = {"dataset": dataset.name, "against": against and against.version, "failed_alone": 0,
               "breast": {"malignant": malignant}}  # fmt: skip
    row = Evaluation(
        id=uuid.uuid4(), version_id=version.id, against_id=against.id if against else None,
        dataset_id=dataset.id, summary=summary, report_sha256="0" * 64,
        created_at=now(session) + timedelta(minutes=minutes),
    )  # fmt: skip
    session.add(row)
    session.flush()
    return row
