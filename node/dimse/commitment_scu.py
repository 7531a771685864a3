"""Storage commitment (DICOM PS3.4 annex J) as the side that opens the association: asking a peer, and telling one."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from pydicom.dataset import Dataset
from pynetdicom import evt
from pynetdicom.events import Event

from node.association import lost
from node.commitments import SAME_ASSOCIATION_S, Decided, Reference, is_answered, reason
from node.config import Settings
from node.db import Database
from node.deliveries import Destination
from node.dimse.commitment import on_report
from node.dimse.commitment_data import (
    PUSH_MODEL,
    REQUEST,
    SYNTAXES,
    WELL_KNOWN,
    action_information,
    event_information,
)
from node.dimse.sending import association_to
from node.errors import PeerRefused, PeerUnavailable

_CONTEXTS = [(PUSH_MODEL, SYNTAXES)]
_STEP_S = 0.25
# Statuses (PS3.7 annex C) after which the same may be taken later; any other is a refusal for good.
_LATER = frozenset({0x0110, 0x0213, 0x0210})


def ask(
    destination: Destination,
    transaction_uid: str,
    references: Sequence[Reference],
    settings: Settings,
    db: Database,
) -> bool:
    """Ask a peer to commit to objects (N-ACTION), and stay a while for its answer.

    Returns:
        Whether it answered on this association; its answer is kept then. Else it comes to the listener.

    Raises:
        PeerUnavailable: no connection, rejected for now, ended before the status, or a status that may pass.
        PeerRefused: it does no storage commitment, or refuses this.
    """
    came, told = threading.Event(), threading.Event()

    def take(event: Event) -> tuple[Dataset, None]:
        answer = on_report(event, db)
        came.set()
        return answer

    def sent(_event: Event) -> None:
        """Released before our response is out, the peer would count its report as lost."""
        if came.is_set():
            told.set()

    handlers = [(evt.EVT_N_EVENT_REPORT, take), (evt.EVT_PDU_SENT, sent)]
    with association_to(destination, _CONTEXTS, settings, handlers=handlers) as association:
        information = action_information(transaction_uid, references)
        status, _ = association.send_n_action(information, REQUEST, PUSH_MODEL, WELL_KNOWN)
        value = status.get("Status")
        if value is None:
            raise lost(association)
        _check(value, f"{destination.name} refused the request for storage commitment")
        end = time.monotonic() + min(SAME_ASSOCIATION_S, settings.lease_s)
        while time.monotonic() < end and association.is_established and not told.is_set():
            told.wait(_STEP_S)
            with db.reading() as session:  # by another association, to the listener
                if not came.is_set() and is_answered(session, transaction_uid):
                    break
    return came.is_set()


def tell(
    destination: Destination,
    transaction_uid: str,
    decided: Sequence[Decided],
    settings: Settings,
) -> None:
    """Tell a peer what we commit to (N-EVENT-REPORT), in the role of the SCP on an association of ours.

    Raises:
        PeerUnavailable: no connection, rejected for now, ended before the status, or a status that may pass.
        PeerRefused: it takes no reports there, or refuses this one.
    """
    kind, information = event_information(transaction_uid, decided)
    with association_to(destination, _CONTEXTS, settings, as_scp=[PUSH_MODEL]) as association:
        status, _ = association.send_n_event_report(information, kind, PUSH_MODEL, WELL_KNOWN)
        value = status.get("Status")
        if value is None:
            raise lost(association)
        _check(value, f"{destination.name} refused the report of storage commitment")


def _check(status: int, refused: str) -> None:
    if status == 0x0000 or status in (0x0107, 0x0116):
        return
    if status in _LATER or 0xA700 <= status <= 0xA7FF:
        raise PeerUnavailable(f"{refused} for now ({reason(status)}); see its log")
    raise PeerRefused(f"{refused} ({reason(status)}); see its log")
