"""Area under the ROC curve with bootstrap intervals, and the comparison of two models on one set.

The paper gives 95 % intervals from 1,000 bootstrap resamples (VII-B, Table II). Here whole patients
are drawn by default, since the views and breasts of one patient are not independent. A resample
that holds one class only has no AUC and is drawn again; `redrawn` says how often that happened.

Shapes: N cases, G groups (patients), R resamples, U different scores.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gmic.errors import DataError

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
Groups = Sequence[Any] | NDArray[Any] | None
"""The patient (or breast) of each case; None: every case stands for itself."""

RESAMPLES, LEVEL = 1000, 0.95
_CHUNK = 1 << 22
"""Weights held at once: 32 MiB."""


@dataclass(frozen=True)
class Estimate:
    """A figure with its bootstrap interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class AucEstimate(Estimate):
    """An AUC with its interval, and what it was taken from."""

    positives: int
    negatives: int
    redrawn: int


@dataclass(frozen=True)
class Comparison:
    """Two models on the same cases: `difference` is the first's AUC less the second's."""

    first: AucEstimate
    second: AucEstimate
    difference: Estimate
    p_value: float
    """Two-sided: twice the share of resamples whose difference is on the other side of 0, plus one."""


def auc(labels_N: Sequence[int] | IntArray, scores_N: Sequence[float] | FloatArray) -> float | None:
    """Area under the ROC curve, ties counting half; None with one class only.

    Raises:
        DataError: No case, labels other than 0 and 1, scores that are not finite, unequal lengths.
    """
    from sklearn.metrics import roc_auc_score

    labels, scores = checked(labels_N, scores_N)
    return float(roc_auc_score(labels, scores)) if 0 < labels.sum() < len(labels) else None


