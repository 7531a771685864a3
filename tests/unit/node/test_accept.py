"""What clients accept and what they get; the headers are those of clients in use."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.dicomweb.accept import (
    MAX_RANGES,
    MediaType,
    NotAMediaType,
    Offer,
    choose,
    parse_accept,
    parse_media_type,
)

J2K, LITTLE = "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.1"
STORED = Offer("image/jp2", J2K, multipart=True, stored=True)
PLAIN = Offer("application/octet-stream", LITTLE, multipart=True)
ONE = Offer("image/jp2", J2K, stored=True)
JSON = Offer("application/dicom+json")
OFFERS = (STORED, PLAIN, ONE, JSON)


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", STORED),
        ("*/*", STORED),
        ("multipart/related", STORED),
        ('multipart/related; type="image/jp2"', STORED),
        (f'multipart/related; type="image/jp2"; transfer-syntax={J2K}', STORED),
        ("multipart/related; type=image/jp2; transfer-syntax=*", STORED),
        ("multipart/related; type=image/*", STORED),
        # viewers: any form that is stored
        ("multipart/related; type=application/octet-stream; transfer-syntax=*", STORED),
        ('multipart/related; type="application/octet-stream"', PLAIN),
        (f'multipart/related; type="application/octet-stream"; transfer-syntax={LITTLE}', PLAIN),
        ('multipart/related; type="image/jls"', None),
        (f'multipart/related; type="image/jp2"; transfer-syntax={J2K[:-1]}1', None),
        ("image/jp2", ONE),
        ("IMAGE/JP2", ONE),
        ("image/png", None),
        ("application/dicom+json", JSON),
        ("application/json, application/dicom+json", JSON),
        ("text/html,application/xhtml+xml,*/*;q=0.8", STORED),
        ("application/dicom+json;q=0.5, multipart/related;q=0.4", JSON),
        ('multipart/related; type="image/jp2"; q=0.1, multipart/related; q=0.9', PLAIN),
        ("multipart/related;q=0", None),
        ("*/*, application/dicom+json", JSON),
        ("*/*;q=0.9, application/dicom+json", JSON),
        (
            f'multipart/related; type="image/jls"; transfer-syntax=1.2.3, '
            f'multipart/related; type="image/jp2"; transfer-syntax={J2K}',
            STORED,
        ),
    ],
)
def test_what_a_client_gets(accept: str, expected: Offer | None) -> None:
    assert choose(accept, OFFERS) == expected


def test_content_types() -> None:
    assert STORED.content_type == f"image/jp2; transfer-syntax={J2K}"
    assert JSON.content_type == "application/dicom+json"


@pytest.mark.parametrize(
    "text", ["nonsense", "a/b c/d", "/", "a/b;q=1 x", "a/b; ;;=", 'a/b; x="', ";", "ü/x", "a/b;;"]
)
def test_headers_that_are_none(text: str) -> None:
    if text == "a/b;;":
        assert parse_accept(text) == [MediaType("a/b")]
        return
    with pytest.raises(NotAMediaType):
        parse_accept(text)


def test_a_header_has_limits() -> None:
    with pytest.raises(NotAMediaType, match="more than"):
        parse_accept(", ".join(["a/b"] * (MAX_RANGES + 1)))
    with pytest.raises(NotAMediaType, match="characters"):
        parse_accept("a/b;x=" + "y" * 9000)


def test_quoted_values_may_hold_anything() -> None:
    found = parse_media_type(r'Multipart/Related; TYPE="a;b,c \" d"; boundary=x')
    assert found == MediaType("multipart/related", (("type", 'a;b,c " d'), ("boundary", "x")))
    assert found.parameter("nothing") is None


@given(st.text(max_size=200))
@settings(deadline=None, max_examples=300)
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        chosen = choose(text, OFFERS)
    except NotAMediaType:
        return
    assert chosen is None or chosen in OFFERS


TOKEN = st.text("abcxyz019.*+-", min_size=1, max_size=6)


@given(
    st.lists(
        st.tuples(TOKEN, TOKEN, st.lists(st.tuples(TOKEN, st.text('ab;,"\\ /=', max_size=6)))),
        min_size=1,
        max_size=5,
    )
)
@settings(deadline=None, max_examples=200)
def test_what_is_written_is_read(ranges: list[tuple[str, str, list[tuple[str, str]]]]) -> None:
    def quoted(value: str) -> str:
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'

    text = ", ".join(
        f"{a}/{b}" + "".join(f"; {name}={quoted(value)}" for name, value in parameters)
        for a, b, parameters in ranges
    )
    assert parse_accept(text) == [
        MediaType(f"{a}/{b}", tuple(parameters)) for a, b, parameters in ranges
    ]
