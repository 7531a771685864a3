"""Launching a training where the program must not load model code: the command does it, in a process of its own."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from node.config import Settings, child_environment
from node.errors import ConfigError, Conflict, StartFailed
from node.services import own_command

_LIMIT_S = 120.0
_MAX_TEXT = 1000
_USAGE = 2  # exit code of a wrong usage or setting (`node.cli.boundary`)


@dataclass(frozen=True)
class Wish:
    """What `tomonode train launch` takes, as text; what is empty is not said. `changes` are NAME=VALUE."""

    dataset: str
    recipe: str
    by: str
    base: str = ""
    seed: str = ""
    gpus: str = ""
    search: str = ""
    changes: Sequence[str] = ()

    def arguments(self) -> list[str]:
        """Options, each with its value in one word, so that no value is taken for an option.

        Raises:
            ConfigError: a value is too long or holds control characters.
        """
        names = ("dataset", "recipe", "by", "base", "seed", "gpus", "search")
        given = [(name, getattr(self, name)) for name in names]
        given += [("set", change) for change in self.changes]
        for name, value in given:
            if len(value) > _MAX_TEXT or not value.isprintable():
                raise ConfigError(f"{name} has {len(value)} characters; give one line")
        return [f"--{name}={value}" for name, value in given if value]


def launch(settings: Settings, wish: Wish) -> str:
    """Launch a training, or find the one that is the same; returns its id.

    Raises:
        ConfigError, Conflict: what the command said.
        StartFailed: it did not end, or said nothing that can be read.
    """
    command = [*own_command("train", "launch", "--json"), *wish.arguments()]
    try:
        done = subprocess.run(
            command,
            env=child_environment(settings),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise StartFailed(
            f"the launch took more than {_LIMIT_S:.0f} s; look at `tomonode train list`"
        ) from None
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or ["the launch said nothing"]
        said = lines[-1].removeprefix("tomonode: ")
        raise ConfigError(said) if done.returncode == _USAGE else Conflict(said)
    try:
        return str(json.loads(done.stdout)["id"])
    except (ValueError, LookupError):
        raise StartFailed("the launch said nothing that can be read; see its list") from None
