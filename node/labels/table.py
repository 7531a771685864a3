"""A file of labels as rows: encoding, delimiter, columns; every cell understood, or the row refused with its reason."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import islice

from node.errors import InvalidLabel
from node.labels.encoding import decode
from node.labels.values import Finding, category_of, day_of, flag_of, laterality_of, name_of, uid_of

COLUMNS = {
    "study_uid": "Study Instance UID",
    "accession_number": "accession number, as the images have it",
    "patient_id": "patient ID, as the images have it; needs study_date",
    "study_date": "day of the exam",
    "laterality": "the breast: L or R; required",
    "benign": "1 if a benign finding was proven, else 0",
    "malignant": "1 if a malignant finding was proven, else 0",
    "found_on": "day of the biopsy or surgery",
    "birads": "BI-RADS category, 0 to 6 (4A, 4B, 4C count as 4)",
    "source": "where the row comes from; the file's name if empty",
}
"""The columns, in any order and spelling; others are ignored. Days are YYYY-MM-DD or YYYYMMDD."""

DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab"}
MAX_BYTES = 64 * 2**20
MAX_ROWS = 200_000

_SQUASHED = {name.replace("_", ""): name for name in COLUMNS} | {"studyinstanceuid": "study_uid"}
_PATHOLOGY = ("benign", "malignant", "found_on")


@dataclass(frozen=True)
class Row:
    """One row that was understood: how to find the study, and what is said of one breast.

    `number` counts as a spreadsheet does: the row of the column names is 1.
    """

    number: int
    study_uid: str | None
    accession_number: str | None
    patient_id: str | None
    study_date: date | None
    laterality: str
    finding: Finding | None
    category: int | None
    source: str | None


@dataclass(frozen=True)
class Refused:
    """One row that was not understood."""

    number: int
    study_uid: str | None
    reason: str


@dataclass(frozen=True)
class LabelTable:
    """A file, understood."""

    encoding: str
    delimiter: str
    ignored: tuple[str, ...]
    rows: tuple[Row, ...]
    refused: tuple[Refused, ...]


def read_table(content: bytes, encoding: str | None = None) -> LabelTable:
    """Read a file of labels.

    Args:
        content: all of the file.
        encoding: None: it is told by the bytes (`node.labels.encoding`).

    Raises:
        InvalidLabel: the file as a whole cannot be used; a row that cannot is among `refused`.
        ConfigError: no encoding has this name.
    """
    if len(content) > MAX_BYTES:
        raise InvalidLabel(
            f"the file has {len(content) // 2**20} MB, and at most {MAX_BYTES // 2**20} are read; split it"
        )
    text, name = decode(content, encoding)
    delimiter, names, records = _records(text)
    rows: list[Row] = []
    refused: list[Refused] = []
    for number, record in enumerate(records, start=2):
        if not any(cell.strip() for cell in record):
            continue
        cells = {} if len(record) != len(names) else _cells(names, record)
        try:
            if len(record) != len(names):
                raise InvalidLabel(
                    f"{len(record)} cells, the columns are {len(names)}; quote a text that holds the delimiter"
                )
            rows.append(_row(number, cells))
        except InvalidLabel as error:
            refused.append(Refused(number, _uid_or_none(cells), str(error)))
    ignored = tuple(name for name in names if name and name not in COLUMNS)
    return LabelTable(name, DELIMITERS[delimiter], ignored, tuple(rows), tuple(refused))


def _records(text: str) -> tuple[str, list[str], Sequence[Sequence[str]]]:
    """Delimiter, column names, and the records after them."""
    lines = text.lstrip("\r\n")
    if lines[:4].lower() == "sep=":  # a line for spreadsheets, which they do not count
        lines = lines.partition("\n")[2]
    delimiter = max(DELIMITERS, key=lambda sign: _known(_split(lines, sign, 1)))
    names = [_column(cell) for cell in next(iter(_split(lines, delimiter, 1)), [])]
    _check_columns(names)
    records = _split(lines, delimiter, MAX_ROWS + 2)[1:]
    if len(records) > MAX_ROWS:
        raise InvalidLabel(f"the file has more than {MAX_ROWS} rows; split it")
    return delimiter, names, records


def _split(text: str, delimiter: str, limit: int) -> list[list[str]]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        return list(islice(reader, limit))
    except csv.Error:
        if limit == 1:
            return []
        raise InvalidLabel(
            f"line {reader.line_num} is no CSV: quotes do not close, or stand within a text; double those"
        ) from None


def _known(records: Sequence[Sequence[str]]) -> int:
    return sum(_column(cell) in COLUMNS for record in records for cell in record)


def _column(cell: str) -> str:
    """The column a cell names, or the cell itself; signs between words do not matter, nor does a DICOM keyword."""
    squashed = "".join(sign for sign in cell.lower() if sign.isalnum())
    return _SQUASHED.get(squashed, cell.strip())


def _check_columns(names: Sequence[str]) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1 and name in COLUMNS]
    if twice:
        raise InvalidLabel(f"column {twice[0]} is there twice; leave one out")
    if "laterality" not in names:
        raise InvalidLabel(
            f"the first row has no column laterality; it must name the columns, of {', '.join(COLUMNS)}"
        )
    if not {"study_uid", "accession_number"} & set(names) and not {
        "patient_id",
        "study_date",
    } <= set(names):
        raise InvalidLabel(
            "no column finds the study; give study_uid, accession_number, or patient_id with study_date"
        )
    missing = [name for name in _PATHOLOGY if name not in names]
    if missing and (len(missing) < len(_PATHOLOGY) or "birads" not in names):
        raise InvalidLabel(
            f"column {missing[0]} is missing; give {', '.join(_PATHOLOGY)} together, or birads alone"
        )


def _cells(names: Sequence[str], record: Sequence[str]) -> dict[str, str]:
    return {name: cell.strip() for name, cell in zip(names, record, strict=True)}


def _uid_or_none(cells: Mapping[str, str]) -> str | None:
    """The study's UID, for the report; nothing else that may stand in its column."""
    try:
        return uid_of(cells.get("study_uid", ""))
    except InvalidLabel:
        return None


