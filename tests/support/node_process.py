"""A whole node as an operator runs it: `tomonode up` and its children, which may be killed one by one."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import psutil

from node.config import Settings, child_environment
from tests.support.services import wait_until

# how a service is recognised in the command line of a child
SERVICES = {
    "listener": ("workers.cli", "listen"),
    "relay": ("workers.cli", "relay"),
    "inference": ("workers.cli", "inference"),
    "delivery": ("workers.cli", "delivery"),
    "web": ("workers.cli", "web"),
    "redis": ("redis-server",),
}


class NodeProcess:
    """`tomonode up` on these settings (which must name their ports); `inside` are words that go before the command."""

    def __init__(self, settings: Settings, inside: Sequence[str] = ()) -> None:
        self.settings = settings
        self._inside = inside
        self.log = settings.home / "up.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it says that it is up."""
        self.settings.home.mkdir(parents=True, exist_ok=True)
        said = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self._inside, sys.executable, "-m", "workers.cli", "up"],
                env=child_environment(self.settings),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

        def up() -> bool:
            assert self._process is not None
            assert self._process.poll() is None, f"`up` ended:\n{self.said()}"
            return b"node is up" in self.log.read_bytes()[said:]

        wait_until(up, 120, "the node to be up")

    def said(self) -> str:
        """All that `up` printed."""
        return self.log.read_text(errors="replace")

    def pid(self, service: str) -> int | None:
        """Process id of a service, None while it is not running."""
        assert self._process is not None
        try:
            children = psutil.Process(self._process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return None
        for child in children:
            try:
                line = child.cmdline()
            except psutil.Error:
                continue
            words = " ".join(line)
            if child.is_running() and all(part in words for part in SERVICES[service]):
                return child.pid
        return None

    def kill(self, service: str) -> bool:
        """kill -9 of a service, or of `up` itself, which is then started again; False: it was not running."""
        if service == "up":
            self.kill_all()
            self.start()
            return True
        pid = self.pid(service)
        if pid is None:
            return False
        psutil.Process(pid).kill()
        return True

    def kill_all(self) -> None:
        """kill -9 of `up`; the kernel takes the children with it."""
        assert self._process is not None
        children = psutil.Process(self._process.pid).children(recursive=True)
        self._process.kill()
        self._process.wait(timeout=60)
        _, alive = psutil.wait_procs(children, timeout=60)
        assert not alive, f"children outlived `up`: {[child.cmdline() for child in alive]}"

    def stop(self) -> int:
        """SIGTERM; returns the exit code."""
        assert self._process is not None
        if self._process.poll() is None:
            self._process.terminate()
        try:
            return self._process.wait(timeout=90)
        except subprocess.TimeoutExpired:
            self.kill_all()
            raise


@contextmanager
def node_process(settings: Settings, inside: Sequence[str] = ()) -> Iterator[NodeProcess]:
    """A running node for the duration of the block."""
    node = NodeProcess(settings, inside)
    try:
        node.start()
        yield node
    finally:
        if node._process is not None:
            node.stop()


def free_port() -> int:
    """A loopback port nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
