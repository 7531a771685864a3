"""Launching trainings: two launches of the same training are one."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from node import outbox
from node.config import Settings
from node.datasets import store
from node.labels.values import name_of
from node.learning_models import Dataset, DatasetItem, Pathology, TrainingRun
from node.lifecycle import TrainingState

LIVE = (TrainingState.QUEUED, TrainingState.RUNNING, TrainingState.PAUSED)


@dataclass(frozen=True)
class Request:
    """Everything that decides the weights of a training; `config` is all of the recipe's settings."""

    dataset_id: uuid.UUID
    recipe: str
    config: Mapping[str, Any]
    seed: int
    base_version: str | None
    code_version: str


def request_hash(wanted: Request, content_hash: str) -> str:
    """Names a request; the data set counts by its content."""
    values: list[object] = [content_hash, wanted.base_version, wanted.recipe, wanted.config]
    values += [wanted.seed, wanted.code_version]
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def request(
    session: Session, wanted: Request, settings: Settings, by: str, at: datetime
) -> tuple[TrainingRun, bool]:
    """The training that was asked for, and whether it is new: one that waits, runs, pauses or succeeded is enough.

    After one that failed or was cancelled a new one is made.

    Raises:
        Conflict: the data set is not what was frozen.
        InvalidLabel: `by` is no name.
    """
    name_of("--by", by)
    dataset = session.get_one(Dataset, wanted.dataset_id)
    store.verify(session, dataset)
    digest = request_hash(wanted, dataset.content_hash)
    known = same(session, digest)
    if known is not None:
        return known, False
    training = TrainingRun(
        id=uuid.uuid4(), **{**vars(wanted), "config": dict(wanted.config)},
        request_hash=digest, requested_by=by, max_attempts=settings.training_attempts,
        not_before=at, dispatched_at=at, time_limit_s=settings.training_limit_s,
        disk_limit_mb=settings.training_disk_mb, created_at=at,
    )  # fmt: skip
    try:
        with session.begin_nested():
            session.add(training)
            session.flush()
    except IntegrityError:  # somebody else launched it this moment
        known = same(session, digest)
        if known is None:
            raise
        return known, False
    outbox.post(session, outbox.TRAIN, training.id, at)
    return training, True


def same(session: Session, digest: str) -> TrainingRun | None:
    """The training of this `request_hash` that waits, runs, pauses or succeeded."""
    query = select(TrainingRun).where(
        TrainingRun.request_hash == digest, TrainingRun.state.in_((*LIVE, TrainingState.SUCCEEDED))
    )
    return session.execute(
        query.order_by(TrainingRun.created_at.desc()).limit(1)
    ).scalar_one_or_none()


def unlearnable(
    session: Session,
    dataset_id: uuid.UUID,
    classes: Sequence[str],
    group_of: Callable[[int], int] | None = None,
) -> str | None:
    """Why nothing can be learned of `classes` from a data set: an empty split, or all of its images alike.

    Args:
        session: Of the database.
        dataset_id: The data set.
        classes: Of "benign" and "malignant", those that training and validation need both kinds of.
        group_of: The group of a BI-RADS category of 0 to 5, where groups are learned: they need two of them.
    """
    for split in ("train", "valid"):
        wanted = [DatasetItem.dataset_id == dataset_id, DatasetItem.split == split]
        for name in classes:
            label = getattr(DatasetItem, name)
            seen = session.execute(select(label).where(*wanted).distinct()).scalars().all()
            if not seen:
                return f"its {split} split is empty"
            if len(seen) == 1:
                return f"all images of its {split} split have {name} = {int(seen[0])}"
        if group_of is not None:
            query = select(DatasetItem.birads).where(*wanted, DatasetItem.birads.between(0, 5))
            read = sorted(
                one for one in session.execute(query.distinct()).scalars() if one is not None
            )
            if not read:
                return f"no image of its {split} split has a BI-RADS category of 0 to 5"
            if len({group_of(category) for category in read}) < 2:
                words = ", ".join(map(str, read))
                return f"the BI-RADS categories of its {split} split ({words}) are of one group"
    return None


def newly_labelled(session: Session) -> tuple[int, datetime | None]:
    """How many exams got their first pathology since the last training was launched, and when that was.

    One that failed or was given up taught nothing, and is passed over.
    """
    given_up = (TrainingState.FAILED, TrainingState.CANCELLED)
    launched = select(func.max(TrainingRun.created_at)).where(TrainingRun.state.not_in(given_up))
    last = session.execute(launched).scalar_one()
    first = select(func.min(Pathology.created_at).label("at")).group_by(Pathology.study_id)
    labelled = first.subquery()
    query = select(func.count()).select_from(labelled)
    if last is not None:
        query = query.where(labelled.c.at > last)
    return session.execute(query).scalar_one(), last
