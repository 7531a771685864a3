"""The training worker: a claimed training, under its lease, and its end in the database.

Torch is imported with the first training, so that a worker that waits takes little memory.
"""

from __future__ import annotations

import math
import os
import shutil
import socket
import threading
import uuid
from contextlib import suppress
from functools import partial
from pathlib import Path

from structlog.contextvars import bound_contextvars

from node import log, services, trainings
from node.blobs import BlobStore
from node.config import Settings
from node.db import Database
from node.errors import DatabaseUnavailable, DiskFull
from node.learning_models import TrainingRun
from node.lifecycle import TrainingState
from node.runs import Failure
from node.trainings import Claim, Holder
from workers.errors import Preempted
from workers.task import Check, Job, perform, persist
from workers.train_watch import Watch

_OVER = (TrainingState.SUCCEEDED, TrainingState.CANCELLED)


class TrainingWorker:
    """Takes trainings, one at a time. Make one a process; call `handle` in the main thread, `stop` from anywhere."""

    def __init__(self, settings: Settings, name: str) -> None:
        """`name` is what the database calls this worker."""
        self._settings = settings
        self._db = Database(settings.db_url)
        self._blobs = BlobStore.of(settings)
        self._stopping = threading.Event()
        devices = services.device_names(settings)
        host = socket.gethostname()
        self._holder = Holder(name, host, None if devices == (services.CPU,) else len(devices))
        shared = devices if settings.training_yields else ()
        self._shared = tuple(services.worker_suffix(host, device) for device in shared)

    def stop(self) -> None:
        """End what is in hand at its checkpoint, after the batch it is in, and give it back."""
        self._stopping.set()

    def handle(self, run_id: uuid.UUID) -> str:
        """Claim a training and do it: "done", "lost", the state a failure led to, or "" where nothing was claimed."""
        try:
            self._settings.training_root.mkdir(parents=True, exist_ok=True)
            self._blobs.require_room(self._settings.disk_reserve_mb * 2**20)
            self._sweep()
            held = trainings.claim(self._db, run_id, self._holder, self._settings)
        except (DatabaseUnavailable, DiskFull) as error:
            # Still queued: the relay writes the message again.
            log.get().warning("training not claimed", code=error.code, error=str(error))
            return ""
        if held is None:
            return ""
        run = self._folder(run_id)
        run.mkdir(parents=True, exist_ok=True)
        watch = Watch(self._db, held, self._settings, self._shared, self._stopping, run)
        with bound_contextvars(run_id=str(run_id), attempt=held.attempt):
            log.get().info("training claimed", count=len(held.images))
            watch.say(f"begins on {self._holder.name}")
            job = Job(
                beat=watch.beat,
                body=partial(self._body, held, watch, run),
                fail=partial(self._fail, held, watch, run),
            )
            # The watch ends a process that hangs; a training as a whole is limited by its computing time.
            return perform(job, self._settings.lease_s, math.inf)

    def _body(self, held: Claim, watch: Watch, run: Path, check: Check) -> bool:
        from workers.train_work import Training

        watch.lease = check
        training = Training(self._db, self._settings, held, watch, run, self._threads())
        try:
            weights = training.weights()
            version = training.register(weights).version
            watch.say(f"candidate {version}")
            note = training.evaluate(version)
        except Preempted as why:
            return self._release(held, watch, run, str(why))
        write = partial(trainings.succeed, self._db, held, watch.clock.used_s(), note)
        done = persist(write, check, self._settings.lease_s)
        if done:
            watch.say("done")
            _empty(run)
        return done

    def _release(self, held: Claim, watch: Watch, run: Path, why: str) -> bool:
        give_back = partial(trainings.release, self._db, held, watch.clock.used_s())
        state: str | None = None

        def write() -> bool:
            nonlocal state
            state = give_back()
            return state is not None

        persist(write, watch.lease, self._settings.lease_s)
        watch.say(f"{why}: {state or 'lost'}")
        log.get().info("training given back", reason=why, state=state or "lost")
        if state == TrainingState.CANCELLED:
            _empty(run)
        return state is not None

    def _fail(self, held: Claim, watch: Watch, run: Path, failure: Failure) -> str | None:
        for partial_file in run.rglob(".*.partial"):
            partial_file.unlink(missing_ok=True)  # of a full disk: makes room
        state = trainings.fail(self._db, held, failure, watch.clock.used_s(), self._settings)
        watch.say(f"{failure.message}: {state or 'lost'}")
        if state == TrainingState.CANCELLED:
            _empty(run)
        return state

    def _threads(self) -> int:
        """One fewer than inference has."""
        return max(1, (self._settings.threads or len(os.sched_getaffinity(0))) - 1)

    def _folder(self, run_id: uuid.UUID) -> Path:
        return self._settings.training_root / "runs" / str(run_id)

    def _sweep(self) -> None:
        """Make room: trainings that ended while no worker held them leave their checkpoints behind."""
        folders = self._settings.training_root / "runs"
        for run in folders.iterdir() if folders.is_dir() else ():
            if not (run / "out").is_dir() and not (run / "data").is_dir():
                continue
            with (
                suppress(ValueError),
                self._db.reading() as session,
            ):  # not named by an id: not ours
                row = session.get(TrainingRun, uuid.UUID(run.name))
                if row is not None and row.state in _OVER:
                    _empty(run)


def _empty(run: Path) -> None:
    """Remove what a training no longer needs; its log stays."""
    for name in ("data", "groups", "out"):
        shutil.rmtree(run / name, ignore_errors=True)
