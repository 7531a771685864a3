"""Objects on their way in: one spool file each, hashed as it grows, and the hook that makes pynetdicom write to it.

pynetdicom's own chunked mode writes to a temporary file and drops the association when a write fails. Here the file is
ours: when the disk is full the rest of the object is read and thrown away, and the sender gets its 0xA700.
"""

from __future__ import annotations

import hashlib
import os
import socket
import struct
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_messages import C_STORE_RQ
from pynetdicom.pdu_primitives import P_DATA

from dicom_io.uids import IMPLEMENTATION_CLASS_UID
from node.association import fragment_bytes
from node.blobs import BlobStore
from node.errors import DiskFull, NodeError

SPOOL_PREFIX = "in-"
_CHECK_EVERY = 64 * 2**20  # bytes between looks at the free space while an object arrives
_STRAY_LIMIT = 2**20  # bytes of a message that pynetdicom may keep in memory
_INVALID_PDU = "Evt19"  # PS3.8 table 9-10: abort the association


@dataclass(frozen=True)
class Command:
    """What the C-STORE request says of the object (PS3.7 9.3.1.1), and the negotiated transfer syntax.

    A part that the request leaves out is "".
    """

    sop_class_uid: str
    sop_uid: str
    transfer_syntax_uid: str


def file_meta(command: Command) -> bytes:
    """Preamble and file meta information (PS3.10 7.1) of a stored object.

    Nothing in it depends on the sender, the time or a library's version: the same data set sent again, by whomever,
    gives the same file.
    """
    elements = (
        _element(0x0001, b"OB\0\0", "<L", b"\0\1"),
        _element(0x0002, b"UI", "<H", _uid(command.sop_class_uid)),
        _element(0x0003, b"UI", "<H", _uid(command.sop_uid)),
        _element(0x0010, b"UI", "<H", _uid(command.transfer_syntax_uid)),
        _element(0x0012, b"UI", "<H", _uid(IMPLEMENTATION_CLASS_UID)),
    )
    body = b"".join(elements)
    return b"\0" * 128 + b"DICM" + _element(0, b"UL", "<H", struct.pack("<L", len(body))) + body


def _element(number: int, vr: bytes, length: str, value: bytes) -> bytes:
    """One element of group 0002, explicit VR little endian (PS3.5 7.1.2)."""
    return struct.pack("<HH", 2, number) + vr + struct.pack(length, len(value)) + value


def _uid(uid: str) -> bytes:
    value = uid.encode("ascii", "replace")
    return value + b"\0" * (len(value) % 2)


class SpoolFile:
    """One arriving object: preamble, file meta, then the data set exactly as it comes.

    It takes the place of the temporary file of a pynetdicom message, which calls `write`, `file.flush`, `close` and
    reads `name`. After the first failure nothing more is written and the space is given back; `failure` says why.
    """

    def __init__(self, store: BlobStore, reserve_bytes: int, command: Command) -> None:
        self.command = command
        self.failure: NodeError | None = None
        self.size = 0
        self.study_uid: str | None = None  # once somebody has looked into the first bytes
        self.finished = False  # the handler is through with it
        self.looked_in_vain = False  # its first bytes do not tell the study
        self.path = Path()
        self._store, self._reserve = store, reserve_bytes
        self._checked = 0
        self._digest = hashlib.sha256()
        self._handle = -1

    @classmethod
    def create(cls, store: BlobStore, reserve_bytes: int, command: Command) -> SpoolFile:
        """Open a file in the spool and write its head; where that cannot be done, `failure` is set."""
        made = cls(store, reserve_bytes, command)
        try:
            store.require_room(reserve_bytes)
            made._handle, name = tempfile.mkstemp(
                dir=store.spool, prefix=SPOOL_PREFIX, suffix=".dcm"
            )
            made.path = Path(name)
        except (DiskFull, OSError) as error:
            made.fail(_as_disk_full(error))
        made.write(file_meta(command))
        return made

    @classmethod
    def refused(cls, store: BlobStore, command: Command, why: NodeError) -> SpoolFile:
        """A file that takes nothing: the object is read and thrown away."""
        made = cls(store, 0, command)
        made.failure = why
        return made

    @property
    def name(self) -> str:
        """The path as text."""
        return str(self.path)

    @property
    def file(self) -> SpoolFile:
        """What pynetdicom flushes after each write."""
        return self

    @property
    def sha256(self) -> str:
        """Hexadecimal digest of all that was written."""
        return self._digest.hexdigest()

    def write(self, data: bytes) -> int:
        """Append; never raises, because an exception here would end the association without an answer."""
        if self.failure is None:
            try:
                self._append(data)
            except (DiskFull, OSError) as error:
                self.fail(_as_disk_full(error))
        return len(data)

    def flush(self) -> bool:
        """Whether all that was written is with the kernel; always, since nothing is buffered."""
        return True

    def sync(self) -> None:
        """Flush the content to disk. Raises DiskFull where that fails."""
        try:
            os.fsync(self._handle)
        except OSError as error:
            raise _as_disk_full(error) from error

    def touch(self) -> None:
        """Show other processes' sweeps that the object still has an owner."""
        with suppress(FileNotFoundError):
            os.utime(self.path)

    def fail(self, why: NodeError) -> None:
        """Give up on the object and give its space back."""
        self.failure = self.failure or why
        self.discard()

    def close(self) -> None:
        """Close the file; it stays in the spool."""
        handle, self._handle = self._handle, -1
        if handle >= 0:
            os.close(handle)

    def discard(self) -> None:
        """Close and remove the file; what was linked from it into the store stays there."""
        self.close()
        self.finished = True
        if self.path.name:
            self.path.unlink(missing_ok=True)

    def _append(self, data: bytes) -> None:
        if self.size - self._checked >= _CHECK_EVERY:
            self._checked = self.size
            self._store.require_room(self._reserve)
        view = memoryview(data)
        while view:
            written = os.write(self._handle, view)
            self._digest.update(view[:written])
            self.size += written
            view = view[written:]


