"""Storage commitment (DICOM PS3.4 annex J), Push Model: as its provider, and where a peer reports what we asked it.

A request is kept, with its objects, before it is answered. What we commit to is told first on the association that
asked, while that is there; the delivery worker tells it otherwise, on an association of its own.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from contextvars import copy_context
from io import BytesIO
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom import evt
from pynetdicom.dimse_primitives import N_EVENT_REPORT
from pynetdicom.dsutils import encode
from pynetdicom.events import Event
from sqlalchemy.exc import SQLAlchemyError

from dicom_io.parse import PARSE_ERRORS
from node import commitment_claims, commitments, log, vouching
from node.admission import Offer
from node.commitment_claims import Claim
from node.commitments import SAME_ASSOCIATION_S, Decided, OtherObjects
from node.db import Database, now
from node.dimse.commitment_data import (
    COMPLETE,
    FAILURES_EXIST,
    PUSH_MODEL,
    REQUEST,
    SYNTAXES,
    WELL_KNOWN,
    Malformed,
    event_information,
    read_report,
    read_request,
)
from node.dimse.reports import Reports
from node.dimse.service import Resources, Service
from node.errors import DatabaseUnavailable, NodeError, NotFound, Permanent
from node.ingest import ShuttingDown

_COMMENT_LIMIT = 64  # Error Comment (0000,0902) is LO: PS3.5 table 6.2-1


# Reports that wait for their answer in this process: who asks on and on must not fill it with threads.
_TELLING = threading.BoundedSemaphore(32)


class NoSuchClass(Permanent):
    """The request is not of the Storage Commitment Push Model."""


class NoSuchInstance(Permanent):
    """The request is not for the class's well-known instance."""


class NoSuchAction(Permanent):
    """The action type is not 1."""


class NoSuchEvent(Permanent):
    """The event type is neither 1 nor 2."""


#: The one table from what went wrong to the status that the other side gets (PS3.7 annex C).
STATUSES: dict[type[Exception], int] = {
    NoSuchClass: 0x0122,
    NoSuchInstance: 0x0112,
    NoSuchAction: 0x0123,
    NoSuchEvent: 0x0113,
    Malformed: 0x0115,
    OtherObjects: 0x0115,
    NotFound: 0x0115,
    ShuttingDown: 0x0213,
    DatabaseUnavailable: 0x0213,
    SQLAlchemyError: 0x0213,
    Exception: 0x0110,
}


def service(resources: Resources) -> Service:
    """Storage commitment; a requestor in the role of the SCP brings a report."""
    return Service(
        {PUSH_MODEL: Offer(SYNTAXES, both_roles=True)},
        [
            (evt.EVT_N_ACTION, on_action, [resources]),
            (evt.EVT_N_EVENT_REPORT, _on_report, [resources]),
        ],
    )


def on_action(event: Event, resources: Resources) -> tuple[Dataset, None]:
    """Keep a request for commitment (PS3.4 J.3.2); the status that it gets, and no data set."""
    association = event.assoc
    calling_ae = str(association.requestor.ae_title).strip()
    facts: dict[str, Any] = {"calling_ae": calling_ae}
    with resources.logging(association):
        try:
            if resources.stopping.is_set():
                raise ShuttingDown("the listener is stopping")
            _check(event.request.RequestedSOPClassUID, event.request.RequestedSOPInstanceUID)
            if event.action_type != REQUEST:
                raise NoSuchAction(f"action type {event.action_type} is not {REQUEST}")
            transaction, references = read_request(_information(event, "action_information"))
            facts |= {"transaction_uid": transaction, "count": len(references)}
            with resources.db.transaction() as session:
                commitment_id = commitments.asked_of_us(
                    session, transaction, calling_ae, references, resources.settings
                )
        except Exception as error:  # noqa: BLE001 - the boundary to the peer: every outcome becomes a status
            return _refusal("commitment refused", error, facts), None
        with suppress(OSError):
            log.get().info("commitment asked for", **facts)
        if _TELLING.acquire(blocking=False):  # else the delivery worker tells it
            teller = _Teller(resources, Reports.of(association), event.context.context_id)
            threading.Thread(
                target=copy_context().run, args=(teller.tell, commitment_id), daemon=True
            ).start()
    return _status(0x0000), None


def _on_report(event: Event, resources: Resources) -> tuple[Dataset, None]:
    with resources.logging(event.assoc):
        return on_report(event, resources.db)


