"""Whether a server answers: small questions that `up` and `doctor` ask."""

from __future__ import annotations

import http.client
import socket
import ssl


def accepts(host: str, port: int) -> bool:
    """Whether something accepts TCP connections there."""
    try:
        socket.create_connection((host, port), timeout=2).close()
    except OSError:
        return False
    return True


def serves_pages(host: str, port: int, tls: bool = False) -> bool:
    """Whether an HTTP server, or one of HTTPS, answers there without an error of its own."""
    connection = http.client.HTTPConnection(host, port, timeout=5)
    if tls:
        # Whether it answers is asked of our own port, not who it is: its certificate has another name than this host.
        anyone = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        anyone.check_hostname, anyone.verify_mode = False, ssl.CERT_NONE
        connection = http.client.HTTPSConnection(host, port, timeout=5, context=anyone)
    try:
        connection.request("GET", "/")
        return connection.getresponse().status < 500
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
