"""The sub-operations of a retrieval, counted, and the responses that tell of them (PS3.4 C.4.2, C.4.3)."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from pydicom.dataset import Dataset

from node.dimse.sending import is_warning
from node.dimse.serving import CANCELLED, PENDING, Request

MOST = 65535  # the counts are US: PS3.7 E.1
SOME_FAILED = 0xB000
ALL_FAILED = 0xA702


class Tally:
    """How far a retrieval is; objects are noted in the order in which they were given."""

    def __init__(self, sop_uids: Iterable[str]) -> None:
        self._left = deque(sop_uids)
        self.total = len(self._left)
        self.failed: list[str] = []
        self.warned = 0
        self.completed = 0

    @property
    def remaining(self) -> int:
        """Objects whose sub-operation has not ended."""
        return len(self._left)

    @property
    def done(self) -> int:
        """Objects whose sub-operation has ended."""
        return self.total - self.remaining

    @property
    def taken(self) -> int:
        """Objects that the receiver has."""
        return self.completed + self.warned

    def note(self, status: int) -> None:
        """The next object's sub-operation ended with a C-STORE status."""
        uid = self._left.popleft()
        if status == 0x0000:
            self.completed += 1
        elif is_warning(status):
            self.warned += 1
        else:
            self.failed.append(uid)

    def fail_rest(self) -> None:
        """What is left will not be sent."""
        self.failed.extend(self._left)
        self._left.clear()

    def pending(self, request: Request) -> None:
        """Tell how far it is."""
        counts = self._counts(NumberOfRemainingSuboperations=self.remaining)
        request.respond(PENDING, parameters=counts)

    def finish(self, request: Request, comment: str) -> None:
        """Tell the end, where somebody is there to be told. `comment` goes with a failure."""
        if not request.alive:
            return
        if self.remaining:
            counts = self._counts(NumberOfRemainingSuboperations=self.remaining)
            request.respond(CANCELLED, identifier=self._failed_list(), parameters=counts)
        elif not self.failed and not self.warned:
            request.respond(0x0000, parameters=self._counts())
        else:
            status = SOME_FAILED if self.taken else ALL_FAILED
            failed, counts = self._failed_list(), self._counts()
            request.respond(status, comment=comment, identifier=failed, parameters=counts)

    def _counts(self, **more: int) -> dict[str, int]:
        return {
            **more,
            "NumberOfCompletedSuboperations": self.completed,
            "NumberOfFailedSuboperations": len(self.failed),
            "NumberOfWarningSuboperations": self.warned,
        }

    def _failed_list(self) -> Dataset | None:
        if not self.failed:
            return None
        listed = Dataset()
        listed.FailedSOPInstanceUIDList = self.failed
        return listed
