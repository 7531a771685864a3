"""From a finished spool file to a stored object and the answer its sender gets.

The order is the promise: write, fsync, link, fsync the folder, commit the row, and only then say 0x0000. What cannot be
kept leaves nothing behind: no spool file, no blob, no row.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from dicom_io.errors import RefusalCode, UnreadableDataset
from dicom_io.header import InstanceHeader, read_header
from dicom_io.recognise import Kind, kind_of
from node import arrivals
from node.arrivals import Arrival, Recorded
from node.blobs import BlobStore
from node.catalogue import described
from node.db import Database, now
from node.errors import DatabaseUnavailable, DiskFull, NodeError, Transient, UnreadableObject
from node.models import Instance, Quarantined
from node.spool import Command, SpoolFile

#: What the model may read.
IMAGES = frozenset({Kind.TOMOSYNTHESIS, Kind.MAMMOGRAM, Kind.TOMO_SLICE})
# Kept and answered with success, for a sender that hears a failure would send it again for ever.
_ASIDE = {Kind.PRIVATE_TOMO: RefusalCode.PRIVATE_TOMOSYNTHESIS.sentence}
_COMMENT_LIMIT = 64  # Error Comment (0000,0902) is LO: PS3.5 table 6.2-1


class Mismatch(UnreadableObject):
    """The data set is of another class or instance than the C-STORE request says."""


class ShuttingDown(Transient):
    """The listener takes no new objects."""


@dataclass(frozen=True)
class Answer:
    """What the sender is told: a C-STORE status (PS3.4 B.2.3, PS3.7 annex C) and the Error Comment ("" for none)."""

    status: int
    comment: str


#: The one table from what became of an object to what its sender is told. For an error the first base class counts.
ANSWERS: dict[Recorded | type[Exception], Answer] = {
    Recorded.NEW: Answer(0x0000, ""),
    Recorded.DUPLICATE: Answer(0x0000, ""),
    # A failure, not a warning: what was sent is kept aside but will not be used, and its sender must not believe so.
    Recorded.CONFLICT: Answer(
        0x0111, "UID known with other bytes: first kept, this one quarantined"
    ),
    DiskFull: Answer(0xA700, "out of resources: disk at its reserve, try again later"),
    DatabaseUnavailable: Answer(0xA700, "out of resources: database is down, try again later"),
    ShuttingDown: Answer(0xA700, "out of resources: shutting down, try again later"),
    Mismatch: Answer(0xA900, "SOP class or instance of request and data set differ"),
    UnreadableDataset: Answer(0xC000, "cannot read the data set"),
    UnreadableObject: Answer(0xC000, "cannot read the data set"),
    SQLAlchemyError: Answer(0xA700, "out of resources: database failed, try again later"),
    OSError: Answer(0xA700, "out of resources: storage failed, try again later"),
    Exception: Answer(0x0110, "processing failure in the node, see its log"),
}


def answer(outcome: Recorded | Exception) -> Answer:
    """The answer to an outcome; where the object itself is at fault, the comment says what was wrong with it."""
    if isinstance(outcome, Recorded):
        return ANSWERS[outcome]
    found = next(ANSWERS[base] for base in type(outcome).__mro__ if base in ANSWERS)
    if isinstance(outcome, UnreadableDataset | UnreadableObject):
        return Answer(found.status, _comment(str(outcome)) or found.comment)
    return found


def _comment(text: str) -> str:
    line = " ".join(text.split()).replace("\\", "/")
    return line.encode("ascii", "replace").decode("ascii")[:_COMMENT_LIMIT]


def ingest(
    file: SpoolFile, store: BlobStore, db: Database, calling_ae: str
) -> tuple[Recorded, Arrival]:
    """Keep a completely received object, durably. The spool file itself stays the caller's to remove.

    Raises:
        DiskFull: no room while it arrived, or now.
        DatabaseUnavailable: no row could be committed.
        UnreadableDataset: no DICOM data set, cut off, or without its UIDs.
        Mismatch: another SOP class or instance than the request says.
    """
    if file.failure is not None:
        raise file.failure
    header = read_header(file.path)
    _check(header, file.command)
    arrival = _arrival(header, described.read(file.path), file, calling_ae)
    file.sync()
    in_doubt: DatabaseUnavailable | None = None
    with store.hold(file.path, arrival.sha256):
        at_commit = False
        try:
            with db.transaction() as session:
                recorded = arrivals.record(session, arrival, now(session))
                at_commit = True
        except DatabaseUnavailable as error:
            if not at_commit:
                raise
            # The connection may have ended after the server committed. A blob without a row wastes some space; a row
            # without its blob would be a lost object, so the blob goes only when the row is known not to be there.
            committed = _is_committed(db, recorded, arrival)
            if committed is False:
                raise
            if committed is None:
                in_doubt = error
    if in_doubt is not None:
        raise in_doubt
    return recorded, arrival


def _is_committed(db: Database, recorded: Recorded, arrival: Arrival) -> bool | None:
    """Whether the object's row is there; None where the database cannot say."""
    table = Quarantined if recorded is Recorded.CONFLICT else Instance
    wanted = select(table.id).where(
        table.sop_uid == arrival.sop_uid, table.sha256 == arrival.sha256
    )
    try:
        with db.reading() as session:
            return session.execute(wanted).first() is not None
    except NodeError:
        return None


def _check(header: InstanceHeader, command: Command) -> None:
    if header.sop_class_uid != command.sop_class_uid:
        raise Mismatch(f"SOP class {header.sop_class_uid} is not the request's")
    if header.sop_instance_uid != command.sop_uid:
        raise Mismatch("SOP Instance UID of the data set is not the request's")


def _arrival(
    header: InstanceHeader, listed: described.Header, file: SpoolFile, calling_ae: str
) -> Arrival:
    frames, kind = header.number_of_frames, kind_of(header)
    return Arrival(
        study_uid=header.study_instance_uid,
        series_uid=header.series_instance_uid,
        sop_uid=header.sop_instance_uid,
        sop_class_uid=header.sop_class_uid,
        transfer_syntax_uid=header.transfer_syntax_uid,
        is_image=kind in IMAGES,
        sha256=file.sha256,
        size_bytes=file.size,
        laterality=header.laterality,
        view=header.view,
        frames=frames if frames is not None and 0 < frames < 2**31 else None,
        volume_uid=header.series_instance_uid if kind is Kind.TOMO_SLICE else None,
        kept_aside=_ASIDE.get(kind),
        patient_id=listed.of_study.patient_id,
        accession_number=listed.of_study.accession_number,
        study_date=listed.of_study.study_date,
        calling_ae=calling_ae[:16],
        of_study=listed.of_study,
        described=listed.described,
    )
