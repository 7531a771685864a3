"""STOW-RS (PS3.18 10.5): objects come as the parts of one body, and each is kept as one that came by C-STORE is.

The promise is the same: an object is on disk and its row committed before anything good is said of it. A part's own
file meta information is replaced by the node's, so that the same data set gives the same bytes whichever way it came.
"""

from __future__ import annotations

import struct
import time
import uuid
from dataclasses import dataclass
from typing import Any, Final

from pynetdicom.presentation import build_context
from pynetdicom.sop_class import Verification
from sqlalchemy import delete

from dicom_io.syntaxes import TRANSFER_SYNTAXES
from node import log
from node.activity import study_of
from node.admission import supported_contexts
from node.blobs import BlobStore
from node.config import Settings
from node.db import Database, now
from node.dicomweb.multipart import Event, Limits, PartBegins, PartData, Reader
from node.errors import NodeError, UnreadableObject
from node.ingest import Answer, Mismatch, answer, ingest
from node.models import Activity
from node.spool import Command, SpoolFile

CALLING_AE: Final = "STOW-RS"
MAX_PART: Final = 8 << 30  # bytes of one object; before that the reserve of the disk stops it
_META_LIMIT: Final = 64 * 1024
_LONG: Final = (
    b"OB",
    b"OW",
    b"OF",
    b"SQ",
    b"UT",
    b"UN",
    b"UC",
    b"UR",
    b"OD",
    b"OL",
    b"OV",
    b"SV",
    b"UV",
)
_SYNTAX_REFUSED: Final = Answer(0x0122, "class or transfer syntax is not taken")
_OUT_OF_RESOURCES: Final = 0xA700


@dataclass(frozen=True)
class Outcome:
    """What became of one part; UIDs are "" where they are not known."""

    sop_class_uid: str
    sop_uid: str
    study_uid: str
    status: int


def command_of(head: bytes) -> tuple[Command, int] | None:
    """What the first bytes of a Part 10 file (PS3.10 7.1) say of the object, and where its data set begins.

    None where more bytes are needed. Raises UnreadableObject for what is no such file.
    """
    if len(head) >= 132 and head[128:132] != b"DICM":
        raise UnreadableObject("a part is no DICOM file: no DICM prefix")
    values: dict[int, str] = {}
    at = 132
    while len(head) >= at + 12:
        group, number = struct.unpack_from("<HH", head, at)
        if group != 2:
            uids = (values.get(n, "") for n in (0x0002, 0x0003, 0x0010))
            return Command(*uids), at
        vr, start = head[at + 4 : at + 6], at + 8
        (length,) = struct.unpack_from("<H", head, at + 6)
        if vr in _LONG:
            (length,) = struct.unpack_from("<L", head, at + 8)
            start = at + 12
        if start + length > _META_LIMIT:
            break
        values[number] = head[start : start + length].decode("ascii", "replace").strip("\0 ")
        at = start + length
    if at + 12 > _META_LIMIT or len(head) > _META_LIMIT:
        raise UnreadableObject("a part's file meta information has no end")
    return None


