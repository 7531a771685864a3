"""Who may connect to the listener, and with which presentation contexts."""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from pynetdicom import AE, AllStoragePresentationContexts
from pynetdicom.presentation import PresentationContext, build_context
from pynetdicom.sop_class import Verification
from sqlalchemy import select
from sqlalchemy.orm import Session

from dicom_io.syntaxes import TRANSFER_SYNTAXES
from dicom_io.transcode import TARGETS
from dicom_io.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from node import tls
from node.config import Settings
from node.db import Database
from node.errors import ConfigError, DatabaseUnavailable
from node.models import Peer


@dataclass(frozen=True)
class Offer:
    """What is accepted of a SOP class: its transfer syntaxes, and whether the requestor of the association may ask for
    the role of the SCP (PS3.7 D.3.3.4), so that requests of this class go to it."""

    transfer_syntaxes: tuple[str, ...]
    both_roles: bool = False


#: The patient objects of the standard, by what pynetdicom serves as Storage; with C-GET they go the other way.
STORED: Final[Mapping[str, Offer]] = {
    str(c.abstract_syntax): Offer(TRANSFER_SYNTAXES, both_roles=True)
    for c in AllStoragePresentationContexts
}

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))


@dataclass(frozen=True)
class Refusal:
    """Why an association is refused: the numbers of its A-ASSOCIATE-RJ (PS3.8 table 9-21), and for the log."""

    result: int
    source: int
    code: int
    reason: str


_NOT_FROM_HERE = Refusal(1, 1, 1, "address not allowed")
_NOT_IN_PLAIN = Refusal(1, 1, 1, "only over TLS")
_NOT_THE_PEER = Refusal(1, 1, 3, "the peer of this AE title has another certificate")
_NOT_NOW = Refusal(2, 3, 1, "the database does not say whether this AE title is pinned")


def refusal(
    address: str,
    calling_ae: str,
    connection: object,
    settings: Settings,
    networks: list[Network],
    db: Database,
) -> Refusal | None:
    """Why an association is not let in; None: it is.

    Args:
        address: the sender's.
        calling_ae: the AE title it goes by.
        connection: its socket; over TLS it knows the certificate that the sender showed.
        settings: whether TLS is asked for, and whether senders must show certificates.
        networks: where senders may be.
        db: knows the pins. An AE title with a pin may call with that certificate only, so not in plain either; where
            senders show no certificates (`tls_authorities` is not set), there is nothing to compare.
    """
    if not allowed(address, networks):
        return _NOT_FROM_HERE
    over_tls = isinstance(connection, ssl.SSLSocket)
    if settings.listen_tls_only and not over_tls and not allowed(address, list(_LOOPBACK)):
        return _NOT_IN_PLAIN
    if not settings.listen_tls_port or settings.tls_authorities is None:
        return None
    try:
        with db.reading() as session:
            pins = _pins(session, calling_ae)
    except DatabaseUnavailable:
        return _NOT_NOW
    return _NOT_THE_PEER if pins and tls.fingerprint(connection) not in pins else None


def _pins(session: Session, ae_title: str) -> frozenset[str]:
    """The pins of the peers that go by an AE title; none where such a peer may call as it likes."""
    pins = session.execute(
        select(Peer.pin_sha256).where(
            Peer.enabled, Peer.ae_title == ae_title.strip(" "), Peer.pin_sha256.is_not(None)
        )
    )
    return frozenset(str(pin) for pin in pins.scalars())


def supported_contexts(
    requested: Iterable[PresentationContext],
    offers: Mapping[str, Offer] = STORED,
    takes: Collection[str] = (),
) -> list[PresentationContext]:
    """What is accepted of the presentation contexts that a sender proposes.

    Every SOP class that is offered, each with the known transfer syntaxes in the sender's own order: what it names
    first is what it has, and anything else would make it transcode. For the classes that it `takes` and does not send
    (C-GET), little endian comes first: a context has one syntax, and any object can be given in that one.
    """
    accepted: dict[str, list[str]] = {}
    for context in requested:
        offer = offers.get(str(context.abstract_syntax))
        if offer is not None:
            known = [str(s) for s in context.transfer_syntax if str(s) in offer.transfer_syntaxes]
            if context.abstract_syntax in takes:
                known.sort(key=lambda syntax: syntax not in TARGETS)
            accepted.setdefault(str(context.abstract_syntax), []).extend(known)
    return [_supported(uid, offers[uid], syntaxes) for uid, syntaxes in accepted.items()]


def _supported(uid: str, offer: Offer, syntaxes: list[str]) -> PresentationContext:
    context = build_context(uid, list(dict.fromkeys(syntaxes or offer.transfer_syntaxes)))
    if offer.both_roles:
        # Answers a role selection; without one, the roles are the usual ones.
        context.scu_role = context.scp_role = True
    return context


def entity(settings: Settings) -> AE:
    """The AE of the settings: titles, limits, time-outs. AE titles that are not allowed get its A-ASSOCIATE-RJ."""
    made = AE(settings.ae_title)
    made.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    made.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    made.maximum_pdu_size = settings.max_pdu_bytes
    made.maximum_associations = settings.max_associations
    made.acse_timeout = settings.acse_timeout_s
    made.dimse_timeout = settings.dimse_timeout_s
    made.network_timeout = settings.network_timeout_s
    made.require_called_aet = settings.check_called_ae
    made.require_calling_aet = sorted(settings.allowed_ae_titles)
    made.add_supported_context(Verification)  # the rest is chosen for each association
    return made


def networks(settings: Settings) -> list[Network]:
    """The networks that senders may be in. Raises ConfigError where a setting is none."""
    try:
        return [ipaddress.ip_network(a, strict=False) for a in sorted(settings.allowed_addresses)]
    except ValueError as error:
        raise ConfigError(
            f"setting TOMONODE_ALLOWED_ADDRESSES: {error}; give addresses or networks such as 10.1.0.0/16"
        ) from None


def allowed(address: str, networks: list[Network]) -> bool:
    """Whether a sender's address is in one of the networks; IPv4 in IPv6 clothes counts as IPv4."""
    peer = ipaddress.ip_address(address.split("%")[0])
    mapped = getattr(peer, "ipv4_mapped", None)
    return any((mapped or peer) in network for network in networks)