def _as_disk_full(error: DiskFull | OSError) -> DiskFull:
    if isinstance(error, DiskFull):
        return error
    # Full, over quota, or an input/output error: for the sender all are "out of resources, try again later".
    return DiskFull(f"cannot write to the spool: {error.strerror}; see `tomonode doctor`")


def receive(connection: socket.socket, limit: int, count: int) -> bytearray:
    """Read exactly `count` bytes, or fewer where the peer closes; in place of `AssociationSocket.recv`.

    pynetdicom reads in pieces of 4096 bytes, which costs a third of the throughput of a large object. A PDU that says
    it is longer than `limit` ends the connection before memory is given to it (OSError).
    """
    if count > limit:
        raise OSError(f"PDU of {count} bytes, the limit is {limit}")
    if hasattr(socket, "TCP_QUICKACK"):
        # Where the sender has not set TCP_NODELAY, a delayed acknowledgement costs 40 ms an object; Linux forgets this
        # option, so it is set again for each PDU.
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
    buffer = bytearray(count)
    view = memoryview(buffer)
    done = 0
    while done < count:
        got = connection.recv_into(view[done:])
        if not got:
            return buffer[:done]
        done += got
    return buffer


class SpoolingProvider(DIMSEServiceProvider):  # type: ignore[misc]
    """pynetdicom's DIMSE provider with our spool file under every C-STORE request.

    Put in place of `Association.dimse` before the association starts. It hands each fragment on by itself, and once a
    command is complete gives the message a `SpoolFile` to write its data set to, before the first byte of it comes.
    """

    def __init__(self, association: Association, open_file: Callable[[Command], SpoolFile]) -> None:
        super().__init__(association)
        self._open_file = open_file
        self.files: list[SpoolFile] = []

    @property
    def maximum_pdu_size(self) -> int:
        """Bytes of a fragment of what we send."""
        return fragment_bytes(super().maximum_pdu_size)

    def receive_primitive(self, primitive: P_DATA) -> None:
        """Process one P-DATA primitive (called by pynetdicom's reader thread)."""
        for fragment in primitive.presentation_data_value_list:
            single = P_DATA()
            single.presentation_data_value_list.append(fragment)
            super().receive_primitive(single)
            self._give_file()

    def discard(self) -> None:
        """Remove what an ended association left: the object cut off in the middle, and objects never handled."""
        for file in self.files:
            file.discard()
        self.files.clear()

    def _give_file(self) -> None:
        message = self.message
        if message is None or message._data_set_file is not None:
            return
        if not isinstance(message, C_STORE_RQ):
            if message.encoded_command_set.tell() + message.data_set.tell() > _STRAY_LIMIT:
                self.dul.event_queue.put(_INVALID_PDU)
            return
        context = self.assoc._accepted_cx.get(message.context_id)
        command = Command(
            str(message.command_set.get("AffectedSOPClassUID") or ""),
            str(message.command_set.get("AffectedSOPInstanceUID") or ""),
            str(context.transfer_syntax[0]) if context else "",
        )
        file = self._open_file(command)
        self.files = [known for known in self.files if not known.finished]
        self.files.append(file)
        message._data_set_file = file
        message._data_set_path = file.path
