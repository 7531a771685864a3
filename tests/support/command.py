"""The command `tomonode` as a real process, in an environment of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

from tests.support.services import wait_until

COMMAND = (sys.executable, "-m", "workers.cli")


def environment(home: Path, **variables: str) -> dict[str, str]:
    """This process's environment with only these settings; names without the prefix."""
    out = {name: value for name, value in os.environ.items() if not name.startswith("TOMONODE_")}
    short = {"QUIET_S": "1", "VIEWS_QUIET_S": "0.2", "TICK_S": "0.2", "DISK_RESERVE_MB": "0"}
    out.update({f"TOMONODE_{name}": value for name, value in {**short, **variables}.items()})
    return {**out, "TOMONODE_HOME": str(home), "TOMONODE_DEVICE": "cpu", "TOMONODE_THREADS": "2"}


def tomonode(
    *arguments: str | Path, env: dict[str, str], timeout_s: float = 120
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def assert_one_line(done: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    """The command failed with this code and one line on standard error that holds these words."""
    lines = done.stderr.splitlines()
    assert done.returncode == code, done.stderr
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("tomonode: "), lines[0]
    for word in words:
        assert word in lines[0]


class Started:
    """A long-running command; its output lies in a file."""

    def __init__(self, process: subprocess.Popen[bytes], output: Path) -> None:
        self.process, self._output = process, output

    def output(self) -> str:
        """What it said so far."""
        return self._output.read_text()

    def wait_for(self, text: str, timeout_s: float = 120) -> str:
        """Wait until it said this; returns all it said."""

        def said() -> bool:
            if self.process.poll() is not None and text not in self.output():
                raise AssertionError(f"ended before it said {text!r}:\n{self.output()}")
            return text in self.output()

        wait_until(said, timeout_s, f"{text!r}")
        return self.output()

    def descendants(self) -> list[psutil.Process]:
        """Every process under it."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def end(self, number: signal.Signals = signal.SIGTERM, timeout_s: float = 90) -> int:
        """Signal it and wait; returns its exit code."""
        self.process.send_signal(number)
        return self.process.wait(timeout_s)


@contextmanager
def started(*arguments: str | Path, env: dict[str, str], output: Path) -> Iterator[Started]:
    """Start a command; kill it at the end if it still runs."""
    with output.open("wb") as file:
        process = subprocess.Popen(
            [*COMMAND, *map(str, arguments)], env=env, stdin=subprocess.DEVNULL, stdout=file, stderr=file
        )  # fmt: skip
    try:
        yield Started(process, output)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def all_gone(processes: Sequence[psutil.Process], within_s: float = 60) -> bool:
    """Whether all of these processes end within a while."""
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        if not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in processes):
            return True
        time.sleep(0.05)
    return False
