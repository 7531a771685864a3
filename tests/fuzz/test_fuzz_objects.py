"""Data sets that nobody would write on purpose, read in every way: an error of the tree, within memory and time."""

from __future__ import annotations

import struct
import tempfile
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_io import parse
from dicom_io.syntaxes import DEFLATED, EXPLICIT_BIG, EXPLICIT_LITTLE, IMPLICIT_LITTLE, RLE_LOSSLESS
from node.spool import Command, file_meta
from tests.fuzz.budget import budget
from tests.fuzz.mutations import Mutation, mutated, mutations
from tests.support.breast_objects import encode, view_file, volume, with_frames, with_syntax
from tests.support.objects import data_set_bytes, write_object
from tests.support.readers import READ, read_every_way
from tests.support.watched import memory_within

ROOT_UID = "1.2.840.10008.1.2"
UNCOMPRESSED = (IMPLICIT_LITTLE, EXPLICIT_LITTLE, EXPLICIT_BIG, DEFLATED, ROOT_UID + ".1.98")
COMPRESSED = (RLE_LOSSLESS, *(f"{ROOT_UID}.4.{tail}" for tail in ("70", "80", "90", "201")))
GROWN = 150 << 20  # bytes; far above what these small objects need
TOMOSYNTHESIS = "1.2.840.10008.5.1.4.1.1.13.1.3"
END_OF_ITEM = b"\xfe\xff\x0d\xe0\0\0\0\0"
END_OF_SEQUENCE = b"\xfe\xff\xdd\xe0\0\0\0\0"
ITEM = b"\xfe\xff\x00\xe0\xff\xff\xff\xff"


