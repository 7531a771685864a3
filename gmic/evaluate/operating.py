"""Operating points: the threshold for a wanted sensitivity or specificity, and what it gives.

A threshold is best chosen on validation cases and measured on others. The intervals are those of
`at_threshold`: the threshold stays, patients are drawn; they do not count the choice of the threshold.
With every positive found, or every negative left alone, the bootstrap has nothing to vary and the
interval is that one point.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gmic.errors import DataError
from gmic.evaluate.roc import (
    LEVEL,
    RESAMPLES,
    Estimate,
    FloatArray,
    Groups,
    IntArray,
    checked,
    percentiles,
    resampled_weights,
)


@dataclass(frozen=True)
class OperatingPoint:
    """What calling every case from `threshold` on positive gives."""

    threshold: float
    sensitivity: Estimate
    specificity: Estimate
    positives: int
    negatives: int


def threshold_for_sensitivity(
    labels_N: Sequence[int] | IntArray, scores_N: Sequence[float] | FloatArray, wanted: float
) -> float:
    """The highest threshold that finds at least the `wanted` share of the positives.

    Raises:
        DataError: No positive case, a share outside (0, 1], or see `gmic.evaluate.roc.auc`.
    """
    labels, scores = checked(labels_N, scores_N)
    return _cut(np.sort(scores[labels == 1])[::-1], wanted, "positive")


def threshold_for_specificity(
    labels_N: Sequence[int] | IntArray, scores_N: Sequence[float] | FloatArray, wanted: float
) -> float:
    """The lowest threshold that leaves at least the `wanted` share of the negatives below it.

    Raises:
        DataError: No negative case, a share outside (0, 1], or see `gmic.evaluate.roc.auc`.
    """
    labels, scores = checked(labels_N, scores_N)
    highest_left = _cut(np.sort(scores[labels == 0]), wanted, "negative")
    return float(np.nextafter(highest_left, np.inf))


def at_threshold(
    labels_N: Sequence[int] | IntArray,
    scores_N: Sequence[float] | FloatArray,
    threshold: float,
    groups_N: Groups = None,
    *,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> OperatingPoint | None:
    """Sensitivity and specificity at a threshold, with intervals; None with one class only.

    The bootstrap is that of `gmic.evaluate.roc.bootstrap_auc`.

    Raises:
        DataError: See `gmic.evaluate.roc.auc`.
    """
    labels, scores = checked(labels_N, scores_N)
    positives = int(labels.sum())
    if not 0 < positives < len(labels):
        return None
    positive_N, called_N = labels == 1, scores >= threshold
    found_N, spared_N = (positive_N & called_N), (~positive_N & ~called_N)

    def both_classes(weights_RN: FloatArray) -> NDArray[np.bool_]:
        both: NDArray[np.bool_] = (weights_RN @ positive_N > 0) & (weights_RN @ ~positive_N > 0)
        return both

    weights = resampled_weights(groups_N, len(labels), resamples, seed, both_classes)
    shares = [
        (w @ found_N / (w @ positive_N), w @ spared_N / (w @ ~positive_N)) for w, _ in weights
    ]
    sensitivity_R, specificity_R = (np.concatenate(part) for part in zip(*shares, strict=True))
    negatives = len(labels) - positives
    return OperatingPoint(
        float(threshold),
        Estimate(float(found_N.sum()) / positives, *percentiles(sensitivity_R, level)),
        Estimate(float(spared_N.sum()) / negatives, *percentiles(specificity_R, level)),
        positives,
        negatives,
    )


def _cut(ordered: FloatArray, wanted: float, what: str) -> float:
    """The value up to which the first `wanted` share of ordered values lies."""
    if not len(ordered):
        raise DataError(f"no {what} case; a threshold needs at least one")
    if not 0 < wanted <= 1:
        raise DataError(f"the wanted share is {wanted}; give a number above 0 and at most 1")
    # A share such as 0.7 of 10 must be 7 of them, whatever the last bit of the product says.
    count = int(np.ceil(wanted * len(ordered) - 1e-9))
    return float(ordered[max(count, 1) - 1])
