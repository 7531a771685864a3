"""Whether the certificates of the settings can be used, and until when (`tomonode doctor`).

What one is worth is asked of the TLS library itself: a handshake in memory, with a client that trusts just it.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from node.config import Settings
from node.errors import ConfigError
from node.tls import load_own, reason, server_context

_RENEW = timedelta(days=21)
_ROUNDS = 5  # of a handshake; two are enough


@dataclass(frozen=True)
class Finding:
    """What was looked at, whether it is well, what was found, and how to mend it (empty where it is well)."""

    name: str
    ok: bool
    found: str
    mend: str = ""


def examine(settings: Settings) -> Iterator[Finding]:
    """A finding for each certificate that is set, and one where TLS is switched on and cannot work."""
    if settings.listen_tls_port or settings.tls_certificate is not None:
        yield _listener(settings)
    if settings.web_certificate is not None:
        yield _dated("certificate web", settings.web_certificate, settings.web_key, "WEB")


def _listener(settings: Settings) -> Finding:
    name = "certificate DICOM"
    if settings.listen_tls_port:
        try:
            server_context(settings)
        except ConfigError as error:
            return _unusable(name, error)
    assert settings.tls_certificate is not None, "else there is no context"
    is_served = bool(settings.listen_tls_port)
    return _dated(name, settings.tls_certificate, settings.tls_key, "TLS", is_served)


def _dated(
    name: str, certificate: Path, key: Path | None, prefix: str, is_served: bool = True
) -> Finding:
    setting = f"TOMONODE_{prefix}_CERTIFICATE"
    try:
        until = valid_until(certificate, key, setting)
    except ConfigError as error:
        return _unusable(name, error)
    except ssl.SSLCertVerificationError as error:
        if not is_served and "purpose" in reason(error):
            return Finding(name, True, f"{certificate} is for clients; its date is not known here")
        mend = f"peers will refuse it: put a new one in {setting}"
        return Finding(name, False, f"{certificate}: {reason(error)}", mend)
    left = until - datetime.now(UTC)
    found = f"{certificate} is good until {until:%Y-%m-%d}"
    mend = f"{left.days} days are left: put a new one in {setting}" if left < _RENEW else ""
    return Finding(name, not mend, found, mend)


def _unusable(name: str, error: ConfigError) -> Finding:
    found, _, mend = str(error).rpartition("; ")
    return Finding(name, False, found, mend)


def valid_until(certificate: Path, key: Path | None, setting: str) -> datetime:
    """When a server's certificate ends.

    Raises:
        ConfigError: it cannot be read, or its key is not its own.
        ssl.SSLCertVerificationError: nobody takes it: expired, not yet valid, or not for servers.
    """
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    load_own(server_side, certificate, key, setting)
    client_side = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client_side.check_hostname = False  # each peer knows us by the name that it likes
    client_side.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    client_side.load_verify_locations(certificate)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_side.wrap_bio(to_client, to_server)
    server = server_side.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(_ROUNDS):
        for side in (client, server):
            with suppress(ssl.SSLWantReadError):
                side.do_handshake()
    shown = client.getpeercert()
    assert shown, "the handshake is over"
    ends = ssl.cert_time_to_seconds(str(shown["notAfter"]))
    return datetime.fromtimestamp(ends, UTC)
