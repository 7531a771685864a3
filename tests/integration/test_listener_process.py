"""The listener as a process: killed, stopped, out of disk, out of database, and how much memory it takes."""

from __future__ import annotations

import ctypes
import json
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from node import schema
from node.config import Settings
from tests.conftest import make_settings
from tests.support.listening import (
    SplitSend,
    associated,
    connects,
    left_behind,
    listening,
    send,
    spooled,
    stored,
)
from tests.support.objects import write_large, write_object
from tests.support.services import wait_until

MEMORY_LIMIT = 100 * 2**20


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A folder that is emptied at once, because pytest keeps what lies in its own for a while."""
    folder = tmp_path / "home"
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def small_files(folder: Path, count: int) -> dict[str, Path]:
    folder.mkdir()
    files = {}
    for number in range(count):
        path = folder / f"{number}.dcm"
        files[str(write_object(path).SOPInstanceUID)] = path
    return files


def test_killed_at_any_moment_nothing_acknowledged_is_lost(
    any_settings: Settings, tmp_path: Path
) -> None:
    schema.upgrade(any_settings.db_url)
    chance = random.Random(20260304)
    files = small_files(tmp_path / "files", 120)
    left = list(files.items())
    acknowledged: set[str] = set()
    for _ in range(5):
        with listening(any_settings) as node:
            timer = threading.Timer(chance.uniform(0.05, 0.6), node.kill)
            timer.start()
            batch, left = left[:24], left[24:]
            statuses = send(any_settings, node.port, *(path for _, path in batch))
            timer.join()
        acknowledged |= {
            uid for (uid, _), status in zip(batch, statuses, strict=True) if status == "0x0000"
        }
        assert acknowledged <= set(stored(any_settings))
    with listening(any_settings) as node:
        assert set(send(any_settings, node.port, *files.values())) == {"0x0000"}
    assert set(stored(any_settings)) == set(files)


def test_killed_in_the_middle_of_an_object(settings: Settings, tmp_path: Path) -> None:
    schema.upgrade(settings.db_url)
    path = tmp_path / "large.dcm"
    dataset = write_large(path, 2**20)
    with listening(settings) as node, associated(node.port, path) as association:
        SplitSend(association, path).some(20)
        wait_until(lambda: spooled(settings), 10, "the object in flight")
        node.kill()
    assert stored(settings) == {}
    patient = make_settings(settings.home, orphan_age_s=0.1)
    with listening(patient) as node:
        assert spooled(settings) == []
        assert send(settings, node.port, path) == ["0x0000"]
    assert list(stored(settings)) == [dataset.SOPInstanceUID]


def test_sigterm_finishes_the_object_in_flight(settings: Settings, tmp_path: Path) -> None:
    schema.upgrade(settings.db_url)
    path = tmp_path / "large.dcm"
    dataset = write_large(path, 2**20)
    with listening(settings) as node, associated(node.port, path) as association:
        sending = SplitSend(association, path)
        sending.some(20)
        wait_until(lambda: spooled(settings), 10, "the object in flight")
        codes: list[int] = []
        stopping = threading.Thread(target=lambda: codes.append(node.terminate()))
        stopping.start()
        wait_until(lambda: not connects(node.port), 10, "the port to be closed")
        sending.rest()
        assert sending.status() == 0
        stopping.join()
    assert codes == [0]
    assert list(stored(settings)) == [dataset.SOPInstanceUID]
    assert left_behind(settings) == []


def test_stops_also_when_the_kernel_gives_the_signal_to_another_thread(settings: Settings) -> None:
    schema.upgrade(settings.db_url)
    with listening(settings) as node:
        process = node.process
        others = {int(task.name) for task in Path(f"/proc/{process.pid}/task").iterdir()} - {
            process.pid
        }
        time.sleep(0.5)  # the main thread is waiting by now
        assert ctypes.CDLL(None).tgkill(process.pid, others.pop(), signal.SIGTERM) == 0
        assert process.wait(60) == 0


def test_logs_name_no_patient(settings: Settings, tmp_path: Path) -> None:
    schema.upgrade(settings.db_url)
    good, bad, twin = (tmp_path / f"{name}.dcm" for name in ("good", "bad", "twin"))
    dataset = write_object(good)
    write_object(bad, StudyInstanceUID="")
    write_object(twin, SOPInstanceUID=dataset.SOPInstanceUID, InstanceNumber=9)
    with listening(settings) as node:
        assert send(settings, node.port, good, bad, twin) == ["0x0000", "0xC000", "0x0111"]
        assert node.terminate() == 0
        lines = node.log.read_text().splitlines()
    events = [json.loads(line)["event"] for line in lines if line.startswith("{")]
    assert events.count("object stored") == 2
    assert events.count("object refused") == 1
    for secret in ("Secret", "SECRET-ID", "19600101", "ACC1"):
        assert not [line for line in lines if secret in line]


# --- memory ---


_SEND = """
import sys
from pathlib import Path
from node import scu
from node.config import load_settings
def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1])
before = peak()
[result] = scu.send_files("127.0.0.1", int(sys.argv[1]), "TOMONODE", [Path(sys.argv[2])], load_settings())
print(result.status, peak() - before)
"""


def send_apart(port: int, *files: Path) -> list[tuple[str, int]]:
    """Send each file from a process of its own, all at once: status, and bytes of memory it took to send."""
    senders = [
        subprocess.Popen(
            [sys.executable, "-c", _SEND, str(port), str(file)], stdout=subprocess.PIPE, text=True
        )
        for file in files
    ]
    said = [sender.communicate(timeout=300)[0].split() for sender in senders]
    return [(status, int(kilobytes) * 1024) for status, kilobytes in said]


@pytest.mark.parametrize(("senders", "megabytes"), [(1, 1024), (4, 256)])
def test_memory_does_not_grow_with_the_objects(
    home: Path, tmp_path: Path, senders: int, megabytes: int
) -> None:
    settings = make_settings(home)
    schema.upgrade(settings.db_url)
    files = [tmp_path / f"{number}.dcm" for number in range(senders)]
    uids = {str(write_large(file, megabytes * 2**20).SOPInstanceUID) for file in files}
    small = tmp_path / "small.dcm"
    uids.add(str(write_object(small).SOPInstanceUID))
    with listening(settings) as node:
        assert send(settings, node.port, small) == ["0x0000"]
        idle = node.peak_rss_bytes
        results = send_apart(node.port, *files)
        assert node.peak_rss_bytes - idle <= MEMORY_LIMIT
    assert [status for status, _ in results] == ["0x0000"] * senders
    assert max(grown for _, grown in results) <= MEMORY_LIMIT
    assert set(stored(settings)) == uids
