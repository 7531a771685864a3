"""Reading CSV tables: one clear error for a file that is none, and for the rows that cannot be used."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from gmic.errors import DataError

Row = Mapping[str, str]
"""One line by column; what the line does not give is empty."""
Parsed = TypeVar("Parsed")


def read_table(path: Path, columns: Sequence[str], parse: Callable[[Row], Parsed]) -> list[Parsed]:
    """Read a CSV file in UTF-8 whose first line names its columns; others than `columns` are ignored.

    Args:
        path: The file.
        columns: Columns that must be there, in any order.
        parse: Makes something of a row, or raises DataError.

    Raises:
        DataError: Not such a file, a missing column, or a bad row: the first is named by its line,
            the others are counted.
        OSError: The file cannot be read.
    """
    parsed: list[Parsed] = []
    problems: list[str] = []
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(_without_nul(file), restval="")
            if missing := [name for name in columns if name not in (reader.fieldnames or ())]:
                raise DataError(
                    f"{path}: column {missing[0]!r} is missing; give {', '.join(columns)}"
                )
            for row in reader:
                try:
                    parsed.append(parse({name: row[name].strip() for name in columns}))
                except DataError as error:
                    problems.append(f"line {reader.line_num}: {error}")
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not a CSV file in UTF-8: {error}") from error
    refuse(path, problems)
    return parsed


def _without_nul(lines: Iterable[str]) -> Iterator[str]:
    """The lines of a table. Raises csv.Error at one with a NUL byte, in whatever column: a damaged file."""
    for count, line in enumerate(lines, 1):
        if "\0" in line:
            raise csv.Error(f"line {count} holds a NUL byte; write the file again")
        yield line


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV file with a line of column names; numbers keep every digit.

    Raises:
        OSError: The file cannot be written.
    """
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)


def refuse(path: Path, problems: Sequence[str]) -> None:
    """Raise DataError with the first problem and the number of the others; nothing without any."""
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise DataError(f"{path}: {problems[0]}{more}")


def number(row: Row, name: str) -> float:
    """A finite number of a row. Raises DataError."""
    try:
        value = float(row[name])
    except ValueError:
        raise DataError(f"{name} is {row[name]!r}; give a number") from None
    if not math.isfinite(value):
        raise DataError(f"{name} is {row[name]!r}; give a finite number")
    return value


def whole_number(row: Row, name: str) -> int:
    """A whole number of a row, "7" or "7.0". Raises DataError."""
    value = number(row, name)
    if value != int(value):
        raise DataError(f"{name} is {row[name]!r}; give a whole number")
    return int(value)


def zero_or_one(row: Row, name: str) -> int:
    """A label of a row. Raises DataError."""
    if row[name] not in ("0", "1"):
        raise DataError(f"{name} is {row[name]!r}; give 0 or 1")
    return int(row[name])


def words(row: Row, name: str) -> str:
    """A text of a row that is not empty. Raises DataError."""
    if not row[name]:
        raise DataError(f"{name} is empty; give one")
    return row[name]