def on_report(event: Event, db: Database) -> tuple[Dataset, None]:
    """Keep a peer's answer to what we asked of it (PS3.4 J.3.3), on whatever association it comes."""
    other = event.assoc.requestor if event.assoc.is_acceptor else event.assoc.acceptor
    facts: dict[str, Any] = {"calling_ae": str(other.ae_title).strip()}
    try:
        _check(event.request.AffectedSOPClassUID, event.request.AffectedSOPInstanceUID)
        if event.event_type not in (COMPLETE, FAILURES_EXIST):
            raise NoSuchEvent(f"event type {event.event_type} is neither 1 nor 2")
        report = read_report(_information(event, "event_information"))
        facts |= {"transaction_uid": report.transaction_uid, "count": len(report.committed)}
        with db.transaction() as session:
            commitments.answered_by_peer(
                session, report.transaction_uid, report.committed, report.failed, now(session)
            )
    except Exception as error:  # noqa: BLE001 - the boundary to the peer
        return _refusal("report refused", error, facts), None
    with suppress(OSError):
        log.get().info("commitment answered", failed=len(report.failed), **facts)
    return _status(0x0000), None


def _check(sop_class_uid: object, sop_uid: object) -> None:
    if str(sop_class_uid) != PUSH_MODEL:
        raise NoSuchClass(f"SOP class {sop_class_uid} is not served here")
    if str(sop_uid) != WELL_KNOWN:
        raise NoSuchInstance(f"SOP instance {sop_uid} is not {WELL_KNOWN}")


def _information(event: Event, name: str) -> Dataset:
    try:
        return getattr(event, name)
    except PARSE_ERRORS as error:
        raise Malformed(f"data set cannot be read ({type(error).__name__})") from None


def _status(value: int, comment: str = "") -> Dataset:
    status = Dataset()
    status.Status = value
    if comment:
        status.ErrorComment = comment.replace("\\", "/")[:_COMMENT_LIMIT]
    return status


def _refusal(what: str, error: Exception, facts: dict[str, Any]) -> Dataset:
    """The status of an error, and its one line in the log; only our own messages are free of content."""
    status = next(STATUSES[base] for base in type(error).__mro__ if base in STATUSES)
    text = str(error) if isinstance(error, NodeError) else "processing failure, see the node's log"
    with suppress(OSError):
        log.get().warning(
            what, code=type(error).__name__, reason=text, status=f"0x{status:04X}", **facts
        )
    return _status(status, text)


class _Teller:
    """Tells the association that asked, once its request is answered; else leaves it to the delivery worker."""

    def __init__(self, resources: Resources, reports: Reports, context_id: int) -> None:
        self._resources, self._reports, self._context_id = resources, reports, context_id

    def tell(self, commitment_id: Any) -> None:
        """Decide and report. What stops this thread, a kill too, loses nothing: the lease runs out."""
        db = self._resources.db
        try:
            held = commitment_claims.claim(db, commitment_id, self._resources.settings, early=True)
            if held is None:
                return
            try:
                told = self._tell(held)
            except NodeError as error:
                log.get().warning("commitment not decided", code=error.code, error=str(error))
                told = False
            if not told:
                commitment_claims.put_back(db, held)
        except Exception as error:  # noqa: BLE001 - the end of a thread
            log.get().warning("commitment not told", code=type(error).__name__)
        finally:
            _TELLING.release()

    def _tell(self, held: Claim) -> bool:
        decided = vouching.of_claim(self._resources.db, self._resources.store, held)
        if decided is None:
            return True  # somebody else's by now
        limit_s = min(SAME_ASSOCIATION_S, self._resources.settings.lease_s / 2)
        report = _report(held.transaction_uid, decided, self._reports, self._context_id)
        status = self._reports.send(report, self._context_id, limit_s)
        if status != 0x0000:
            return False
        log.get().info(
            "commitment told",
            transaction_uid=held.transaction_uid,
            count=len(decided),
            failed=sum(one.failure is not None for one in decided),
        )
        return commitment_claims.answered(self._resources.db, held)


def _report(
    transaction_uid: str, decided: tuple[Decided, ...], reports: Reports, context_id: int
) -> N_EVENT_REPORT:
    kind, information = event_information(transaction_uid, decided)
    syntax = reports.transfer_syntax(context_id)
    content = encode(information, syntax.is_implicit_VR, syntax.is_little_endian)
    assert content is not None, "our own data set can be encoded"
    report = N_EVENT_REPORT()
    report.AffectedSOPClassUID = PUSH_MODEL
    report.AffectedSOPInstanceUID = WELL_KNOWN
    report.EventTypeID = kind
    report.EventInformation = BytesIO(content)
    return report
