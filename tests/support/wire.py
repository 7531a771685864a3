"""The DICOM upper layer (PS3.8) and C-STORE (PS3.7) by hand, byte by byte: a sender that may say anything.

It shares no code with the library that the node is built on, and every message can be built wrong on purpose.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

ASSOCIATE_RQ, ASSOCIATE_AC, ASSOCIATE_RJ, P_DATA, RELEASE_RQ, RELEASE_RP, ABORT = range(1, 8)
COMMAND_LAST, COMMAND, DATA_LAST, DATA = 3, 1, 2, 0
VERIFICATION = "1.2.840.10008.1.1"
_FRAGMENT = 16000  # bytes of a data set in one P-DATA-TF

#: Presentation context id -> (abstract syntax, transfer syntaxes).
Contexts = Mapping[int, tuple[str, Sequence[str]]]


class EndedError(Exception):
    """The peer rejected, aborted, or closed the connection; the message says which."""


@dataclass(frozen=True)
class Response:
    """What a C-STORE-RSP or C-ECHO-RSP says."""

    status: int
    comment: str
    message_id: int


def pdu(kind: int, body: bytes, length: int | None = None) -> bytes:
    """A PDU (PS3.8 9.3.1); `length` in place of the true one."""
    return struct.pack(">BBL", kind, 0, len(body) if length is None else length) + body


def item(kind: int, body: bytes) -> bytes:
    """An item of a PDU."""
    return struct.pack(">BBH", kind, 0, len(body)) + body


def associate_rq(
    contexts: Contexts, called: str = "TOMONODE", calling: str = "WIRE", largest: int = 16384
) -> bytes:
    """An A-ASSOCIATE-RQ (PS3.8 9.3.2)."""
    body = struct.pack(">HH", 1, 0) + called.ljust(16).encode() + calling.ljust(16).encode()
    body += bytes(32) + item(0x10, b"1.2.840.10008.3.1.1.1")
    for number, (abstract, syntaxes) in contexts.items():
        inner = item(0x30, abstract.encode())
        inner += b"".join(item(0x40, syntax.encode()) for syntax in syntaxes)
        body += item(0x20, bytes([number & 255, 0, 0, 0]) + inner)
    user = item(0x51, struct.pack(">L", largest)) + item(0x52, b"1.2.826.0.1.3680043.9.9999")
    return pdu(ASSOCIATE_RQ, body + item(0x50, user))


def p_data(context: int, flags: int, data: bytes) -> bytes:
    """A P-DATA-TF with one fragment (PS3.8 9.3.5)."""
    return pdu(P_DATA, struct.pack(">LBB", len(data) + 2, context, flags) + data)


def element(number: int, value: bytes) -> bytes:
    """An element of a command set (PS3.7 6.3): implicit little endian, group 0000."""
    value += b"\0" * (len(value) % 2)
    return struct.pack("<HHL", 0, number, len(value)) + value


def command(elements: Mapping[int, bytes]) -> bytes:
    """A command set with its group length."""
    body = b"".join(element(number, value) for number, value in sorted(elements.items()))
    return element(0, struct.pack("<L", len(body))) + body


def store_rq(sop_class: str, sop_uid: str, message_id: int = 1, data_set: int = 1) -> bytes:
    """The command of a C-STORE request (PS3.7 9.3.1.1); `data_set` 0x0101 says that none follows."""
    return command(
        {
            0x0002: sop_class.encode("ascii", "replace"),
            0x0100: struct.pack("<H", 1),
            0x0110: struct.pack("<H", message_id),
            0x0700: struct.pack("<H", 0),
            0x0800: struct.pack("<H", data_set),
            0x1000: sop_uid.encode("ascii", "replace"),
        }
    )


class Wire:
    """One connection to a node; every wait has an end."""

    def __init__(self, port: int, timeout_s: float = 60) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=timeout_s)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, data: bytes) -> None:
        """Send bytes as they are; a peer that has closed takes none."""
        try:
            self.socket.sendall(data)
        except OSError as error:
            raise EndedError(f"closed while sending: {type(error).__name__}") from error

    def receive(self) -> tuple[int, bytes]:
        """The next PDU: type and body."""
        head = self._exactly(6)
        kind, length = struct.unpack(">BxL", head)
        assert length < 1 << 24, f"the node sends a PDU of {length} bytes"
        body = self._exactly(length)
        if kind in (ASSOCIATE_RJ, ABORT):
            raise EndedError(
                f"{'rejected' if kind == ASSOCIATE_RJ else 'aborted'}, {body[1:4].hex(' ')}"
            )
        return kind, body

    def associate(self, contexts: Contexts, **options: object) -> dict[int, str]:
        """Negotiate: the transfer syntax of every accepted presentation context."""
        self.send(associate_rq(contexts, **options))  # type: ignore[arg-type]
        kind, body = self.receive()
        assert kind == ASSOCIATE_AC, f"PDU of type {kind} in answer to an association request"
        accepted: dict[int, str] = {}
        at = 68
        while at < len(body):
            found, length = struct.unpack_from(">BxH", body, at)
            inner = body[at + 4 : at + 4 + length]
            if found == 0x21 and inner[2] == 0:
                (size,) = struct.unpack_from(">H", inner, 6)
                accepted[inner[0]] = inner[8 : 8 + size].decode("ascii").rstrip("\0")
            at += 4 + length
        return accepted

    def store(
        self, context: int, sop_class: str, sop_uid: str, data: bytes, message_id: int = 1
    ) -> Response:
        """C-STORE of the bytes of a data set."""
        self.send(p_data(context, COMMAND_LAST, store_rq(sop_class, sop_uid, message_id)))
        for start in range(0, len(data), _FRAGMENT):
            last = start + _FRAGMENT >= len(data)
            piece = data[start : start + _FRAGMENT]
            self.send(p_data(context, DATA_LAST if last else DATA, piece))
        if not data:
            self.send(p_data(context, DATA_LAST, b""))
        return self.response()

    def response(self) -> Response:
        """The next response."""
        content = b""
        while True:
            kind, body = self.receive()
            assert kind == P_DATA, f"PDU of type {kind} in place of a response"
            flags, content = body[5], content + body[6:]
            if flags == COMMAND_LAST:
                return _response(content)

    def release(self) -> None:
        """A-RELEASE, answered."""
        self.send(pdu(RELEASE_RQ, bytes(4)))
        kind, _ = self.receive()
        assert kind == RELEASE_RP, f"PDU of type {kind} in answer to a release"

    def rest(self) -> bytes:
        """All that comes until the node closes the connection; it has to, within the time-out."""
        said = b""
        try:
            while piece := self.socket.recv(65536):
                said += piece
        except ConnectionError:
            pass
        return said

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            try:
                piece = self.socket.recv(count - len(data))
            except ConnectionError as error:
                raise EndedError("closed by reset") from error
            if not piece:
                raise EndedError("closed")
            data += piece
        return data


def _response(content: bytes) -> Response:
    values: dict[int, bytes] = {}
    at = 0
    while at < len(content):
        group, number, length = struct.unpack_from("<HHL", content, at)
        assert group == 0, "an answer with a command set that is none"
        values[number] = content[at + 8 : at + 8 + length]
        at += 8 + length
    (status,) = struct.unpack("<H", values[0x0900])
    (answered,) = struct.unpack("<H", values[0x0120])
    return Response(status, values.get(0x0902, b"").decode("ascii").strip(), answered)


@contextmanager
def wire(port: int) -> Iterator[Wire]:
    """A connection, closed at the end."""
    opened = Wire(port)
    try:
        yield opened
    finally:
        opened.socket.close()
