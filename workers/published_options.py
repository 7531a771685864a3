"""Options of commands that take published checkpoints, whose t and K stand in no file."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, TypeVar

import typer

from node.errors import ConfigError

Number = TypeVar("Number", int, float)

PercentT = Annotated[
    str, typer.Option(help="t of published checkpoints, one or one a file: 1.51,2.06,...")
]
NumPatches = Annotated[
    str, typer.Option(help="K of published checkpoints, one or one a file: 12,8,...")
]


def top_t_of(text: str) -> tuple[float, ...]:
    """The values of `--percent-t`. Raises ConfigError for what is no number."""
    return _numbers(text, "--percent-t", float)


def patches_of(text: str) -> tuple[int, ...]:
    """The values of `--num-patches`. Raises ConfigError for what is no whole number."""
    return _numbers(text, "--num-patches", int)


def _numbers(text: str, option: str, kind: Callable[[str], Number]) -> tuple[Number, ...]:
    try:
        return tuple(kind(part) for part in text.split(",") if part.strip())
    except ValueError:
        raise ConfigError(f"{option} is {text!r}; give numbers with commas between them") from None
