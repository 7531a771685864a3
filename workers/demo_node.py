"""The processes of the demonstration: a node of its own and a receiving PACS, on free ports of loopback."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from node import peers, probe, processes
from node.config import Settings, child_environment
from node.db import Database, now
from node.processes import Child
from workers.errors import DemoFailed

PACS_TITLE = "DEMO-PACS"
_HOST = "127.0.0.1"
_START_S = 240.0
_STOP_S = 60.0
_POLL_S = 0.2

Say = Callable[[str], None]


@dataclass(frozen=True)
class DemoNode:
    """A running node and a PACS that it delivers to."""

    settings: Settings
    pacs_folder: Path
    up: Child
    pacs: Child

    @property
    def web_url(self) -> str:
        """The node's work list."""
        return f"http://{_HOST}:{self.settings.web_port}/"

    def log(self, name: str) -> Path:
        """Log of the node or the PACS."""
        return _log(self.settings, name)

    def check_alive(self) -> None:
        """Raises DemoFailed when the node or the PACS has ended."""
        for name, child in (("up", self.up), ("pacs", self.pacs)):
            _check_alive(name, child, self.settings)

    def send(self, paths: Sequence[Path]) -> list[dict[str, Any]]:
        """Send files in a process of their own (`tomonode send`); what became of each: path, accepted, status, reason.

        Raises:
            DemoFailed: nothing was sent at all.
        """
        done = subprocess.run(
            [
                *(sys.executable, "-m", "workers.cli", "send"),
                *(_HOST, str(self.settings.listen_port), *map(str, paths)),
                *("--called", self.settings.ae_title, "--calling", "DEMO-MODALITY", "--json"),
            ],
            env=child_environment(self.settings),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            start_new_session=True,
            check=False,
        )
        said = done.stderr.decode(errors="replace")
        self.log("send").write_text(said)
        try:
            results: list[dict[str, Any]] = json.loads(done.stdout)
        except ValueError:
            last = (said.strip().splitlines() or ["it said nothing"])[-1]
            raise DemoFailed(f"nothing was sent; {last}; see {self.log('send')}") from None
        return results


@contextmanager
def running(settings: Settings, pacs_folder: Path, say: Say) -> Iterator[DemoNode]:
    """Start the PACS and the node, with the PACS as its peer; stop both at the end, whatever happens.

    Args:
        settings: of the node; its folders are made.
        pacs_folder: where the PACS writes what it receives; made.
        say: gets each line for people.

    Raises:
        DemoFailed: one of them did not start.
        ConfigError: the folders cannot be written.
    """
    pacs_folder.mkdir(parents=True)
    (settings.home / "log").mkdir(parents=True)
    port = processes.claim_port(_HOST, 0, "")
    children: list[Child] = []
    gently = False
    try:
        pacs = processes.start(
            _pacs_command(port, pacs_folder),
            child_environment(settings),
            _log(settings, "pacs"),
        )
        children.append(pacs)
        up = processes.start(
            (sys.executable, "-m", "workers.cli", "up"),
            child_environment(settings),
            _log(settings, "up"),
            takes_ready_fd=True,
        )
        children.append(up)
        _wait("up", up, settings, up.said_ready)
        _wait("pacs", pacs, settings, lambda: probe.accepts(_HOST, port))
        _add_peer(settings, port)
        say(f"node up at {_HOST}:{settings.listen_port} ({settings.ae_title})")
        say(f"PACS up at {_HOST}:{port} ({PACS_TITLE}), writes to {pacs_folder}")
        yield DemoNode(settings, pacs_folder, up, pacs)
        gently = True
    finally:
        for child in reversed(children):
            _stop(child, gently)


def _pacs_command(port: int, folder: Path) -> tuple[str, ...]:
    """pynetdicom's own Storage SCP: a receiver that is not ours."""
    options = ("--bind-address", _HOST, "--ae-title", PACS_TITLE, "--max-pdu", "131072")
    return (
        *(sys.executable, "-m", "pynetdicom", "storescp", str(port)),
        *("--output-directory", str(folder), *options),
    )


def _add_peer(settings: Settings, port: int) -> None:
    db = Database(settings.db_url)
    try:
        with db.transaction() as session:
            peers.add(session, peers.dicom_peer("demo-pacs", PACS_TITLE, _HOST, port, now(session)))
    finally:
        db.dispose()


def _wait(name: str, child: Child, settings: Settings, condition: Callable[[], bool]) -> None:
    end = time.monotonic() + _START_S
    while not condition():
        _check_alive(name, child, settings)
        if time.monotonic() > end:
            raise DemoFailed(f"{name} not ready after {_START_S:.0f} s; see {_log(settings, name)}")
        time.sleep(_POLL_S)


def _check_alive(name: str, child: Child, settings: Settings) -> None:
    code = child.exit_code()
    if code is not None:
        log = _log(settings, name)
        raise DemoFailed(
            f"{name} ended; exit code {code}; {processes.last_line(log)[:300]}; see {log}"
        )


def _stop(child: Child, gently: bool) -> None:
    """End a child; where not gently, with the second signal that tells `up` not to wait for its work."""
    for patience_s in (_STOP_S if gently else 3.0, 10.0):
        child.signal(signal.SIGTERM)
        end = time.monotonic() + patience_s
        while child.exit_code() is None and time.monotonic() < end:
            time.sleep(_POLL_S / 4)
    child.end()


def _log(settings: Settings, name: str) -> Path:
    return settings.home / "log" / f"{name}.log"