def bootstrap_auc(
    labels_N: Sequence[int] | IntArray,
    scores_N: Sequence[float] | FloatArray,
    groups_N: Groups = None,
    *,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> AucEstimate | None:
    """AUC with a percentile bootstrap interval; None with one class only.

    Args:
        labels_N: 1 or 0.
        scores_N: Higher is more suspicious.
        groups_N: What is drawn: patients, so that all cases of one come and go together.
        resamples: R.
        level: Of the interval.
        seed: The same seed draws the same resamples.

    Raises:
        DataError: See `auc`.
    """
    labels, scores = checked(labels_N, scores_N)
    drawn = _bootstrap_aucs(labels, [scores], groups_N, resamples, seed)
    if drawn is None:
        return None
    aucs_R, redrawn = drawn[0][0], drawn[1]
    return _auc_estimate(labels, scores, aucs_R, level, redrawn)


def compare(
    labels_N: Sequence[int] | IntArray,
    first_N: Sequence[float] | FloatArray,
    second_N: Sequence[float] | FloatArray,
    groups_N: Groups = None,
    *,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> Comparison | None:
    """Compare two models on the same cases, both on the same resamples; None with one class only.

    Raises:
        DataError: See `auc`.
    """
    labels, first = checked(labels_N, first_N)
    _, second = checked(labels_N, second_N)
    drawn = _bootstrap_aucs(labels, [first, second], groups_N, resamples, seed)
    if drawn is None:
        return None
    (first_R, second_R), redrawn = drawn
    one = _auc_estimate(labels, first, first_R, level, redrawn)
    other = _auc_estimate(labels, second, second_R, level, redrawn)
    differences_R = first_R - second_R
    # Equal models differ by rounding alone.
    differences_R[np.abs(differences_R) < 1e-12] = 0.0
    at_most, at_least = (differences_R <= 0).sum(), (differences_R >= 0).sum()
    p_value = min(1.0, 2 * (1 + int(min(at_most, at_least))) / (resamples + 1))
    difference = Estimate(one.value - other.value, *percentiles(differences_R, level))
    return Comparison(one, other, difference, p_value)


def checked(
    labels_N: Sequence[int] | IntArray, scores_N: Sequence[float] | FloatArray
) -> tuple[IntArray, FloatArray]:
    """Labels and scores as arrays.

    Raises:
        DataError: No case, labels other than 0 and 1, scores that are not finite, unequal lengths.
    """
    labels, scores = np.asarray(labels_N), np.asarray(scores_N, dtype=np.float64)
    if labels.ndim != 1 or labels.shape != scores.shape or not len(labels):
        raise DataError(
            f"labels are of shape {labels.shape} and scores of {scores.shape}; "
            "give one of each a case, and at least one case"
        )
    if not np.isin(labels, (0, 1)).all():
        raise DataError(f"a label is {labels[~np.isin(labels, (0, 1))][0]}; give 0 or 1")
    if not np.isfinite(scores).all():
        raise DataError(f"a score is {scores[~np.isfinite(scores)][0]}; give finite numbers")
    return labels.astype(np.int64), scores


def resampled_weights(
    groups_N: Groups,
    n: int,
    resamples: int,
    seed: int,
    usable: Callable[[FloatArray], NDArray[np.bool_]],
) -> Iterator[tuple[FloatArray, int]]:
    """How often each case is drawn, (r, N), in parts that add up to `resamples` rows.

    Args:
        groups_N: What is drawn, see `bootstrap_auc`.
        n: Cases.
        resamples: R.
        seed: Of the draws.
        usable: Which rows of weights (r, N) to keep; the others are drawn again.

    Yields:
        Weights, and how many rows were not usable while drawing them.

    Raises:
        DataError: Another number of groups than cases, or no resample wanted.
    """
    if resamples < 1:
        raise DataError(f"resamples is {resamples}; give at least 1")
    if groups_N is None:
        members_N, count = np.arange(n), n
    else:
        names, members_N = np.unique(np.asarray(groups_N), return_inverse=True)
        count = len(names)
    if len(members_N) != n:
        raise DataError(f"{len(members_N)} groups for {n} cases; give one a case")
    rng = np.random.default_rng(seed)
    rows, left = max(1, _CHUNK // max(n, count)), resamples
    while left:
        size = min(rows, left)
        picks = rng.integers(count, size=(size, count)) + np.arange(size)[:, None] * count
        times = np.bincount(picks.ravel(), minlength=size * count).reshape(size, count)
        weights = times[:, members_N].astype(np.float64)
        kept = weights[usable(weights)]
        left -= len(kept)
        yield kept, size - len(kept)


def weighted_auc(labels_N: IntArray, scores_N: FloatArray, weights_RN: FloatArray) -> FloatArray:
    """AUC (R,) of the cases counted as often as each row of weights says; ties count half."""
    order = np.argsort(scores_N, kind="stable")
    sorted_scores = scores_N[order]
    starts_U = np.flatnonzero(np.r_[True, sorted_scores[1:] != sorted_scores[:-1]])
    sorted_RN = weights_RN[:, order]
    positive_N = labels_N[order] == 1
    positives_RU = np.add.reduceat(sorted_RN * positive_N, starts_U, axis=1)
    negatives_RU = np.add.reduceat(sorted_RN * ~positive_N, starts_U, axis=1)
    below_RU = np.cumsum(negatives_RU, axis=1) - negatives_RU / 2
    wins_R = (positives_RU * below_RU).sum(axis=1)
    area: FloatArray = wins_R / (positives_RU.sum(axis=1) * negatives_RU.sum(axis=1))
    return area


def percentiles(values_R: FloatArray, level: float) -> tuple[float, float]:
    """The interval that holds the middle `level` of the values.

    Raises:
        DataError: A level outside (0, 1).
    """
    if not 0 < level < 1:
        raise DataError(f"level is {level}; give a number between 0 and 1, such as 0.95")
    low, high = np.quantile(values_R, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _bootstrap_aucs(
    labels_N: IntArray, models: list[FloatArray], groups_N: Groups, resamples: int, seed: int
) -> tuple[list[FloatArray], int] | None:
    """AUCs (R,) of each model on the same resamples, and how many were drawn again."""
    if not 0 < labels_N.sum() < len(labels_N):
        return None

    def both_classes(weights_RN: FloatArray) -> NDArray[np.bool_]:
        positives_R = weights_RN @ labels_N
        both: NDArray[np.bool_] = (positives_R > 0) & (weights_RN.sum(axis=1) > positives_R)
        return both

    parts: list[list[FloatArray]] = [[] for _ in models]
    redrawn = 0
    for weights_RN, unusable in resampled_weights(
        groups_N, len(labels_N), resamples, seed, both_classes
    ):
        redrawn += unusable
        for part, scores_N in zip(parts, models, strict=True):
            part.append(weighted_auc(labels_N, scores_N, weights_RN))
    return [np.concatenate(part) for part in parts], redrawn


def _auc_estimate(
    labels_N: IntArray, scores_N: FloatArray, aucs_R: FloatArray, level: float, redrawn: int
) -> AucEstimate:
    value = weighted_auc(labels_N, scores_N, np.ones((1, len(labels_N))))[0]
    low, high = percentiles(aucs_R, level)
    positives = int(labels_N.sum())
    return AucEstimate(float(value), low, high, positives, len(labels_N) - positives, redrawn)
