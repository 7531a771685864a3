"""The sending side: C-STORE and C-ECHO to a peer.

Files are read in fragments while they are sent, so that memory does not grow with their size. A peer's warning
(0xB000, 0xB006, 0xB007: stored, with elements coerced or discarded) counts as accepted: the peer has the object.

A delivery (`store`) sends an object as it is stored to a peer that takes its transfer syntax, and in little endian
(`dicom_io.transcode`) to one that does not. `send_files` sends files as they are, or not at all.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pynetdicom.association import Association
from pynetdicom.sop_class import Verification

from dicom_io.errors import DicomIoError
from dicom_io.syntaxes import EXPLICIT_LITTLE, IMPLICIT_LITTLE
from dicom_io.transcode import TARGETS
from node import log
from node.association import Address, AssociationLost, Proposal, association_with, lost
from node.config import Settings
from node.deliveries import Answer, Destination, Parcel
from node.errors import DiskFull, NodeError, PeerRefused, PeerUnavailable, UnreadableObject
from node.outgoing import Outgoing, transcoded
from node.outgoing import outgoing as outgoing
from node.tls import PeerContext, client_context

_MAX_CONTEXTS = 128  # presentation context IDs are the odd numbers of a byte, PS3.8 9.3.2.2
_CLASS_NOT_SUPPORTED = "0x0122"
_NAMES = {EXPLICIT_LITTLE: "explicit little endian", IMPLICIT_LITTLE: "implicit little endian"}


@dataclass(frozen=True)
class FileResult:
    """What became of one file: `status` is the peer's ("" where it was not asked), `reason` says why it failed."""

    path: Path
    accepted: bool
    status: str
    reason: str
    size_bytes: int
    seconds: float


def store(
    destination: Destination, parcels: Sequence[tuple[Parcel, Path]], settings: Settings
) -> list[Answer]:
    """Send objects in the given order, over one association, or more where they need more presentation contexts.

    Returns:
        What the peer said of each object, with the transfer syntax where it was not the stored one. Fewer answers than
        objects: an association ended before the rest, or there was no room to transcode one.

    Raises:
        PeerUnavailable: no connection, rejected for now, or ended before the first answer.
        PeerRefused: rejected for good, no presentation context accepted for any of the objects, or another certificate
            than expected.
        UnreadableObject: a blob is no DICOM file.
        DiskFull: no room for the transcoded form of the first object.
    """
    files = [(parcel, outgoing(path)) for parcel, path in parcels]
    answers: list[Answer] = []
    try:
        for batch, contexts in _batches(files):
            with association_with(
                _address(destination), contexts, settings, _tls(destination, settings)
            ) as association:
                for parcel, file in batch:
                    answers.append(_deliver(association, parcel, file, settings))
    except (PeerUnavailable, DiskFull):
        if not answers:
            raise
    return answers


def _batches(
    files: Sequence[tuple[Parcel, Outgoing]],
) -> Iterator[tuple[list[tuple[Parcel, Outgoing]], list[Proposal]]]:
    """Objects in order, with the presentation contexts that one association can propose for them."""
    batch: list[tuple[Parcel, Outgoing]] = []
    contexts: dict[Proposal, None] = {}
    for parcel, file in files:
        wanted = dict.fromkeys([file.as_it_is, file.transcoded])
        if len(contexts | wanted) > _MAX_CONTEXTS:
            yield batch, list(contexts)
            batch, contexts = [], {}
        contexts |= wanted
        batch.append((parcel, file))
    if batch:
        yield batch, list(contexts)


def _deliver(
    association: Association, parcel: Parcel, file: Outgoing, settings: Settings
) -> Answer:
    """Send one object in the best form that the peer takes. Raises AssociationLost, DiskFull."""
    accepted = _accepted(association)
    syntaxes = [s for s in TARGETS if (file.sop_class_uid, s) in accepted]
    if file.context in accepted or not syntaxes:
        status = _send(association, file)
        return Answer(parcel.artifact_id, is_accepted(status), status)
    try:
        with transcoded(file, syntaxes[0], settings) as other:
            status = _send(association, other)
    except DicomIoError as error:
        log.get().warning("not transcoded", sop_uid=file.sop_uid, reason=str(error))
        refusal = f"{_CLASS_NOT_SUPPORTED} (stored syntax not taken, and not transcodable)"
        return Answer(parcel.artifact_id, False, refusal)
    return Answer(parcel.artifact_id, is_accepted(status), f"{status} (as {_NAMES[syntaxes[0]]})")


def echo(destination: Destination, settings: Settings) -> float:
    """Verify that a peer answers C-ECHO; returns the seconds it took, association included.

    Raises:
        PeerUnavailable: no connection, rejected for now, or no answer.
        PeerRefused: rejected for good, or it knows no Verification.
    """
    started = time.monotonic()
    contexts = [(str(Verification), (IMPLICIT_LITTLE,))]
    tls = _tls(destination, settings)
    with association_with(_address(destination), contexts, settings, tls) as association:
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
            contexts = [file.as_it_is for file in left]
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


def _tls(destination: Destination, settings: Settings) -> PeerContext | None:
    return client_context(settings, destination.pin_sha256) if destination.tls else None


def _accepted(association: Association) -> set[tuple[str, str]]:
    return {
        (str(c.abstract_syntax), str(c.transfer_syntax[0])) for c in association.accepted_contexts
    }


def _send(association: Association, file: Outgoing) -> str:
    """Send one file; the status as text. Raises AssociationLost."""
    if file.context not in _accepted(association):
        return _CLASS_NOT_SUPPORTED
    if not association.is_established:
        raise lost(association)
    status = association.send_c_store(file.path).get("Status")
    if status is None:
        raise lost(association)
    return f"0x{status:04X}"