def _row(number: int, cells: Mapping[str, str]) -> Row:
    uid, accession, patient = (
        cells.get(n, "") for n in ("study_uid", "accession_number", "patient_id")
    )
    study_date = day_of("study_date", cells["study_date"]) if cells.get("study_date") else None
    if not uid and not accession and not (patient and study_date):
        raise InvalidLabel(
            "nothing finds the study; give study_uid, accession_number, or patient_id with study_date"
        )
    finding = _finding(cells)
    category = category_of(cells["birads"]) if cells.get("birads") else None
    if finding is None and category is None:
        raise InvalidLabel("it says nothing; give benign, malignant and found_on, or birads")
    return Row(
        number=number,
        study_uid=uid_of(uid) if uid else None,
        accession_number=accession or None,
        patient_id=patient or None,
        study_date=study_date,
        laterality=laterality_of(cells["laterality"]),
        finding=finding,
        category=category,
        source=name_of("source", cells["source"]) if cells.get("source") else None,
    )


def _finding(cells: Mapping[str, str]) -> Finding | None:
    given = [name for name in _PATHOLOGY if cells.get(name)]
    if not given:
        return None
    if len(given) < len(_PATHOLOGY):
        missing = next(name for name in _PATHOLOGY if name not in given)
        raise InvalidLabel(f"{missing} is empty; give {', '.join(_PATHOLOGY)} together")
    return Finding(
        benign=flag_of("benign", cells["benign"]),
        malignant=flag_of("malignant", cells["malignant"]),
        found_on=day_of("found_on", cells["found_on"]),
    )