def read(content: bytes) -> dict[str, str]:
    """Every way of reading a file of these bytes, and how it ended."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "fuzzed.dcm"
        path.write_bytes(content)
        return read_file(path)


def read_file(path: Path) -> dict[str, str]:
    """The same for a file; reading it takes no more memory than an object of this size may."""
    scratch = path.with_suffix(".scratch")
    with memory_within(GROWN):
        return {o.way: o.said for o in read_every_way(path, scratch)}


@cache
def good(syntax: str) -> bytes:
    """A small tomosynthesis object in a transfer syntax."""
    with tempfile.TemporaryDirectory() as folder:
        frames_DHW = volume(shape=(3, 24, 16))
        path = view_file(Path(folder), volume_DHW=frames_DHW)
        if syntax in UNCOMPRESSED:
            return with_syntax(path, syntax).read_bytes()
        frames = [encode(frame, syntax) for frame in frames_DHW]
        return with_frames(path, frames, syntax, fragments=1).read_bytes()


@pytest.mark.parametrize("syntax", [*UNCOMPRESSED, *COMPRESSED])
def test_the_objects_to_begin_with_are_good(syntax: str) -> None:
    assert set(read(good(syntax)).values()) == {READ}


@budget(60)
@given(syntax=st.sampled_from([*UNCOMPRESSED, *COMPRESSED]), changes=mutations())
def test_bytes_changed_anywhere(syntax: str, changes: list[Mutation]) -> None:
    content = good(syntax)
    head = len(content) - len(data_set_bytes(content))
    if syntax == DEFLATED:
        data = mutated(zlib.decompress(content[head:], -zlib.MAX_WBITS), changes)
        engine = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        read(content[:head] + engine.compress(data) + engine.flush())
    else:
        read(content[:head] + mutated(content[head:], changes))


@budget(25)
@given(syntax=st.sampled_from([DEFLATED, *COMPRESSED]), changes=mutations())
def test_bytes_changed_in_what_is_compressed(syntax: str, changes: list[Mutation]) -> None:
    content = good(syntax)
    tail = 3000  # the pixel data lies at the end
    read(content[:-tail] + mutated(content[-tail:], changes))


# --- data sets element by element ---

TAGS = [
    *(0x00020010, 0x00000002, 0x00080005, 0x00080008, 0x00080016, 0x00080018, 0x00080060, 0x00080068),
    *(0x00100010, 0x00100020, 0x00181164, 0x0020000D, 0x00200062, 0x00280002, 0x00280004, 0x00280006),
    *(0x00280008, 0x00280010, 0x00280011, 0x00280030, 0x00280100, 0x00280101, 0x00280102, 0x00280103),
    *(0x00280120, 0x00281050, 0x00281051, 0x00281052, 0x00281053, 0x00282110, 0x00282112, 0x00540220),
    *(0x52009229, 0x52009230, 0x00209111, 0x7E010010, 0x7FE00001, 0x7FE00008, 0x7FE00010, 0xFFFEE000),
    *(0x00089215, 0x00880200, 0x00211001, 0xFFFCFFFC, 0x00480106),
]  # fmt: skip
VALUES = [
    *(b"", b"\\" * 9, b"ISO 2022 IR 87\\ISO 2022 IR 149", b"\x1b$B\x30\x1b(J", b"GB18030", b"ISO_IR 999"),
    *(b"1", b"0", b"-1", b"1e999", b"nan", b"inf", b"99999999999999999999", b"1.5\\x", b"MONOCHROME1"),
    *(b"PALETTE COLOR", b"YBR_FULL_422", b"L\\R", b"01", b"\xff\xff", b"\1\0", b"\0\0", b"\x10\0"),
    *(b"1.2." + b"3" * 70, b"\0" * 64, b"\xff\xd8\xff\xe0", b"\xc3\x28\xa0", "Ж".encode()),
]  # fmt: skip
VRS = [
    b"UI",
    b"US",
    b"CS",
    b"LO",
    b"PN",
    b"DS",
    b"IS",
    b"SQ",
    b"OB",
    b"OW",
    b"UN",
    b"FD",
    b"AT",
    b"UT",
    b"ZZ",
]
LONG = (b"OB", b"OW", b"SQ", b"UN", b"UT")


def element(tag: int, vr: bytes, value: bytes, length: int | None = None) -> bytes:
    """An element in explicit VR little endian, with a length of its own or another one."""
    head = struct.pack("<HH2s", tag >> 16, tag & 0xFFFF, vr)
    length = len(value) if length is None else length
    if vr in LONG:
        return head + struct.pack("<HL", 0, length & 0xFFFFFFFF) + value
    return head + struct.pack("<H", length & 0xFFFF) + value


def plain() -> st.SearchStrategy[bytes]:
    """One element that holds no other."""
    value = st.one_of(st.sampled_from(VALUES), st.binary(max_size=20))
    length = st.sampled_from([None, None, None, None, 0xFFFFFFFF, 0xFFFF, 1, 0, 1 << 31])
    return st.builds(element, st.sampled_from(TAGS), st.sampled_from(VRS), value, length)


def nested(inner: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """A sequence of undefined length; its items and itself may lack their ends."""

    def made(tag: int, items: list[bytes], item_ends: bytes, ends: bytes) -> bytes:
        content = b"".join(ITEM + one + item_ends for one in items)
        return element(tag, b"SQ", b"", 0xFFFFFFFF) + content + ends

    return st.builds(
        made,
        st.sampled_from(TAGS),
        st.lists(inner, max_size=4),
        st.sampled_from([END_OF_ITEM, END_OF_ITEM, b""]),
        st.sampled_from([END_OF_SEQUENCE, END_OF_SEQUENCE, b""]),
    )


ELEMENTS = st.recursive(plain(), nested, max_leaves=8)


@budget(80)
@given(
    syntax=st.sampled_from([EXPLICIT_LITTLE, DEFLATED, *COMPRESSED]),
    elements=st.lists(ELEMENTS, max_size=10),
    ordered=st.booleans(),
    place=st.integers(0, 60),
)
def test_elements_that_make_no_sense(
    syntax: str, elements: list[bytes], ordered: bool, place: int
) -> None:
    """Among the elements of a good object, which they may repeat, contradict or end."""
    known = split(data_set_bytes(good(EXPLICIT_LITTLE)))
    data = [*known[:place], *elements, *known[place:]]
    if ordered:
        data.sort(key=lambda one: struct.unpack("<HH", one[:4]))
    body = b"".join(data)
    if syntax == DEFLATED:
        engine = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        body = engine.compress(body) + engine.flush()
    read(file_meta(Command(TOMOSYNTHESIS, "1.2.3", syntax)) + body)


def split(data: bytes) -> list[bytes]:
    """The elements of a data set without sequences of undefined length."""
    found, at = [], 0
    while at < len(data):
        long = data[at + 4 : at + 6] in (*LONG, b"OF", b"UC")
        size = (
            struct.unpack_from("<L", data, at + 8)[0]
            if long
            else struct.unpack_from("<H", data, at + 6)[0]
        )
        assert size != 0xFFFFFFFF
        end = at + (12 if long else 8) + size
        found.append(data[at:end])
        at = end
    return found


# --- what is large, or says so ---


def deflated(*pieces: bytes) -> bytes:
    engine = zlib.compressobj(1, wbits=-zlib.MAX_WBITS)
    return b"".join(engine.compress(piece) for piece in pieces) + engine.flush()


def bomb_of_a_header() -> bytes:
    """A small file that inflates to 256 MiB of one private element before the pixel data."""
    head = file_meta(Command(TOMOSYNTHESIS, "1.2.3", DEFLATED))
    zeros = bytes(1 << 24)
    return head + deflated(element(0x00211001, b"OB", b"", 1 << 28), *[zeros] * 16)


def bomb_of_pixels() -> bytes:
    """A small file that inflates to more pixel data than it says it has."""
    head = file_meta(Command(TOMOSYNTHESIS, "1.2.3", DEFLATED))
    elements = split(data_set_bytes(good(EXPLICIT_LITTLE)))[:-1]
    pixels = element(0x7FE00010, b"OW", b"", 3 * 24 * 16 * 2)
    return head + deflated(*elements, pixels, *[bytes(1 << 24)] * 8)


def in_the_middle(content: bytes) -> bytes:
    """A good object with something more before its rows and columns."""
    head = file_meta(Command(TOMOSYNTHESIS, "1.2.3", EXPLICIT_LITTLE))
    elements = split(data_set_bytes(good(EXPLICIT_LITTLE)))
    at = next(n for n, one in enumerate(elements) if one[:2] == b"\x28\0")
    return head + b"".join([*elements[:at], content, *elements[at:]])


def many_groups() -> bytes:
    groups = element(0x52009230, b"SQ", b"", 0xFFFFFFFF)
    return in_the_middle(b"") + groups + (ITEM + END_OF_ITEM) * 50_000 + END_OF_SEQUENCE


def endless_items() -> bytes:
    """A private sequence with more items than memory should be given for."""
    opened = element(0x00211001, b"SQ", b"", 0xFFFFFFFF)
    return in_the_middle(opened + (ITEM + END_OF_ITEM) * 40_000 + END_OF_SEQUENCE)


def one_large_value_within_a_sequence() -> bytes:
    inner = element(0x00211002, b"OB", bytes(9 << 20))
    opened = element(0x00211001, b"SQ", b"", 0xFFFFFFFF)
    return in_the_middle(opened + ITEM + inner + END_OF_ITEM + END_OF_SEQUENCE)


def deep() -> bytes:
    return in_the_middle((element(0x00211001, b"SQ", b"", 0xFFFFFFFF) + ITEM) * 5000)


def many_fragments() -> bytes:
    """Pixel data in more fragments than any frame has."""
    head = file_meta(Command(TOMOSYNTHESIS, "1.2.3", COMPRESSED[3]))
    elements = split(data_set_bytes(good(EXPLICIT_LITTLE)))[:-1]
    pixels = element(0x7FE00010, b"OB", b"", 0xFFFFFFFF)
    return head + b"".join(elements) + pixels + b"\xfe\xff\x00\xe0\0\0\0\0" * 200_001


LARGE = {
    bomb_of_a_header: "cut off",
    endless_items: "header of more than",
    one_large_value_within_a_sequence: "header of more than",
    deep: "not a readable DICOM data set",
    many_fragments: "fragments",
}


@pytest.mark.parametrize("make", LARGE, ids=lambda make: make.__name__)
def test_what_is_too_much_is_refused_when_it_comes(
    make: Callable[[], bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "large.dcm"
    path.write_bytes(make())
    monkeypatch.setattr(parse, "HEADER_LIMIT", 8 << 20)  # what goes for 256 MiB goes for 8
    assert LARGE[make] in read_file(path)["header"]


@pytest.mark.parametrize("make", [bomb_of_pixels, many_groups], ids=lambda make: make.__name__)
def test_what_is_only_odd_is_kept(make: Callable[[], bytes], tmp_path: Path) -> None:
    path = tmp_path / "odd.dcm"
    path.write_bytes(make())
    outcomes = read_file(path)
    assert outcomes["header"] == outcomes["described"] == outcomes["frames"] == READ


def test_a_plain_object_of_the_network_tests_is_good(tmp_path: Path) -> None:
    path = tmp_path / "plain.dcm"
    write_object(path)
    outcomes = read_file(path)
    assert outcomes["header"] == outcomes["explicit"] == READ
