"""The list of services: where one is registered, with its presentation contexts and what answers its requests."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Mapping, Sequence
from typing import Any

from pynetdicom.sop_class import Verification

from dicom_io.syntaxes import TRANSFER_SYNTAXES
from node.admission import Offer
from node.dimse import commitment, find, retrieve, storage
from node.dimse.service import Resources, Service
from node.dimse.serving import Operation

#: C-ECHO (PS3.4 annex A), which pynetdicom answers itself.
VERIFICATION = Service({str(Verification): Offer(TRANSFER_SYNTAXES)})


def services(resources: Resources) -> list[Service]:
    """Every service of the listener."""
    return [
        VERIFICATION,
        storage.service(resources),
        find.service(resources),
        retrieve.service(resources),
        commitment.service(resources),
    ]


def offers(listed: Sequence[Service]) -> Mapping[str, Offer]:
    """What is accepted, by SOP class."""
    return dict(ChainMap(*(dict(service.offers) for service in listed)))


def handlers(listed: Sequence[Service]) -> list[Any]:
    """What pynetdicom's events are handled by."""
    return [handler for service in listed for handler in service.handlers]


def operations(listed: Sequence[Service]) -> Mapping[type, Operation]:
    """What is done here, by class of the request."""
    return dict(ChainMap(*(dict(service.operations) for service in listed)))
