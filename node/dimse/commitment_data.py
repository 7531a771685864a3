"""The data sets of storage commitment (DICOM PS3.4 J.3), Action and Event Information: to values and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pydicom.dataset import Dataset
from pynetdicom.sop_class import StorageCommitmentPushModel, StorageCommitmentPushModelInstance

from dicom_io.parse import PARSE_ERRORS
from dicom_io.syntaxes import EXPLICIT_LITTLE, IMPLICIT_LITTLE
from node.commitments import Decided, Reference
from node.errors import Permanent

PUSH_MODEL = str(StorageCommitmentPushModel)
#: The one SOP instance of the class that requests and reports name (PS3.4 J.3.5).
WELL_KNOWN = str(StorageCommitmentPushModelInstance)
SYNTAXES = (EXPLICIT_LITTLE, IMPLICIT_LITTLE)

REQUEST = 1  # the only action type, table J.3-1
COMPLETE, FAILURES_EXIST = 1, 2  # event types, table J.3-2
_UID_CHARACTERS = frozenset("0123456789.")


class Malformed(Permanent):
    """A request or report that is not as the standard says."""


@dataclass(frozen=True)
class Report:
    """A peer's answer: what it commits to, and the Failure Reason of what it does not."""

    transaction_uid: str
    committed: frozenset[Reference] = frozenset()
    failed: Mapping[Reference, int] = field(default_factory=dict)


def action_information(transaction_uid: str, references: Sequence[Reference]) -> Dataset:
    """The request for a commitment (table J.3-1)."""
    asked = Dataset()
    asked.TransactionUID = transaction_uid
    asked.ReferencedSOPSequence = [_item(one) for one in references]
    return asked


def event_information(transaction_uid: str, decided: Sequence[Decided]) -> tuple[int, Dataset]:
    """The event type and the report (table J.3-2)."""
    told = Dataset()
    told.TransactionUID = transaction_uid
    committed = [_item(one.reference) for one in decided if one.failure is None]
    failed = [_item(one.reference, one.failure) for one in decided if one.failure is not None]
    if committed:
        told.ReferencedSOPSequence = committed
    if failed:
        told.FailedSOPSequence = failed
    return (FAILURES_EXIST if failed else COMPLETE), told


def _item(reference: Reference, failure: int | None = None) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = reference.sop_class_uid
    item.ReferencedSOPInstanceUID = reference.sop_uid
    if failure is not None:
        item.FailureReason = failure
    return item


def read_request(information: Dataset) -> tuple[str, tuple[Reference, ...]]:
    """The transaction and its objects.

    Raises:
        Malformed: a UID is missing or none, or no object is named.
    """
    try:
        transaction = _uid(information, "TransactionUID")
        references = tuple(_reference(item) for item in _items(information, "Referenced"))
    except PARSE_ERRORS as error:
        raise Malformed(f"data set cannot be read ({type(error).__name__})") from None
    if not references:
        raise Malformed("no object is named in the Referenced SOP Sequence")
    return transaction, references


def read_report(information: Dataset) -> Report:
    """A peer's answer.

    Raises:
        Malformed: a UID is missing or none.
    """
    try:
        transaction = _uid(information, "TransactionUID")
        committed = frozenset(_reference(item) for item in _items(information, "Referenced"))
        failed = {
            _reference(item): int(item.get("FailureReason") or 0x0110)
            for item in _items(information, "Failed")
        }
    except PARSE_ERRORS as error:
        raise Malformed(f"data set cannot be read ({type(error).__name__})") from None
    return Report(transaction, committed, failed)


def _items(information: Dataset, which: str) -> Sequence[Dataset]:
    return information.get(f"{which}SOPSequence") or ()


def _reference(item: Dataset) -> Reference:
    return Reference(_uid(item, "ReferencedSOPClassUID"), _uid(item, "ReferencedSOPInstanceUID"))


def _uid(dataset: Dataset, keyword: str) -> str:
    value = str(dataset.get(keyword) or "").strip(" \0")
    if not 0 < len(value) <= 64 or not _UID_CHARACTERS.issuperset(value):
        raise Malformed(f"{keyword} is missing, or is no UID")
    return value
