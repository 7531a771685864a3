"""An association with a peer, as its requestor: opened, fed at the pace of the network, and always ended.

`paced` gives the same pace to an association that the other side requested.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from pynetdicom import AE, _config, build_role, evt
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.events import Event
from pynetdicom.pdu_primitives import P_DATA
from pynetdicom.presentation import PresentationContext, build_context

from dicom_io.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from node.config import Settings
from node.errors import NodeError, PeerRefused, PeerUnavailable
from node.tls import PeerContext, reason

_MAX_FRAGMENT = 131072  # bytes; also for peers that set no limit
_QUEUED_FRAGMENTS = 32  # on their way from the file to the socket
_REJECTED_PERMANENT = 1

#: Host, port and AE title of a peer.
Address = tuple[str, int, str]
#: A presentation context to propose: SOP class, and the transfer syntaxes of which the peer chooses one.
Proposal = tuple[str, tuple[str, ...]]


class AssociationLost(PeerUnavailable):
    """An established association ended before the answer."""


def fragment_bytes(theirs: int) -> int:
    """Bytes of a fragment for a peer that takes so many in a PDU; 0 is a peer that sets no limit (PS3.8 D.1)."""
    return min(theirs, _MAX_FRAGMENT) if theirs else _MAX_FRAGMENT


class _StreamingProvider(DIMSEServiceProvider):  # type: ignore[misc]
    """pynetdicom's DIMSE provider with fragments of a bounded size, also for peers that set no limit (0)."""

    @property
    def maximum_pdu_size(self) -> int:
        """Bytes of a fragment."""
        return fragment_bytes(super().maximum_pdu_size)


@contextmanager
def association_with(
    address: Address,
    contexts: Sequence[Proposal],
    settings: Settings,
    tls: PeerContext | None = None,
    *,
    handlers: Sequence[tuple[Any, ...]] = (),
    as_scp: Sequence[str] = (),
) -> Iterator[Association]:
    """An association with the peer, released at the end, aborted on an error.

    Args:
        address: the peer.
        contexts: what will be sent; each different one becomes one presentation context.
        settings: our AE title and time-outs.
        tls: how to know the peer, for an association over TLS (DICOM PS3.15 annex B); None: over plain TCP.
        handlers: of requests that the peer makes on it: pynetdicom's (event, function, [further arguments]).
        as_scp: SOP classes of which we propose to be the SCP (PS3.7 D.3.3.4).

    Raises:
        PeerUnavailable: no connection, or rejected for now.
        PeerRefused: rejected for good, no presentation context accepted, or another certificate than expected.
    """
    host, port, title = address
    # pynetdicom's own log lines may show what a message holds, and cost time for every fragment.
    _config.LOG_HANDLER_LEVEL = "none"
    _config.STORE_SEND_CHUNKED_DATASET = True
    entity = AE(settings.ae_title)
    entity.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    entity.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    entity.connection_timeout = settings.acse_timeout_s
    entity.acse_timeout = settings.acse_timeout_s
    entity.dimse_timeout = settings.dimse_timeout_s
    entity.network_timeout = settings.network_timeout_s
    proposed: list[PresentationContext] = [
        build_context(uid, list(syntaxes)) for uid, syntaxes in dict.fromkeys(contexts)
    ]
    bound = [(evt.EVT_CONN_OPEN, _on_connection, [settings.network_timeout_s]), *handlers]
    try:
        association = entity.associate(
            host,
            port,
            contexts=proposed,
            ae_title=title,
            ext_neg=[build_role(uid, scp_role=True) for uid in as_scp],
            evt_handlers=bound,
            tls_args=None if tls is None else (tls, host),
        )
    except OSError as error:  # the name is not known
        raise PeerUnavailable(f"{title} at {host}:{port}: {error.strerror}") from error
    if not association.is_established:
        raise _not_established(association, address, tls)
    try:
        yield association
    except BaseException:  # whatever ended the work, an interrupt too, the peer must be told
        association.abort()
        raise
    if association.is_established:
        association.release()


def _on_connection(event: Event, timeout_s: float) -> None:
    association = event.assoc
    connection = association.dul.socket.socket
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.settimeout(timeout_s)  # a peer that stops reading must not hold us for ever
    association.dimse = _StreamingProvider(association)
    association.dul.send_pdu = partial(_send_paced, association, association.dul.send_pdu)


@contextmanager
def paced(association: Association) -> Iterator[None]:
    """What an acceptor sends waits for the network, for the duration of the block; AssociationLost where it ends."""
    dul = association.dul
    dul.send_pdu = partial(_send_paced, association, dul.send_pdu)
    try:
        yield
    finally:
        del dul.send_pdu  # the class's own again


def _send_paced(
    association: Association, send: Callable[[object], None], primitive: object
) -> None:
    """Queue a primitive; a fragment waits until few others are queued, where pynetdicom would queue the whole file."""
    if isinstance(primitive, P_DATA):
        waiting = association.dul.to_provider_queue
        while waiting.qsize() >= _QUEUED_FRAGMENTS:
            _check_alive(association)
            time.sleep(0.0005)
        _check_alive(association)
    send(primitive)


def _check_alive(association: Association) -> None:
    if association.acse.is_aborted() or not association.dul.is_alive():
        raise lost(association)


def lost(association: Association) -> AssociationLost:
    """The error that says that this association has ended."""
    peer = association.acceptor if association.is_requestor else association.requestor
    where = f"{peer.ae_title} at {peer.address}:{peer.port}"
    return AssociationLost(f"{where} ended the association, or gave no answer in time; see its log")


def _not_established(
    association: Association, address: Address, tls: PeerContext | None
) -> NodeError:
    host, port, title = address
    where = f"{title} at {host}:{port}"
    if tls is not None and tls.failure is not None:
        return _no_handshake(tls.failure, where)
    said = association.acceptor.primitive
    if association.is_rejected:
        text = f"{where} rejected the association: {said.reason_str}"
        if said.result == _REJECTED_PERMANENT:
            return PeerRefused(f"{text}; check both AE titles and the peer's list of senders")
        return PeerUnavailable(text)
    if said is not None and said.result == 0:
        return PeerRefused(f"{where} takes none of the SOP classes and transfer syntaxes offered")
    asked = "does a firewall let us" if tls is None else "does it take our certificate"
    return PeerUnavailable(f"no association with {where}; is it running, and {asked}?")


def _no_handshake(failure: ssl.SSLError, where: str) -> NodeError:
    if isinstance(failure, ssl.SSLCertVerificationError):
        return PeerRefused(f"{where}: {reason(failure)}")
    return PeerUnavailable(
        f"no TLS with {where} ({reason(failure)}); does that port speak TLS, and take our certificate?"
    )
