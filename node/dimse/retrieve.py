"""C-GET and C-MOVE (PS3.4 C.4.2, C.4.3) of the study root model: objects of the catalogue, one sub-operation each.

An object goes as it is stored where the receiver takes its transfer syntax, else in little endian; from the file, so
that its size does not matter. docs/retrieve.md has the statuses.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial

from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_GET, C_MOVE
from pynetdicom.sop_class import (
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
)

from node import log, peers
from node.admission import Offer
from node.association import Proposal, paced
from node.catalogue import query
from node.catalogue.query import Held
from node.deliveries import Destination, destination_of
from node.dimse import identifier
from node.dimse.find import IDENTIFIERS
from node.dimse.identifier import Refused
from node.dimse.sending import (
    CLASS_NOT_SUPPORTED,
    SubOperation,
    association_to,
    batches,
    send_best,
)
from node.dimse.service import Resources, Service
from node.dimse.serving import Request
from node.dimse.tally import MOST, Tally
from node.errors import DatabaseUnavailable, DiskFull, NodeError, Transient
from node.outgoing import Outgoing

UNABLE_TO_COUNT = 0xA701
DESTINATION_UNKNOWN = 0xA801
_FAILED = 0x0110  # of a sub-operation that could not be begun


def service(resources: Resources) -> Service:
    """C-GET and C-MOVE, study root."""
    get = str(StudyRootQueryRetrieveInformationModelGet)
    move = str(StudyRootQueryRetrieveInformationModelMove)
    return Service(
        {get: Offer(IDENTIFIERS), move: Offer(IDENTIFIERS)},
        operations={C_GET: partial(on_get, resources), C_MOVE: partial(on_move, resources)},
    )


def on_get(resources: Resources, request: Request) -> None:
    """Send objects on the association of the request, to a requestor that took the role of their SCP."""
    started = time.monotonic()
    with resources.logging(request.association):
        try:
            objects = _wanted(resources, request)
        except Refused as refusal:
            _refuse(request, refusal)
            return
        tally = Tally(one.sop_uid for one in objects)
        try:
            with paced(request.association):
                _give(resources, request, request.association, objects, tally)
            tally.finish(request, _no_role(request) if objects else "")
        finally:
            _log(request, tally, request.calling_ae, started)


def on_move(resources: Resources, request: Request) -> None:
    """Send objects to a peer, on an association of our own with it."""
    started = time.monotonic()
    with resources.logging(request.association):
        try:
            destination = _destination(resources, str(request.message.MoveDestination or ""))
            objects = _wanted(resources, request)
        except Refused as refusal:
            _refuse(request, refusal)
            return
        tally = Tally(one.sop_uid for one in objects)
        comment = ""
        try:
            for batch, contexts in batches(objects, _proposals):
                with association_to(destination, contexts, resources.settings) as association:
                    if not _give(resources, request, association, batch, tally):
                        break
        except (NodeError, OSError) as error:
            code, reason = type(error).__name__, str(error) if isinstance(error, NodeError) else ""
            log.get().warning("move cut off", peer=destination.name, code=code, reason=reason)
            tally.fail_rest()
            comment = f"association with {destination.ae_title} failed; see the node's log"
        finally:
            _log(request, tally, destination.name, started)
        tally.finish(request, comment)


def _give(
    resources: Resources,
    request: Request,
    association: Association,
    objects: Sequence[Held],
    tally: Tally,
) -> bool:
    """Send objects in order, with a response after each; False where who asked cancelled or went away.

    Raises:
        AssociationLost: the receiver ended the association.
        OSError: a file cannot be read to its end; the association is in the middle of a message.
    """
    moves = association is not request.association
    for one in objects:
        if request.cancelled or not request.alive:
            return False
        operation = SubOperation(
            message_id=(request.id + tally.done) % 0xFFFF + 1,
            mover=request.calling_ae if moves else None,
            move_id=request.id if moves else None,
            priority=request.message.Priority,
        )
        tally.note(_send(resources, association, one, operation))
        if tally.remaining:
            tally.pending(request)
    return True


def _send(
    resources: Resources, association: Association, one: Held, operation: SubOperation
) -> int:
    """The status of one sub-operation; raises as `_give`."""
    try:
        path = resources.store.fetch(one.sha256)
        path.open("rb").close()  # while nothing of it is sent
    except (OSError, Transient) as error:
        code = type(error).__name__
        log.get().error("object not given", sop_uid=one.sop_uid, sha256=one.sha256, code=code)
        return _FAILED
    file = Outgoing(path, one.sop_class_uid, one.sop_uid, one.transfer_syntax_uid)
    try:
        status = send_best(association, file, resources.settings, operation).status
    except DiskFull as error:
        log.get().error("object not given", sop_uid=one.sop_uid, reason=str(error))
        return _FAILED
    if status == CLASS_NOT_SUPPORTED:
        facts = {"sop_class": one.sop_class_uid, "syntax": one.transfer_syntax_uid}
        log.get().warning("object not taken", sop_uid=one.sop_uid, **facts)
    return status


def _proposals(one: Held) -> tuple[Proposal, Proposal]:
    return Outgoing.proposals(one.sop_class_uid, one.transfer_syntax_uid)


def _wanted(resources: Resources, request: Request) -> list[Held]:
    """The objects that a retrieval asks for. Raises Refused."""
    study_uids, series_uids, sop_uids = identifier.read(request).uids()
    try:
        with resources.db.reading() as session:
            found = query.held(session, study_uids, series_uids, sop_uids)
    except DatabaseUnavailable:
        comment = "out of resources: database is down, try again later"
        raise Refused(UNABLE_TO_COUNT, comment) from None
    if len(found) > MOST:
        raise Refused(UNABLE_TO_COUNT, f"more than {MOST} objects; ask for series")
    return found


def _destination(resources: Resources, title: str) -> Destination:
    """The peer that goes by an AE title. Raises Refused."""
    title = title.strip()
    if title == resources.settings.ae_title:
        raise Refused(DESTINATION_UNKNOWN, "move destination is this node itself")
    try:
        with resources.db.reading() as session:
            peer = peers.called(session, title)
            if peer is not None:
                return destination_of(peer)
    except DatabaseUnavailable:
        comment = "out of resources: database is down, try again later"
        raise Refused(UNABLE_TO_COUNT, comment) from None
    raise Refused(DESTINATION_UNKNOWN, "move destination is no peer of this node")


def _no_role(request: Request) -> str:
    """Why nothing can be sent on the association of a C-GET; "" where something can."""
    if any(context.as_scu for context in request.association.accepted_contexts):
        return ""
    return "no storage class was proposed with the role of its SCP"


def _refuse(request: Request, refusal: Refused) -> None:
    log.get().info(
        "retrieval refused",
        calling_ae=request.calling_ae,
        status=f"0x{refusal.status:04X}",
        reason=str(refusal),
    )
    refusal.tell(request)


def _log(request: Request, tally: Tally, to: str, started: float) -> None:
    log.get().info(
        "retrieval ended",
        calling_ae=request.calling_ae,
        peer=to,
        count=tally.total,
        sent=tally.taken,
        failed=len(tally.failed),
        seconds=round(time.monotonic() - started, 3),
    )
