"""Serve the pages until told to stop."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

import uvicorn

from node import log, processes, tls
from node.config import Settings
from node.errors import ConfigError
from node.web.app import create_app
from node.web.guard import is_loopback

_POLL_S = 0.2
_DRAIN_S = 5


def run(settings: Settings, stop: threading.Event | None = None) -> None:
    """Serve until `stop` is set, or SIGTERM or SIGINT comes where it is None; finishes what is in flight.

    Raises:
        ConfigError: the address cannot be listened on, or the certificate cannot be used.
    """
    tls.check_web(settings)
    if stop is None:
        stop = threading.Event()
        processes.stop_on_signals(stop)
    with _listen(settings) as listening:
        host, port = listening.getsockname()[:2]
        scheme = "http" if settings.web_certificate is None else "https"
        url = f"{scheme}://{_in_url(host)}:{port}/"
        log.get().info("web started", host=host, port=port, url=url)
        if not is_loopback(settings.web_host):
            log.get().warning(
                "web is open to the network",
                host=settings.web_host,
                reason="anyone who reaches this address can read and retry: there is no log-in",
            )
        _serve(settings, listening, stop)
    log.get().info("web stopped")


def _listen(settings: Settings) -> socket.socket:
    host, port = settings.web_host, settings.web_port
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listening = socket.create_server((host, port), family=family)
    except OSError as error:
        raise ConfigError(
            f"web pages cannot listen on {host}:{port}: {error.strerror};"
            " change TOMONODE_WEB_HOST or TOMONODE_WEB_PORT"
        ) from None
    # Connections inherit it. An answer goes out in several pieces, and without it each would wait 40 ms for an
    # acknowledgement; asyncio sets it only on sockets that were made for TCP by name.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


class _Server(uvicorn.Server):
    """A server that leaves signals alone: whoever runs it sets the event."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


def _serve(settings: Settings, listening: socket.socket, stop: threading.Event) -> None:
    server = _Server(
        uvicorn.Config(
            create_app(settings),
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            ssl_certfile=settings.web_certificate,
            ssl_keyfile=settings.web_key,
            timeout_graceful_shutdown=_DRAIN_S,
        )
    )
    ended = threading.Event()

    def watch() -> None:
        while not ended.is_set():
            if stop.wait(_POLL_S):
                server.should_exit = True
                return

    watcher = threading.Thread(target=watch, name="stop", daemon=True)
    watcher.start()
    try:
        server.run(sockets=[listening])
    finally:
        ended.set()
        watcher.join()
