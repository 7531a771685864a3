"""STOW-RS bodies and QIDO-RS queries that nobody would send on purpose: a status below 500, and nothing left over."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.dicomweb.errors import BadRequest
from node.dicomweb.multipart import BadMultipart, Limits, Part, Reader, boundary_of, write
from node.dicomweb.query import search_of
from node.models import Instance
from tests.fuzz.budget import budget
from tests.fuzz.mutations import Mutation, mutated, mutations
from tests.support.listening import left_behind, rows, stored
from tests.support.objects import write_object
from tests.support.services import wait_until
from tests.support.watched import Watched

GROWN = 64 << 20  # bytes
KIND = 'multipart/related; type="application/dicom"; boundary=b'


@pytest.fixture(autouse=True)
def _unharmed(node: Watched, tmp_path: Path) -> Iterator[None]:
    """After each test: a good object is stored over the web, and nothing is left over."""
    first = node.held()
    yield
    path = tmp_path / "good.dcm"
    uid = str(write_object(path).SOPInstanceUID)
    answer = node.web.post("/dicom-web/studies", headers={"Content-Type": KIND}, content=body(path))
    assert answer.status_code == 200, answer.text
    node.check(first, GROWN)
    assert uid in stored(node.settings)
    assert left_behind(node.settings) == []


def body(*paths: Path) -> bytes:
    return b"".join(write([Part("application/dicom", [path.read_bytes()]) for path in paths], "b"))


def test_mutated_bodies(node: Watched, tmp_path: Path) -> None:
    path = tmp_path / "object.dcm"

    @budget(40)
    @given(changes=mutations(4, 3000))
    def run(changes: list[Mutation]) -> None:
        write_object(path)
        content = mutated(body(path, path), changes)
        answer = node.web.post(
            "/dicom-web/studies", headers={"Content-Type": KIND}, content=content
        )
        assert answer.status_code in (200, 202, 400, 409, 413), answer.text
        if answer.status_code not in (200, 202):
            assert answer.json()

    run()


@budget(150)
@given(
    content=st.lists(
        st.one_of(
            st.sampled_from([b"--b", b"\r\n", b"--", b"A: b", b":", b"\r\n\r\n", b"--b\r\n", b"--b--"]),
            st.binary(max_size=30),
        ),
        max_size=20,
    ).map(b"".join),
    pieces=st.integers(1, 40),
)  # fmt: skip
def test_the_reader_of_parts_takes_any_bytes(content: bytes, pieces: int) -> None:
    reader = Reader(b"b", Limits(64, header_bytes=64, parts=4))
    with suppress(BadMultipart):  # the only error there may be
        for at in range(0, len(content), pieces):
            for event in reader.feed(content[at : at + pieces]):
                assert event
        reader.finish()


@budget(60)
@given(st.text(max_size=60), st.booleans())
def test_content_types(text: str, after_a_good_one: bool) -> None:
    with suppress(BadMultipart):
        boundary, _ = boundary_of(f"{KIND}; {text}" if after_a_good_one else text)
        assert 0 < len(boundary) <= 70


NAMES = st.one_of(
    st.sampled_from(
        ["PatientName", "00100020", "StudyDate", "StudyTime", "StudyInstanceUID", "limit", "offset", "includefield",
         "ModalitiesInStudy", "InstanceNumber", "fuzzymatching", "00081115.0020000D", "NumberOfStudyRelatedInstances"]
    ),
    st.text(max_size=12),
)  # fmt: skip
VALUES = st.one_of(
    st.sampled_from(
        ["*", "?", "-", "20260101-", "-20269999", "99999999", "1.2\\3", "%", "_", "'", "\x00", "-1", "1e9", "9" * 30,
         "1,2", "\\" * 50, "*" * 2000, "[a-z]", "10-09", "2026.01.01", "\ud800"]
    ),
    st.text(max_size=20),
)  # fmt: skip
QUERIES = st.lists(st.tuples(NAMES, VALUES), max_size=4)


@budget(80)
@given(QUERIES)
def test_parameters_of_a_search(parameters: list[tuple[str, str]]) -> None:
    with suppress(BadRequest):
        assert 0 <= search_of(parameters).limit <= 1000


def test_searches(node: Watched) -> None:
    @budget(60)
    @given(st.sampled_from(["studies", "series", "instances"]), QUERIES)
    def run(level: str, parameters: list[tuple[str, str]]) -> None:
        sent = [(n.encode("utf-8", "replace"), v.encode("utf-8", "replace")) for n, v in parameters]
        answer = node.web.get(f"/dicom-web/{level}", params=sent)  # type: ignore[arg-type]
        assert answer.status_code in (200, 400), answer.text
        assert isinstance(answer.json(), list if answer.status_code == 200 else dict)

    run()


PATHS = st.lists(st.text(max_size=8), min_size=1, max_size=3).map("/".join)


def test_addresses(node: Watched, tmp_path: Path) -> None:
    """Below a stored object, and anywhere."""
    path = tmp_path / "object.dcm"
    uid = str(write_object(path).StudyInstanceUID)
    node.web.post("/dicom-web/studies", headers={"Content-Type": KIND}, content=body(path))

    @budget(50)
    @given(
        PATHS, st.sampled_from(["", f"studies/{uid}/", f"studies/{uid}/series/1.2/instances/1.2/"])
    )
    def run(below: str, where: str) -> None:
        quoted = "".join(f"%{byte:02X}" for byte in below.encode("utf-8", "replace"))
        answer = node.web.get(f"/dicom-web/{where}{quoted}")
        assert answer.status_code < 500, answer.text

    run()


def test_clients_that_go_in_the_middle_of_an_answer(node: Watched, tmp_path: Path) -> None:
    """Each has asked for an object far larger than what the sockets hold, reads a little and goes."""
    path = tmp_path / "large.dcm"
    dataset = write_object(path, PixelData=bytes(24 << 20))
    answer = node.web.post("/dicom-web/studies", headers={"Content-Type": KIND}, content=body(path))
    assert answer.status_code == 200
    blob = next(
        row.sha256 for row in rows(node.settings, Instance) if row.sop_uid == dataset.SOPInstanceUID
    )
    address = f"/dicom-web/studies/{dataset.StudyInstanceUID}"
    for accept in ("multipart/related; type=application/dicom", "*/*"):
        for _ in range(10):
            with socket.create_connection(("127.0.0.1", node.settings.web_port), 30) as client:
                client.sendall(
                    f"GET {address} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: {accept}\r\n\r\n".encode()
                )
                assert client.recv(1000).startswith(b"HTTP/1.1 200")
    wait_until(lambda: not node.opened(blob), 20, "the object's file to be closed")
