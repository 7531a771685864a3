"""Of the statement: the statuses of every service, from the tables and names that give them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pynetdicom.status import (
    GENERAL_STATUS,
    QR_FIND_SERVICE_CLASS_STATUS,
    QR_GET_SERVICE_CLASS_STATUS,
    QR_MOVE_SERVICE_CLASS_STATUS,
    STORAGE_SERVICE_CLASS_STATUS,
)

from node.arrivals import Recorded
from node.conformance.markdown import points, sentence, table
from node.dimse import commitment, find, identifier, retrieve, serving, tally
from node.dimse.sending import CLASS_NOT_SUPPORTED
from node.ingest import ANSWERS
from node.vouching import NO_SUCH_OBJECT, OTHER_CLASS

_SUCCESS = 0x0000
_Meanings = Mapping[int, tuple[str, str]]

#: Statuses of responses, by service; a failed sub-operation's are those of C-STORE.
FIND = (
    _SUCCESS,
    serving.PENDING,
    find.PENDING_WARNING,
    serving.CANCELLED,
    find.OUT_OF_RESOURCES,
    identifier.DOES_NOT_MATCH,
    identifier.UNABLE,
)
GET = (
    _SUCCESS,
    serving.PENDING,
    serving.CANCELLED,
    tally.SOME_FAILED,
    tally.ALL_FAILED,
    retrieve.UNABLE_TO_COUNT,
    identifier.DOES_NOT_MATCH,
    identifier.UNABLE,
)
MOVE = (*GET, retrieve.DESTINATION_UNKNOWN)


def storage() -> list[str]:
    """What a sender is told (C-STORE, and the Failure Reason of STOW-RS)."""
    rows = []
    for outcome, answer in ANSWERS.items():
        what = _because(outcome) if isinstance(outcome, type) else _RECORDED[outcome]
        rows.append((_hex(answer.status), _kind(answer.status), what, answer.comment or "-"))
    return table(("status", "meaning in the standard", "when", "Error Comment"), rows)


_RECORDED = {
    Recorded.NEW: "a new object is kept",
    Recorded.DUPLICATE: "the same object is here already",
    Recorded.CONFLICT: "another object of this UID is here",
}


def _because(error: type) -> str:
    known = {
        "Exception": "anything nobody foresaw",
        "OSError": "the disk failed",
        "SQLAlchemyError": "the database failed",
    }
    said = sentence(error.__doc__).rstrip(".")
    return known.get(error.__name__) or said[:1].lower() + said[1:]


def queries() -> list[str]:
    """C-FIND, C-GET and C-MOVE, as their provider."""
    rows: list[tuple[str, str, str]] = []
    for service, statuses, meanings in (
        ("C-FIND", FIND, QR_FIND_SERVICE_CLASS_STATUS),
        ("C-GET", GET, QR_GET_SERVICE_CLASS_STATUS),
        ("C-MOVE", MOVE, QR_MOVE_SERVICE_CLASS_STATUS),
    ):
        rows += [(service, _hex(status), _meaning(status, meanings)) for status in sorted(statuses)]
    return table(("service", "status", "meaning"), rows)


def commitments() -> list[str]:
    """N-ACTION and N-EVENT-REPORT, and why an object is not committed to."""
    rows: list[tuple[str, str, str]] = [("N-ACTION, N-EVENT-REPORT", _hex(_SUCCESS), "taken")]
    rows += [
        ("N-ACTION, N-EVENT-REPORT", _hex(status), f"{_kind(status)}: {_because(error)}")
        for error, status in commitment.STATUSES.items()
    ]
    reasons = (NO_SUCH_OBJECT, OTHER_CLASS)
    rows += [("Failure Reason (0008,1197)", _hex(reason), _kind(reason)) for reason in reasons]
    return table(("where", "value", "meaning"), rows)


def as_user() -> list[str]:
    """How the node takes the statuses of others."""
    return points(
        f"C-STORE: 0x0000 and warnings (0x0107, 0x0116, 0xBxxx) count as taken; {_hex(CLASS_NOT_SUPPORTED)} is also"
        " noted where no presentation context was accepted. Out of resources and processing failures are tried again"
        " until `TOMONODE_DELIVERY_DEADLINE_S`; other failures end the delivery, and an operator may retry it.",
        "C-MOVE: whatever its last status says, the objects that are here are compared with those that C-FIND listed.",
    )


def all_shown() -> frozenset[int]:
    """Every status of these tables."""
    listed: Iterable[int] = (
        *FIND,
        *MOVE,
        *(answer.status for answer in ANSWERS.values()),
        *commitment.STATUSES.values(),
        NO_SUCH_OBJECT,
        OTHER_CLASS,
        CLASS_NOT_SUPPORTED,
    )
    return frozenset(listed)


def _hex(status: int) -> str:
    return f"0x{status:04X}"


def _kind(status: int) -> str:
    return _meaning(status, {**GENERAL_STATUS, **STORAGE_SERVICE_CLASS_STATUS, **_FAILURE_REASONS})


def _meaning(status: int, meanings: _Meanings) -> str:
    category, words = meanings.get(status) or GENERAL_STATUS[status]
    return f"{category}: {words}" if words else category


# Of these PS3.3 C.14.1.1 says more than PS3.7 annex C.
_FAILURE_REASONS: _Meanings = {OTHER_CLASS: ("Failure", "Class / Instance conflict")}
