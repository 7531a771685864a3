"""Objects to a peer, one after the other: each as it is stored where the peer takes that, else in little endian.

Deliveries (`node.scu`), C-GET and C-MOVE send with these. Files are read in fragments while they are sent, so that
memory does not grow with their size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, TypeVar

from pynetdicom.association import Association

from dicom_io.errors import DicomIoError
from dicom_io.syntaxes import EXPLICIT_LITTLE, IMPLICIT_LITTLE
from dicom_io.transcode import TARGETS
from node import log
from node.association import Proposal, association_with, lost
from node.config import Settings
from node.deliveries import Destination
from node.outgoing import Outgoing, transcoded
from node.tls import client_context

MAX_CONTEXTS = 128  # presentation context IDs are the odd numbers of a byte, PS3.8 9.3.2.2
CLASS_NOT_SUPPORTED = 0x0122
_NAMES = {EXPLICIT_LITTLE: "explicit little endian", IMPLICIT_LITTLE: "implicit little endian"}
_LOW = 2  # Priority (PS3.7 E.1)
_T = TypeVar("_T")


@dataclass(frozen=True)
class Sent:
    """What the peer said of one object: a C-STORE status, and what else is to be said of it ("" for nothing)."""

    status: int
    note: str = ""

    def __str__(self) -> str:
        """As it is kept of a delivery."""
        return f"0x{self.status:04X} ({self.note})" if self.note else f"0x{self.status:04X}"


@dataclass(frozen=True)
class SubOperation:
    """The request that an object is sent for: who asked by C-MOVE, with which Message ID (PS3.7 9.1.1.1); both None
    for every other one. `message_id` is the sub-operation's own, 1 to 65535."""

    message_id: int = 1
    mover: str | None = None
    move_id: int | None = None
    priority: int = _LOW


_ALONE = SubOperation()


def is_warning(status: int) -> bool:
    """Whether a C-STORE status says that the peer has the object, with a remark (PS3.4 B.2.3, PS3.7 C.4)."""
    return status in (0x0107, 0x0116) or 0xB000 <= status <= 0xBFFF


def association_to(
    destination: Destination,
    contexts: Sequence[Proposal],
    settings: Settings,
    *,
    handlers: Sequence[tuple[Any, ...]] = (),
    as_scp: Sequence[str] = (),
) -> AbstractContextManager[Association]:
    """An association with a DICOM peer; takes and raises what `association_with` does."""
    host, port, title = destination.host, destination.port, destination.ae_title
    assert host is not None, "a DICOM peer has a host"
    assert port is not None, "a DICOM peer has a port"
    assert title is not None, "a DICOM peer has an AE title"
    tls = client_context(settings, destination.pin_sha256) if destination.tls else None
    address = (host, port, title)
    return association_with(address, contexts, settings, tls, handlers=handlers, as_scp=as_scp)


def batches(
    objects: Sequence[_T], proposals_of: Callable[[_T], Sequence[Proposal]]
) -> Iterator[tuple[list[_T], list[Proposal]]]:
    """Objects in order, with the presentation contexts that one association can propose for them."""
    batch: list[_T] = []
    contexts: dict[Proposal, None] = {}
    for one in objects:
        wanted = dict.fromkeys(proposals_of(one))
        if len(contexts | wanted) > MAX_CONTEXTS:
            yield batch, list(contexts)
            batch, contexts = [], {}
        contexts |= wanted
        batch.append(one)
    if batch:
        yield batch, list(contexts)


def send_best(
    association: Association, file: Outgoing, settings: Settings, operation: SubOperation = _ALONE
) -> Sent:
    """Send one object in the best form that the peer takes.

    Raises:
        AssociationLost: the association ended before the answer.
        DiskFull: no room for the transcoded form.
    """
    accepted = _accepted(association)
    syntaxes = [s for s in TARGETS if (file.sop_class_uid, s) in accepted]
    if file.context in accepted or not syntaxes:
        return Sent(send_as_it_is(association, file, operation))
    try:
        with transcoded(file, syntaxes[0], settings) as other:
            status = send_as_it_is(association, other, operation)
    except DicomIoError as error:
        log.get().warning("not transcoded", sop_uid=file.sop_uid, reason=str(error))
        return Sent(CLASS_NOT_SUPPORTED, "stored syntax not taken, and not transcodable")
    return Sent(status, f"as {_NAMES[syntaxes[0]]}")


def send_as_it_is(
    association: Association, file: Outgoing, operation: SubOperation = _ALONE
) -> int:
    """Send one file; the status. Raises AssociationLost."""
    if file.context not in _accepted(association):
        return CLASS_NOT_SUPPORTED
    if not association.is_established:
        raise lost(association)
    answer = association.send_c_store(
        file.path,
        msg_id=operation.message_id,
        priority=operation.priority,
        originator_aet=operation.mover,
        originator_id=operation.move_id,
    )
    status: int | None = answer.get("Status")
    if status is None:
        raise lost(association)
    return status


def _accepted(association: Association) -> set[tuple[str, str]]:
    """The classes and transfer syntaxes in which we may send."""
    return {
        (str(c.abstract_syntax), str(c.transfer_syntax[0]))
        for c in association.accepted_contexts
        if c.as_scu
    }
