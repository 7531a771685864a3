"""Python modules as programs in a network of their own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.support.loopback import Loopback, RequestFailed
from tests.support.services import wait_until


def run_module(network: Loopback, *words: str) -> str:
    """Run a module to its end; what it printed."""
    done = subprocess.run(
        [*network.command, sys.executable, "-m", *words],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@contextmanager
def module_server(
    network: Loopback, words: Sequence[str], url: str, log: Path, env: Mapping[str, str] | None
) -> Iterator[int]:
    """A module that serves until the block ends, and its process id; `url` answers once it is up."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            [*network.command, sys.executable, "-m", *words],
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        wait_until(
            lambda: process.poll() is not None or _answers(network, url), 60, f"{words[0]}", 0.3
        )
        assert process.poll() is None, log.read_text(errors="replace")[-2000:]
        yield process.pid
    finally:
        process.terminate()
        process.wait(timeout=60)


def _answers(network: Loopback, url: str) -> bool:
    try:
        return bool(network.request("GET", url))
    except RequestFailed:
        return False
