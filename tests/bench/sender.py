"""A sender that costs next to nothing: `python -m tests.bench.sender PORT AE_TITLE FILE...`.

Everything is in memory and one association is open before it says "ready"; at a line on standard input it sends, waits
for each answer, and says the seconds it took. So the figures are the receiver's, whoever receives.
"""

from __future__ import annotations

import socket
import struct
import sys
import time
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

from pynetdicom import build_context
from pynetdicom.dimse_messages import C_STORE_RQ, DIMSEMessage
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.dsutils import split_dataset
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ, P_DATA_TF
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    MaximumLengthNotification,
)

from dicom_io.uids import IMPLEMENTATION_CLASS_UID

_APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"
_CONTEXT = 1
_BATCH = 64  # PDUs a system call
_LAST = 2  # PS3.8 E.2: last fragment of a data set


def associate(port: int, called: str, pair: tuple[str, str]) -> tuple[socket.socket, int]:
    """Open an association for one SOP class and transfer syntax; the socket and the peer's largest PDU (bytes)."""
    request = A_ASSOCIATE()
    request.application_context_name = _APPLICATION_CONTEXT
    request.calling_ae_title, request.called_ae_title = "BENCH", called
    length, implementation = MaximumLengthNotification(), ImplementationClassUIDNotification()
    length.maximum_length_received = 16384
    implementation.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    request.user_information = [length, implementation]
    context = build_context(*pair)
    context.context_id = _CONTEXT
    request.presentation_context_definition_list = [context]
    pdu = A_ASSOCIATE_RQ()
    pdu.from_primitive(request)
    connection = socket.create_connection(("127.0.0.1", port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.sendall(pdu.encode())
    accepted = A_ASSOCIATE_AC()
    answer = read_pdu(connection)
    if answer[0] != 2:
        raise SystemExit(f"{called} did not accept the association")
    accepted.decode(answer)
    answered = accepted.to_primitive()
    [result] = answered.presentation_context_definition_results_list
    if result.result != 0:
        raise SystemExit(f"{called} takes no {pair}")
    return connection, answered.maximum_length_received or 131072


def read_pdu(connection: socket.socket) -> bytes:
    """One whole PDU."""
    head = _read(connection, 6)
    return head + _read(connection, int.from_bytes(head[2:], "big"))


def _read(connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = connection.recv(count - len(data))
        if not piece:
            raise SystemExit("the receiver ended the connection")
        data += piece
    return data


def command(number: int, class_uid: str, uid: str, max_pdu: int) -> bytes:
    """The C-STORE request (PS3.7 9.3.1.1) as PDUs, without its data set."""
    request = C_STORE()
    request.MessageID, request.Priority = number % 65535 + 1, 2
    request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = class_uid, uid
    request.DataSet = BytesIO(b"\0\0")
    message = C_STORE_RQ()
    message.primitive_to_message(request)
    first = next(iter(message.encode_msg(_CONTEXT, max_pdu)))
    pdu = P_DATA_TF()
    pdu.from_primitive(first)
    return bytes(pdu.encode())


def send_data_set(connection: socket.socket, content: memoryview, max_pdu: int) -> None:
    """The data set in as few and as large fragments as the receiver takes."""
    step = max_pdu - 6
    pieces: list[bytes | memoryview] = []
    for start in range(0, len(content), step):
        piece = content[start : start + step]
        control = _LAST if start + step >= len(content) else 0
        size = len(piece) + 2
        pieces += [struct.pack(">BBIIBB", 4, 0, size + 4, size, _CONTEXT, control), piece]
        if len(pieces) == 2 * _BATCH:
            _send_all(connection, pieces)
            pieces = []
    _send_all(connection, pieces)


def _send_all(connection: socket.socket, pieces: Sequence[bytes | memoryview]) -> None:
    left = [memoryview(piece) for piece in pieces]
    while left:
        sent = connection.sendmsg(left)
        while left and sent >= len(left[0]):
            sent -= len(left.pop(0))
        if left:
            left[0] = left[0][sent:]


def answer_status(connection: socket.socket) -> int:
    """The status of the next C-STORE response."""
    message = DIMSEMessage()
    pdu = P_DATA_TF()
    pdu.decode(read_pdu(connection))
    while not message.decode_msg(pdu.to_primitive()):
        pdu.decode(read_pdu(connection))
    return int(message.command_set.Status)


def main(port: int, called: str, paths: Sequence[Path]) -> None:
    """Send the files, which share a SOP class and a transfer syntax."""
    objects = []
    for path in paths:
        meta, offset = split_dataset(path)
        objects.append((str(meta.MediaStorageSOPInstanceUID), path.read_bytes()[offset:]))
    class_uid, syntax = str(meta.MediaStorageSOPClassUID), str(meta.TransferSyntaxUID)
    connection, max_pdu = associate(port, called, (class_uid, syntax))
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    started = time.monotonic()
    for number, (uid, content) in enumerate(objects):
        connection.sendall(command(number, class_uid, uid, max_pdu))
        send_data_set(connection, memoryview(content), max_pdu)
        if status := answer_status(connection):
            raise SystemExit(f"{called} answered 0x{status:04X}")
    sys.stdout.write(f"{time.monotonic() - started}\n")
    sys.stdout.flush()
    connection.sendall(bytes((5, 0, 0, 0, 0, 4, 0, 0, 0, 0)))  # A-RELEASE-RQ
    connection.recv(64)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], [Path(name) for name in sys.argv[3:]])
