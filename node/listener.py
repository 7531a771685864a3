"""The listening side: who is let in, and the threads of it. What is answered is in `node.dimse`.

`run` is the process behind `tomonode listen`; `start` gives a running `Listener`, with port 0 for a free one.
"""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import copy_context
from functools import partial
from typing import Any

from pynetdicom import AE, _config, evt
from pynetdicom.association import Association
from pynetdicom.events import Event
from pynetdicom.transport import ThreadedAssociationServer
from structlog.contextvars import get_contextvars

from node import admission, copier, log, processes, tls
from node.activity import OpenAssociation, OpenAssociations
from node.blobs import BlobStore
from node.config import Settings
from node.db import Database
from node.dimse import serving, storage
from node.dimse.service import Resources
from node.dimse.services import handlers, offers, operations, services
from node.errors import ConfigError
from node.spool import SpoolingProvider, receive

#: How long a stopping listener waits for objects in flight; less than the supervisor gives it.
DRAIN_S = 25.0
_TICK_S = 1.0
_SWEEP_S = 60.0
_PDU_LIMIT = 2**20  # bytes; association requests may be longer than the negotiated fragments
_END_S = 1.0
_ANSWER_S = 0.5  # for the last answers to go out, and for senders to release


def run(settings: Settings, stop: threading.Event | None = None) -> None:
    """Listen until `stop` is set, or SIGTERM or SIGINT comes where it is None; finishes what is in flight.

    Raises:
        ConfigError: an address cannot be listened on, an allowed address is none, or TLS has no usable certificate.
    """
    if stop is None:
        stop = threading.Event()
        processes.stop_on_signals(stop)
    listener = start(settings)
    try:
        # Not for ever at once: the kernel may hand a signal to any thread, and only this one runs Python's handlers.
        while not stop.wait(_TICK_S):
            pass
    finally:
        listener.stop()


def start(settings: Settings) -> Listener:
    """A running listener; `Listener.port` is the port it really has.

    Raises:
        ConfigError: as `run`.
    """
    listener = Listener(settings)
    listener.start()
    return listener


