"""Files of labels as hospitals write them: encodings, delimiters, columns, and rows that cannot be."""

from __future__ import annotations

import csv
import io
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.errors import ConfigError, InvalidLabel
from node.labels.encoding import decode
from node.labels.table import COLUMNS, LabelTable, read_table
from node.labels.values import Finding

DOCS = Path(__file__).parents[3] / "docs"
HEAD = "study_uid,accession_number,patient_id,study_date,laterality,benign,malignant,found_on,birads,source"
GOOD = "1.2.3,,,,L,0,1,2026-03-20,4B,Praxis Müller"


def table(*rows: str, head: str = HEAD) -> LabelTable:
    return read_table("\n".join([head, *rows]).encode())


@pytest.mark.parametrize(
    ("encoding", "said"),
    [
        ("utf-8", "UTF-8"),
        ("utf-8-sig", "UTF-8 (with a mark)"),
        ("utf-16", "UTF-16 (little-endian)"),
        ("utf-16-be", "UTF-16 (big-endian)"),
        ("cp1252", "Windows-1252 (guessed: no UTF-8)"),
        ("latin-1", "Windows-1252 (guessed: no UTF-8)"),
    ],
)
def test_encodings_are_told_and_named(encoding: str, said: str) -> None:
    text = f"{HEAD}\r\n{GOOD}\r\n"
    mark = b"\xfe\xff" if encoding == "utf-16-be" else b""
    read = read_table(mark + text.encode(encoding))
    assert read.encoding == said
    assert read.rows[0].source == "Praxis Müller"
    assert read.rows[0].finding == Finding(False, True, date(2026, 3, 20))
    assert read.rows[0].category == 4


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("name\nИванова".encode("cp1251"), "cannot be told"),
        ("name\nMüller Jäger".encode("cp850"), "cannot be told"),
        ("name\nPérez Muñoz".encode("cp850"), "cannot be told"),
        ("name\nÄnne".encode("utf-16-le"), "zero bytes"),
        (b"\xff\xfea", "mark of UTF-16"),
        (b"\xef\xbb\xbf\xff", "mark of UTF-8"),
        (b"PK\x03\x04rest", "workbook"),
        (b"a\x07b", "control characters"),
    ],
)
def test_what_cannot_be_told_is_refused(content: bytes, words: str) -> None:
    with pytest.raises(InvalidLabel, match=words):
        decode(content)


def test_a_person_may_name_the_encoding() -> None:
    assert decode("Иванова".encode("cp1251"), "windows-1251") == ("Иванова", "cp1251")
    with pytest.raises(InvalidLabel, match="not ascii"):
        decode("Ä".encode(), "ascii")
    for name in ("klingon", "hex"):
        with pytest.raises(ConfigError, match="is not known"):
            decode(b"a", name)


SIGNS = st.characters(
    codec="utf-8",
    exclude_categories=["Cc", "Cs", "Cn", "Co"],
    exclude_characters="\ufeff\ufffd",
)


@given(text=st.text(SIGNS).map("x".__add__))
def test_utf8_and_utf16_are_read_back(text: str) -> None:
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        assert decode(text.encode(encoding))[0] == text


CELL = st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "Zs"]), min_size=1).map(
    str.strip
)


@settings(deadline=None)
@given(
    rows=st.lists(
        st.tuples(CELL.filter(bool), st.sampled_from("LR"), st.integers(0, 6)), max_size=6
    ),
    delimiter=st.sampled_from(",;\t"),
    end=st.sampled_from(["\n", "\r\n"]),
)
def test_any_text_survives_any_delimiter(
    rows: list[tuple[str, str, int]], delimiter: str, end: str
) -> None:
    out = io.StringIO()
    writer = csv.writer(out, delimiter=delimiter, lineterminator=end)
    writer.writerow(("BIRADS", "Laterality", "Accession Number"))
    writer.writerows((category, side, text) for text, side, category in rows)
    read = read_table(out.getvalue().encode())
    assert not read.refused
    assert [(r.accession_number, r.laterality, r.category) for r in read.rows] == rows
    assert [r.number for r in read.rows] == list(range(2, len(rows) + 2))


