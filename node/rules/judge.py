"""Which rule a study falls under: a pure function, with the reason why each rule before it did not match."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from node.catalogue.match import day, time_of_day
from node.rules.model import Condition, Days, Facts, Glob, Image, Numbers, Rule, Term

_MIDNIGHT = "000000.000000"
_SHOWN = 3  # values that are named where none fits


@dataclass(frozen=True)
class Judgement:
    """The first rule that matches (None: none does), and why those before it do not."""

    rule: Rule | None
    passed_over: tuple[tuple[Rule, str], ...]


def judge(rules: tuple[Rule, ...], study: Facts) -> Judgement:
    """Hold a study against the rules in their order; the first that matches wins."""
    passed_over: list[tuple[Rule, str]] = []
    for rule in rules:
        reason = why_not(rule, study)
        if reason is None:
            return Judgement(rule, tuple(passed_over))
        passed_over.append((rule, reason))
    return Judgement(None, tuple(passed_over))


def why_not(rule: Rule, study: Facts) -> str | None:
    """Why a rule does not match a study, for people; None: it matches. No value of a patient attribute is told."""
    when = rule.when
    if when.pulled is not None and when.pulled is not study.pulled:
        return f"the study was {'' if study.pulled else 'not '}pulled"
    if missing := sorted(when.views - study.views):
        return f"views missing: {', '.join(missing)}"
    tests: list[tuple[Callable[[Image], bool], str]] = []
    if when.calling_ae:
        tests.append((lambda image: _sent_by(image, when.calling_ae), _senders(study)))
    for condition in when.attributes:
        tests.append((lambda image, c=condition: _has(image, c), _values(condition, study)))  # type: ignore[misc]
    for test, found in tests:
        if not any(test(image) for image in study.images):
            return found
    if tests and not any(all(test(image) for test, _ in tests) for image in study.images):
        return "no one image fulfils all of it"
    return None


def holds(term: Term, value: str) -> bool:
    """Whether one value of an attribute ("" where it is absent) is what a term asks for."""
    if isinstance(term, Glob):
        return _compiled(term.pattern).fullmatch(value) is not None
    if isinstance(term, Numbers):
        try:
            number = float(value)
        except ValueError:
            return False
        return (term.low is None or number >= term.low) and (
            term.high is None or number <= term.high
        )
    comparable = day(value) if isinstance(term, Days) else _moment(value)
    return comparable is not None and (
        (term.low is None or comparable >= term.low)
        and (term.high is None or comparable <= term.high)
    )


def _has(image: Image, condition: Condition) -> bool:
    values = image.values.get(condition.tag) or ("",)
    return any(holds(term, value) for term in condition.terms for value in values)


def _sent_by(image: Image, globs: tuple[Glob, ...]) -> bool:
    return image.calling_ae is not None and any(holds(g, image.calling_ae) for g in globs)


def _senders(study: Facts) -> str:
    names = sorted({image.calling_ae for image in study.images if image.calling_ae is not None})
    return f"calling_ae is {', '.join(names)}" if names else "calling_ae is not known"


def _values(condition: Condition, study: Facts) -> str:
    if condition.secret:
        return f"{condition.name} is another (values of patients are not shown)"
    found = sorted({v for image in study.images for v in image.values.get(condition.tag, ())})
    if not any(found):
        return f"{condition.name} is absent or empty"
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return f"{condition.name} is {', '.join(map(repr, found[:_SHOWN]))}{more}"


def _moment(value: str) -> str | None:
    """A stored time as HHMMSS.ffffff; one that is cut short counts as its first moment."""
    plain = time_of_day(value)
    return plain + _MIDNIGHT[len(plain) :] if plain else None


@lru_cache(maxsize=512)
def _compiled(pattern: str) -> re.Pattern[str]:
    parts = ({"*": ".*", "?": "."}.get(one, re.escape(one)) for one in pattern)
    return re.compile("".join(parts), re.IGNORECASE | re.DOTALL)
