"""Drift: what comes in, what the models say of it, and how that turns out, by month. Pure statistics over rows.

Scores are breast-wise, in [0, 1]: the mean over a breast's images, as in the evaluation. Months are those of the exam,
YYYY-MM. Every interval is of 95 %. Breasts are counted as if they were independent; `docs/drift.md` says what follows.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from node.labels.outcomes import Predicted

REFERENCE_BREASTS = 200
"""The first months of a version that hold so many breasts are what later months are compared with."""
FEWEST_BREASTS = 50
"""A month with fewer is not compared."""
_BINS = 10
_SOME, _SHIFT = 0.1, 0.25  # the customary thresholds of the index
# 95 % quantiles of chi-square with 1 to 9 degrees of freedom
_CHI2_95 = (3.841, 5.991, 7.815, 9.488, 11.070, 12.592, 14.067, 15.507, 16.919)
_Z = 1.959964
_HALVINGS = 50  # of an interval of length 1: far below the last digit shown

_Row = TypeVar("_Row")


@dataclass(frozen=True)
class Quantiles:
    """How values are spread: 5 %, quartiles, 95 %."""

    p05: float
    p25: float
    p50: float
    p75: float
    p95: float


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Shift:
    """The population stability index of a month against the reference. `noise`: what chance alone exceeds one time in
    20. `word`: steady, some (above 0.1) or shift (above 0.25), the latter two only above the noise."""

    psi: float
    noise: float
    word: str


@dataclass(frozen=True)
class Scored:
    """One breast as one model version read it; `month` is None where the study has no date, `caveat` what a reader must
    know of the weights."""

    month: str | None
    version: str
    trained: bool
    benign: float
    malignant: float
    caveat: str = ""


@dataclass(frozen=True)
class ScoreMonth:
    """The scores of one version in one month. The shifts are None in the reference and where breasts are too few."""

    version: str
    month: str
    trained: bool
    breasts: int
    reference: bool
    malignant: Quantiles
    benign: Quantiles
    malignant_shift: Shift | None
    benign_shift: Shift | None


@dataclass(frozen=True)
class OutcomeMonth:
    """What pathology said of the breasts of a month that a version had read before; `month` None: all months.

    `known_before` breasts were labelled before they were read; they are in no other figure. A breast with both findings
    counts as both. `malignant_auc` is among breasts with pathology, None without both kinds.
    """

    version: str
    month: str | None
    trained: bool
    breasts: int
    known_before: int
    malignant: int
    benign: int
    neither: int
    malignant_auc: Estimate | None


def quantiles(values: Sequence[float]) -> Quantiles | None:
    """Quantiles, between two values in a straight line; None of nothing."""
    return _spread(values) if values else None


def _spread(values: Sequence[float]) -> Quantiles:
    return Quantiles(*np.quantile(values, (0.05, 0.25, 0.5, 0.75, 0.95)).tolist())


def share(count: int, total: int) -> Estimate | None:
    """A share with Wilson's interval (1927); None of nothing."""
    if total == 0:
        return None
    p, z2 = count / total, _Z**2 / total
    centre = (p + z2 / 2) / (1 + z2)
    half = math.sqrt(z2 * (p * (1 - p) + z2 / 4)) / (1 + z2)
    return Estimate(p, min(p, max(0.0, centre - half)), max(p, min(1.0, centre + half)))


def auc(positive: Sequence[float], negative: Sequence[float]) -> Estimate | None:
    """Area under the ROC curve, a tie as one half; None unless there are both kinds.

    The interval is Newcombe's method 5 (Statistics in Medicine 2006; 25: 559-573): the areas whose own standard error,
    by Hanley and McNeil with both groups of the mean size, does not exclude the one found. It never leaves [0, 1] and
    has a width even where the groups do not overlap.
    """
    if not positive or not negative:
        return None
    below = np.searchsorted(np.sort(negative), positive, side="left")
    up_to = np.searchsorted(np.sort(negative), positive, side="right")
    area = float((below + up_to).mean() / (2 * len(negative)))
    m, n = len(positive), len(negative)
    return Estimate(area, _end(area, 0.0, m, n), _end(area, 1.0, m, n))