def test_spreadsheets_are_taken_as_they_come() -> None:
    """A line that names the delimiter, other columns, another case, empty rows: rows keep the spreadsheet's numbers."""
    read = read_table(
        b"sep=;\r\nName;StudyInstanceUID;LATERALITY;;BI-RADS\r\n\r\nX;1.2.3;left;;2\r\n;;;;\r\nY;1.2.4;R;;0\r\n"
    )
    assert (read.delimiter, read.ignored) == ("semicolon", ("Name",))
    assert [(row.number, row.laterality, row.category) for row in read.rows] == [
        (3, "L", 2),
        (5, "R", 0),
    ]


@pytest.mark.parametrize(
    ("head", "words"),
    [
        ("", "no column laterality"),
        ("1.2.3,Meier,L,0,1", "no column laterality"),
        ("laterality,birads", "no column finds the study"),
        ("laterality,birads,patient_id", "no column finds the study"),
        ("laterality,study_uid", "column benign is missing"),
        ("laterality,study_uid,benign,malignant,birads", "column found_on is missing"),
        ("laterality,study_uid,birads,Study UID", "column study_uid is there twice"),
        ('laterality,study_uid,birads\n1.2.3,"L,2', "line 2 is no CSV"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_whole(head: str, words: str) -> None:
    with pytest.raises(InvalidLabel, match=words) as refused:
        table(head=head)
    assert "Meier" not in str(refused.value)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("1.2.3,,,,L,0,1,2026-02-30,,", "found_on is '2026-02-30', which is no day"),
        ("1.2.3,,,2026-13-01,L,0,1,2026-03-01,,", "study_date is '2026-13-01'"),
        ("1.2.3,,,,X,0,1,2026-03-01,,", "laterality is 'X'; give L or R"),
        ("1.2.3,,,,,0,1,2026-03-01,,", "laterality is empty"),
        ("1.2.3,,,,L,2,1,2026-03-01,,", "benign is '2'; give 1 or 0"),
        ("1.2.3,,,,L,0,1,,,", "found_on is empty"),
        ("1.2.3,,,,L,,1,2026-03-01,,", "benign is empty"),
        ("1.2.3,,,,L,,,,7,", "BI-RADS category is '7'"),
        ("1.2.3,,,,L,,,,,", "it says nothing"),
        (",,,,L,0,1,2026-03-01,,", "nothing finds the study"),
        (",,P-1,,L,0,1,2026-03-01,,", "nothing finds the study"),
        ("4711,,,,L,0,1,2026-03-01,,", "study_uid is a value of 4 characters, which is no UID"),
        ("1.2.3,,,,L,0,1,2026-03-01,,a,b", "11 cells, the columns are 10"),
        ("1.2.3,,,,L", "5 cells, the columns are 10"),
        ("Meier^Anna,,,,Meier^Anna,0,1,2026-03-01,,", "which is no UID"),
        ("1.2.3,,,,Meier^Anna,Meier^Anna,1,2026-03-01,,", "benign is a value of 10 characters"),
    ],
)
def test_a_bad_row_is_refused_alone_and_repeats_no_name(row: str, words: str) -> None:
    read = table(row, GOOD)
    assert [one.number for one in read.rows] == [3]
    [refused] = read.refused
    assert refused.number == 2
    assert words in refused.reason
    assert "Meier" not in refused.reason
    assert refused.study_uid in (None, "1.2.3")


def test_the_example_and_the_documented_columns_are_those_that_are_read() -> None:
    read = read_table((DOCS / "labels-example.csv").read_bytes())
    assert (read.ignored, read.refused) == ((), ())
    assert {bool(row.study_uid) for row in read.rows} == {True, False}
    documented = (DOCS / "labels.md").read_text()
    for column in COLUMNS:
        assert f"| `{column}` |" in documented
