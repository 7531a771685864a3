"""A real peer: a Storage SCP on a free loopback port that remembers what it got and misbehaves as scripted."""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from pynetdicom import AE, AllStoragePresentationContexts, evt
from pynetdicom.events import Event
from pynetdicom.sop_class import Verification

from dicom_io.syntaxes import TRANSFER_SYNTAXES
from node.deliveries import Destination

AE_TITLE = "PACS"


@dataclass(frozen=True)
class Script:
    """What the peer does. Objects are counted from 1, over all associations.

    `statuses` gives the answer to an object, where it is not 0x0000; `abort_on` and `hang_on` name an object that is
    answered by A-ABORT, or not before `let_go` or the end; `reject` is (result, source, reason) of an A-ASSOCIATE-RJ;
    `delay_s` passes before each answer. Fewer `classes` or `syntaxes`: those contexts are not accepted.
    """

    statuses: Mapping[int, int] = field(default_factory=dict)
    abort_on: int | None = None
    hang_on: int | None = None
    reject: tuple[int, int, int] | None = None
    delay_s: float = 0.0
    classes: tuple[str, ...] = tuple(str(c.abstract_syntax) for c in AllStoragePresentationContexts)
    syntaxes: tuple[str, ...] = TRANSFER_SYNTAXES


@dataclass(frozen=True)
class Stored:
    """One object as it came: digest and bytes of its data set, without file meta information."""

    sop_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    calling_ae: str
    sha256: str
    content: bytes = field(repr=False)
    mover: str = ""  # who asked for it by C-MOVE


class Pacs:
    """The running peer. `script` may be replaced at any time."""

    def __init__(self, script: Script, port: int = 0) -> None:
        self.script = script
        self.stored: list[
            Stored
        ] = []  # accepted objects, in order; the same one again counts again
        self.associations = 0
        self._seen = 0
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._let_go = threading.Event()
        entity = AE(AE_TITLE)
        entity.maximum_pdu_size = 131072
        entity.acse_timeout = 5
        entity.require_called_aet = True
        entity.add_supported_context(Verification)
        for uid in script.classes:
            entity.add_supported_context(uid, list(script.syntaxes))
        handlers = [(evt.EVT_REQUESTED, self._on_request), (evt.EVT_C_STORE, self._on_store)]
        self._entity = entity
        self._server = entity.start_server(("127.0.0.1", port), block=False, evt_handlers=handlers)

    @property
    def port(self) -> int:
        """The TCP port it listens on."""
        port: int = self._server.server_address[1]
        return port

    @property
    def counts(self) -> Counter[str]:
        """SOP Instance UID -> how often it was accepted."""
        return Counter(one.sop_uid for one in self.stored)

    def destination(self, name: str = "pacs") -> Destination:
        """The peer as a destination of results."""
        return Destination(name, "DICOM", AE_TITLE, "127.0.0.1", self.port, None)

    def close(self) -> None:
        """End every association and the peer."""
        self._closing.set()
        self.let_go()
        self._entity.shutdown()

    def let_go(self) -> None:
        """Answer the object that it hangs on."""
        self._let_go.set()

    def _on_request(self, event: Event) -> None:
        self.associations += 1
        if self.script.reject is not None:
            event.assoc.acse.send_reject(*self.script.reject)
            event.assoc.is_rejected = True
            event.assoc.kill()

    def _on_store(self, event: Event) -> int:
        with self._lock:
            self._seen += 1
            number = self._seen
        script = self.script
        self._closing.wait(script.delay_s)
        if number == script.abort_on:
            event.assoc.abort()
            return 0x0110
        if number == script.hang_on:
            self._let_go.wait()
        status = script.statuses.get(number, 0x0000)
        if status == 0x0000 or 0xB000 <= status <= 0xBFFF:
            content: bytes = event.request.DataSet.getvalue()
            self.stored.append(
                Stored(
                    str(event.request.AffectedSOPInstanceUID),
                    str(event.request.AffectedSOPClassUID),
                    str(event.context.transfer_syntax),
                    str(event.assoc.requestor.ae_title),
                    hashlib.sha256(content).hexdigest(),
                    content,
                    str(event.request.MoveOriginatorApplicationEntityTitle or "").strip(),
                )
            )
        return status


@contextmanager
def pacs(script: Script | None = None, port: int = 0) -> Iterator[Pacs]:
    """A peer for the duration of the block, on a free port where none is given."""
    peer = Pacs(script or Script(), port)
    try:
        yield peer
    finally:
        peer.close()
