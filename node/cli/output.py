"""What commands print: JSON for programs, tables for people (plain lines where the output is no terminal)."""

from __future__ import annotations

import json
import shutil
import sys
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

RESEARCH_ONLY = "Research use only, not for clinical use."

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def command() -> str:
    """What to type for `tomonode` in this shell: the environment of `make` is not on the PATH unless activated."""
    return "tomonode" if shutil.which("tomonode") else sys.argv[0]


def say(line: str = "") -> None:
    """One line on standard output, at once, for whoever waits for it."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def warn(line: str) -> None:
    """One line on standard error, at once."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def as_json(value: object) -> None:
    """Print a value as JSON: times in ISO 8601 (UTC), ids as text."""
    say(json.dumps(value, indent=2, default=_plain))


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, uuid.UUID | Path):
        return str(value)
    if isinstance(value, set | frozenset):
        return sorted(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


def table(headings: Sequence[str], rows: Sequence[Sequence[Any]], none: str) -> None:
    """Print rows under headings; the line `none` where there is no row."""
    if not rows:
        say(none)
        return
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=1000)
    drawn = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        drawn.add_column(heading, overflow="fold")
    for row in rows:
        drawn.add_row(*(Text(text(cell)) for cell in row))
    with console.capture() as shown:
        console.print(drawn)
    say("\n".join(line.rstrip() for line in shown.get().splitlines()))


def notice(caveat: str) -> str:
    """What goes with every score; `caveat` is what there is to know of the weights."""
    return f"{caveat} {RESEARCH_ONLY}".lstrip()


def scores_notice(caveat: str) -> None:
    """The line that goes under every score."""
    say(notice(caveat))


def fields(values: Mapping[str, Any]) -> None:
    """Print named values, one a line; what is None is left out."""
    width = max(len(name) for name in values)
    for name, value in values.items():
        if value is not None:
            say(f"{name:<{width}}  {text(value)}")


def text(value: object) -> str:
    """A cell for people: seconds are precise enough, scores have three digits, nothing is a dash."""
    if value is None or value == "":
        return "-"
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    if isinstance(value, float):
        return f"{value:.3f}"
    if isinstance(value, tuple | list | set | frozenset):
        return ", ".join(text(item) for item in value) or "-"
    return " ".join(str(value).split())
