"""Child processes: they die with their parent, say when they are ready, and log to a file of their own.

A child is started in a session of its own, so that Ctrl-C reaches the parent alone, which then decides the order of the
end. The kernel kills the child when its parent is gone (prctl PR_SET_PDEATHSIG), even after kill -9.
"""

from __future__ import annotations

import _thread
import ctypes
import os
import select
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from node.errors import ConfigError

_PR_SET_PDEATHSIG = 1
_LOG_LIMIT = 10 * 2**20
_LIBC = ctypes.CDLL(None, use_errno=True)


def signal_handler(call: Callable[[], None]) -> Callable[[int, object], None]:
    """A handler that makes the call in a thread of its own.

    A handler interrupts the main thread anywhere, even inside the `wait` of the event that it would set: there it would
    wait for ever for the event's lock, which the interrupted call holds.
    """

    def handle(_number: int, _frame: object) -> None:
        _thread.start_new_thread(call, ())

    return handle


def stop_on_signals(stop: threading.Event) -> None:
    """Have SIGTERM and SIGINT set the event; call it from the main thread."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal_handler(stop.set))


def die_with(parent: int) -> None:
    """Have the kernel kill this process when `parent`, which must be its parent, ends. For a `preexec_fn`."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before the call above
        os._exit(1)


@dataclass
class Child:
    """A running child process and the pipe by which it says that it is ready."""

    process: subprocess.Popen[bytes]
    ready_pipe: int

    def said_ready(self) -> bool:
        """Whether the child called `say_ready` since it started."""
        readable, _, _ = select.select([self.ready_pipe], [], [], 0)
        return bool(readable) and os.read(self.ready_pipe, 1) == b"1"

    def exit_code(self) -> int | None:
        """The exit code (minus the signal number where a signal ended it); None while it runs."""
        return self.process.poll()

    def signal(self, number: signal.Signals) -> None:
        """Signal the child, if it is still there."""
        if self.exit_code() is None:
            self.process.send_signal(number)

    def end(self) -> None:
        """Kill what is left of the child's group, grandchildren too, and close the pipe."""
        with suppress(ProcessLookupError):  # nothing is left
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        os.close(self.ready_pipe)


def start(
    command: Sequence[str], environment: Mapping[str, str], log: Path, takes_ready_fd: bool = False
) -> Child:
    """Start a child that dies with the calling process; call it from the main thread only (the kernel watches the
    thread that forks).

    Args:
        command: program and arguments; `--ready-fd N` is added if `takes_ready_fd`.
        environment: the whole environment of the child.
        log: file that gets its standard output and error, appended.
        takes_ready_fd: the child will call `say_ready`.
    """
    reading, writing = os.pipe()
    parent = os.getpid()
    arguments = [*command, "--ready-fd", str(writing)] if takes_ready_fd else list(command)
    rotate(log)
    try:
        with log.open("ab") as output:
            process = subprocess.Popen(
                arguments,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=(writing,) if takes_ready_fd else (),
                start_new_session=True,
                preexec_fn=lambda: die_with(parent),
            )
    except OSError:
        os.close(reading)
        raise
    finally:
        os.close(writing)
    return Child(process, reading)


def say_ready(ready_fd: int | None) -> None:
    """Tell the parent that started this process with `--ready-fd` that its work can begin."""
    if ready_fd is None:
        return
    with suppress(OSError):  # the parent is gone, or somebody started us with a wrong number
        os.write(ready_fd, b"1")
        os.close(ready_fd)


def rotate(log: Path, limit: int = _LOG_LIMIT) -> None:
    """Put a log that outgrew the limit (bytes) aside as `NAME.1`, replacing the one before."""
    if log.exists() and log.stat().st_size > limit:
        log.replace(log.with_name(log.name + ".1"))


def last_line(log: Path) -> str:
    """The last line of a log that says anything; empty if there is none."""
    if not log.exists():
        return ""
    lines = log.read_bytes()[-8192:].decode(errors="replace").splitlines()
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def claim_port(host: str, port: int, setting: str) -> int:
    """The port if a server can listen there; a free one where `port` is 0.

    Raises:
        ConfigError: in use, not permitted, or not an address of this machine.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen(1)
            taken: int = probe.getsockname()[1]
            return taken
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {host} port {port}; {error.strerror}; set {setting} to a free one"
        ) from None
