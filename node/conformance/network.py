"""Of the statement: SOP classes and roles, transfer syntaxes, association policies, time-outs (PS3.2 annex A.4)."""

from __future__ import annotations

from typing import Any, cast

from pynetdicom.sop_class import (
    StorageCommitmentPushModel,
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelMove,
    Verification,
)

from dicom_io.syntaxes import TRANSFER_SYNTAXES
from dicom_io.transcode import TARGETS
from dicom_io.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from node import admission
from node.admission import STORED, Offer, Refusal
from node.conformance.markdown import name_of, points, table
from node.conformance.objects import IODS
from node.dimse import services
from node.dimse.commitment_data import SYNTAXES as COMMITMENT_SYNTAXES
from node.dimse.find import IDENTIFIERS
from node.dimse.sending import MAX_CONTEXTS
from node.dimse.service import Service


def registered() -> list[Service]:
    """The services of the listener."""
    nothing = cast(Any, None)  # to be listed, services need nothing to work with
    return services.services(nothing)


def implementation() -> list[str]:
    """Who we are on the wire."""
    return table(
        ("", "value"),
        [
            ("Implementation Class UID", f"`{IMPLEMENTATION_CLASS_UID}`"),
            ("Implementation Version Name", f"`{IMPLEMENTATION_VERSION_NAME}`"),
            ("Application Context Name", "`1.2.840.10008.3.1.1.1`"),
        ],
    )


def as_provider() -> list[str]:
    """SOP classes that the listener serves; those of Storage have a table of their own."""
    rows = [
        (name_of(uid), f"`{uid}`", _roles(offer), _names(offer.transfer_syntaxes))
        for service in registered()
        for uid, offer in sorted(service.offers.items())
        if uid not in STORED
    ]
    storage = f"{len(STORED)} classes, in the [appendix](#appendix-storage-sop-classes)"
    both = next(iter(STORED.values()))
    rows.append(("Storage", storage, _roles(both), "all of [these](#transfer-syntaxes)"))
    return table(("SOP class", "UID", "role of the node", "transfer syntaxes"), rows)


def _roles(offer: Offer) -> str:
    return "SCP; SCU where the requestor takes the role of the SCP" if offer.both_roles else "SCP"


def as_user() -> list[str]:
    """SOP classes that the node asks others for."""
    little = _names(TARGETS)
    made = sorted({name_of(iod.sop_class_uid) for iod in IODS.values()})
    rows = [
        (
            name_of(Verification),
            "`tomonode peer echo`, `tomonode doctor`",
            "Implicit VR Little Endian",
        ),
        (", ".join(made), "results of a run, to peers", f"as stored; else {little}"),
        ("Storage, as received", "C-GET, C-MOVE asked of the node", f"as stored; else {little}"),
        (
            name_of(StorageCommitmentPushModel),
            "results that were sent, to peers that commit",
            _names(COMMITMENT_SYNTAXES),
        ),
        (
            name_of(StudyRootQueryRetrieveInformationModelFind),
            "`tomonode pull`, to peers that studies are fetched from",
            little,
        ),
        (name_of(StudyRootQueryRetrieveInformationModelMove), "the same", little),
    ]
    return table(("SOP class, as SCU", "what for", "transfer syntaxes"), rows)


def transfer_syntaxes() -> list[str]:
    """Every transfer syntax of stored objects."""
    return table(
        ("transfer syntax", "UID"), ((name_of(uid), f"`{uid}`") for uid in TRANSFER_SYNTAXES)
    )


def storage_classes() -> list[str]:
    """The appendix."""
    return table(
        ("SOP class", "UID"), ((name_of(uid), f"`{uid}`") for uid in sorted(STORED, key=_order))
    )


def _order(uid: str) -> list[int]:
    return [int(part) for part in uid.split(".")]


def policies() -> list[str]:
    """What holds for every association."""
    return points(
        "Of a proposed presentation context the first transfer syntax that is known is accepted, in the requestor's"
        " order. Contexts of unknown classes are rejected; the others of the association are not.",
        f"As requestor the node proposes an object's stored transfer syntax, and {_names(TARGETS)} in a context of its"
        " own, into which it transcodes where the stored one is not taken. SOP Instance UIDs stay.",
        f"An association that would need more than {MAX_CONTEXTS} contexts is split.",
        "Asynchronous operations, SOP class extended negotiation and user identity are not negotiated; roles are, where"
        " the table says so.",
        "Queries and retrievals use the study root with hierarchical keys, not relational, in"
        f" {_names(IDENTIFIERS)}.",
    )


def rejections() -> list[str]:
    """Every A-ASSOCIATE-RJ of our own."""
    found = [value for value in vars(admission).values() if isinstance(value, Refusal)]
    results = {1: "permanent", 2: "transient"}
    rows = [
        (one.reason, f"{one.result} ({results[one.result]})", one.source, one.code) for one in found
    ]
    rows += [
        ("calling AE title is not in `TOMONODE_ALLOWED_AE_TITLES`", "1 (permanent)", 1, 3),
        ("called AE title is not ours (`TOMONODE_CHECK_CALLED_AE`)", "1 (permanent)", 1, 7),
        ("more than `TOMONODE_MAX_ASSOCIATIONS` at once", "2 (transient)", 3, 2),
    ]
    return table(("an association is rejected because", "result", "source", "reason"), rows)


def _names(uids: tuple[str, ...]) -> str:
    if set(uids) == set(TRANSFER_SYNTAXES):
        return "all of [these](#transfer-syntaxes)"
    return ", ".join(name_of(uid) for uid in uids)
