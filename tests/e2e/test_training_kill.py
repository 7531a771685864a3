"""kill -9 of the training worker, at random moments and while a checkpoint is being written: another one goes on, and
the weights are those of a training that nobody disturbed, byte for byte."""

from __future__ import annotations

import random
import threading
import time
import uuid
from pathlib import Path

from node import schema
from node.config import Settings
from node.db import Database
from tests.conftest import make_settings
from tests.support import learning
from tests.support.databases import Postgres
from tests.support.services import wait_until
from tests.support.worker_node import WorkerNode, WorkerProcess, worker_node
from workers.train import TrainingWorker

CHANGES = (*learning.QUICK, "epochs=10")
KILLS = 3


def test_a_killed_training_ends_with_the_weights_of_an_undisturbed_one(
    tmp_path: Path, postgres_server: Postgres
) -> None:
    quiet = make_settings(tmp_path / "quiet", threads=2)
    wanted, figures = undisturbed(quiet)
    settings = make_settings(
        tmp_path / "killed", threads=2, database_url=postgres_server.new_database(),
        lease_s=5.0, redispatch_s=2.0, training_attempts=20,
    )  # fmt: skip
    chance = random.Random(20261121)
    with worker_node(settings) as node:
        dataset = learning.dataset(node.db, settings)
        learning.base_version(node.db, settings)
        workers = [node.start("training"), node.start("training")]
        for worker in workers:
            worker.wait_ready()
        run = learning.launch(node.db, settings, dataset, CHANGES)
        for kill in range(KILLS):
            held = attempt(node, run, kill + 1)
            if kill == 0:
                time.sleep(chance.uniform(0, 1.0))  # importing, or making images
            else:
                a_checkpoint_being_written(held, chance.randint(1, 12))
            holder = next(worker for worker in workers if holds(node, run, worker))
            holder.kill()
            workers.remove(holder)
            workers.append(node.start("training"))  # the other one goes on meanwhile
        learning.wait_state(node.db, run, "SUCCEEDED")
        row, made = learning.training(node.db, run), learning.made(node.db, run)
        assert row.attempt > KILLS  # a busy machine may lose a lease besides
        assert made.sha256 == wanted
        assert [e.metrics for e in learning.epochs(node.db, run)] == figures
        assert made.state == "CANDIDATE"
        assert "PHANTOM" not in workers[0].log.read_text().upper()
        folder = settings.training_root / "runs" / str(run)
        wait_until(lambda: [path.name for path in folder.iterdir()] == ["log.txt"], 10, "room")


def undisturbed(settings: Settings) -> tuple[str, list[object]]:
    """The digest of the weights, and the figures of the epochs, of a training in one go."""
    schema.upgrade(settings.db_url)
    db = Database(settings.db_url)
    dataset = learning.dataset(db, settings)
    learning.base_version(db, settings)
    run = learning.launch(db, settings, dataset, CHANGES)
    assert TrainingWorker(settings, "quiet").handle(run) == "done"
    found = learning.made(db, run).sha256, [e.metrics for e in learning.epochs(db, run)]
    db.dispose()
    return found


def attempt(node: WorkerNode, run: uuid.UUID, number: int) -> Path:
    """Wait until an attempt runs; where its checkpoints are."""

    def there() -> bool:
        row = learning.training(node.db, run)
        return row.state == "RUNNING" and row.attempt >= number

    wait_until(there, 60, f"attempt {number}")
    return node.settings.training_root / "runs" / str(run) / "out" / "fit"


def holds(node: WorkerNode, run: uuid.UUID, worker: WorkerProcess) -> bool:
    """Whether this worker does the training."""
    return f"-{worker.pid}@" in (learning.training(node.db, run).worker or "")


def a_checkpoint_being_written(folder: Path, count: int) -> None:
    """Return while one is, the so-manieth seen: half of a file is there, and the old one beside it."""
    partial = folder / ".checkpoint.partial"
    end = time.monotonic() + 180
    seen = 0
    while seen < count:
        assert time.monotonic() < end, "no checkpoint was written"
        if partial.exists():
            seen += 1
            if seen < count:
                # one that a kill left behind stays until the next is written
                wait_until(lambda: not partial.exists(), 60, "the checkpoint", step_s=0.0001)
        else:
            threading.Event().wait(0.0001)
