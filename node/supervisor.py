"""`tomonode up`: every process of the node under one parent.

It migrates the database, starts the services, waits until each is ready, starts again what crashes, and on SIGTERM or
Ctrl-C stops them in the order that loses no work: the listener first, so that nothing new comes, Redis last.
"""

from __future__ import annotations

import fcntl
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from node import processes, redis_server, schema, services
from node.config import Settings
from node.errors import ConfigError, Conflict, StartFailed
from node.processes import Child
from node.rules import apply as rules
from node.services import Service

_START_S = 180.0  # importing the model from a cold disk takes most of it
_POLL_S = 0.1
_BACK_OFF_S = (0.5, 30.0)
_STABLE_S = 60.0  # a service that lived this long starts its back-off anew

Say = Callable[[str], None]


@dataclass
class _Kept:
    """A service with its present process, None while it waits to be started again."""

    service: Service
    child: Child | None = None
    is_ready: bool = False
    started_at: float = 0.0
    crashes: int = 0
    start_at: float = 0.0


class Supervisor:
    """Keeps services running until told to stop. Make one and call `run` in the main thread.

    Args:
        settings: of the node; a port 0 becomes a free port.
        say: gets each line for people.
        ready: called once when every service is ready.
    """

    def __init__(
        self, settings: Settings, say: Say, ready: Callable[[], None] = lambda: None
    ) -> None:
        self.settings = settings
        self._say, self._ready = say, ready
        self._kept: list[_Kept] = []
        self._stop = threading.Event()
        self._hurry = threading.Event()

    def run(self) -> None:
        """Run the node until SIGTERM, SIGINT or SIGHUP; a second signal stops without waiting.

        Raises:
            ConfigError: home cannot be written, a port cannot be used, or the routing rules have a fault.
            Conflict: another `up` runs on this home.
            DatabaseUnavailable: the database cannot be migrated.
            BrokerUnavailable: the configured Redis does not answer.
            StartFailed: a service did not get ready.
        """
        prepare_home(self.settings.home)
        with only_one(self.settings.home):
            self.settings = with_ports(self.settings)
            schema.upgrade(self.settings.db_url)
            rules.require_good(self.settings)
            # What the caller had ignored stays ignored (nohup).
            wanted = [n for n in _SIGNALS if signal.getsignal(n) != signal.SIG_IGN]
            told = processes.signal_handler(self._told_to_stop)
            handlers = {n: signal.signal(n, told) for n in wanted}
            try:
                self._start()
                self._watch()
            finally:
                self._stop_all()
                for number, handler in handlers.items():
                    signal.signal(number, handler)

    def _told_to_stop(self) -> None:
        if self._stop.is_set():
            self._hurry.set()
        self._stop.set()

    def _start(self) -> None:
        if self.settings.embedded_redis:
            self._start_group([services.redis_service(self.settings)])
        else:
            redis_server.require(self.settings)
        if not self._stop.is_set():
            self._start_group(services.node_services(self.settings))
        if not self._stop.is_set():
            self._say(f"node is up; home {self.settings.home}; stop it with Ctrl-C")
            self._ready()

    def _start_group(self, group: Sequence[Service]) -> None:
        fresh = [_Kept(service) for service in group]
        for kept in fresh:
            self._kept.append(kept)
            self._launch(kept)
        end = time.monotonic() + _START_S
        while not self._stop.is_set() and not all(kept.is_ready for kept in fresh):
            for kept in fresh:
                self._check_ready(kept)
                code = kept.child.exit_code() if kept.child else None
                if code is not None:
                    raise StartFailed(f"{kept.service.name} {self._ending(kept, code)}")
                if time.monotonic() > end and not kept.is_ready:
                    raise StartFailed(
                        f"{kept.service.name} not ready after {_START_S:.0f} s; see {self._log(kept)}"
                    )
            self._stop.wait(_POLL_S)

    def _launch(self, kept: _Kept) -> None:
        service = kept.service
        kept.child = processes.start(
            service.command, service.environment, self._log(kept), service.takes_ready_fd
        )
        kept.is_ready = False
        kept.started_at = time.monotonic()

    def _check_ready(self, kept: _Kept) -> None:
        if kept.is_ready or kept.child is None or kept.child.exit_code() is not None:
            return
        # The process is asked again after its answer: a port may be answered by a stranger while ours ends.
        if kept.service.ready(kept.child) and kept.child.exit_code() is None:
            kept.is_ready = True
            again = "ready again" if kept.crashes else "ready"
            pid = kept.child.process.pid
            self._say(f"{kept.service.name:<12} {again}; pid {pid}; {kept.service.where}")

    def _watch(self) -> None:
        while not self._stop.wait(_POLL_S):
            for kept in self._kept:
                self._check_ready(kept)
                self._restart(kept)

    def _restart(self, kept: _Kept) -> None:
        if kept.child is None:
            if time.monotonic() >= kept.start_at:
                self._launch(kept)
            return
        code = kept.child.exit_code()
        if code is None:
            return
        ending = self._ending(kept, code)
        kept.child.end()
        kept.child = None
        lived_s = time.monotonic() - kept.started_at
        kept.crashes = 1 if lived_s > _STABLE_S else kept.crashes + 1
        first, most = _BACK_OFF_S
        delay = min(most, first * 2 ** (kept.crashes - 1))
        kept.start_at = time.monotonic() + delay
        self._say(f"{kept.service.name:<12} {ending}; starts again in {delay:.1f} s")

    def _ending(self, kept: _Kept, code: int) -> str:
        how = f"exit code {code}" if code >= 0 else f"killed by {signal.Signals(-code).name}"
        said = processes.last_line(self._log(kept)) if code > 0 else ""
        last = f"; last line: {said[:300]}" if said else ""
        return f"ended; {how}{last}; see {self._log(kept)}"

    def _log(self, kept: _Kept) -> Path:
        return self.settings.home / "log" / f"{kept.service.name}.log"

    def _stop_all(self) -> None:
        ordered = sorted(self._kept, key=lambda kept: kept.service.order)
        for _, group in groupby(ordered, key=lambda kept: kept.service.order):
            self._stop_group([kept for kept in group if kept.child is not None])
        if self.settings.embedded_redis:
            redis_server.tidy(self.settings)
        if self._kept:
            self._say("node is down")

    def _stop_group(self, group: Sequence[_Kept]) -> None:
        children = [(kept.service, kept.child) for kept in group if kept.child is not None]
        for _, child in children:
            child.signal(signal.SIGTERM)
        end = time.monotonic() + max((service.stop_s for service, _ in children), default=0.0)
        while any(child.exit_code() is None for _, child in children):
            if self._hurry.wait(_POLL_S / 2) or time.monotonic() > end:
                break
        for service, child in children:
            if child.exit_code() is None:
                self._say(f"{service.name:<12} still at work; killed (its work is taken up again)")
            child.end()


