"""The table of exceptions to transitions, and the lease around a body."""

from __future__ import annotations

import errno
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable

import pytest

from dicom_io.errors import ImageRefused, RefusalCode, UnreadableDataset
from gmic.errors import DeviceMemoryError, InputError, WeightsError
from node.errors import (
    BlobAbsent,
    BlobDamaged,
    BlobStoreUnavailable,
    ConfigError,
    DatabaseUnavailable,
    DiskFull,
    PeerRefused,
    PeerUnavailable,
)
from node.runs import Failure
from workers.errors import LeaseLost, NothingReadable, UnknownModel, WeightsGone
from workers.task import EXIT_STUCK, Check, Job, failure_of, perform, persist


@pytest.mark.parametrize(
    ("error", "code", "transient"),
    [
        (DatabaseUnavailable("database does not answer"), "DatabaseUnavailable", True),
        (DiskFull("3 MB left"), "DiskFull", True),
        (BlobStoreUnavailable("no answer"), "BlobStoreUnavailable", True),
        (BlobAbsent("not there yet"), "BlobAbsent", True),
        (BlobDamaged("other bytes"), "BlobDamaged", True),
        (PeerUnavailable("no connection"), "PeerUnavailable", True),
        (UnknownModel("model 'a' is not known"), "UnknownModel", False),
        (WeightsGone("weights of model 'a' are gone"), "WeightsGone", False),
        (DeviceMemoryError("cuda ran out of memory"), "DeviceMemoryError", True),
        (PeerRefused("0x0122"), "PeerRefused", False),
        (NothingReadable("none of 2 objects"), "NothingReadable", False),
        (ConfigError("setting X"), "ConfigError", False),
        (WeightsError("does not fit"), "WeightsError", False),
        (InputError("no slice"), "InputError", False),
        (UnreadableDataset("not DICOM"), "UnreadableDataset", False),
        (ImageRefused(RefusalCode.COLOUR, "RGB"), "ImageRefused", False),
    ],
)
def test_known_errors_keep_their_words(error: Exception, code: str, transient: bool) -> None:
    outages = ("DatabaseUnavailable", "DiskFull", "BlobStoreUnavailable", "BlobAbsent")
    outage = code in outages  # no study is to blame
    assert failure_of(error) == Failure(code, str(error), transient, outage)


@pytest.mark.parametrize(
    "number", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENOENT]
)
def test_errors_of_the_system_are_tried_again_and_name_no_file(number: int) -> None:
    failure = failure_of(OSError(number, "words", "DOE^JANE/scan.dcm"))
    assert failure.transient
    assert failure.code == errno.errorcode[number]
    assert "DOE" not in failure.message


def test_memory_is_transient() -> None:
    assert failure_of(MemoryError("DOE^JANE")) == Failure("MemoryError", "out of memory", True)


def test_an_unforeseen_error_is_bounded_by_attempts_and_quotes_no_data_set() -> None:
    with pytest.raises(ValueError, match="DOE") as caught:
        raise ValueError("Invalid value for VR PN: 'DOE^JANE'")
    failure = failure_of(caught.value)
    assert failure.transient
    assert "DOE" not in failure.message
    assert failure.code == "ValueError"
    assert "tests/unit/workers/test_task.py" in failure.message


class _Ledger:
    """Where a job's failures go; the least that `Job` asks for."""

    def __init__(self, answers: Callable[[], bool] = lambda: True) -> None:
        self.failures: list[Failure] = []
        self.beats = 0
        self._answers = answers

    def job(self, body: Callable[[Check], bool]) -> Job:
        return Job(self._beat, body, self._fail)

    def _beat(self) -> bool:
        self.beats += 1
        return self._answers()

    def _fail(self, failure: Failure) -> str:
        self.failures.append(failure)
        return "QUEUED"


def test_a_body_that_ends_well_is_done() -> None:
    ledger = _Ledger()
    assert perform(ledger.job(lambda check: True), lease_s=60, limit_s=60) == "done"
    assert ledger.failures == []


def test_a_body_whose_result_was_fenced_off_is_lost_and_fails_nothing() -> None:
    ledger = _Ledger()
    assert perform(ledger.job(lambda check: False), lease_s=60, limit_s=60) == "lost"
    assert ledger.failures == []


def test_a_body_that_raises_goes_where_the_table_says() -> None:
    ledger = _Ledger()

    def body(check: Check) -> bool:
        raise DiskFull("3 MB left")

    assert perform(ledger.job(body), lease_s=60, limit_s=60) == "QUEUED"
    assert ledger.failures == [Failure("DiskFull", "3 MB left", True, outage=True)]


def test_a_lost_lease_stops_the_body_and_writes_nothing() -> None:
    ledger = _Ledger(answers=lambda: False)
    stopped = threading.Event()

    def body(check: Check) -> bool:
        try:
            while not stopped.wait(0.01):
                check()
        except LeaseLost:
            stopped.set()
            raise
        return True

    assert perform(ledger.job(body), lease_s=0.03, limit_s=60) == "lost"
    assert stopped.is_set()
    assert ledger.failures == []


def test_a_database_that_is_away_does_not_cost_the_lease() -> None:
    beats = iter([False, True])

    def answers() -> bool:
        if not next(beats, True):
            raise DatabaseUnavailable("away")
        return True

    ledger = _Ledger(answers)

    def body(check: Check) -> bool:
        pause = threading.Event()
        while ledger.beats < 3:
            check()
            pause.wait(0.01)
        return True

    assert perform(ledger.job(body), lease_s=0.03, limit_s=60) == "done"


def test_a_failure_that_cannot_be_stored_is_left_to_the_relay() -> None:
    def fail(failure: Failure) -> str:
        raise DatabaseUnavailable("away")

    def body(check: Check) -> bool:
        raise DatabaseUnavailable("away")

    assert perform(Job(lambda: True, body, fail), lease_s=60, limit_s=60) == "lost"


def test_a_result_waits_for_the_database_to_come_back() -> None:
    answers = iter([DatabaseUnavailable("away"), DatabaseUnavailable("away"), True])

    def write() -> bool:
        answer = next(answers)
        if isinstance(answer, DatabaseUnavailable):
            raise answer
        return answer

    assert persist(write, lambda: None, patience_s=5)


def test_a_result_does_not_wait_for_ever() -> None:
    def write() -> bool:
        raise DatabaseUnavailable("away")

    with pytest.raises(DatabaseUnavailable):
        persist(write, lambda: None, patience_s=0.05)


def test_a_body_over_its_limit_ends_the_process() -> None:
    program = """
        import time
        from workers.task import Job, perform
        perform(Job(lambda: True, lambda check: time.sleep(600), lambda failure: None), 60, 0.2)
    """
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == EXIT_STUCK