def _end(area: float, outside: float, m: int, n: int) -> float:
    """Where the interval ends between the area found, which lies in it, and 0 or 1."""
    inside = area
    for _ in range(_HALVINGS):
        middle = (inside + outside) / 2
        spread = (1 - middle) / (2 - middle) + middle / (1 + middle)
        variance = middle * (1 - middle) * (1 + ((m + n) / 2 - 1) * spread) / (m * n)
        if (area - middle) ** 2 <= _Z**2 * variance:
            inside = middle
        else:
            outside = middle
    return outside if abs(outside - inside) < 1e-9 else inside


def shift(reference: Sequence[float], values: Sequence[float]) -> Shift:
    """Population stability index over the tenths of the reference; half a case is added to each, so none is empty.

    The noise is the 95 % quantile of chi-square times (1/n + 1/m), as the index is distributed where nothing changed
    (Yurdakul, Naranjo 2020).
    """
    edges = np.unique(np.quantile(reference, np.arange(1, _BINS) / _BINS))
    was, found = (_shares(np.searchsorted(edges, x, side="right"), len(edges) + 1)
                  for x in (reference, values))  # fmt: skip
    index = float(((found - was) * np.log(found / was)).sum())
    noise = _CHI2_95[len(edges) - 1] * (1 / len(reference) + 1 / len(values))
    word = "steady"
    if index > max(_SOME, noise):
        word = "shift" if index > _SHIFT else "some"
    return Shift(index, noise, word)


def _shares(places: np.ndarray, bins: int) -> np.ndarray:
    counts = np.bincount(places, minlength=bins) + 0.5
    return np.asarray(counts / counts.sum())


def score_months(rows: Iterable[Scored]) -> list[ScoreMonth]:
    """The scores of every version by month, newest month first; breasts without a month are left out."""
    found = []
    for version, of_version in grouped(rows, lambda row: row.version).items():
        months = grouped(of_version, lambda row: row.month)
        first = _first_months(months)
        reference = [row for month in first for row in months[month]]
        found += [
            _score_month(version, month, part, reference, month in first)
            for month, part in months.items()
        ]
    return sorted(found, key=lambda one: (one.month, one.version), reverse=True)


def _first_months(months: Mapping[str, Sequence[Scored]]) -> set[str]:
    """The fewest first months that hold `REFERENCE_BREASTS`, or all."""
    chosen: set[str] = set()
    count = 0
    for month in sorted(months):
        if count >= REFERENCE_BREASTS:
            break
        chosen.add(month)
        count += len(months[month])
    return chosen


def _score_month(
    version: str,
    month: str,
    part: Sequence[Scored],
    reference: Sequence[Scored],
    is_reference: bool,
) -> ScoreMonth:
    compared = not is_reference and len(part) >= FEWEST_BREASTS
    malignant, benign = [row.malignant for row in part], [row.benign for row in part]
    malignant_before = [row.malignant for row in reference]
    benign_before = [row.benign for row in reference]
    return ScoreMonth(
        version=version,
        month=month,
        trained=all(row.trained for row in part),
        breasts=len(part),
        reference=is_reference,
        malignant=_spread(malignant),
        benign=_spread(benign),
        malignant_shift=shift(malignant_before, malignant) if compared else None,
        benign_shift=shift(benign_before, benign) if compared else None,
    )


def outcome_months(rows: Iterable[Predicted]) -> list[OutcomeMonth]:
    """Outcomes by version and month of the exam, newest first; before its months each version's total."""
    found = []
    for version, of_version in grouped(rows, lambda row: row.model_version).items():
        months = grouped(of_version, lambda row: row.month)
        found.append(_outcomes(version, None, of_version))
        found += [
            _outcomes(version, month, months[month]) for month in sorted(months, reverse=True)
        ]
    return found


def _outcomes(version: str, month: str | None, rows: Sequence[Predicted]) -> OutcomeMonth:
    late = [row for row in rows if row.late]
    return OutcomeMonth(
        version=version,
        month=month,
        trained=all(row.trained for row in rows),
        breasts=len(late),
        known_before=len(rows) - len(late),
        malignant=sum(row.malignant for row in late),
        benign=sum(row.benign for row in late),
        neither=sum(not row.malignant and not row.benign for row in late),
        malignant_auc=auc(
            [row.score_malignant for row in late if row.malignant],
            [row.score_malignant for row in late if not row.malignant],
        ),
    )


def grouped(rows: Iterable[_Row], key: Callable[[_Row], str | None]) -> dict[str, list[_Row]]:
    """Rows by key; those without one are left out."""
    out: dict[str, list[_Row]] = defaultdict(list)
    for row in rows:
        name = key(row)
        if name is not None:
            out[name].append(row)
    return dict(out)
