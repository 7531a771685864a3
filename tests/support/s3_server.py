"""An S3-compatible store over HTTP on a free loopback port, in a process of its own; it forgets with its process."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.support.node_process import free_port
from tests.support.services import wait_until

BUCKET = "tomonode"
INSTALL = ".venv/bin/python -m pip install -r requirements-s3.lock"
_PROGRAM = """
import sys
from moto.server import ThreadedMotoServer
ThreadedMotoServer("127.0.0.1", int(sys.argv[1])).start()
sys.stdin.read()
"""


@contextmanager
def s3_server(port: int = 0) -> Iterator[str]:
    """A store with one empty bucket; yields its address. Skips where its packages are missing."""
    for package in ("moto", "s3fs"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed; {INSTALL}")
    port = port or free_port()
    address = f"http://127.0.0.1:{port}"
    server = subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, str(port)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: _has_bucket(address), 120, "the S3 server to answer")
        yield address
    finally:
        server.kill()
        server.wait(timeout=60)
        assert server.stdin is not None
        server.stdin.close()


def _has_bucket(address: str) -> bool:
    request = urllib.request.Request(f"{address}/{BUCKET}", method="PUT")
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
