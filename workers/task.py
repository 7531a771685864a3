"""The one place where work is held and its end decided: body under a kept lease, then finish or fail.

A literal table maps exceptions to what happens next. The database fences every write by attempt, so a worker that
lost its lease can do no harm; it only stops early.
"""

from __future__ import annotations

import contextvars
import errno
import os
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from dicom_io.errors import DicomIoError
from gmic.errors import DeviceMemoryError, DivergedError, GmicError, TrainingError
from node import log
from node.errors import (
    BlobStoreUnavailable,
    DatabaseUnavailable,
    DiskFull,
    NodeError,
    Permanent,
    Transient,
)
from node.runs import Failure
from workers.errors import LeaseLost

EXIT_STUCK = 75  # EX_TEMPFAIL: start me again

Check = Callable[[], None]
"""Called often by a body; raises LeaseLost once there is no reason to go on."""

# First match wins. True: queue again after a while, as long as attempts (runs) or time (deliveries) are left.
TRANSIENT: tuple[tuple[type[BaseException], bool], ...] = (
    (Transient, True),
    (Permanent, False),
    (NodeError, False),  # a setting or a row that another try would find the same
    (DeviceMemoryError, True),  # depends on what else the device is doing
    (MemoryError, True),
    (DicomIoError, False),
    (DivergedError, False),
    (TrainingError, True),  # another process is still in the folder, or one of several was lost
    (GmicError, False),
)
# The node's own surroundings: no study is to blame, so no attempt is used up, however long it lasts.
OUTAGES = (DiskFull, DatabaseUnavailable, BlobStoreUnavailable)
OUTAGE_ERRNO = frozenset({errno.ENOSPC, errno.EDQUOT})

_TRUSTED = (NodeError, DicomIoError, GmicError)  # their messages hold no data set values
_ROOT = Path(__file__).parents[1]


def failure_of(error: Exception) -> Failure:
    """What an exception means for the run or delivery it ended.

    An exception nobody foresaw may quote a data set, so its type and place are kept and its words are not. It counts
    as transient: a fault of the program is bounded by the attempts, and a passing one gets another chance.
    """
    code = type(error).__name__
    for kind, transient in TRANSIENT:
        if isinstance(error, kind):
            text = str(error) if isinstance(error, _TRUSTED) else "out of memory"
            outage = isinstance(error, OUTAGES)
            return Failure(code, " ".join(text.split()) or code, transient, outage)
    if isinstance(error, OSError) and error.errno is not None:
        message = f"{code}: {os.strerror(error.errno)} at {_place(error)}"
        # Everything but a full or failing device also gets its attempts: a missing blob may be on a late mount.
        outage = error.errno in OUTAGE_ERRNO
        return Failure(errno.errorcode.get(error.errno, code), message, True, outage)
    return Failure(code, f"unexpected {code} at {_place(error)}; see the log at level debug", True)


def _place(error: BaseException) -> str:
    """File and line of the project's innermost frame, such as `dicom_io/seg.py:88`."""
    place = "unknown place"
    for frame in traceback.extract_tb(error.__traceback__):
        path = Path(frame.filename)
        if path.is_relative_to(_ROOT) and "site-packages" not in path.parts:
            place = f"{path.relative_to(_ROOT)}:{frame.lineno}"
    return place


class Lease:
    """A claim kept alive by a thread, for as long as the block runs.

    The thread prolongs the lease every third of it. Told that the claim is lost, it makes `check` raise. When the
    block outlasts `limit_s`, the process ends at once: whatever hangs in it cannot be interrupted otherwise, the
    supervisor starts another, and the relay takes the expired lease back.
    """

    def __init__(self, beat: Callable[[], bool], lease_s: float, limit_s: float) -> None:
        """`beat` prolongs the lease and tells whether it is still ours."""
        self._beat = beat
        self._interval_s = lease_s / 3
        self._limit_s = limit_s
        self._lost = threading.Event()
        self._done = threading.Event()
        # The context carries the ids of the work into the thread's log lines.
        context = contextvars.copy_context()
        self._thread = threading.Thread(
            target=context.run, args=(self._run,), name="lease", daemon=True
        )

    def __enter__(self) -> Lease:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._done.set()
        self._thread.join()

    def check(self) -> None:
        """Raises LeaseLost once the claim went to somebody else or is no longer wanted."""
        if self._lost.is_set():
            raise LeaseLost("the lease was lost; what was computed is dropped")

    def _run(self) -> None:
        end = time.monotonic() + self._limit_s
        while not self._done.wait(max(0.0, min(self._interval_s, end - time.monotonic()))):
            if time.monotonic() >= end:
                log.get().error("stuck: process ends", seconds=self._limit_s, exit_code=EXIT_STUCK)
                os._exit(EXIT_STUCK)
            if not self._lost.is_set():
                self._prolong()

    def _prolong(self) -> None:
        try:
            if not self._beat():
                self._lost.set()
        except DatabaseUnavailable as error:
            # Not a reason to stop: if the lease runs out meanwhile, the next beat or the fence says so.
            log.get().warning("heartbeat failed", code=error.code, error=str(error))


@dataclass(frozen=True)
class Job:
    """A claimed piece of work.

    `body` does it and writes the result, False where the database says it is no longer ours; `fail` writes the
    failure and tells the state it led to, None where it is no longer ours.
    """

    beat: Callable[[], bool]
    body: Callable[[Check], bool]
    fail: Callable[[Failure], str | None]


def perform(job: Job, lease_s: float, limit_s: float) -> str:
    """Do a job under its lease; returns "done", "lost", or the state that the failure led to."""
    started = time.monotonic()
    try:
        with Lease(job.beat, lease_s, limit_s) as lease:
            done = job.body(lease.check)
    except LeaseLost:
        done = False
    except Exception as error:  # noqa: BLE001 - the boundary: every error becomes a row of the table above
        return _fail(job, error)
    log.get().info("done" if done else "lease lost", seconds=round(time.monotonic() - started, 3))
    return "done" if done else "lost"


def _fail(job: Job, error: Exception) -> str:
    failure = failure_of(error)
    # Frames only: the last line of a traceback would quote the exception's words.
    frames = "".join(traceback.format_tb(error.__traceback__))
    log.get().debug("traceback", exception=frames, code=failure.code)
    try:
        state = job.fail(failure)
    except DatabaseUnavailable as unavailable:
        # The lease runs out by itself and the relay takes the work back.
        log.get().warning("failure not stored", code=unavailable.code, error=failure.message)
        return "lost"
    log.get().warning("failed", code=failure.code, error=failure.message, state=state or "lost")
    return state or "lost"


def persist(write: Callable[[], bool], check: Check, patience_s: float) -> bool:
    """Write a result, trying again for a while when the database is away: work that took minutes is not thrown away
    for a restart of the database. Trying again is safe, because the write is fenced.

    Raises:
        DatabaseUnavailable: it did not come back in time.
        LeaseLost: by `check`.
    """
    end = time.monotonic() + patience_s
    while True:
        try:
            return write()
        except DatabaseUnavailable:
            if time.monotonic() >= end:
                raise
            time.sleep(min(1.0, patience_s / 10))
            check()
