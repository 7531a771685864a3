"""The receivers that are compared, each as a process of its own in one private network."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from node import schema
from node.config import child_environment
from tests.conftest import make_settings
from tests.support import dcmtk, orthanc_server
from tests.support.loopback import Loopback
from tests.support.node_process import free_port
from tests.support.services import wait_until

_SAMPLE_S = 0.005


@dataclass(frozen=True)
class Receiver:
    """A running Storage SCP."""

    port: int
    ae_title: str
    pid: int

    def resident(self) -> int:
        """Bytes resident now, of the process and its children together."""
        total = 0
        try:
            process = psutil.Process(self.pid)
            for one in (process, *process.children(recursive=True)):
                total += one.memory_info().rss
        except psutil.NoSuchProcess:
            return total
        return total


Opener = Callable[[Loopback, Path], AbstractContextManager[Receiver]]


@contextmanager
def tomonode(network: Loopback, folder: Path) -> Iterator[Receiver]:
    """`tomonode listen`."""
    port = free_port()
    settings = make_settings(folder / "home", listen_port=port, quiet_s=3600.0)
    settings.home.mkdir(parents=True)
    schema.upgrade(settings.db_url)
    log = folder / "listen.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*network.command, sys.executable, "-m", "workers.cli", "listen"],
            env=child_environment(settings),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        wait_until(
            lambda: b'"listening"' in log.read_bytes() or process.poll() is not None, 60, "it"
        )
        assert process.poll() is None, log.read_text()
        yield Receiver(port, settings.ae_title, process.pid)
    finally:
        process.terminate()
        process.wait(timeout=60)


@contextmanager
def storescp(network: Loopback, folder: Path) -> Iterator[Receiver]:
    """dcmtk's storescp, which takes the object into memory; a process an association."""
    with dcmtk.storescp(network, folder / "in", ["--fork", "-pdu", "131072"]) as peer:
        yield Receiver(peer.port, dcmtk.AE_TITLE, peer.pid)


@contextmanager
def storescp_streaming(network: Loopback, folder: Path) -> Iterator[Receiver]:
    """dcmtk's storescp writing to disk as it receives."""
    with dcmtk.storescp(network, folder / "in", ["--fork", "-pdu", "131072", "+B"]) as peer:
        yield Receiver(peer.port, dcmtk.AE_TITLE, peer.pid)


@contextmanager
def orthanc(network: Loopback, folder: Path) -> Iterator[Receiver]:
    """Orthanc with its defaults (SQLite, fsync) and the large PDUs that the others have too."""
    extra = {"MaximumPduLength": 131072}
    with orthanc_server.orthanc(network, folder / "orthanc", extra=extra) as server:
        yield Receiver(server.dicom_port, orthanc_server.AE_TITLE, server.pid)


RECEIVERS: dict[str, Opener] = {
    "tomonode listener": tomonode,
    "storescp +B (dcmtk)": storescp_streaming,
    "storescp (dcmtk)": storescp,
    "Orthanc": orthanc,
}


class PeakMemory:
    """Most bytes resident while the block runs, above what there was before it."""

    def __init__(self, receiver: Receiver) -> None:
        self.above_idle = 0
        self._receiver = receiver
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> PeakMemory:
        self._idle = self._receiver.resident()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(_SAMPLE_S):
            self.above_idle = max(self.above_idle, self._receiver.resident() - self._idle)
