"""A PACS that answers C-FIND and C-MOVE (pynetdicom's own services) from files, and misbehaves as scripted."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from pynetdicom.events import Event
from pynetdicom.presentation import build_context
from pynetdicom.sop_class import (
    StudyRootQueryRetrieveInformationModelFind as Find,
)
from pynetdicom.sop_class import (
    StudyRootQueryRetrieveInformationModelMove as Move,
)

AE_TITLE = "PACS"
_KEYS = {
    "STUDY": ("StudyInstanceUID", "StudyDate", "PatientID", "PatientBirthDate"),
    "SERIES": ("StudyInstanceUID", "SeriesInstanceUID", "Modality"),
    "IMAGE": ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID"),
}


@dataclass(frozen=True)
class Script:
    """What it does: `find_status` and `move_status` in place of an answer; the first `kept_back` objects of the first
    `withholds` moves are not sent; after the first sub-operation it `hangs` until cancelled or closed, or `aborts`
    the association."""

    find_status: int = 0x0000
    move_status: int = 0x0000
    kept_back: int = 0
    withholds: int = 0
    hangs: bool = False
    aborts: bool = False
    also_found: Sequence[Dataset] = ()
    destinations: Mapping[str, int] = field(default_factory=dict)  # AE title -> loopback port


class QueryPeer:
    """The running PACS, on a free loopback port."""

    def __init__(self, files: Sequence[Path], script: Script) -> None:
        self.script = script
        self.objects = [dcmread(path) for path in files]
        self.moves: list[tuple[str, str, str]] = []  # level, study, series
        self.cancelled = threading.Event()
        self._closing = threading.Event()
        self._entity = AE(AE_TITLE)
        self._entity.acse_timeout = 30
        self._entity.add_supported_context(Find)
        self._entity.add_supported_context(Move)
        kinds = {(one.SOPClassUID, one.file_meta.TransferSyntaxUID) for one in self.objects}
        self._contexts = [build_context(*kind) for kind in kinds]
        handlers = [(evt.EVT_C_FIND, self._on_find), (evt.EVT_C_MOVE, self._on_move)]
        self._server = self._entity.start_server(
            ("127.0.0.1", 0), block=False, evt_handlers=handlers
        )

    @property
    def port(self) -> int:
        """The TCP port it listens on."""
        port: int = self._server.server_address[1]
        return port

    def close(self) -> None:
        """End every association and the PACS."""
        self._closing.set()
        self._entity.shutdown()

    def _matching(self, query: Dataset) -> list[Dataset]:
        exact = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
        return [
            one
            for one in self.objects
            if all(not query.get(key) or one.get(key) == query.get(key) for key in exact)
        ]

    def _on_find(self, event: Event) -> Iterator[tuple[int, Dataset | None]]:
        query = event.identifier
        if self.script.find_status:
            yield self.script.find_status, None
            return
        keys = _KEYS[query.QueryRetrieveLevel]
        seen = set()
        for one in self._matching(query):
            answer = Dataset()
            answer.QueryRetrieveLevel = query.QueryRetrieveLevel
            for key in keys:
                setattr(answer, key, one.get(key))
            values = tuple(str(one.get(key)) for key in keys)
            if values not in seen:
                seen.add(values)
                yield 0xFF00, answer
        if query.QueryRetrieveLevel == "STUDY":
            for other in self.script.also_found:
                yield 0xFF00, other

    def _on_move(self, event: Event) -> Iterator[object]:
        query, script = event.identifier, self.script
        self.moves.append(
            (query.QueryRetrieveLevel, query.StudyInstanceUID, query.get("SeriesInstanceUID", ""))
        )
        port = script.destinations.get(event.move_destination.strip())
        if port is None:
            yield None, None  # 0xA801
            return
        found = self._matching(query)
        if len(self.moves) <= script.withholds:
            found = found[script.kept_back :]
        yield "127.0.0.1", port, {"contexts": self._contexts}
        yield len(found)
        if script.move_status:
            yield script.move_status, None
            return
        for number, one in enumerate(found):
            if script.aborts and number:
                event.assoc.abort()
                return
            if script.hangs and number:
                self._wait(event)
                yield 0xFE00, None
                return
            yield 0xFF00, one

    def _wait(self, event: Event) -> None:
        while not self._closing.is_set() and event.assoc.is_established:
            if event.is_cancelled:
                self.cancelled.set()
                return
            self._closing.wait(0.02)


@contextmanager
def query_peer(files: Sequence[Path], script: Script | None = None) -> Iterator[QueryPeer]:
    """A PACS for the duration of the block."""
    peer = QueryPeer(files, script or Script())
    try:
        yield peer
    finally:
        peer.close()
