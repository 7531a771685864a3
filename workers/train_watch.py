"""What a training asks between two batches: is it still ours, wanted, within its time, and does inference wait?"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from node import log, trainings
from node.config import Settings
from node.db import Database
from node.errors import DatabaseUnavailable
from node.trainings import Claim, Standing
from workers.errors import LeaseLost, OverLimit, Preempted
from workers.task import EXIT_STUCK, Check

POLL_S = 0.2
"""How often is looked whether inference has ended."""


class Clock:
    """Seconds of computing: waiting for inference does not count."""

    def __init__(self, before_s: float) -> None:
        """`before_s`: of earlier attempts."""
        self._before_s = before_s
        self._started = time.monotonic()
        self._waited_s = 0.0

    def used_s(self) -> float:
        """Over all attempts."""
        return self._before_s + time.monotonic() - self._started - self._waited_s

    def wait(self, seconds: float) -> None:
        """Sleep without counting."""
        started = time.monotonic()
        time.sleep(seconds)
        self._waited_s += time.monotonic() - started


class Watch:
    """One attempt of one training, seen from outside.

    Args:
        db: Of the node.
        held: The claim.
        settings: Of the node.
        devices: How the names of inference workers end that share our device.
        stopping: Set once the worker is to stop.
        run: Folder of the training; its `log.txt` gets a line for what happens.
    """

    def __init__(
        self,
        db: Database,
        held: Claim,
        settings: Settings,
        devices: Sequence[str],
        stopping: threading.Event,
        run: Path,
    ) -> None:
        self.held, self.clock = held, Clock(held.used_s)
        self.lease: Check = lambda: None
        self._db, self._settings, self._devices = db, settings, devices
        self._stopping, self._log = stopping, run / "log.txt"
        self._seen = time.monotonic()
        self._recorded: dict[str, int] | None = None
        self._epoch_began_s = self.clock.used_s()
        self._away = False

    def beat(self) -> bool:
        """Prolong the lease. A process that hangs in a batch for too long is ended: nothing else could interrupt it."""
        silent_s = time.monotonic() - self._seen
        if silent_s > self._settings.run_limit_s:
            log.get().error("stuck: process ends", seconds=silent_s, exit_code=EXIT_STUCK)
            os._exit(EXIT_STUCK)
        return trainings.heartbeat(self._db, self.held, self.clock.used_s(), self._settings)

    def between(self) -> None:
        """Called between two batches: waits while inference has work on our device.

        Raises:
            LeaseLost: the training went to somebody else.
            Preempted: it is to be paused or cancelled, or the worker stops.
            OverLimit: its time is used up.
        """
        while self.must_wait():
            self.clock.wait(POLL_S)

    def must_wait(self) -> bool:
        """One look: whether inference has work on our device. Raises what `between` raises."""
        self._seen = time.monotonic()
        self.lease()
        if self._stopping.is_set():
            raise Preempted("the worker stops")
        used_s = self.clock.used_s()
        if used_s > self.held.time_limit_s:
            raise OverLimit(
                f"{used_s:.0f} s of computing used, the limit is {self.held.time_limit_s:.0f} s; `tomonode train retry`"
                " goes on from the checkpoint with as much time again"
            )
        standing = self._standing()
        if not standing.ours:
            raise LeaseLost("the training went to somebody else")
        if standing.wanted is not None:
            raise Preempted(f"an operator wants it: {standing.wanted}")
        return standing.inference_waits

    def _standing(self) -> Standing:
        """A database that is away is no reason to stop: the lease tells when the training is lost."""
        try:
            standing = trainings.standing(self._db, self.held, self._devices, self._settings)
        except DatabaseUnavailable as error:
            if not self._away:
                log.get().warning("training goes on alone", code=error.code, error=str(error))
            self._away = True
            return Standing(ours=True)
        self._away = False
        return standing

    def keep_epochs(self, stages: Iterable[tuple[str, Path]]) -> int:
        """Put epochs that are in the tables of `gmic.train` and not yet in the database there; how many there were.

        Raises:
            LeaseLost: the training went to somebody else.
        """
        kept = 0
        try:
            if self._recorded is None:
                self._recorded = trainings.epochs_done(self._db, self.held.run_id)
                self._epoch_began_s = self.clock.used_s()
            for stage, table in stages:
                lines = table.read_text(encoding="utf-8").splitlines()
                for line in lines[self._recorded.get(stage, 0) :]:
                    self._keep_epoch(stage, json.loads(line))
                    self._recorded[stage] = self._recorded.get(stage, 0) + 1
                    kept += 1
        except DatabaseUnavailable as error:
            log.get().warning("epoch not kept yet", code=error.code, error=str(error))
        return kept

    def _keep_epoch(self, stage: str, metrics: dict[str, float]) -> None:
        used_s = self.clock.used_s()
        seconds = used_s - self._epoch_began_s
        if not trainings.record_epoch(self._db, self.held, stage, metrics, seconds):
            raise LeaseLost("the training went to somebody else")
        self._epoch_began_s = used_s
        figures = ", ".join(f"{k} {v:.4f}" for k, v in metrics.items() if k != "epoch")
        self.say(f"{stage}: epoch {metrics['epoch']:.0f}, {figures}; {seconds:.1f} s")

    def say(self, line: str) -> None:
        """A line in the training's own log; it never ends a training."""
        stamp = datetime.now(UTC).isoformat(timespec="seconds")
        try:
            with self._log.open("a", encoding="utf-8") as file:
                file.write(f"{stamp} attempt {self.held.attempt}: {line}\n")
        except OSError as error:
            log.get().warning("log line not written", reason=error.strerror)
