"""`python -m tests.bench.yielding`: how long a study waits for its model beside a training on the same device.

Three times the same studies, one after the other: without a training, beside one that yields, and beside one that does
not. What counts is the time from queued to finished. The training's batch is as long as `BATCH` says.
"""

from __future__ import annotations

import dataclasses
import statistics
import sys
import tempfile
import uuid
from pathlib import Path

from sqlalchemy import select

from dicom_io.phantom import PhantomView, write_study
from node import trainings
from node.config import Settings
from node.db import now
from node.learning_models import TrainingEpoch
from node.models import Run
from tests.conftest import make_settings
from tests.support import learning
from tests.support.services import wait_until
from tests.support.worker_node import WorkerNode, worker_node
from tests.unit.gmic.training import TINY
from tests.unit.workers.breasts import breast

STUDIES = 3
BATCH = 4
MODEL = dataclasses.replace(
    TINY, window_shape=(512, 320), stage_channels=(64, 64), stem_channels=64, patch_size=64
)
"""Large enough that a batch takes about a second on one core."""


def main() -> None:
    """Measure and print, in seconds."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        sys.stdout.write(f"{'training':<14}{'median s':>10}{'worst s':>10}{'batch s':>10}\n")
        for number, kind in enumerate(("alone", "yielding", "not yielding")):
            seconds, batch_s = _measure(Path(name) / kind, kind, number)
            middle, worst = statistics.median(seconds), max(seconds)
            sys.stdout.write(f"{kind:<14}{middle:>10.2f}{worst:>10.2f}{batch_s:>10.2f}\n")
            sys.stdout.flush()


def _measure(folder: Path, kind: str, number: int) -> tuple[list[float], float]:
    settings = make_settings(folder / "home", training_yields=kind == "yielding", tick_s=0.1)
    with worker_node(settings) as node:
        workers = [node.start("inference"), node.start("training")]
        for worker in workers:
            worker.wait_ready()
        run_id = None if kind == "alone" else _train(node, settings)
        _study(node, folder, 100 * number)  # loads the model
        seconds = [_study(node, folder, 100 * number + 1 + n) for n in range(STUDIES)]
        return seconds, _batch_s(node, run_id) if run_id else 0.0


def _train(node: WorkerNode, settings: Settings) -> uuid.UUID:
    dataset_id = learning.dataset(node.db, settings)
    learning.base_version(node.db, settings, config=MODEL)
    changes = ("epochs=1000", f"batch={BATCH}", "patience=999", "checkpoint_every=1000")
    run_id = learning.launch(node.db, settings, dataset_id, changes)
    wait_until(lambda: learning.epochs(node.db, run_id), 300, "the first epoch")
    return run_id


def _study(node: WorkerNode, folder: Path, seed: int) -> float:
    """Seconds from queued to finished."""
    view = PhantomView("L", "CC", breast("L", (3, 640, 400), seed), (0.1, 0.1))
    study = write_study(folder / str(seed), [view], seed=5000 + seed)
    node.receive(list(study.files))
    node.complete(study.study_instance_uid)
    run = node.wait_run(study.study_instance_uid, "SUCCEEDED", 300)
    assert run.finished_at is not None
    return (run.finished_at - run.created_at).total_seconds()


def _batch_s(node: WorkerNode, run_id: uuid.UUID) -> float:
    """Mean length of a batch, its share of the validation included; ends the training."""
    with node.db.transaction() as session:
        assert session.execute(select(Run.id)).first() is not None
        trainings.cancel(session, run_id, now(session))
        query = select(TrainingEpoch.seconds).where(TrainingEpoch.training_run_id == run_id)
        seconds = session.execute(query).scalars().all()
    steps = learning.SPLITS["train"] / BATCH
    return statistics.mean(seconds) / steps


if __name__ == "__main__":
    main()
