"""When a study counts as complete: a pure rule over what is known, with the reason a person can read."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

Because = Literal["quiet", "views", "deadline", "operator"]


@dataclass(frozen=True)
class Rule:
    """The settings of completion; see `node.config.Settings` for the defaults."""

    quiet_s: float
    views_quiet_s: float
    expected_views: frozenset[str]
    deadline_s: float


@dataclass(frozen=True)
class Received:
    """What is known of a study that is still receiving.

    `views` are such as `L-CC`; `open_associations` carried the study before and are still open; `in_flight` objects of
    the study are arriving now. `sliced`: some came one object a slice, and nothing tells how many slices a view has.
    """

    generation_at: datetime
    last_activity_at: datetime
    views: Collection[str]
    open_associations: int
    in_flight: int
    sliced: bool = False


@dataclass(frozen=True)
class Verdict:
    """`because` is None while the study waits; `waiting` then says for what."""

    because: Because | None
    waiting: str


def judge(study: Received, rule: Rule, now: datetime) -> Verdict:
    """Whether to close a study now.

    Complete means: nothing of it in flight, and either all expected views are there, none of them in slices, and quiet
    for `views_quiet_s`, or no open association carries it and quiet for `quiet_s`. The deadline closes it whatever
    happens.
    """
    quiet = (now - study.last_activity_at).total_seconds()
    age = (now - study.generation_at).total_seconds()
    missing = sorted(rule.expected_views - set(study.views))
    if age >= rule.deadline_s:
        return Verdict("deadline", "")
    if study.in_flight:
        return Verdict(None, f"{study.in_flight} object(s) arriving now")
    all_here = bool(rule.expected_views) and not missing
    if all_here and not study.sliced:
        if quiet >= rule.views_quiet_s:
            return Verdict("views", "")
        return Verdict(None, f"all views here; closes {rule.views_quiet_s - quiet:.0f} s from now")
    wanted = f"views missing: {', '.join(missing)}; " if missing else ""
    wanted += "all views here, as slices, whose number is not known; " if all_here else ""
    if study.open_associations:
        return Verdict(None, f"{wanted}{study.open_associations} association(s) still open")
    if quiet >= rule.quiet_s:
        return Verdict("quiet", "")
    return Verdict(None, f"{wanted}closes after {rule.quiet_s - quiet:.0f} s more of quiet")
