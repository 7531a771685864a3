"""The little Markdown that a statement is made of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from textwrap import wrap

from pydicom.uid import UID

from dicom_io.syntaxes import STORAGE_CLASSES

_WIDTH = 120


def table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Lines of a table; a bar in a cell is kept from ending it."""
    lines = [f"| {' | '.join(headings)} |", f"|{'---|' * len(headings)}"]
    lines += [f"| {' | '.join(_cell(cell) for cell in row)} |" for row in rows]
    return [*lines, ""]


def paragraph(text: str) -> list[str]:
    """Lines of a paragraph, however its source is broken."""
    return [*_filled(text, ""), ""]


def points(*texts: str) -> list[str]:
    """Lines of a list."""
    return [line for text in texts for line in _filled(f"- {text}", "  ")] + [""]


def _filled(text: str, indent: str) -> list[str]:
    plain = " ".join(text.split())
    return wrap(
        plain, _WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def _cell(value: object) -> str:
    return " ".join(str(value).split()).replace("|", "\\|")


def name_of(uid: str) -> str:
    """The name of a SOP class or transfer syntax; of classes that pydicom does not know yet, our own."""
    known = UID(uid).name
    return known if known != uid else f"{STORAGE_CLASSES.get(uid, uid)} Storage"


def sentence(doc: str | None) -> str:
    """The first sentence of a docstring."""
    text = " ".join((doc or "").split())
    return text.split(". ")[0].rstrip(".") + "." if text else ""
