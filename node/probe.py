"""Whether a server answers: small questions that `up` and `doctor` ask."""

from __future__ import annotations

import http.client
import socket


def accepts(host: str, port: int) -> bool:
    """Whether something accepts TCP connections there."""
    try:
        socket.create_connection((host, port), timeout=2).close()
    except OSError:
        return False
    return True


def serves_pages(host: str, port: int) -> bool:
    """Whether an HTTP server answers there without an error of its own."""
    connection = http.client.HTTPConnection(host, port, timeout=5)
    try:
        connection.request("GET", "/")
        return connection.getresponse().status < 500
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
