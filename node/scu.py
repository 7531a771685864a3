"""The sending side: C-STORE and C-ECHO to a peer.

Files are read in fragments while they are sent, so that memory does not grow with their size. A peer's warning
(0xB000, 0xB006, 0xB007: stored, with elements coerced or discarded) counts as accepted: the peer has the object.

A delivery (`store`) sends an object as it is stored to a peer that takes its transfer syntax, and in little endian
(`dicom_io.transcode`) to one that does not. `send_files` sends files as they are, or not at all.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pynetdicom.association import Association
from pynetdicom.sop_class import Verification

from dicom_io.syntaxes import IMPLICIT_LITTLE
from node.association import Address, AssociationLost, Proposal, association_with
from node.config import Settings
from node.deliveries import Answer, Destination, Parcel
from node.dimse.sending import (
    CLASS_NOT_SUPPORTED,
    MAX_CONTEXTS,
    association_to,
    batches,
    is_warning,
    send_as_it_is,
    send_best,
)
from node.errors import DiskFull, NodeError, PeerRefused, PeerUnavailable, UnreadableObject
from node.outgoing import Outgoing
from node.outgoing import outgoing as outgoing


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
        for batch, contexts in batches(files, _proposals):
            with association_to(destination, contexts, settings) as association:
                for parcel, file in batch:
                    sent = str(send_best(association, file, settings))
                    answers.append(Answer(parcel.artifact_id, is_accepted(sent), sent))
    except (PeerUnavailable, DiskFull):
        if not answers:
            raise
    return answers


def _proposals(sent: tuple[Parcel, Outgoing]) -> tuple[Proposal, Proposal]:
    return sent[1].as_it_is, sent[1].transcoded


def echo(destination: Destination, settings: Settings) -> float:
    """Verify that a peer answers C-ECHO; returns the seconds it took, association included.

    Raises:
        PeerUnavailable: no connection, rejected for now, or no answer.
        PeerRefused: rejected for good, or it knows no Verification.
    """
    started = time.monotonic()
    contexts = [(str(Verification), (IMPLICIT_LITTLE,))]
    with association_to(destination, contexts, settings) as association:
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
        if len({f.context for f in batch} | {file.context}) > MAX_CONTEXTS:
            sender.send(batch)
            batch = []
        batch.append(file)
    sender.send(batch)
    return sender.results


def is_accepted(status: str) -> bool:
    """Whether a C-STORE status (`0xB000`) says that the peer has the object: success or warning (PS3.4 B.2.3)."""
    value = int(status.partition(" ")[0], 16)
    return value == 0x0000 or is_warning(value)


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
        status = f"0x{send_as_it_is(association, file):04X}"
        reason = "" if is_accepted(status) else f"refused with {status}"
        if status == f"0x{CLASS_NOT_SUPPORTED:04X}":
            reason = f"peer does not take {file.sop_class_uid} in {file.transfer_syntax_uid}"
        self.report(file.path, status, reason, time.monotonic() - started)
