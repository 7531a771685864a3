"""A listener and a web server as processes of their own, with a watch on what they hold: files, threads, memory."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
from pydicom.dataset import Dataset

from node import schema
from node.config import Settings, child_environment
from tests.support.listening import ListenerProcess, listening, spooled
from tests.support.node_process import free_port
from tests.support.objects import data_set_bytes, write_object
from tests.support.services import wait_until
from tests.support.wire import EndedError, wire

EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
NO_ROOM = "rejected, 02 03 02"  # transient, presentation, local limit exceeded (PS3.8 table 9-21)
_POOL = 12  # connections to the database, and the files of SQLite, that a process keeps open once they were needed
_WEB_THREADS = 48  # of the pool that answers requests


@dataclass(frozen=True)
class Held:
    """What a process holds at one moment."""

    files: int
    threads: int
    rss_bytes: int


class Watched:
    """Two processes of one node, and what they held at first."""

    def __init__(self, listener: ListenerProcess, web: httpx.Client, web_pid: int) -> None:
        self.listener, self.web = listener, web
        self.settings = listener.settings
        self._processes = [psutil.Process(listener.process.pid), psutil.Process(web_pid)]

    def held(self) -> list[Held]:
        """What listener and web server hold now."""
        return [Held(p.num_fds(), p.num_threads(), p.memory_info().rss) for p in self._processes]

    def opened(self, name: str) -> list[str]:
        """Open files of both processes whose path holds a name."""
        paths = [file.path for process in self._processes for file in process.open_files()]
        return [path for path in paths if name in path]

    def check(self, first: list[Held], grown_bytes: int) -> None:
        """Nothing is left over of what came: no spool file, no open file, no thread, no memory beyond a margin."""
        assert self.listener.process.poll() is None, "the listener has ended"
        wait_until(lambda: spooled(self.settings) == [], 20, "the spool to be empty")

        def given_back() -> bool:
            (listener, web), (listener_then, web_then) = self.held(), first
            return (
                listener.threads <= listener_then.threads
                and listener.files <= listener_then.files + _POOL
                and web.threads <= web_then.threads + _WEB_THREADS
                and web.files <= web_then.files + 2 * _POOL
            )

        try:
            wait_until(given_back, 20, "files and threads to be given back")
        except AssertionError as error:
            raise AssertionError(f"{error}: first {first}, now {self.held()}") from error
        for now, then in zip(self.held(), first, strict=True):
            assert now.rss_bytes - then.rss_bytes < grown_bytes, (now, then)

    def good(self, folder: Path) -> str:
        """A good object sent over an association of its own, acknowledged: its UID.

        A node that has no room just now says so, and the sender tries again, but not for long.
        """
        path = folder / "good.dcm"
        dataset = write_object(path)
        wait_until(lambda: self._sent(dataset, path), 3, "a good object to be taken")
        return str(dataset.SOPInstanceUID)

    def _sent(self, dataset: Dataset, path: Path) -> bool:
        sop_class, sop_uid = str(dataset.SOPClassUID), str(dataset.SOPInstanceUID)
        with wire(self.listener.port) as sender:
            try:
                sender.associate({1: (sop_class, [EXPLICIT_LITTLE])})
            except EndedError as error:
                if str(error) == NO_ROOM:
                    return False
                raise
            answer = sender.store(1, sop_class, sop_uid, data_set_bytes(path.read_bytes()))
            assert answer.status == 0, answer
            sender.release()
        return True


@contextmanager
def watched(settings: Settings) -> Iterator[Watched]:
    """A migrated node with listener and web server for the duration of the block."""
    port = free_port()
    settings = settings.model_copy(update={"web_port": port})
    schema.upgrade(settings.db_url)
    with listening(settings) as listener, (settings.home / "web.log").open("wb") as said:
        web = subprocess.Popen(
            [sys.executable, "-m", "workers.cli", "web"],
            env=child_environment(settings),
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
        )
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
                wait_until(lambda: web.poll() is not None or _answers(client), 40, "the web server")
                yield Watched(listener, client, web.pid)
                assert web.poll() is None, f"the web server has ended, see {said.name}"
        finally:
            web.terminate()
            web.wait(60)


def _answers(client: httpx.Client) -> bool:
    try:
        return client.get("/static/style.css").status_code == 200
    except httpx.ConnectError:
        return False


@contextmanager
def memory_within(grown_bytes: int) -> Iterator[None]:
    """This process has never more memory resident within the block than before it, and a margin."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak is what there is now
    before = _peak()
    yield
    assert _peak() - before < grown_bytes, f"{(_peak() - before) >> 20} MiB more"


def _peak() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024
