"""The sending side: C-STORE and C-ECHO to a peer, over one association, nothing transcoded.

Files are read in fragments while they are sent, so that memory does not grow with their size. A peer's warning
(0xB000, 0xB006, 0xB007: stored, with elements coerced or discarded) counts as accepted: the peer has the object.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info
from pynetdicom.association import Association
from pynetdicom.sop_class import Verification

from dicom_io.syntaxes import IMPLICIT_LITTLE
from node.association import Address, AssociationLost, association_with, lost
from node.config import Settings
from node.deliveries import Answer, Destination, Parcel
from node.errors import NodeError, PeerRefused, PeerUnavailable, UnreadableObject

_MAX_CONTEXTS = 128  # presentation context IDs are the odd numbers of a byte, PS3.8 9.3.2.2
_CLASS_NOT_SUPPORTED = "0x0122"


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


@dataclass(frozen=True)
class FileResult:
    """What became of one file: `status` is the peer's ("" where it was not asked), `reason` says why it failed."""

    path: Path
    accepted: bool
    status: str
    reason: str
    size_bytes: int
    seconds: float


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


def store(
    destination: Destination, parcels: Sequence[tuple[Parcel, Path]], settings: Settings
) -> list[Answer]:
    """Send objects over one association, in the given order.

    Returns:
        What the peer said of each object. Fewer answers than objects: the association ended before the rest.

    Raises:
        PeerUnavailable: no connection, rejected for now, or ended before the first answer.
        PeerRefused: rejected for good, or no presentation context accepted for any of the objects.
        UnreadableObject: a blob is no DICOM file.
    """
    files = [(parcel, outgoing(path)) for parcel, path in parcels]
    contexts = [file.context for _, file in files]
    address = _address(destination)
    answers: list[Answer] = []
    try:
        with association_with(address, contexts, settings) as association:
            for parcel, file in files:
                status = _send(association, file)
                answers.append(Answer(parcel.artifact_id, is_accepted(status), status))
    except PeerUnavailable:
        if not answers:
            raise
    return answers


def echo(destination: Destination, settings: Settings) -> float:
    """Verify that a peer answers C-ECHO; returns the seconds it took, association included.

    Raises:
        PeerUnavailable: no connection, rejected for now, or no answer.
        PeerRefused: rejected for good, or it knows no Verification.
    """
    started = time.monotonic()
    contexts = [(str(Verification), IMPLICIT_LITTLE)]
    with association_with(_address(destination), contexts, settings) as association:
        status = association.send_c_echo().get("Status")
    if status is None:
        raise PeerUnavailable(f"{destination.name} gave no answer to C-ECHO; see its log")
    if status != 0:
        raise PeerRefused(f"{destination.name} answered C-ECHO with 0x{status:04X}; see its log")
    return time.monotonic() - started


def send_files(
    host: str,
    port: int,
    ae_title: str,
    files: Sequence[Path],
    settings: Settings,
    progress: Callable[[FileResult], None] = lambda _result: None,
) -> list[FileResult]:
    """Send files to a peer, in order. A file that fails is reported and the others go on.

    Where the association ends in the middle, the next file gets a new one; a peer that cannot be reached fails all that
    is left. Never raises for a file or the peer: the results tell.

    Args:
        host, port, ae_title: the peer.
        files: DICOM files with preamble and file meta information.
        settings: our AE title and time-outs.
        progress: called with each result as it is known.
    """
    sender = _FileSender((host, port, ae_title), settings, progress)
    batch: list[Outgoing] = []
    for path in files:
        try:
            file = outgoing(path)
        except UnreadableObject as error:
            sender.report(path, "", str(error))
            continue
        if len({f.context for f in batch} | {file.context}) > _MAX_CONTEXTS:
            sender.send(batch)
            batch = []
        batch.append(file)
    sender.send(batch)
    return sender.results


def is_accepted(status: str) -> bool:
    """Whether a C-STORE status (`0xB000`) says that the peer has the object: success or warning (PS3.4 B.2.3)."""
    value = int(status, 16)
    return value in (0x0000, 0x0107, 0x0116) or 0xB000 <= value <= 0xBFFF


class _FileSender:
    """Batches of files to one peer, and the results so far."""

    def __init__(
        self,
        address: Address,
        settings: Settings,
        progress: Callable[[FileResult], None],
    ) -> None:
        self.results: list[FileResult] = []
        self._address, self._settings, self._progress = address, settings, progress

    def report(self, path: Path, status: str, reason: str, seconds: float = 0.0) -> None:
        """Note what became of a file."""
        size = path.stat().st_size if path.is_file() else 0
        result = FileResult(path, not reason, status, reason, size, seconds)
        self.results.append(result)
        self._progress(result)

    def send(self, batch: list[Outgoing]) -> None:
        """Send files whose presentation contexts fit one association; more than one where it ends early."""
        left = list(batch)
        while left:
            contexts = [file.context for file in left]
            done = len(left)
            try:
                with association_with(self._address, contexts, self._settings) as association:
                    while left:
                        self._send(association, left[0])
                        left.pop(0)
            except NodeError as error:
                established = done > len(left) or isinstance(error, AssociationLost)
                failed, left = (left[:1], left[1:]) if established else (left, [])
                for file in failed:
                    self.report(file.path, "", str(error))

    def _send(self, association: Association, file: Outgoing) -> None:
        started = time.monotonic()
        status = _send(association, file)
        reason = "" if is_accepted(status) else f"refused with {status}"
        if status == _CLASS_NOT_SUPPORTED:
            reason = f"peer does not take {file.sop_class_uid} in {file.transfer_syntax_uid}"
        self.report(file.path, status, reason, time.monotonic() - started)


def _address(destination: Destination) -> Address:
    host, port, title = destination.host, destination.port, destination.ae_title
    assert host is not None, "a DICOM peer has a host"
    assert port is not None, "a DICOM peer has a port"
    assert title is not None, "a DICOM peer has an AE title"
    return host, port, title


def _send(association: Association, file: Outgoing) -> str:
    """Send one file; the status as text. Raises AssociationLost."""
    accepted = {
        (str(c.abstract_syntax), str(c.transfer_syntax[0])) for c in association.accepted_contexts
    }
    if file.context not in accepted:
        return _CLASS_NOT_SUPPORTED
    if not association.is_established:
        raise lost(association)
    status = association.send_c_store(file.path).get("Status")
    if status is None:
        raise lost(association)
    return f"0x{status:04X}"
