"""TLS for DICOM associations and for pages (DICOM PS3.15 annex B.9 ff.): who we are, and how we know a peer.

    server_context(settings)            the listener's second port; client certificates where authorities are named
    client_context(settings, pin)       what a delivery to a peer uses, for C-STORE and for HTTPS alike

A peer is known by its **pin**, the SHA-256 of its certificate, or else by the authorities: those of the settings, or
the system's. With a pin the certificate must be just that one, whoever signed it and however long it runs: hospital
devices often have self-signed ones. It is compared within the handshake, before any message of ours is sent.
"""

from __future__ import annotations

import hashlib
import re
import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from pynetdicom import AE
from pynetdicom.transport import ThreadedAssociationServer
from structlog.contextvars import get_contextvars

from node import log
from node.config import Settings
from node.errors import ConfigError

_PIN = re.compile(r"[0-9a-f]{64}")


class PeerContext(ssl.SSLContext):
    """A client's context that remembers why the last handshake failed: pynetdicom keeps that to itself."""

    pin: str | None = None
    failure: ssl.SSLError | None = None


class _PeerSocket(ssl.SSLSocket):
    """A client's socket whose handshake includes the comparison with the pin."""

    def do_handshake(self, block: bool = False) -> None:
        """Shake hands, and know the peer. Raises ssl.SSLError, which the context keeps too."""
        context = self.context
        assert isinstance(context, PeerContext)
        try:
            super().do_handshake(block)
            if context.pin is not None and (seen := fingerprint(self)) != context.pin:
                raise ssl.SSLCertVerificationError(
                    f"its certificate has SHA-256 {seen}, the pin is {context.pin};"
                    " find out why, then remove the peer and add it with the new --pin"
                )
        except ssl.SSLError as error:
            context.failure = error
            raise


def server_context(settings: Settings) -> ssl.SSLContext:
    """The context of the listener's TLS port; where authorities are set, a client must show a certificate of theirs.

    Raises:
        ConfigError: no certificate is set, or a file cannot be used.
    """
    if settings.tls_certificate is None:
        raise ConfigError(
            "TLS needs a certificate; set TOMONODE_TLS_CERTIFICATE, or TOMONODE_LISTEN_TLS_PORT to 0"
        )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    load_own(context, settings.tls_certificate, settings.tls_key, "TOMONODE_TLS_CERTIFICATE")
    if settings.tls_authorities is not None:
        _load_authorities(context, settings.tls_authorities)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_context(settings: Settings, pin: str | None) -> PeerContext:
    """The context of connections to one peer; shows our certificate to whoever asks for one.

    Args:
        settings: our certificate and the authorities.
        pin: SHA-256 of the peer's certificate as `pin_of` gives it; None: the authorities must vouch for its name.

    Raises:
        ConfigError: a file cannot be used.
    """
    context = PeerContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.sslsocket_class = _PeerSocket
    context.pin = pin
    if settings.tls_certificate is not None:
        load_own(context, settings.tls_certificate, settings.tls_key, "TOMONODE_TLS_CERTIFICATE")
    if pin is not None:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE  # the pin says more than any authority
    elif settings.tls_authorities is not None:
        _load_authorities(context, settings.tls_authorities)
    else:
        context.load_default_certs()
    return context


def check_web(settings: Settings) -> None:
    """Check the certificate of the web pages. Raises ConfigError where it cannot be used."""
    if settings.web_certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        load_own(context, settings.web_certificate, settings.web_key, "TOMONODE_WEB_CERTIFICATE")


def fingerprint(connection: object) -> str | None:
    """SHA-256 of the certificate that the other side showed, in hexadecimal; None: none, or no TLS."""
    if not isinstance(connection, ssl.SSLSocket):
        return None
    certificate = connection.getpeercert(binary_form=True)
    return None if certificate is None else hashlib.sha256(certificate).hexdigest()


