"""What a rules file says, as values, and what is known of a study that the rules are held against."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

ACTIVE = "active"  # the model version that answers for the node
NONE = "none"
ALL = "all"


@dataclass(frozen=True)
class Glob:
    """Text with `*` and `?`, whatever the case; an absent value is the empty text."""

    pattern: str


@dataclass(frozen=True)
class Numbers:
    """From `low` to `high`, both included; None is open."""

    low: float | None
    high: float | None


@dataclass(frozen=True)
class Days:
    """From `low` to `high`, both included, as YYYYMMDD; None is open."""

    low: str | None
    high: str | None


@dataclass(frozen=True)
class Times:
    """From `low` to `high`, both included, as HHMMSS.ffffff; None is open."""

    low: str | None
    high: str | None


Term = Glob | Numbers | Days | Times


@dataclass(frozen=True)
class Condition:
    """One attribute that an image must have: one of `terms`. `secret`: its values are never shown."""

    name: str  # as the file calls it
    tag: int
    terms: tuple[Term, ...]
    secret: bool


@dataclass(frozen=True)
class When:
    """What a study must be like; all that is given must hold.

    `attributes` and `calling_ae` hold for one and the same image; `views` are all in the study.
    """

    attributes: tuple[Condition, ...] = ()
    calling_ae: tuple[Glob, ...] = ()  # empty: any
    views: frozenset[str] = frozenset()
    pulled: bool | None = None


@dataclass(frozen=True)
class Then:
    """What becomes of such a study: `model` is ACTIVE, NONE or a version; `destinations` None means all."""

    model: str = ACTIVE
    destinations: tuple[str, ...] | None = None
    results: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Rule:
    """One rule; `name` is unique in its file."""

    name: str
    when: When
    then: Then

    def frozen(self) -> dict[str, Any]:
        """As `runs.route` keeps it, so that a later edit of the file changes nothing for a run."""
        to = self.then.destinations
        return {
            "rule": self.name,
            "destinations": None if to is None else list(to),
            "results": {peer: list(kinds) for peer, kinds in self.then.results.items()},
        }


@dataclass(frozen=True)
class Known:
    """The names that a rule may use: of peers, with whether results go to them, and of model versions."""

    peers: Mapping[str, bool]
    versions: frozenset[str]


@dataclass(frozen=True)
class Image:
    """One image object: who sent it (None: not known), and its values by tag, for the tags that rules ask for."""

    calling_ae: str | None
    values: Mapping[int, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Facts:
    """What is known of a study: its image objects, the views (`L-CC`) among them, whether it was pulled."""

    images: tuple[Image, ...]
    views: frozenset[str]
    pulled: bool


def tags(rules: tuple[Rule, ...]) -> frozenset[int]:
    """The attributes that any rule asks for."""
    return frozenset(one.tag for rule in rules for one in rule.when.attributes)
