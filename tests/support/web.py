"""A running web server on a free loopback port, and a browser-like client for it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from node.config import Settings
from node.web import server
from tests.support.services import wait_until


@contextmanager
def served(settings: Settings) -> Iterator[httpx.Client]:
    """Serve the pages as `tomonode web` does, in a thread; the client names its origin as a browser would."""
    port = _free_port()
    settings = settings.model_copy(update={"web_port": port})
    stop = threading.Event()
    thread = threading.Thread(target=server.run, args=(settings, stop), name="web")
    thread.start()
    base = f"http://127.0.0.1:{port}"
    try:
        with httpx.Client(base_url=base, headers={"Origin": base}, timeout=60) as client:
            wait_until(lambda: _answers(client), 20, "the web server to answer")
            yield client
    finally:
        stop.set()
        thread.join(timeout=60)
        assert not thread.is_alive(), "the web server did not stop"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(client: httpx.Client) -> bool:
    try:
        return client.get("/static/style.css").status_code == 200
    except httpx.ConnectError:
        return False
