"""The web server as a process: starts, stops on SIGTERM, says what is wrong with its address."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import pytest

from node import schema
from node.config import Settings, child_environment
from node.errors import ConfigError
from node.web import server
from node.web.app import create_app
from node.web.guard import is_loopback

_MAIN = """
from node import log
from node.config import load_settings
from node.web import server
settings = load_settings()
log.setup(settings.log_level, process="web")
server.run(settings)
"""


def test_a_process_serves_and_ends_cleanly_on_sigterm(settings: Settings, tmp_path: Path) -> None:
    schema.upgrade(settings.db_url)
    log = tmp_path / "web.log"
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-c", _MAIN], env=child_environment(settings), stderr=stderr
        )
        try:
            started = _wait_for(log, "web started", process)
            # a page that is kept open must not keep the server from ending
            with httpx.Client(base_url=str(started["url"])) as client:
                assert client.get("/healthz").json()["status"] == "ok"
                process.send_signal(signal.SIGTERM)
                assert process.wait(timeout=60) == 0
        finally:
            process.kill()
            process.wait()
    lines = _lines(log)
    assert lines[-1]["event"] == "web stopped"
    assert all(line["process"] == "web" for line in lines)


def _wait_for(log: Path, what: str, process: subprocess.Popen[bytes]) -> dict[str, object]:
    done = threading.Event()
    for _ in range(600):
        found = [line for line in _lines(log) if line["event"] == what]
        if found:
            return found[0]
        assert process.poll() is None, log.read_text()
        done.wait(0.1)
    raise AssertionError(f"no {what!r} in {log.read_text()}")


def _lines(log: Path) -> list[dict[str, object]]:
    whole = log.read_text().rpartition("\n")[0].splitlines()
    return [json.loads(line) for line in whole if line.startswith("{")]


def test_an_address_in_use_is_said(settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"127.0.0.1:{port}.*TOMONODE_WEB_PORT"):
            server.run(settings.model_copy(update={"web_port": port}), threading.Event())


def test_loopback_addresses() -> None:
    assert all(map(is_loopback, ("127.0.0.1", "127.1.2.3", "::1", "localhost")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "192.0.2.1", "node.example", "")))


def test_an_open_node_answers_to_any_name(settings: Settings) -> None:
    schema.upgrade(settings.db_url)
    open_node = create_app(settings.model_copy(update={"web_host": "192.0.2.1"}))
    own_node = create_app(settings)

    async def ask(app: object) -> int:
        transport = httpx.ASGITransport(app=app)  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=transport, base_url="http://node.example") as client:
            return (await client.get("/")).status_code

    assert asyncio.run(ask(open_node)) == 200
    assert asyncio.run(ask(own_node)) == 400


def test_an_answer_in_pieces_waits_for_no_acknowledgement(settings: Settings) -> None:
    with server._listen(settings) as listening:
        with socket.create_connection(listening.getsockname()[:2]):
            accepted, _ = listening.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
