"""dcmtk's programs: senders, and its Storage SCP."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.loopback import Loopback
from tests.support.node_process import free_port
from tests.support.services import wait_until

INSTALL = "apt-get install dcmtk"
AE_TITLE = "STORESCP"
# dcmtk leaves Nagle's algorithm on, which costs 40 ms a small object.
ENVIRONMENT = {**os.environ, "TCP_NODELAY": "1"}


def program(name: str) -> str:
    """Path of a program of dcmtk; skips the test where it is not installed."""
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed; {INSTALL}")
    return path


def run(
    name: str, *arguments: str | Path, timeout_s: float = 120
) -> subprocess.CompletedProcess[str]:
    """Run a program of dcmtk to its end; standard output and error together."""
    return subprocess.run(
        [program(name), *map(str, arguments)],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=timeout_s,
        check=False,
    )


@dataclass(frozen=True)
class StoreScp:
    """A running storescp."""

    port: int
    folder: Path  # where it writes what it gets
    pid: int


@contextmanager
def storescp(network: Loopback, folder: Path, options: Sequence[str] = ()) -> Iterator[StoreScp]:
    """dcmtk's Storage SCP inside a network, for the duration of the block."""
    path, port = program("storescp"), free_port()
    folder.mkdir(parents=True)
    log = folder.with_suffix(".log")
    words = [path, "-aet", AE_TITLE, "-od", str(folder), *options, str(port)]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*network.command, *words],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=ENVIRONMENT,
        )
    try:
        wait_until(lambda: _answers(network, port) or process.poll() is not None, 30, "storescp")
        assert process.poll() is None, log.read_text()
        yield StoreScp(port, folder, process.pid)
    finally:
        process.kill()
        process.wait()


def _answers(network: Loopback, port: int) -> bool:
    words = [*network.command, program("echoscu"), "-aec", AE_TITLE, "127.0.0.1", str(port)]
    return subprocess.run(words, capture_output=True, check=False).returncode == 0
