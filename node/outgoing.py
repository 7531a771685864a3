"""Files on their way out: what each is, and the same object in another transfer syntax while it is sent."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info

from dicom_io.transcode import TARGETS, transcode
from node.association import Proposal
from node.config import Settings
from node.errors import DiskFull, UnreadableObject

_SPOOL_PREFIX = "out-"  # swept with the spool where a process was killed


@dataclass(frozen=True)
class Outgoing:
    """A DICOM file (PS3.10) to be sent as it is."""

    path: Path
    sop_class_uid: str
    sop_uid: str
    transfer_syntax_uid: str

    @property
    def context(self) -> tuple[str, str]:
        """What must be negotiated for it: SOP class and transfer syntax."""
        return self.sop_class_uid, self.transfer_syntax_uid

    @property
    def as_it_is(self) -> Proposal:
        """A presentation context in which it can be sent as it is."""
        return self.proposals(*self.context)[0]

    @property
    def transcoded(self) -> Proposal:
        """A presentation context in which it can be sent transcoded."""
        return self.proposals(*self.context)[1]

    @staticmethod
    def proposals(sop_class_uid: str, transfer_syntax_uid: str) -> tuple[Proposal, Proposal]:
        """The presentation contexts in which an object of a class and syntax can be sent: as it is, and transcoded."""
        others = tuple(syntax for syntax in TARGETS if syntax != transfer_syntax_uid)
        return (sop_class_uid, (transfer_syntax_uid,)), (sop_class_uid, others)


def outgoing(path: Path) -> Outgoing:
    """A file and what its file meta information says.

    Raises:
        UnreadableObject: no file, no DICOM file, or one without the UIDs it must have.
    """
    try:
        meta = read_file_meta_info(path)
        found = Outgoing(
            path,
            str(meta.MediaStorageSOPClassUID),
            str(meta.MediaStorageSOPInstanceUID),
            str(meta.TransferSyntaxUID),
        )
    except OSError as error:
        raise UnreadableObject(f"cannot read {path.name}: {error.strerror or 'no data'}") from error
    except (InvalidDicomError, AttributeError, EOFError, ValueError, KeyError) as error:
        raise UnreadableObject(
            f"{path.name} is no DICOM file with preamble and file meta information"
        ) from error
    return found


@contextmanager
def transcoded(file: Outgoing, syntax: str, settings: Settings) -> Iterator[Outgoing]:
    """The object in another transfer syntax, in a spool file for the duration of the block.

    Raises:
        DicomIoError: that cannot be done.
        DiskFull: there is no room.
    """
    settings.spool.mkdir(parents=True, exist_ok=True)
    free, reserve = shutil.disk_usage(settings.spool).free, settings.disk_reserve_mb * 2**20
    if free < reserve:
        raise DiskFull(
            f"{free // 2**20} MB left for transcoding, the reserve is {settings.disk_reserve_mb} MB;"
            " free some space or lower TOMONODE_DISK_RESERVE_MB"
        )
    handle, name = tempfile.mkstemp(dir=settings.spool, prefix=_SPOOL_PREFIX, suffix=".dcm")
    os.close(handle)
    out = Path(name)
    try:
        yield Outgoing(_write(file, syntax, out), file.sop_class_uid, file.sop_uid, syntax)
    finally:
        out.unlink(missing_ok=True)


def _write(file: Outgoing, syntax: str, out: Path) -> Path:
    try:
        return transcode(file.path, syntax, out)
    except OSError as error:
        raise DiskFull(
            f"cannot write to the spool: {error.strerror}; see `tomonode doctor`"
        ) from error