_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def prepare_home(home: Path) -> None:
    """Make the folders of a node.

    Raises:
        ConfigError: they cannot be written.
    """
    try:
        for name in ("run", "log"):
            (home / name).mkdir(parents=True, exist_ok=True)
            if not os.access(home / name, os.W_OK):
                raise PermissionError(13, "Permission denied")
    except OSError as error:
        raise ConfigError(
            f"home {home} cannot be written; {error.strerror}; set TOMONODE_HOME to a folder that you may write"
        ) from None


@contextmanager
def only_one(home: Path) -> Iterator[None]:
    """Hold a node's home, so that no second `up` runs on it; let go by the kernel if we are killed.

    Raises:
        Conflict: another `up` holds it.
    """
    handle = os.open(home / "run" / "up.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(handle, 32).decode(errors="replace").strip() or "unknown"
        os.close(handle)
        raise Conflict(
            f"another `tomonode up` runs on home {home}; pid {holder}; stop it, or set another TOMONODE_HOME"
        ) from None
    try:
        os.ftruncate(handle, 0)
        os.write(handle, f"{os.getpid()}\n".encode())
        yield
    finally:
        os.close(handle)


def with_ports(settings: Settings) -> Settings:
    """The settings with every port that was 0 made a free one.

    Raises:
        ConfigError: a port cannot be listened on.
    """
    listen = processes.claim_port(
        settings.listen_host, settings.listen_port, "TOMONODE_LISTEN_PORT"
    )
    web = processes.claim_port(settings.web_host, settings.web_port, "TOMONODE_WEB_PORT")
    if settings.listen_port == settings.web_port == listen:
        raise ConfigError(
            f"listener and web both want port {listen}; set TOMONODE_LISTEN_PORT or TOMONODE_WEB_PORT to another"
        )
    return settings.model_copy(update={"listen_port": listen, "web_port": web})
