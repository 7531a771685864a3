"""The page that says what was tried with which software names a test in every row, and every test is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.support.shared import ROOT

PAGE = ROOT / "docs" / "interoperability.md"
_ROW = re.compile(r"^\|(?!-).*\|$")
_TEST = re.compile(r"`([\w/]+\.py)::(\w+)`")


def rows() -> list[str]:
    """The rows of the tables whose last column is of tests, without their heads."""
    found, inside = [], False
    for line in PAGE.read_text().splitlines():
        if not line.startswith("|"):
            inside = False
        elif line.endswith("| test |"):
            inside = True
        elif inside and _ROW.match(line):
            found.append(line)
    return found


@pytest.mark.parametrize("row", rows(), ids=lambda row: row.split("|")[1].strip()[:40])
def test_every_row_names_tests_that_are_there(row: str) -> None:
    named = _TEST.findall(row.split("|")[-2])
    assert named, "no test proves this row"
    for file, function in named:
        assert function in _tests(ROOT / "tests" / file), f"{file}::{function}"


def test_every_kind_of_exchange_is_there() -> None:
    text = PAGE.read_text()
    words = ("C-STORE", "C-FIND", "C-GET", "C-MOVE", "commitment", "STOW-RS", "WADO-RS", "TLS")
    assert [word for word in words if word not in text] == []
    assert len(rows()) > 20


def _tests(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
