"""Whether a score of 0.7 means seven in ten: reliability curve, Brier score, calibration error.

Scores must lie in [0, 1]. The outputs of 3D-GMIC are no probabilities, and training on a set with
another share of positives than the one evaluated shifts them; these figures show by how much.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gmic.errors import DataError
from gmic.evaluate.roc import FloatArray, IntArray, checked

BINS = 10


@dataclass(frozen=True)
class ReliabilityBin:
    """Cases whose scores lie in [low, high), the last bin's high included."""

    low: float
    high: float
    count: int
    mean_score: float
    positive_share: float


@dataclass(frozen=True)
class Calibration:
    """How scores and shares of positives agree.

    Attributes:
        bins: Those that hold cases, from low to high.
        brier: Mean squared difference of score and label; 0 is best.
        brier_of_prevalence: The same for a model that always says the share of positives.
        expected_error: Mean over cases of |mean score - share of positives| in the case's bin.
        largest_error: The largest of these differences.
    """

    bins: tuple[ReliabilityBin, ...]
    brier: float
    brier_of_prevalence: float
    expected_error: float
    largest_error: float


def calibration(
    labels_N: Sequence[int] | IntArray,
    scores_N: Sequence[float] | FloatArray,
    *,
    bins: int = BINS,
    equal_counts: bool = False,
) -> Calibration:
    """Compare scores with shares of positives, bin by bin.

    Args:
        labels_N: 1 or 0.
        scores_N: In [0, 1].
        bins: How many.
        equal_counts: Bins that hold about as many cases each; else bins of equal width.

    Raises:
        DataError: A score outside [0, 1], fewer than one bin, or see `gmic.evaluate.roc.auc`.
    """
    labels, scores = checked(labels_N, scores_N)
    if bins < 1:
        raise DataError(f"bins is {bins}; give at least 1")
    if scores.min() < 0 or scores.max() > 1:
        wrong = scores.min() if scores.min() < 0 else scores.max()
        raise DataError(f"a score is {wrong:g}; calibration takes scores in [0, 1]")
    edges = np.linspace(0, 1, bins + 1)
    if equal_counts:
        # Equal scores stay together, so few different scores make fewer bins.
        edges = np.unique(np.quantile(scores, edges))
    inner = edges[1:-1]
    numbers_N = np.searchsorted(inner, scores, side="right")
    found = [
        _bin(labels[numbers_N == n], scores[numbers_N == n], edges, n)
        for n in np.unique(numbers_N).tolist()
    ]
    gaps = np.array([abs(each.mean_score - each.positive_share) for each in found])
    counts = np.array([each.count for each in found])
    return Calibration(
        bins=tuple(found),
        brier=float(np.mean((scores - labels) ** 2)),
        brier_of_prevalence=float(np.mean((labels.mean() - labels) ** 2)),
        expected_error=float((gaps * counts).sum() / counts.sum()),
        largest_error=float(gaps.max()),
    )


def _bin(labels: IntArray, scores: FloatArray, edges: FloatArray, n: int) -> ReliabilityBin:
    high = edges[min(n + 1, len(edges) - 1)]
    return ReliabilityBin(
        float(edges[n]), float(high), len(labels), float(scores.mean()), float(labels.mean())
    )
