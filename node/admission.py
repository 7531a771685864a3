"""Who may connect to the listener, and with which presentation contexts."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from pynetdicom import AE, AllStoragePresentationContexts
from pynetdicom.presentation import PresentationContext, build_context
from pynetdicom.sop_class import Verification

from dicom_io.syntaxes import TRANSFER_SYNTAXES
from dicom_io.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from node.config import Settings
from node.errors import ConfigError

# The patient objects of the standard, by what pynetdicom serves as Storage, and C-ECHO.
_ACCEPTED = frozenset(str(c.abstract_syntax) for c in AllStoragePresentationContexts) | {
    str(Verification)
}

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def supported_contexts(requested: Iterable[PresentationContext]) -> list[PresentationContext]:
    """What is accepted of the presentation contexts that a sender proposes.

    Every storage class of patients' objects, each with the known transfer syntaxes in the sender's own order: what it
    names first is what it has, and anything else would make it transcode.
    """
    accepted: dict[str, list[str]] = {}
    for context in requested:
        uid = str(context.abstract_syntax)
        if uid in _ACCEPTED:
            known = [str(s) for s in context.transfer_syntax if str(s) in TRANSFER_SYNTAXES]
            accepted.setdefault(uid, []).extend(known)
    return [
        build_context(uid, list(dict.fromkeys(syntaxes or TRANSFER_SYNTAXES)))
        for uid, syntaxes in accepted.items()
    ]


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
