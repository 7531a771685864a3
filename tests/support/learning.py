"""A node that can train in seconds: phantom images, a data set of them, and a model small enough."""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import select

from dicom_io.header import read_header
from dicom_io.phantom import PhantomView, write_study
from gmic import weights
from gmic.config import GMIC3DConfig
from gmic.model import GMIC3D
from gmic.train.initialise import initialise
from gmic.weights import WeightsInfo
from node import trainings
from node.blobs import BlobStore
from node.config import Settings
from node.datasets.content import content_hash
from node.db import Database, now
from node.learning_models import Dataset, DatasetItem, ModelVersion, TrainingEpoch, TrainingRun
from tests.support.services import wait_until
from tests.unit.gmic.training import TINY
from tests.unit.workers.breasts import BRIGHT, breast
from workers.models import register_file
from workers.recipes import recipe

SHAPE = (3, 640, 400)
SPLITS = {"train": 8, "valid": 4, "test": 4}
BASE = "tiny-1"
QUICK = ("epochs=3", "batch=2", "learning_rate=0.001", "checkpoint_every=1", "patience=99")


@cache
def _object(number: int, malignant: bool) -> bytes:
    """A left CC view with a bright square where it is malignant; made once a test session."""
    volume = breast("L", SHAPE, number)
    if malignant:
        volume[1, 300:340, 60:100] = BRIGHT
    else:
        volume[1, 300:340, 60:100] //= np.uint16(2)
    with tempfile.TemporaryDirectory() as folder:
        view = PhantomView("L", "CC", volume, (0.1, 0.1))
        study = write_study(Path(folder), [view], seed=9000 + number)
        return study.files[0].read_bytes()


def dataset(
    db: Database, settings: Settings, name: str = "tiny", splits: dict[str, int] | None = None
) -> uuid.UUID:
    """A frozen data set of phantoms whose objects lie in the blob store; every second breast is malignant."""
    blobs = BlobStore.of(settings)
    items = []
    numbers = iter(range(1000))
    for split, count in (splits or SPLITS).items():
        for place in range(count):
            number, malignant = next(numbers), place % 2 == 1
            content = _object(number, malignant)
            digest = blobs.write(content)
            header = read_header(blobs.path(digest))
            items.append(
                DatasetItem(
                    sop_uid=header.sop_instance_uid, sop_class_uid=header.sop_class_uid, sha256=digest,
                    study_uid=header.study_instance_uid, patient=f"p{number}", laterality="L", view="CC",
                    split=split, benign=not malignant and place % 4 == 0, malignant=malignant,
                    birads=4 if malignant else 1, strata={},
                )
            )  # fmt: skip
    found = Dataset(
        id=uuid.uuid4(), name=name, rule={}, counts={}, created_by="tests",
        content_hash=content_hash({}, items, []),
    )  # fmt: skip
    with db.transaction() as session:
        found.created_at = now(session)
        session.add(found)
        session.flush()
        for item in items:
            item.dataset_id = found.id
        session.add_all(items)
    return found.id


def base_version(
    db: Database, settings: Settings, name: str = "tiny", config: GMIC3DConfig = TINY
) -> ModelVersion:
    """A model to start from, in the registry."""
    model = GMIC3D(config)
    initialise(model, 1, omega=0.05)
    path = settings.home / f"{name}.safetensors"
    info = WeightsInfo(name, "1", "", True, "For tests.", 0.4, config)
    weights.save(model, path, info)
    blobs = BlobStore.of(settings)
    return register_file(db, blobs, path, "tests", "for tests")


def launch(
    db: Database,
    settings: Settings,
    dataset_id: uuid.UUID,
    changes: Sequence[str] = QUICK,
    name: str = "fine-tune",
    base: str | None = BASE,
    **more: Any,
) -> uuid.UUID:
    """Launch a training; returns its id. `more` goes to `workers.recipes.recipe`."""
    config = recipe(name, changes, **more).to_config()
    wanted = trainings.Request(dataset_id, name, config, 1, base, "tests")
    with db.transaction() as session:
        run, _ = trainings.request(session, wanted, settings, "tests", now(session))
        return run.id


def training(db: Database, run_id: uuid.UUID) -> TrainingRun:
    """The row of a training."""
    with db.reading() as session:
        return session.get_one(TrainingRun, run_id)


def wait_state(db: Database, run_id: uuid.UUID, state: str, timeout_s: float = 120) -> TrainingRun:
    """Until a training is in a state; fails at once where it failed instead."""

    def there() -> bool:
        row = training(db, run_id)
        assert state == "FAILED" or row.state != "FAILED", row.error
        return row.state == state

    wait_until(there, timeout_s, f"{state} of the training")
    return training(db, run_id)


def epochs(db: Database, run_id: uuid.UUID) -> list[TrainingEpoch]:
    """The epochs that were kept, by stage and number."""
    query = select(TrainingEpoch).where(TrainingEpoch.training_run_id == run_id)
    with db.reading() as session:
        rows = session.execute(query).scalars().all()
    return sorted(rows, key=lambda row: (row.stage, row.epoch))


def made(db: Database, run_id: uuid.UUID) -> ModelVersion:
    """The version that a training made."""
    query = select(ModelVersion).where(ModelVersion.training_run_id == run_id)
    with db.reading() as session:
        return session.execute(query).scalar_one()
