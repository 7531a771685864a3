"""Requests that are served here from the first to the last response, in place of pynetdicom's service classes.

pynetdicom's own C-GET and C-MOVE want each object as a data set in memory. It gives us the association's thread, in
which an operation runs to its end, and a reader thread beside it, which collects C-CANCEL and notes an abort.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO
from types import MappingProxyType
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import UID
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_CANCEL
from pynetdicom.dsutils import encode
from pynetdicom.pdu_primitives import A_ABORT, A_P_ABORT, A_RELEASE
from pynetdicom.presentation import PresentationContext

from node import log
from node.association import AssociationLost

PENDING = 0xFF00  # PS3.4 tables C.4-1 ff.
CANCELLED = 0xFE00
_COMMENT_LIMIT = 64  # Error Comment (0000,0902) is LO: PS3.5 table 6.2-1


@dataclass(frozen=True)
class Request:
    """One request of a peer, and the way to answer it."""

    association: Association
    message: Any  # pynetdicom's primitive
    context: PresentationContext

    @property
    def calling_ae(self) -> str:
        """AE title of who asks."""
        return str(self.association.requestor.ae_title).strip()

    @property
    def id(self) -> int:
        """The request's Message ID (PS3.7 E.1)."""
        return int(self.message.MessageID)

    @property
    def cancelled(self) -> bool:
        """Whether a C-CANCEL (PS3.7 9.3.2.3) of it has come."""
        return self.id in self.association.dimse.cancel_req

    @property
    def alive(self) -> bool:
        """Whether there is still somebody to answer."""
        association = self.association
        # looked at and left for the reactor, which answers a release
        ends = isinstance(association.dul.peek_next_pdu(), A_RELEASE | A_ABORT | A_P_ABORT)
        return association.is_established and association.dul.is_alive() and not ends

    def respond(
        self,
        status: int,
        *,
        comment: str = "",
        identifier: Dataset | None = None,
        parameters: Mapping[str, object] = MappingProxyType({}),
    ) -> None:
        """Send one response.

        Args:
            status: of PS3.7 annex C.
            comment: Error Comment; cut to its 64 characters.
            identifier: the data set that goes with it.
            parameters: of pynetdicom's primitive, such as NumberOfFailedSuboperations.
        """
        response = type(self.message)()
        response.MessageID = self.message.MessageID
        response.MessageIDBeingRespondedTo = self.message.MessageID
        response.AffectedSOPClassUID = self.message.AffectedSOPClassUID
        response.Status = status
        if comment:
            response.ErrorComment = comment[:_COMMENT_LIMIT]
        for name, value in parameters.items():
            setattr(response, name, value)
        if identifier is not None:
            response.Identifier = BytesIO(self._encoded(identifier))
        self.association.dimse.send_msg(response, self.context.context_id)

    def _encoded(self, identifier: Dataset) -> bytes:
        syntax: UID = self.context.transfer_syntax[0]
        content = _encoded(identifier, syntax)
        if content is None:  # an object's number that is none of its kind, say
            single = [Dataset({element.tag: element}) for element in identifier]
            parts = (_encoded(one, syntax) for one in single)
            content = b"".join(part for part in parts if part is not None)
        return content


def _encoded(dataset: Dataset, syntax: UID) -> bytes | None:
    """A data set's bytes; None where it cannot be encoded."""
    content: bytes | None = encode(dataset, syntax.is_implicit_VR, syntax.is_little_endian)
    return content


#: Serves a request to its last response. What it raises ends the association with the peer that asked.
Operation = Callable[[Request], None]


def take_over(association: Association, operations: Mapping[type, Operation]) -> None:
    """Have these operations serve an association's requests, by class of the request; the rest stays pynetdicom's."""
    theirs = association._serve_request

    def serve(message: Any, context_id: int) -> None:
        cancel = isinstance(message, C_CANCEL)
        if not (cancel or message.is_valid_request or message.is_valid_response):
            # Without a class, a UID or an id there is nothing to answer to, and pynetdicom would let the peer wait.
            log.get().warning("request aborted", code=type(message).__name__)
            association.abort(block=False)
            return
        operation = operations.get(type(message))
        context = association._accepted_cx.get(context_id)
        if (
            operation is None
            or context is None
            or not message.is_valid_request
            or message.AffectedSOPClassUID != context.abstract_syntax
        ):
            theirs(message, context_id)
        else:
            _serve(operation, Request(association, message, context))

    association._serve_request = serve


def _serve(operation: Operation, request: Request) -> None:
    association = request.association
    association.dimse.cancel_req = {}
    association._is_paused = True  # what `send_c_store` waits for
    try:
        operation(request)
    except AssociationLost:
        pass  # nobody is left to be told; the reactor sees it as well
    except Exception as error:  # noqa: BLE001 - the boundary to the peer: a fault of ours ends its association alone
        log.get().error("request failed", calling_ae=request.calling_ae, code=type(error).__name__)
        association.abort(block=False)
    finally:
        association.dimse.cancel_req = {}
        association._is_paused = False
        association._reactor_checkpoint.set()  # where a C-STORE ended by an exception
        # The time it took is not the peer's silence; pynetdicom would count it as such.
        association.dul._idle_timer.restart()
