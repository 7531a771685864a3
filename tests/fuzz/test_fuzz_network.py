"""A listener in a process of its own, and peers that break every rule: it goes on serving, and nothing is left over."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.models import Instance
from tests.fuzz.budget import budget
from tests.fuzz.mutations import Mutation, mutated, mutations
from tests.support.listening import left_behind, rows, stored
from tests.support.objects import data_set_bytes, write_object
from tests.support.watched import EXPLICIT_LITTLE, Watched
from tests.support.wire import (
    ABORT,
    ASSOCIATE_RQ,
    COMMAND_LAST,
    DATA_LAST,
    P_DATA,
    RELEASE_RQ,
    EndedError,
    Response,
    Wire,
    associate_rq,
    command,
    p_data,
    pdu,
    store_rq,
    wire,
)

TOMOSYNTHESIS = "1.2.840.10008.5.1.4.1.1.13.1.3"
CONTEXTS = {1: (TOMOSYNTHESIS, [EXPLICIT_LITTLE]), 3: ("1.2.840.10008.1.1", [EXPLICIT_LITTLE])}
GROWN = 64 << 20  # bytes


@pytest.fixture(autouse=True)
def _unharmed(node: Watched, tmp_path: Path) -> Iterator[None]:
    """After each test: a good object is stored, and nothing is left over, neither files nor blobs without rows."""
    first = node.held()
    yield
    uid = node.good(tmp_path)
    node.check(first, GROWN)
    assert uid in stored(node.settings)  # which also hashes every blob
    assert left_behind(node.settings) == []


def an_object(folder: Path, **attributes: object) -> tuple[str, bytes]:
    """UID and data set of a small object."""
    path = folder / "object.dcm"
    dataset = write_object(path, **attributes)
    return str(dataset.SOPInstanceUID), data_set_bytes(path.read_bytes())


def said(node: Watched, data: bytes) -> bytes:
    """Send bytes, say that no more come, and read until the node closes: it has to."""
    with wire(node.listener.port) as sender:
        try:
            sender.send(data)
            sender.socket.shutdown(socket.SHUT_WR)
        except (EndedError, OSError):
            pass
        return sender.rest()


# --- generated ---


def conversation(folder: Path) -> bytes:
    """A whole association: two objects and a release."""
    content = associate_rq(CONTEXTS)
    for number in (1, 2):
        uid, data = an_object(folder)
        content += p_data(1, COMMAND_LAST, store_rq(TOMOSYNTHESIS, uid, number))
        content += p_data(1, DATA_LAST, data)
    return content + pdu(RELEASE_RQ, bytes(4))


def test_mutated_conversations(node: Watched, tmp_path: Path) -> None:
    @budget(40)
    @given(changes=mutations(4, 4000))
    def run(changes: list[Mutation]) -> None:
        said(node, mutated(conversation(tmp_path), changes))

    run()


def test_mutated_requests_for_an_association(node: Watched) -> None:
    @budget(40)
    @given(changes=mutations(4, 400))
    def run(changes: list[Mutation]) -> None:
        said(node, mutated(associate_rq(CONTEXTS), changes) + pdu(RELEASE_RQ, bytes(4)))

    run()


KINDS = st.integers(0, 9)
FLAGS = st.sampled_from([0, 1, 2, 3, 3, 2, 7, 255])
PIECES = st.one_of(
    st.builds(pdu, KINDS, st.binary(max_size=40)),
    st.builds(pdu, KINDS, st.binary(max_size=8), st.sampled_from([0, 1, 5, 0xFFFFFFFF, 70000])),
    st.builds(p_data, st.sampled_from([0, 1, 2, 3, 255]), FLAGS, st.binary(max_size=64)),
    st.builds(
        lambda context, fields: p_data(context, COMMAND_LAST, command(fields)),
        st.sampled_from([1, 3]),
        st.dictionaries(
            st.sampled_from([0x2, 0x3, 0x100, 0x110, 0x120, 0x600, 0x700, 0x800, 0x900, 0x1000, 0x1002]),
            st.sampled_from([b"", b"\1\0", b"\x30\0", b"\x20\0", b"\x21\0", b"\x10\0", b"\xff\x0f", b"\1\1", b"1.2.3"]),
        ),
    ),
)  # fmt: skip


def test_messages_in_any_order(node: Watched) -> None:
    @budget(50)
    @given(pieces=st.lists(PIECES, min_size=1, max_size=6), begun=st.booleans())
    def run(pieces: list[bytes], begun: bool) -> None:
        said(node, (associate_rq(CONTEXTS) if begun else b"") + b"".join(pieces))

    run()


# --- by hand: PDUs ---


@pytest.mark.parametrize("length", [0, 1, 0xFFFFFFFF])
@pytest.mark.parametrize("kind", [0, ASSOCIATE_RQ, P_DATA, RELEASE_RQ, ABORT, 255])
def test_lengths_of_pdus_that_are_lies(node: Watched, kind: int, length: int) -> None:
    said(node, pdu(kind, b"", length))
    said(node, associate_rq(CONTEXTS) + pdu(kind, b"", length))


@pytest.mark.parametrize("numbers", [(2,), (0,), (1, 1), (1, 257), ()])
def test_presentation_contexts_with_numbers_that_may_not_be(
    node: Watched, numbers: tuple[int, ...]
) -> None:
    """Even ones, 0, one twice, none at all (PS3.8 9.3.2.2): an answer or an abort."""
    one, none = associate_rq({1: CONTEXTS[1]}), associate_rq({})
    at = len(none) - none[::-1].index(b"\x50") - 1  # the user information comes last
    context = one[at : at + len(one) - len(none)]
    given = [context[:4] + bytes([number & 255]) + context[5:] for number in numbers]
    body = none[6:at] + b"".join(given) + none[at:]
    answer = said(node, pdu(ASSOCIATE_RQ, body) + pdu(RELEASE_RQ, bytes(4)))
    assert answer[:1] in (b"", b"\2", b"\3", b"\7")


def test_looks_at_the_port_hold_no_place(node: Watched, tmp_path: Path) -> None:
    """Connections without a request, as of a health check: three times as many as there may be associations."""
    for data in (b"", b"GET / HTTP/1.1\r\n\r\n", associate_rq(CONTEXTS)[:50]):
        for _ in range(20):
            said(node, data)
    assert node.good(tmp_path) in stored(node.settings)


def test_more_associations_than_there_may_be(node: Watched) -> None:
    """Two hundred at once where twenty are allowed: each is let in or turned away, and afterwards there is room."""
    senders = [Wire(node.listener.port) for _ in range(200)]
    ends: list[str] = []
    try:
        for sender in senders:
            try:
                sender.send(associate_rq(CONTEXTS))
                kind, _ = sender.receive()
                ends.append(f"accepted {kind}")
            except EndedError as error:
                ends.append(str(error))
    finally:
        for sender in senders:
            sender.socket.close()
    assert 0 < ends.count("accepted 2") <= 200
    assert all(end.startswith(("accepted 2", "rejected", "aborted", "closed")) for end in ends)


# --- by hand: messages ---


@pytest.fixture
def sender(node: Watched) -> Iterator[Wire]:
    with wire(node.listener.port) as opened:
        assert opened.associate(CONTEXTS) == {1: EXPLICIT_LITTLE, 3: EXPLICIT_LITTLE}
        yield opened


def outcome(act: Callable[[], Response]) -> int | str:
    """The status of an answer, or how the association ended."""
    try:
        return act().status
    except EndedError as error:
        return str(error).split(",")[0]


def test_a_store_request_without_a_data_set(sender: Wire) -> None:
    sender.send(p_data(1, COMMAND_LAST, store_rq(TOMOSYNTHESIS, "1.2.3", data_set=0x0101)))
    assert outcome(sender.response) in (0xC000, "aborted")


def test_data_before_its_command(node: Watched, tmp_path: Path) -> None:
    uid, data = an_object(tmp_path)
    said(node, associate_rq(CONTEXTS) + p_data(1, DATA_LAST, data))
    command_late = p_data(1, COMMAND_LAST, store_rq(TOMOSYNTHESIS, uid))
    said(node, associate_rq(CONTEXTS) + p_data(1, DATA_LAST, data) + command_late)
    assert uid not in stored(node.settings)


def test_a_context_that_was_not_negotiated(node: Watched, sender: Wire, tmp_path: Path) -> None:
    uid, data = an_object(tmp_path)
    assert outcome(lambda: sender.store(9, TOMOSYNTHESIS, uid, data)) in ("aborted", "closed")
    assert uid not in stored(node.settings)


@pytest.mark.parametrize("number", [0, 1, 0xFFFF])
def test_message_ids_come_back_as_they_were(sender: Wire, tmp_path: Path, number: int) -> None:
    uid, data = an_object(tmp_path)
    assert sender.store(1, TOMOSYNTHESIS, uid, data, number) == Response(0, "", number)
    again = sender.store(1, TOMOSYNTHESIS, uid, data, number)
    assert (again.status, again.message_id) == (0, number)


def test_classes_and_syntaxes_that_nobody_knows(node: Watched) -> None:
    private = "1.2.840.113619.5.2"  # implicit VR big endian, of one maker
    with wire(node.listener.port) as opened:
        contexts = {
            1: (TOMOSYNTHESIS, [private]),
            3: ("1.2.3.4.5", [EXPLICIT_LITTLE]),
            5: (TOMOSYNTHESIS, [private, EXPLICIT_LITTLE]),
        }
        assert opened.associate(contexts) == {5: EXPLICIT_LITTLE}
        opened.release()


# --- by hand: data sets ---


def uid_element(tag: bytes, uid: str) -> bytes:
    value = uid.encode() + b"\0" * (len(uid) % 2)
    return tag + b"UI" + struct.pack("<H", len(value)) + value


STRANGE: dict[str, Callable[[bytes], bytes]] = {
    "nothing": lambda data: b"",
    "one byte": lambda data: b"\x08",
    "a preamble": lambda data: bytes(128) + b"DICM" + data,
    "cut pixels": lambda data: data[:-100],
    "cut header": lambda data: data[:60],
    "no classes": lambda data: data.replace(b"\x08\0\x16\0UI", b"\x08\0\x15\0UI"),
    "garbage": lambda data: b"\x08\0" + bytes(range(256)) * 8,
}


@pytest.mark.parametrize("strange", STRANGE)
def test_a_strange_data_set_is_refused_and_its_neighbour_kept(
    node: Watched, sender: Wire, tmp_path: Path, strange: str
) -> None:
    uid, data = an_object(tmp_path)
    answer = sender.store(1, TOMOSYNTHESIS, uid, STRANGE[strange](data))
    assert answer.status == 0xC000, answer
    assert answer.comment
    assert uid not in stored(node.settings)
    assert sender.store(1, TOMOSYNTHESIS, uid, data, 2).status == 0
    sender.release()


def test_elements_where_they_do_not_belong_are_kept_as_they_came(
    node: Watched, sender: Wire, tmp_path: Path
) -> None:
    """File meta information before the data set, which names another syntax, and an attribute given twice."""
    uid, data = an_object(tmp_path)
    meta = uid_element(b"\2\0\x10\0", "1.2.840.10008.1.2.4.90")
    assert sender.store(1, TOMOSYNTHESIS, uid, meta + data).status == 0
    [row] = [row for row in rows(node.settings, Instance) if row.sop_uid == uid]
    assert row.transfer_syntax_uid == EXPLICIT_LITTLE
    twice, data = an_object(tmp_path)
    assert sender.store(1, TOMOSYNTHESIS, twice, data[:30] + data, 2).status in (0, 0xC000)
    sender.release()


NO_UIDS = ["", "1." + "2" * 63, "1.2.a", "1.2.3\\1.2.4", "..", ".1"]


@pytest.mark.parametrize("uid", NO_UIDS)
def test_uids_that_are_none(node: Watched, tmp_path: Path, uid: str) -> None:
    """In the command, where there may be nothing to answer to, and in the data set."""
    _, data = an_object(tmp_path)
    with wire(node.listener.port) as sender:
        sender.associate(CONTEXTS)
        status = outcome(lambda: sender.store(1, TOMOSYNTHESIS, uid, data))
        assert status in (0xA900, 0xC000, "aborted", "closed")
    named, data = an_object(tmp_path, StudyInstanceUID=uid)
    with wire(node.listener.port) as sender:
        sender.associate(CONTEXTS)
        assert sender.store(1, TOMOSYNTHESIS, named, data, 2).status == 0xC000
        sender.release()


# --- by hand: senders ---


def test_a_sender_that_gives_a_few_bytes_at_a_time(
    node: Watched, sender: Wire, tmp_path: Path
) -> None:
    uid, data = an_object(tmp_path)
    content = p_data(1, COMMAND_LAST, store_rq(TOMOSYNTHESIS, uid)) + p_data(1, DATA_LAST, data)
    for start in range(0, len(content), 5):
        sender.send(content[start : start + 5])
    assert sender.response().status == 0
    assert uid in stored(node.settings)


def test_a_sender_that_is_gone_in_the_middle(node: Watched, sender: Wire, tmp_path: Path) -> None:
    uid, data = an_object(tmp_path)
    sender.send(p_data(1, COMMAND_LAST, store_rq(TOMOSYNTHESIS, uid)))
    sender.send(p_data(1, DATA_LAST, data)[:-20])
    sender.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sender.socket.close()  # a reset, as when the process is killed
    assert uid not in stored(node.settings)
