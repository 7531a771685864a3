"""Bodies of several parts: what is written is read again in any pieces, and what is none is refused."""

from __future__ import annotations

import email.parser
import email.policy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.dicomweb.multipart import (
    BadMultipart,
    Limits,
    Part,
    PartBegins,
    PartData,
    PartEnds,
    Reader,
    TooLarge,
    boundary_of,
    content_type,
    new_boundary,
    write,
)

ROOMY = Limits(part_bytes=1 << 20)
# Content that looks like a boundary, or like the beginning of one
TRICKY = st.lists(
    st.sampled_from(
        [b"\r\n", b"--", b"b", b"\r", b"\n", b"--b", b"\r\n--", b"\r\n--c", b"x", b"\0"]
    ),
    max_size=12,
).map(b"".join)


def read(body: bytes, pieces: int = 1 << 20, limits: Limits = ROOMY, boundary: bytes = b"b"):
    """[(headers, content)] of a body that comes in pieces of so many bytes."""
    reader, parts = Reader(boundary, limits), []
    open_part = False
    for at in range(0, len(body), pieces):
        for event in reader.feed(body[at : at + pieces]):
            if isinstance(event, PartBegins):
                assert not open_part
                open_part = True
                parts.append((dict(event.headers), b""))
            elif isinstance(event, PartData):
                assert open_part
                assert event.data
                parts[-1] = (parts[-1][0], parts[-1][1] + event.data)
            else:
                assert isinstance(event, PartEnds)
                open_part = False
    reader.finish()
    assert not open_part
    return parts


@given(
    contents=st.lists(TRICKY.filter(lambda c: b"\r\n--b" not in b"\r\n" + c), max_size=4),
    pieces=st.integers(1, 40),
)
@settings(deadline=None, max_examples=200)
def test_what_is_written_is_read_in_any_pieces(contents: list[bytes], pieces: int) -> None:
    body = b"".join(write([Part("application/dicom", [c[:3], c[3:]]) for c in contents], "b"))
    found = read(body, pieces)
    assert [content for _, content in found] == contents
    assert all(headers == {"content-type": "application/dicom"} for headers, _ in found)


@given(
    body=st.lists(st.one_of(TRICKY, st.binary(max_size=20)), max_size=8), pieces=st.integers(1, 9)
)
@settings(deadline=None, max_examples=200)
def test_any_bytes_are_read_or_refused_and_pieces_make_no_difference(
    body: list[bytes], pieces: int
) -> None:
    def outcome(size: int) -> object:
        try:
            return read(
                b"--b" + b"".join(body), size, Limits(part_bytes=64, header_bytes=32, parts=3)
            )
        except BadMultipart as error:
            return type(error)

    # Which limit is noticed first may depend on the pieces; whether one is, does not.
    whole, in_pieces = outcome(1 << 20), outcome(pieces)
    assert isinstance(whole, list) == isinstance(in_pieces, list)
    if isinstance(whole, list):
        assert whole == in_pieces


def test_other_programs_read_it() -> None:
    boundary = new_boundary()
    kind = content_type(boundary, "application/dicom")
    parts = [Part("application/dicom", [b"one\r\n"]), Part("image/jp2", [b"two"], "/x/frames/2")]
    raw = f"Content-Type: {kind}\r\n\r\n".encode() + b"".join(write(parts, boundary))
    message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(raw)
    assert not message.defects
    first, second = message.iter_parts()
    assert first.get_payload(decode=True) == b"one\r\n"
    assert second.get_content_type() == "image/jp2"
    assert second["Content-Location"] == "/x/frames/2"
    assert boundary_of(kind) == (boundary.encode(), "application/dicom")


def test_preamble_padding_and_epilogue_are_passed_over() -> None:
    body = b"for readers of mail\r\n--b  \r\nA: 1\r\nB:2\r\n\r\nhello\r\n--b\r\n\r\nx\r\n--b--\r\nthe end"
    for pieces in range(1, 12):
        assert read(body, pieces) == [({"a": "1", "b": "2"}, b"hello"), ({}, b"x")]


def test_a_body_without_parts() -> None:
    assert read(b"--b--") == []
    assert b"".join(write([], "b")) == b"--b--\r\n"


def test_memory_does_not_grow_with_a_part() -> None:
    reader = Reader(b"b", Limits(part_bytes=1 << 30))
    reader.feed(b"--b\r\n\r\n")
    for _ in range(200):
        given_on = sum(len(e.data) for e in reader.feed(b"\r\n" * 4096) if isinstance(e, PartData))
        assert given_on >= 8192 - 16
    assert len(reader._buffer) < 16


@pytest.mark.parametrize(
    ("body", "limits", "message"),
    [
        (b"--b\r\n\r\n12345\r\n--b--", Limits(part_bytes=4), "part of more than 4 bytes"),
        (b"--b\r\nA: " + b"x" * 99, Limits(9, header_bytes=50), "beyond 50 bytes"),
        (b"--b\r\n\r\n1\r\n" * 3 + b"--b--", Limits(9, parts=2), "more than 2 parts"),
    ],
)
def test_limits(body: bytes, limits: Limits, message: str) -> None:
    for pieces in (1, 7, 1000):
        with pytest.raises(TooLarge, match=message):
            read(body, pieces, limits)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "ends before"),
        (b"no boundary", "ends before"),
        (b"--b\r\nA: 1\r\n\r\ncut of", "ends before"),
        (b"--bx\r\n\r\n1\r\n--b--", "followed by something else"),
        (b"--b\r\nno header\r\n\r\n1\r\n--b--", "that is none"),
        (b"x" * 100_000, "no boundary within"),
    ],
)
def test_bodies_that_are_none(body: bytes, message: str) -> None:
    for pieces in (3, 1 << 20):
        with pytest.raises(BadMultipart, match=message):
            read(body, pieces)


@pytest.mark.parametrize(
    "kind",
    [
        "",
        "application/dicom",
        "multipart/form-data; boundary=b",
        "multipart/related",
        "multipart/related; boundary=",
        f"multipart/related; boundary={'x' * 71}",
    ],
)
def test_content_types_without_a_boundary(kind: str) -> None:
    with pytest.raises(BadMultipart):
        boundary_of(kind)


def test_a_boundary_may_be_quoted() -> None:
    kind = 'Multipart/Related; Type="application/dicom"; BOUNDARY="a b:c"'
    assert boundary_of(kind) == (b"a b:c", "application/dicom")
