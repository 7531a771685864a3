"""Requests of ours on an association that the other side opened, sent between two of its own messages."""

from __future__ import annotations

import threading
import time
from queue import Empty, SimpleQueue
from typing import Any

from pynetdicom.association import Association
from pynetdicom.dimse_primitives import N_EVENT_REPORT

_STEP_S = 0.02


class Reports:
    """N-EVENT-REPORTs (PS3.7 10.1.1) on an acceptor's association.

    pynetdicom's own `send_n_event_report` stops the association's thread until the answer is there: a peer that
    releases instead, or goes on storing, would wait for us as we wait for it. Here the thread itself sends, where it
    looks for the next message, so that ours is never mixed with an answer; it gives the answer to whoever waits.
    """

    def __init__(self, association: Association) -> None:
        self._association = association
        self._receive = association.dimse.get_msg
        self._waiting: SimpleQueue[tuple[N_EVENT_REPORT, int]] = SimpleQueue()
        self._statuses: dict[int, int] = {}
        self._lock = threading.Lock()
        self._next_id = 0
        association.dimse.get_msg = self._get

    @classmethod
    def of(cls, association: Association) -> Reports:
        """The association's own, made once; called by its own thread alone."""
        there = getattr(association, "_tomonode_reports", None)
        if not isinstance(there, cls):
            there = cls(association)
            association._tomonode_reports = there
        return there

    def transfer_syntax(self, context_id: int) -> Any:
        """The transfer syntax (pydicom's UID) of one of the association's presentation contexts."""
        return self._association._accepted_cx[context_id].transfer_syntax[0]

    def send(self, report: N_EVENT_REPORT, context_id: int, limit_s: float) -> int | None:
        """Send a report, from another thread than the association's; the status of the answer, None where none came."""
        with self._lock:
            self._next_id = self._next_id % 0xFFFF + 1
            report.MessageID = self._next_id
        self._waiting.put((report, context_id))
        end = time.monotonic() + limit_s
        while time.monotonic() < end and self._association.is_established:
            status = self._statuses.pop(report.MessageID, None)
            if status is not None:
                return status
            time.sleep(_STEP_S)
        return self._statuses.pop(report.MessageID, None)

    def _get(self, block: bool = False) -> tuple[Any, Any]:
        """In place of the provider's `get_msg`; where it blocks, an operation is under way and waits for an answer."""
        if not block and self._association.is_established:
            self._send_waiting()
        while True:
            context_id, message = self._receive(block)
            ours = (
                isinstance(message, N_EVENT_REPORT)
                and message.MessageIDBeingRespondedTo is not None
            )
            if not ours:
                return context_id, message
            self._statuses[message.MessageIDBeingRespondedTo] = message.Status
            if not block:
                return None, None

    def _send_waiting(self) -> None:
        try:
            while True:
                report, context_id = self._waiting.get_nowait()
                self._association.dimse.send_msg(report, context_id)
        except Empty:
            return