class Receiver:
    """Takes the body of one request; `feed` it, `finish`, and `close` whatever happened.

    `tick` may be called from another thread: it keeps the study open that an object is on its way to.
    """

    def __init__(
        self, settings: Settings, db: Database, store: BlobStore, study_uid: str, boundary: bytes
    ) -> None:
        """`study_uid`: the study that every object has to be of; "" for any. `boundary`: of the body's parts."""
        self._reader = Reader(boundary, Limits(MAX_PART))
        self._settings, self._db, self._store = settings, db, store
        self._study_uid = study_uid
        self._id = uuid.uuid4()
        self._head = bytearray()
        self._file: SpoolFile | None = None
        self._command = Command("", "", "")
        self._failed: Answer | None = None
        self._noted: set[str] = set()
        self.outcomes: list[Outcome] = []

    def feed(self, data: bytes) -> None:
        """The next bytes of the body. Raises BadMultipart; what was kept until then stays."""
        for event in self._reader.feed(data):
            self._take(event)

    def finish(self) -> list[Outcome]:
        """The body is at its end. Raises BadMultipart where it should not be."""
        self._reader.finish()
        return self.outcomes

    def tick(self) -> None:
        """Say that the object's study is still arriving."""
        file = self._file
        study = study_of(file) if file is not None and not file.finished else None
        if study is None:
            return
        self._noted.add(study)
        with self._db.transaction() as session:
            at = now(session)
            session.merge(
                Activity(association_id=self._id, study_uid=study, in_flight=True, seen_at=at)
            )

    def close(self) -> None:
        """Remove what was not kept."""
        if self._file is not None:
            self._file.discard()
        if self._noted:
            with self._db.transaction() as session:
                session.execute(delete(Activity).where(Activity.association_id == self._id))

    def _take(self, event: Event) -> None:
        if isinstance(event, PartBegins):
            self._head.clear()
            self._file, self._failed, self._command = None, None, Command("", "", "")
        elif isinstance(event, PartData):
            self._write(event.data)
        else:
            self._end()

    def _write(self, data: bytes) -> None:
        if self._file is not None:
            self._file.write(data)
            return
        if self._failed is not None:
            return
        self._head += data
        try:
            found = command_of(bytes(self._head))
        except UnreadableObject as error:
            self._failed = answer(error)
            return
        if found is not None:
            self._command, at = found
            if not _taken(self._command):
                self._failed = _SYNTAX_REFUSED
                return
            reserve = self._settings.disk_reserve_mb * 2**20
            self._file = SpoolFile.create(self._store, reserve, self._command)
            self._file.write(bytes(self._head[at:]))
            self._head.clear()

    def _end(self) -> None:
        study, said = "", self._failed
        if self._file is None:
            said = said or answer(UnreadableObject("a part ends within its file meta information"))
        else:
            study, said = self._keep(self._file)
            self._file.discard()
            self._file = None
        command = self._command
        self.outcomes.append(Outcome(command.sop_class_uid, command.sop_uid, study, said.status))

    def _keep(self, file: SpoolFile) -> tuple[str, Answer]:
        """(study, what the sender is told); no error of one object ends the request."""
        started = time.monotonic()
        try:
            if self._study_uid and study_of(file) not in (None, self._study_uid):
                raise Mismatch("the object is of another study than the request says")
            recorded, arrival = ingest(file, self._store, self._db, CALLING_AE)
        except Exception as error:  # noqa: BLE001  (the boundary to the sender, as in the listener)
            said = answer(error)
            code = error.code if isinstance(error, NodeError) else type(error).__name__
            log.get().warning("object refused", sop_uid=file.command.sop_uid, code=code)
            return "", said
        log.get().info(
            "object stored",
            state=recorded.value,
            study_uid=arrival.study_uid,
            sop_uid=arrival.sop_uid,
            seconds=round(time.monotonic() - started, 3),
        )
        return arrival.study_uid, answer(recorded)


def _taken(command: Command) -> bool:
    """Whether the class and the syntax are among those that the listener takes."""
    if command.transfer_syntax_uid not in TRANSFER_SYNTAXES or not command.sop_class_uid:
        return False
    if command.sop_class_uid == Verification:
        return False
    context = build_context(command.sop_class_uid, command.transfer_syntax_uid)
    return bool(supported_contexts([context]))


def status_of(outcomes: list[Outcome]) -> int:
    """200 where all were kept, 202 where some were, 409 where none was; 503 where none was for want of resources."""
    failed = [one for one in outcomes if one.status]
    if not failed:
        return 200
    if len(failed) < len(outcomes):
        return 202
    return 503 if all(one.status == _OUT_OF_RESOURCES for one in failed) else 409


def model_of(outcomes: list[Outcome], base: str) -> dict[str, Any]:
    """The Store Instances Response Module (PS3.18 table I.2.2-1) in the DICOM JSON model."""
    named = [one for one in outcomes if one.sop_uid]
    model: dict[str, Any] = {}
    studies = {one.study_uid for one in named if not one.status}
    if len(studies) == 1:
        model["00081190"] = {"vr": "UR", "Value": [f"{base}/studies/{studies.pop()}"]}
    failed = [{**_item(one), "00081197": _reason(one)} for one in named if one.status]
    if failed:
        model["00081198"] = {"vr": "SQ", "Value": failed}
    stored = [_item(one) for one in named if not one.status]
    if stored:
        model["00081199"] = {"vr": "SQ", "Value": stored}
    other = [{"00081197": _reason(one)} for one in outcomes if not one.sop_uid]
    if other:
        model["0008119A"] = {"vr": "SQ", "Value": other}
    return model


def _item(one: Outcome) -> dict[str, Any]:
    return {
        "00081150": {"vr": "UI", "Value": [one.sop_class_uid]},
        "00081155": {"vr": "UI", "Value": [one.sop_uid]},
    }


def _reason(one: Outcome) -> dict[str, Any]:
    return {"vr": "US", "Value": [one.status]}