class Listener:
    """The AE with its spool, store, database and housekeeping thread."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.db = Database(settings.db_url)
        self.store = BlobStore.of(settings)
        self.associations = OpenAssociations(self.db)
        self._networks = admission.networks(settings)
        self._pdu_limit = max(settings.max_pdu_bytes, _PDU_LIMIT)
        self._stopping = threading.Event()
        self._ended = threading.Event()
        self._housekeeper = threading.Thread(target=self._keep_house, name="housekeeping")
        # What `log` has bound: pynetdicom's threads do not inherit it.
        self._context = get_contextvars()
        self._resources = Resources(
            settings, self.db, self.store, self.associations, self._stopping, self._context
        )
        listed = services(self._resources)
        self._offers, self._handlers = offers(listed), handlers(listed)
        self._operations = operations(listed)
        self._copier = threading.Thread(
            target=copy_context().run,
            args=(copier.run, self.store, self._ended, settings.tick_s),
            name="copier",
            daemon=True,  # an upload may be cut off: it is done again
        )
        self._server: ThreadedAssociationServer | None = None
        self._tls_server: tls.TlsServer | None = None

    @property
    def port(self) -> int:
        """The TCP port that is listened on, without TLS."""
        assert self._server is not None, "not started"
        port: int = self._server.server_address[1]
        return port

    def start(self) -> None:
        """Open the ports and start the threads."""
        settings = self.settings
        # pynetdicom's own log lines may show what a message holds, and cost time for every fragment.
        _config.LOG_HANDLER_LEVEL = "none"
        _config.STORE_SEND_CHUNKED_DATASET = True  # C-GET sends files, whatever size they have
        self._sweep()
        bound = [
            (evt.EVT_CONN_OPEN, self._on_connection),
            (evt.EVT_CONN_CLOSE, _on_closed),
            (evt.EVT_REQUESTED, self._on_request),
            (evt.EVT_REJECTED, self._on_rejected),
            *self._handlers,
        ]
        entity = admission.entity(settings)
        secure = tls.server_context(settings) if settings.listen_tls_port else None
        with _listening_on(settings.listen_host, settings.listen_port, "TOMONODE_LISTEN_PORT"):
            self._server = entity.start_server(
                (settings.listen_host, settings.listen_port), block=False, evt_handlers=bound
            )
        if secure is not None:
            try:
                self._tls_server = self._start_tls(entity, secure, bound)
            except ConfigError:
                self._server.shutdown()
                raise
        self._housekeeper.start()
        if self.store.remote is not None:
            self._copier.start()
        log.get().info("listening", host=settings.listen_host, port=self.port)

    def _start_tls(self, entity: AE, secure: ssl.SSLContext, bound: list[Any]) -> tls.TlsServer:
        """The second port. Raises ConfigError where it cannot be had."""
        host, port = self.settings.listen_host, self.settings.listen_tls_port
        with _listening_on(host, port, "TOMONODE_LISTEN_TLS_PORT"):
            made = tls.start_server(
                entity,
                (host, port),
                secure,
                bound,
                handshake_s=self.settings.acse_timeout_s,
                may_connect=partial(admission.allowed, networks=self._networks),
            )
        log.get().info("listening over TLS", host=host, port=port)
        return made

    def stop(self, limit_s: float = DRAIN_S) -> None:
        """Accept nothing new, finish what is in flight within the limit (seconds), end every association."""
        assert self._server is not None, "not started"
        self._stopping.set()
        for server in filter(None, (self._server, self._tls_server)):
            server.shutdown()
        end = time.monotonic() + limit_s
        busy = time.monotonic()
        while time.monotonic() < min(end, busy + _ANSWER_S):
            if any(opened.arriving for opened in self.associations.all()):
                busy = time.monotonic()
            time.sleep(0.02)
        cut_off = sum(len(a.arriving) for a in self.associations.all())
        _end(self.associations.all())
        self._ended.set()
        self._housekeeper.join()
        self.db.dispose()
        log.get().info("stopped listening", failed=cut_off)

    def _keep_house(self) -> None:
        swept = time.monotonic()
        ended = False
        while not ended:
            ended = self._ended.wait(_TICK_S)
            try:
                self.associations.tick()
                if time.monotonic() - swept >= min(_SWEEP_S, self.settings.orphan_age_s):
                    swept = time.monotonic()
                    self._sweep()
            except Exception as error:  # noqa: BLE001 - the one thread that clears away: it must go on
                self._log().error("housekeeping failed", code=type(error).__name__)

    def _sweep(self) -> None:
        if removed := self.store.sweep_spool(self.settings.orphan_age_s):
            self._log().info("orphans swept", count=len(removed))

    def _log(self) -> Any:
        return log.get().bind(**self._context)

    def _on_connection(self, event: Event) -> None:
        association = event.assoc
        association.dimse = SpoolingProvider(
            association, partial(storage.open_file, self._resources)
        )
        serving.take_over(association, self._operations)
        reader = association.dul
        reader._target = partial(_read, association, reader.run_reactor)
        self.associations.add(OpenAssociation(association, association.dimse))
        connection = association.dul.socket.socket
        association.dul.socket.recv = partial(receive, connection, self._pdu_limit)
        # Answers are small and go out at once; a peer that stalls within a PDU must not hold its thread for ever.
        connection.settimeout(self.settings.network_timeout_s)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def _on_request(self, event: Event) -> None:
        association = event.assoc
        who = _who(event)
        connection = association.dul.socket.socket if association.dul.socket else None
        refusal = admission.refusal(
            who["address"], who["calling_ae"], connection, self.settings, self._networks, self.db
        )
        if refusal is not None:
            association.acse.send_reject(refusal.result, refusal.source, refusal.code)
            association.is_rejected = True
            self._log().warning("association refused", **who, reason=refusal.reason)
            association.kill()  # returns when the rejection is sent and the peer has closed
            return
        requestor = association.requestor
        roles = requestor.role_selection.items()
        takes = {str(uid) for uid, role in roles if role.scp_role and not role.scu_role}
        association.acceptor.supported_contexts = admission.supported_contexts(
            requestor.requested_contexts, self._offers, takes
        )

    def _on_rejected(self, event: Event) -> None:
        said = event.assoc.acceptor.primitive
        self._log().warning("association refused", **_who(event), reason=said.reason_str)


def _on_closed(event: Event) -> None:
    _wait_no_more(event.assoc)


def _read(association: Association, run_reactor: Callable[[], None]) -> None:
    """What reads the connection; a request that it cannot decode ends it."""
    try:
        run_reactor()
    finally:
        _wait_no_more(association)


def _wait_no_more(association: Association) -> None:
    """A peer that has gone before it asked for an association (a port scan, a look whether we live), or asked nonsense,
    holds no place: pynetdicom would wait for its request until the ACSE time-out."""
    waiting = association.requestor.primitive is None and association.dul.to_user_queue.empty()
    if association.is_acceptor and waiting:
        association.dul.to_user_queue.put(None)  # as if that time were over


@contextmanager
def _listening_on(host: str, port: int, setting: str) -> Iterator[None]:
    """Say which setting is wrong where an address cannot be listened on."""
    try:
        yield
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {host}:{port}: {error.strerror}; change TOMONODE_LISTEN_HOST or {setting}"
        ) from error


def _end(opened: list[OpenAssociation]) -> None:
    """Abort associations; a peer that does not close its side is cut off after a second."""
    for one in opened:
        if one.association.is_established:
            one.association.abort(block=False)
    _wait_for(opened)
    for one in opened:
        one.association.dul.kill_dul()
        if one.association.dul.socket is not None:
            one.association.dul.socket.close()
    _wait_for(opened)


def _wait_for(opened: list[OpenAssociation]) -> None:
    end = time.monotonic() + _END_S
    while time.monotonic() < end and not all(one.ended for one in opened):
        time.sleep(0.02)


def _who(event: Event) -> dict[str, str]:
    peer = event.assoc.requestor
    primitive = peer.primitive
    return {
        "calling_ae": str(primitive.calling_ae_title),
        "called_ae": str(primitive.called_ae_title),
        "address": str(peer.address),
    }
