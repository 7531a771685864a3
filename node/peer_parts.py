"""What a peer is for: which results it gets, whether studies are fetched from it, whether it is asked to commit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from node.errors import ConfigError
from node.models import Peer


@dataclass(frozen=True)
class Part:
    """What somebody says that a peer is for; None leaves it as it is."""

    results: tuple[str, ...] | None = None  # kinds that it gets (`results.chosen`); () takes none
    queried: bool | None = None  # studies are fetched from it
    commits: bool | None = None  # asked to commit what it was sent

    @property
    def empty(self) -> bool:
        """Whether it says nothing."""
        return self == UNSAID


UNSAID = Part()

#: What a peer is for that nobody said anything of: it gets the usual results.
NEW: dict[str, Any] = {"receives": True, "results": None, "queried": False, "commits": False}


def columns(peer: Peer, part: Part) -> dict[str, Any]:
    """The columns of a peer that say what it is for, as they are once `part` is said of it.

    Raises:
        ConfigError: a STOW-RS service is to be queried or to commit.
    """
    if peer.kind == "STOW":
        _check_stow(peer.name, part)
    found = {name: getattr(peer, name) for name in NEW}
    if part.results is not None:
        found["receives"] = bool(part.results)
        found["results"] = list(part.results) or None
    if part.queried is not None:
        found["queried"] = part.queried
    if part.commits is not None:
        found["commits"] = part.commits
    return found


def assign(peer: Peer, values: dict[str, Any]) -> None:
    """Set these columns."""
    for name, value in values.items():
        setattr(peer, name, value)


def _check_stow(name: str, part: Part) -> None:
    wishes = {"--query": part.queried, "--commit": part.commits}
    for option, wish in wishes.items():
        if wish:
            raise ConfigError(
                f"{option} is for an AE title; peer {name!r} is a STOW-RS service, so leave it out"
            )
