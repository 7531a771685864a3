"""A workstation that asks a node: C-FIND, C-GET and C-MOVE of the study root model, by pynetdicom."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom import AE, build_role, evt
from pynetdicom.association import Association
from pynetdicom.events import Event
from pynetdicom.presentation import build_context
from pynetdicom.sop_class import (
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
)

from dicom_io.syntaxes import EXPLICIT_LITTLE

FIND = str(StudyRootQueryRetrieveInformationModelFind)
GET = str(StudyRootQueryRetrieveInformationModelGet)
MOVE = str(StudyRootQueryRetrieveInformationModelMove)


@dataclass(frozen=True)
class Told:
    """What a node answered: the statuses in order, with what goes with the last, and what came before it."""

    statuses: list[int]
    last: Dataset
    identifiers: list[Dataset]
    failed: list[str]

    @property
    def status(self) -> int:
        """Of the last response."""
        return int(self.last.Status)

    @property
    def comment(self) -> str:
        """Error Comment of the last response."""
        return str(self.last.get("ErrorComment", ""))

    @property
    def counts(self) -> tuple[int | None, int, int, int]:
        """Remaining, completed, failed, with warnings; of the last response."""
        names = ("Remaining", "Completed", "Failed", "Warning")
        found = [self.last.get(f"NumberOf{name}Suboperations") for name in names]
        return found[0], found[1], found[2], found[3]


@dataclass(frozen=True)
class Receiver:
    """How a C-GET takes objects: what it offers to take, and its answers, counted from 1."""

    offered: Mapping[str, Sequence[str]]  # SOP class -> transfer syntaxes, one context each
    statuses: Mapping[int, int] = field(default_factory=dict)
    before: Callable[[Event, int], None] = lambda _event, _number: None
    together: bool = False  # the transfer syntaxes of a class in one context


def identifier(level: str, **keys: Any) -> Dataset:
    """A query's or a retrieval's identifier."""
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.QueryRetrieveLevel = level
    for keyword, value in keys.items():
        setattr(dataset, keyword, value)
    return dataset


def find(port: int, asked: Dataset, syntax: str = EXPLICIT_LITTLE) -> Told:
    """C-FIND."""
    with asking(port, [(FIND, syntax)]) as association:
        return told(association.send_c_find(asked, FIND))


def get(port: int, asked: Dataset, receiver: Receiver) -> tuple[Told, dict[str, tuple[str, bytes]]]:
    """C-GET; what was told, and by SOP Instance UID the transfer syntax and the data set of what came."""
    came: dict[str, tuple[str, bytes]] = {}
    number = 0

    def on_store(event: Event) -> int:
        nonlocal number
        number += 1
        receiver.before(event, number)
        status = receiver.statuses.get(number, 0x0000)
        if status == 0x0000 or status >= 0xB000:
            content = event.request.DataSet.getvalue()
            uid = str(event.request.AffectedSOPInstanceUID)
            came[uid] = (str(event.context.transfer_syntax), content)
        return status

    contexts: list[tuple[str, Any]] = [(GET, EXPLICIT_LITTLE)]
    for uid, syntaxes in receiver.offered.items():
        contexts += [(uid, list(syntaxes))] if receiver.together else [(uid, s) for s in syntaxes]
    roles = [build_role(uid, scp_role=True) for uid in receiver.offered]
    with asking(port, contexts, roles, [(evt.EVT_C_STORE, on_store)]) as association:
        return told(association.send_c_get(asked, GET)), came


def move(port: int, asked: Dataset, destination: str) -> Told:
    """C-MOVE."""
    with asking(port, [(MOVE, EXPLICIT_LITTLE)]) as association:
        return told(association.send_c_move(asked, destination, MOVE))


@contextmanager
def asking(
    port: int,
    contexts: Sequence[tuple[str, Any]],
    roles: Sequence[Any] = (),
    handlers: Sequence[Any] = (),
    calling: str = "WORKSTATION",
) -> Iterator[Association]:
    """An association with the node."""
    entity = AE(calling)
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 60
    association = entity.associate(
        "127.0.0.1",
        port,
        contexts=[build_context(uid, syntax) for uid, syntax in contexts],
        ae_title="TOMONODE",
        ext_neg=list(roles),
        evt_handlers=list(handlers),
    )
    assert association.is_established
    try:
        yield association
    finally:
        if association.is_established:
            association.release()


def told(responses: Iterator[tuple[Dataset, Dataset | None]]) -> Told:
    """Every response to its end."""
    statuses, identifiers, last, failed = [], [], Dataset(), []
    for status, found in responses:
        last = status
        statuses.append(int(status.get("Status", -1)))
        if found is not None and "FailedSOPInstanceUIDList" in found:
            value = found["FailedSOPInstanceUIDList"].value
            failed = [value] if isinstance(value, str) else list(value)
        elif found is not None:
            identifiers.append(found)
    return Told(statuses, last, identifiers, failed)
