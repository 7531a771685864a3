"""Bands around a ROC curve: what the bootstrap leaves of it, for plots."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gmic.evaluate.roc import (
    LEVEL,
    FloatArray,
    Groups,
    IntArray,
    checked,
    percentiles,
    resampled_weights,
)

POINTS = 201
BAND_RESAMPLES = 200


@dataclass(frozen=True)
class RocBand:
    """Sensitivity at each false positive rate, with its interval there."""

    false_positive_rate: FloatArray
    sensitivity: FloatArray
    low: FloatArray
    high: FloatArray


def roc_band(
    labels_N: IntArray,
    scores_N: FloatArray,
    groups_N: Groups = None,
    *,
    resamples: int = BAND_RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> RocBand | None:
    """The ROC curve on an even grid with a pointwise bootstrap interval; None with one class only.

    The interval holds at each false positive rate on its own, not for the curve as a whole. For the
    resamples see `gmic.evaluate.roc`.

    Raises:
        DataError: See `gmic.evaluate.roc.auc`.
    """
    labels, scores = checked(labels_N, scores_N)
    if not 0 < labels.sum() < len(labels):
        return None
    grid = np.linspace(0, 1, POINTS)

    def curves(weights_RN: FloatArray) -> FloatArray:
        return np.stack([_at(grid, labels, scores, weights_N) for weights_N in weights_RN])

    drawn = resampled_weights(
        groups_N,
        len(labels),
        resamples,
        seed,
        lambda weights: np.asarray(
            (weights @ (labels == 1) > 0) & (weights @ (labels == 0) > 0), dtype=np.bool_
        ),
    )
    parts = [curves(weights) for weights, _ in drawn if len(weights)]
    sampled_RP = np.concatenate(parts)
    limits = np.array([percentiles(column, level) for column in sampled_RP.T])
    middle = _at(grid, labels, scores, np.ones(len(labels)))
    return RocBand(grid, middle, limits[:, 0], limits[:, 1])


def _at(
    grid_P: FloatArray, labels_N: IntArray, scores_N: FloatArray, weights_N: FloatArray
) -> FloatArray:
    """Sensitivity (P,) of the weighted cases at each false positive rate."""
    order = np.argsort(-scores_N, kind="stable")
    last = np.flatnonzero(np.r_[np.diff(scores_N[order]) != 0, True])
    positive = np.cumsum(weights_N[order] * (labels_N[order] == 1))[last]
    negative = np.cumsum(weights_N[order] * (labels_N[order] == 0))[last]
    rates = np.r_[0.0, negative / negative[-1]], np.r_[0.0, positive / positive[-1]]
    values: FloatArray = np.interp(grid_P, *rates)
    return values
