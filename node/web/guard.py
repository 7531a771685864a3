"""What every answer and every request must have: security headers, a host that is ours, and for changes an origin.

The pages have no log-in, so they are for this machine alone by default. A page of a stranger, open in the same browser,
could still send requests here: changes are taken from our own pages only (Origin), and on a loopback address only
requests for a loopback name are answered, so that a stranger's name that suddenly resolves to 127.0.0.1 reads nothing.
Where the node is open to the network, DICOMweb is for this machine and for the addresses that the listener lets in;
programs, which name no origin, may store there, and browsers name theirs with every such request.
"""

from __future__ import annotations

import ipaddress
import time
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from node import log
from node.admission import allowed, networks
from node.config import Settings
from node.web.render import error_page

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; img-src 'self'; style-src 'self'; script-src 'self'; connect-src 'self';"
        " form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    # `no-referrer` would make browsers send `Origin: null` with our own forms
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
DICOMWEB = "/dicom-web"
_READING = frozenset({"GET", "HEAD"})


class Guard:
    """ASGI middleware around the whole application.

    Args:
        app: what is guarded.
        settings: of the node; `web_host` says whether only loopback names are answered.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._networks = networks(settings)
        self._names: frozenset[str] | None = None  # any
        if is_loopback(settings.web_host):
            self._names = frozenset({"localhost", "127.0.0.1", "::1", settings.web_host})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.monotonic(), 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in (*HEADERS.items(), ("Cache-Control", "no-store")):
                    headers.setdefault(name, value)  # a stricter one of the answer's own stays
            await send(message)

        target = self._refusal(scope) or self._app
        await target(scope, receive, send_with_headers)
        _log(scope, status, time.monotonic() - started)

    def _refusal(self, scope: Scope) -> ASGIApp | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if self._names is not None and _name(host) not in self._names:
            return error_page(
                400,
                "Not this node's name",
                "this node answers on this machine only; open it as localhost or 127.0.0.1",
            )
        if scope["path"].startswith(DICOMWEB) and not self._may_fetch(scope):
            return JSONResponse(
                {
                    "error": "Not for this address",
                    "message": "ask the node's operator to add it to TOMONODE_ALLOWED_ADDRESSES",
                },
                403,
            )
        from_program = scope["path"].startswith(DICOMWEB) and "origin" not in headers
        if scope["method"] not in _READING and not from_program and not same_origin(headers):
            return error_page(
                403,
                "Not from this page",
                "a change is taken only from a page of this node; go back, reload and try again",
            )
        return None

    def _may_fetch(self, scope: Scope) -> bool:
        """Whether DICOMweb is open to the client."""
        client = scope.get("client")
        return client is None or is_loopback(client[0]) or allowed(client[0], self._networks)


def is_loopback(host: str) -> bool:
    """Whether an address to listen on is reached from this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def same_origin(headers: Headers) -> bool:
    """Whether the request comes from one of our own pages. The scheme is not compared: a proxy may add TLS."""
    origin = headers.get("origin", "")
    return "://" in origin and origin.split("://", 1)[1] == headers.get("host")


def _name(host: str) -> str | None:
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None


def _log(scope: Scope, status: int, seconds: float) -> None:
    # The path holds UIDs of ours; the query may hold what a person searched for, and is left out.
    values = {"url": scope["path"], "status": status, "seconds": round(seconds, 3)}
    if status >= 500:
        log.get().warning("request failed", **values)
    elif scope["method"] not in _READING:
        log.get().info("request", **values)
    else:
        log.get().debug("request", **values)