def pin_of(text: str) -> str:
    """A pin as it is kept: 64 hexadecimal digits, from what `openssl x509 -fingerprint -sha256` prints.

    Raises:
        ConfigError: it is none.
    """
    pin = text.rpartition("=")[2].replace(":", "").strip().lower()
    if not _PIN.fullmatch(pin):
        raise ConfigError(
            f"pin {text!r} cannot be used; give the 64 hexadecimal digits of the certificate's SHA-256"
            " (openssl x509 -in FILE -noout -fingerprint -sha256)"
        )
    return pin


def reason(failure: OSError) -> str:
    """What went wrong in a handshake, in a few words."""
    if isinstance(failure, ssl.SSLCertVerificationError):
        return getattr(failure, "verify_message", "") or str(failure.args[-1])
    if isinstance(failure, ssl.SSLError) and failure.reason:
        return failure.reason.replace("_", " ").lower()
    return str(failure.strerror or failure.args[-1] if failure.args else type(failure).__name__)


class TlsServer(ThreadedAssociationServer):  # type: ignore[misc]
    """pynetdicom's server with the handshake in the connection's own thread, and in bounded time.

    pynetdicom shakes hands where it accepts connections: one client that says nothing would close the port to all.
    """

    daemon_threads = True  # a handshake in progress must not keep the process from ending

    def __init__(
        self,
        *args: Any,
        handshake_s: float,
        may_connect: Callable[[str], bool],
        **options: Any,
    ) -> None:
        """`handshake_s` bounds the whole handshake; an address that `may_connect` denies gets none."""
        self._handshake_s, self._may_connect = handshake_s, may_connect
        self._log = log.get().bind(**get_contextvars())  # threads do not inherit what is bound
        super().__init__(*args, **options)

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept a connection, without a word on it."""
        accepted: tuple[socket.socket, Any] = self.socket.accept()
        return accepted

    def process_request_thread(self, request: socket.socket, client_address: Any) -> None:
        """Shake hands, then go on as pynetdicom does."""
        address = str(client_address[0])
        if not self._may_connect(address):
            self._log.warning("connection refused", address=address, reason="address not allowed")
            self.shutdown_request(request)
            return
        request.settimeout(self._handshake_s)
        try:
            wrapped = self.ssl_context.wrap_socket(request, server_side=True)
        except OSError as error:
            self._log.warning("connection refused", address=address, reason=f"TLS: {reason(error)}")
            with suppress(OSError):
                self.shutdown_request(request)
            return
        super().process_request_thread(wrapped, client_address)


def start_server(
    entity: AE,
    address: tuple[str, int],
    context: ssl.SSLContext,
    handlers: list[Any],
    handshake_s: float,
    may_connect: Callable[[str], bool],
) -> TlsServer:
    """A server of this AE that runs in a thread of its own; `TlsServer` says what it does. Raises OSError."""
    made: TlsServer = entity.make_server(
        address,
        ssl_context=context,
        evt_handlers=handlers,
        server_class=TlsServer,
        handshake_s=handshake_s,
        may_connect=may_connect,
    )
    entity._servers.append(made)  # `shutdown` takes it from there
    threading.Thread(target=made.serve_forever, name="tls port", daemon=True).start()
    return made


def load_own(context: ssl.SSLContext, certificate: Path, key: Path | None, setting: str) -> None:
    """Have a context show a certificate, and prove it with its key. Raises ConfigError, which names the setting."""

    def no_password() -> str:
        raise ConfigError(
            f"setting {setting}={str(certificate)!r}: its key needs a password; take it off"
        )

    try:
        context.load_cert_chain(certificate, key, password=no_password)
    except OSError as error:
        raise ConfigError(
            f"setting {setting}={str(certificate)!r}: {reason(error)};"
            " give a PEM file with the certificate, and one with its key"
        ) from None


def _load_authorities(context: ssl.SSLContext, path: Path) -> None:
    try:
        context.load_verify_locations(path)
    except OSError as error:
        raise ConfigError(
            f"setting TOMONODE_TLS_AUTHORITIES={str(path)!r}: {reason(error)};"
            " give a PEM file with the certificates that vouch for peers"
        ) from None
