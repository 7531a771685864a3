"""Open associations, and the rows that tell the relay which studies are still arriving.

Once a second somebody calls `OpenAssociations.tick`: it learns the study of an object that is still on its way from the
first bytes of its spool file, keeps the rows fresh, removes those of ended associations, and clears away the spool
files that ended associations left.
"""

from __future__ import annotations

import threading
import uuid
import zlib
from dataclasses import dataclass, field
from io import BytesIO

from pydicom.filereader import read_dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian
from pynetdicom.association import Association
from sqlalchemy import delete
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from dicom_io.parse import PARSE_ERRORS
from node import log
from node.db import Database, now
from node.errors import DatabaseUnavailable
from node.models import Activity
from node.spool import SpoolFile, SpoolingProvider, file_meta

_HEAD_BYTES = (
    2**20
)  # Study Instance UID comes before this, or is learnt when the object is complete
_STUDY_UID = 0x0020000D


@dataclass(eq=False)
class OpenAssociation:
    """One association with a sender, from connection to close; `studies` are those it has carried."""

    association: Association
    provider: SpoolingProvider
    id: uuid.UUID = field(default_factory=uuid.uuid4)
    studies: set[str] = field(default_factory=set)

    @property
    def ended(self) -> bool:
        """Whether both its threads are gone, so that nobody uses its files any more."""
        started = self.association.ident is not None
        return started and not self.association.is_alive() and not self.association.dul.is_alive()

    @property
    def arriving(self) -> list[SpoolFile]:
        """Objects that are on their way or being stored; refused ones, which are only thrown away, do not count."""
        return [f for f in list(self.provider.files) if not f.finished and f.failure is None]


class OpenAssociations:
    """The open associations of this process. Safe to use from several threads; one thread calls `tick`."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._lock = threading.Lock()
        self._open: dict[Association, OpenAssociation] = {}
        self._gone: set[uuid.UUID] = set()  # rows still to be removed
        self._silent = False  # the database did not answer last time

    def add(self, opened: OpenAssociation) -> None:
        """A connection was made."""
        with self._lock:
            self._open[opened.association] = opened

    def of(self, association: Association) -> OpenAssociation:
        """The entry of an association that was added and has not ended."""
        with self._lock:
            return self._open[association]

    def all(self) -> list[OpenAssociation]:
        """Every association that has not ended."""
        with self._lock:
            return list(self._open.values())

    def tick(self) -> None:
        """Clear away ended associations and refresh the rows; a database that is down is tried again next time."""
        for opened in self.all():
            if opened.ended:
                self._forget(opened)
        fresh: dict[tuple[uuid.UUID, str], bool] = {}
        for opened in self.all():
            fresh.update({(opened.id, study): False for study in set(opened.studies)})
            for file in opened.arriving:
                file.touch()
                if study := study_of(file):
                    opened.studies.add(study)
                    fresh[opened.id, study] = True
        if fresh or self._gone:
            self._write(fresh)

    def _forget(self, opened: OpenAssociation) -> None:
        with self._lock:
            self._open.pop(opened.association, None)
        opened.provider.discard()
        if opened.studies:
            self._gone.add(opened.id)

    def _write(self, fresh: dict[tuple[uuid.UUID, str], bool]) -> None:
        try:
            with self._db.transaction() as session:
                session.execute(delete(Activity).where(Activity.association_id.in_(self._gone)))
                _upsert(session, fresh)
        except (DatabaseUnavailable, SQLAlchemyError) as error:
            if not self._silent:
                log.get().warning("activity not written", code=type(error).__name__)
            self._silent = True
            return
        self._gone.clear()
        self._silent = False


def _upsert(session: Session, fresh: dict[tuple[uuid.UUID, str], bool]) -> None:
    if not fresh:
        return
    insert = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    at = now(session)
    rows = [
        {"association_id": association, "study_uid": study, "in_flight": busy, "seen_at": at}
        for (association, study), busy in fresh.items()
    ]
    statement = insert(Activity).values(rows)
    updated = {name: statement.excluded[name] for name in ("in_flight", "seen_at")}
    session.execute(
        statement.on_conflict_do_update(
            index_elements=["association_id", "study_uid"], set_=updated
        )
    )


def study_of(file: SpoolFile) -> str | None:
    """Study Instance UID of an object on its way; None while it cannot be known. Remembered in the file."""
    if file.study_uid is None and not file.looked_in_vain:
        start = len(file_meta(file.command))
        try:
            with file.path.open("rb") as stream:
                stream.seek(start)
                head = stream.read(_HEAD_BYTES)
        except OSError:
            return None  # it was finished and removed just now
        file.study_uid = peek_study_uid(head, file.command.transfer_syntax_uid)
        file.looked_in_vain = file.study_uid is None and len(head) == _HEAD_BYTES
    return file.study_uid


def peek_study_uid(head: bytes, transfer_syntax_uid: str) -> str | None:
    """Study Instance UID from the first bytes of a data set; None where they end before the next element."""
    passed = False

    def stop(tag: int, _vr: str | None, _length: int) -> bool:
        nonlocal passed
        passed = tag > _STUDY_UID
        return passed

    try:
        if transfer_syntax_uid == DeflatedExplicitVRLittleEndian:
            head = zlib.decompressobj(-zlib.MAX_WBITS).decompress(head, _HEAD_BYTES)
        dataset = read_dataset(
            BytesIO(head),
            is_implicit_VR=transfer_syntax_uid == ImplicitVRLittleEndian,
            is_little_endian=transfer_syntax_uid != ExplicitVRBigEndian,
            stop_when=stop,
            specific_tags=[_STUDY_UID],
        )
        uid = str(dataset.get("StudyInstanceUID") or "").strip()
    except (*PARSE_ERRORS, OSError):
        return None  # not enough bytes yet, or no data set: both end up with the handler
    return uid if passed and 0 < len(uid) <= 64 and set(uid) <= set("0123456789.") else None
