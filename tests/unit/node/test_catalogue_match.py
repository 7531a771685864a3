"""The matching rules of PS3.4 C.2.2.2: how values are read, and that the SQL does what the words say."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Connection, create_engine, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from node.catalogue.match import (
    BadKey,
    Exact,
    Kind,
    Pattern,
    Range,
    condition,
    day,
    folded,
    read,
    time_of_day,
)
from node.models import Base


class Word(Base):
    """One stored value; a table of this test alone, in a metadata of its own."""

    __tablename__ = "words"
    metadata = type(Base.metadata)()

    id: Mapped[int] = mapped_column(primary_key=True)
    word: Mapped[str | None]


@pytest.fixture(scope="module")
def words() -> Iterator[Connection]:
    """A table on SQLite, in memory."""
    engine = create_engine("sqlite://")
    with engine.connect() as connection:
        Word.metadata.create_all(connection)
        yield connection
    engine.dispose()


def found(connection: Connection, kind: Kind, key: str, *stored: str | None) -> list[str | None]:
    """Which of these stored values fulfil a key."""
    terms = read(kind, key)
    with Session(connection, join_transaction_mode="create_savepoint") as session:
        session.add_all([Word(id=number, word=word) for number, word in enumerate(stored)])
        session.flush()
        query = select(Word.word).order_by(Word.id)
        if terms:
            query = query.where(condition(Word.word, kind, terms, "sqlite"))
        return list(session.execute(query).scalars())


@pytest.mark.parametrize(
    ("kind", "key", "terms"),
    [
        (Kind.TEXT, "", ()),
        (Kind.TEXT, "**", ()),
        (Kind.TEXT, " A1 ", (Exact("A1"),)),
        (Kind.TEXT, "MG\\SEG", (Exact("MG"), Exact("SEG"))),
        (Kind.TEXT, "A**1?", (Pattern("A*1?"),)),
        (Kind.TEXT, "A\\*", ()),  # an alternative that is everything
        (Kind.UID, "1.2\\1.3", (Exact("1.2"), Exact("1.3"))),
        (Kind.UID, "1.2,1.3", (Exact("1.2"), Exact("1.3"))),
        (Kind.NUMBER, "007", (Exact(7),)),
        (Kind.DATE, "20260304", (Range("20260304", "20260304"),)),
        (Kind.DATE, "20260304-", (Range("20260304", None),)),
        (Kind.DATE, "-20260304", (Range(None, "20260304"),)),
        (Kind.TIME, "1015", (Range("101500.000000", "101559.999999"),)),
        (Kind.TIME, "10-101530.5", (Range("100000.000000", "101530.599999"),)),
    ],
)
def test_values_are_read(kind: Kind, key: str, terms: tuple[object, ...]) -> None:
    assert read(kind, key) == terms


@pytest.mark.parametrize(
    ("kind", "key"),
    [
        (Kind.UID, "1.2.*"),
        (Kind.UID, "1" * 65),
        (Kind.DATE, "-"),
        (Kind.DATE, "2026*"),
        (Kind.DATE, "20260101-soon"),
        (Kind.TIME, "1"),
        (Kind.TIME, "10:70x"),
        (Kind.NUMBER, "1.5"),
        (Kind.NUMBER, "2147483648"),
        (Kind.NUMBER, "9" * 400),
        (Kind.TEXT, "x" * 1025),
    ],
)
def test_a_value_of_another_kind_is_refused_without_being_repeated(kind: Kind, key: str) -> None:
    with pytest.raises(BadKey) as caught:
        read(kind, key)
    assert key not in str(caught.value) or key == "-"
    assert "\n" not in str(caught.value)


def test_text_keeps_its_case_and_its_odd_characters(words: Connection) -> None:
    stored = ("ab", "AB", "a[b", "a%b", "a_b", "a*b", "axb", None)
    assert found(words, Kind.TEXT, "ab", *stored) == ["ab"]
    assert found(words, Kind.TEXT, "a?b", *stored) == ["a[b", "a%b", "a_b", "a*b", "axb"]
    assert found(words, Kind.TEXT, "a[b*", *stored) == ["a[b"]
    assert found(words, Kind.TEXT, "a%*", *stored) == ["a%b"]
    assert found(words, Kind.TEXT, "*", *stored) == list(stored)


@pytest.mark.parametrize(
    ("key", "name", "fits"),
    [
        ("MUELLER^EVA", "Müller^Eva", False),
        ("MULLER^EVA", "Müller^Eva", True),
        ("müller^eva", "MU\u0308LLER^EVA^^^", True),
        ("Müller", "Müller^Eva", False),  # single value matching is of the whole name
        ("Müller*", "Müller^Eva", True),
        ("Müller^*", "Müller", True),
        ("Müller^*", "Müllerin^Eva", False),
        ("M?ller^E*a", "Müller^Eva", True),
        ("STRASSE", "Straße", True),
        ("Yamada^Tarou", "Yamada^Tarou=山田^太郎=やまだ^たろう", True),
        ("山田*", "Yamada^Tarou=山田^太郎", True),
        ("yamada^tarou=山田^太郎", "Yamada^Tarou=山田^太郎", True),
        ("田*", "Yamada^Tarou=山田^太郎", False),
        ("たろう", "だろう", False),  # no accent, another letter
        ("Eva", "", False),
        ("^", "Müller", False),
    ],
)
def test_names(words: Connection, key: str, name: str, fits: bool) -> None:
    assert bool(found(words, Kind.NAME, key, folded(name))) is fits


def test_dates_and_times(words: Connection) -> None:
    days = ("20251231", "20260101", "20260131", "20260201", None)
    assert found(words, Kind.DATE, "20260101-20260131", *days) == ["20260101", "20260131"]
    assert found(words, Kind.DATE, "-20260101", *days) == ["20251231", "20260101"]
    assert found(words, Kind.DATE, "20260131-", *days) == ["20260131", "20260201"]
    times = ("09", "1014", "101500", "101559.999999", "1016", None)
    assert found(words, Kind.TIME, "1015", *times) == ["101500", "101559.999999"]
    assert found(words, Kind.TIME, "1014-101500", *times) == ["1014", "101500"]
    assert found(words, Kind.TIME, "-10", *times) == list(times[:-1])
    assert found(words, Kind.TIME, "09\\1016", *times) == ["09", "1016"]


def test_old_and_impossible_dates_and_times() -> None:
    assert day("2026.03.04") == "20260304"
    assert day("March") is None
    assert time_of_day("10:15:30") == "101530"
    assert time_of_day("101") is None


_TEXTS = st.text("aAbé[]%_*?^\\ .", max_size=6).map(str.strip)


@given(key=_TEXTS.filter(lambda key: "\\" not in key), stored=_TEXTS)
def test_any_pattern_matches_as_the_standard_says(words: Connection, key: str, stored: str) -> None:
    wanted = "".join({"*": ".*", "?": "."}.get(letter, re.escape(letter)) for letter in key)
    fits = not key or re.fullmatch(wanted, stored, re.DOTALL) is not None
    assert bool(found(words, Kind.TEXT, key, stored)) is fits


@given(name=st.text(max_size=40))
def test_any_name_is_found_by_itself_and_folds_once(words: Connection, name: str) -> None:
    plain = name.replace("\\", "").replace("*", "").replace("?", "")
    stored = folded(plain)
    if stored is None:
        return
    assert folded(stored) == stored
    assert found(words, Kind.NAME, plain, stored) == [stored]
