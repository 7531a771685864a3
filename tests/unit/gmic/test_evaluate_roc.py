from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from gmic.errors import DataError
from gmic.evaluate import roc
from gmic.evaluate.calibration import calibration
from gmic.evaluate.operating import (
    at_threshold,
    threshold_for_sensitivity,
    threshold_for_specificity,
)


def cases(n: int = 300, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, scores with many ties, and two cases a patient."""
    rng = np.random.default_rng(seed)
    labels = (rng.random(n) < 0.3).astype(int)
    return labels, np.round(rng.normal(size=n) + labels, 1), np.arange(n) // 2


def test_auc_by_hand() -> None:
    # Pairs of (positive, negative): 3 > 1, 3 > 2, 2 > 1 won, 2 = 2 half.
    assert roc.auc([0, 0, 1, 1], [1.0, 2.0, 2.0, 3.0]) == pytest.approx(3.5 / 4)
    assert roc.auc([1, 1], [0.1, 0.2]) is None
    assert roc.bootstrap_auc([0, 0], [0.1, 0.2]) is None
    assert roc.compare([0, 0], [0.1, 0.2], [0.1, 0.2]) is None


def test_weighted_auc_is_that_of_the_repeated_cases() -> None:
    labels, scores, _ = cases()
    times = np.random.default_rng(1).integers(0, 4, (5, len(labels)))
    expected = [roc_auc_score(np.repeat(labels, t), np.repeat(scores, t)) for t in times]
    assert roc.weighted_auc(labels, scores, times.astype(float)) == pytest.approx(expected)


def test_the_bootstrap_draws_whole_patients() -> None:
    labels, _, patients = cases()
    parts = list(
        roc.resampled_weights(patients, len(labels), 50, 0, lambda w: np.ones(len(w), bool))
    )
    weights = np.concatenate([part for part, _ in parts])
    assert weights.shape == (50, len(labels))
    assert (weights[:, ::2] == weights[:, 1::2]).all()
    assert (weights[:, ::2].sum(axis=1) == len(labels) / 2).all()


def test_the_interval_agrees_with_a_plain_loop() -> None:
    labels, scores, _ = cases(120)
    rng = np.random.default_rng(5)
    aucs = []
    for _ in range(400):
        drawn = rng.integers(len(labels), size=len(labels))
        aucs.append(roc_auc_score(labels[drawn], scores[drawn]))
    low, high = np.quantile(aucs, [0.025, 0.975])
    estimate = roc.bootstrap_auc(labels, scores)
    assert estimate is not None
    assert estimate.value == pytest.approx(roc_auc_score(labels, scores))
    assert (estimate.low, estimate.high) == pytest.approx((low, high), abs=0.03)
    assert (estimate.positives, estimate.negatives) == (labels.sum(), 120 - labels.sum())
    assert estimate == roc.bootstrap_auc(labels, scores, seed=0)
    assert estimate != roc.bootstrap_auc(labels, scores, seed=1)


def test_repeating_every_case_does_not_narrow_the_interval_of_patients() -> None:
    labels, scores, _ = cases(100)
    once = roc.bootstrap_auc(labels, scores)
    repeated = np.repeat(labels, 4), np.repeat(scores, 4)
    patients = roc.bootstrap_auc(*repeated, np.repeat(np.arange(100), 4))
    images = roc.bootstrap_auc(*repeated)
    assert once is not None
    assert patients is not None
    assert images is not None
    assert (patients.low, patients.high) == pytest.approx((once.low, once.high))
    assert images.high - images.low < 0.7 * (once.high - once.low)


def test_a_resample_of_one_class_is_drawn_again() -> None:
    estimate = roc.bootstrap_auc([1, 0, 0, 0], [0.9, 0.1, 0.2, 0.3], resamples=200)
    assert estimate is not None
    assert estimate.redrawn > 20  # the one positive is missing from (3/4)^4 of the draws
    assert (estimate.low, estimate.high) == (1.0, 1.0)


def test_paired_comparison() -> None:
    labels, scores, patients = cases()
    noise = np.random.default_rng(2).normal(size=len(labels))
    better = roc.compare(labels, scores, noise, patients)
    assert better is not None
    assert better.difference.value == pytest.approx(
        roc_auc_score(labels, scores) - roc_auc_score(labels, noise)
    )
    assert better.difference.low > 0
    assert better.p_value == pytest.approx(2 / 1001)
    same = roc.compare(labels, scores, scores * 2 + 1, patients)
    assert same is not None
    assert (same.difference.low, same.difference.high, same.p_value) == (0, 0, 1)
    swapped = roc.compare(labels, noise, scores, patients)
    assert swapped is not None
    assert swapped.difference.low == pytest.approx(-better.difference.high)


def test_pairing_gives_a_narrower_interval_than_the_two_intervals_tell() -> None:
    labels, scores, _ = cases()
    close = scores + np.random.default_rng(3).normal(size=len(labels)) * 0.1
    paired = roc.compare(labels, scores, close)
    assert paired is not None
    assert paired.difference.high - paired.difference.low < paired.first.high - paired.first.low


@pytest.mark.parametrize(
    ("labels", "scores", "message"),
    [
        ([], [], "at least one case"),
        ([0, 1], [0.5], "one of each"),
        ([0, 2], [0.5, 0.5], "a label is 2"),
        ([0, 1], [0.5, float("nan")], "a score is nan"),
    ],
)
def test_bad_cases(labels: list[int], scores: list[float], message: str) -> None:
    for call in (roc.auc, roc.bootstrap_auc, calibration):
        with pytest.raises(DataError, match=message):
            call(labels, scores)


def test_bad_bootstraps() -> None:
    with pytest.raises(DataError, match="3 groups for 2 cases"):
        roc.bootstrap_auc([0, 1], [0.1, 0.2], [1, 2, 3])
    with pytest.raises(DataError, match="resamples is 0"):
        roc.bootstrap_auc([0, 1], [0.1, 0.2], resamples=0)
    with pytest.raises(DataError, match="level is 95"):
        roc.bootstrap_auc([0, 1], [0.1, 0.2], level=95)


def test_thresholds_by_hand() -> None:
    labels = [1] * 10 + [0] * 4
    scores = [*(n / 10 for n in range(10)), 0.05, 0.15, 0.85, 0.95]
    found = threshold_for_sensitivity(labels, scores, 0.7)
    assert found == pytest.approx(0.3)
    point = at_threshold(labels, scores, found)
    assert point is not None
    assert (point.sensitivity.value, point.specificity.value) == pytest.approx((0.7, 0.5))
    assert point.sensitivity.low < 0.7 < point.sensitivity.high
    spared = threshold_for_specificity(labels, scores, 0.75)
    assert 0.85 < spared < 0.8500001
    at_most = at_threshold(labels, scores, spared)
    assert at_most is not None
    assert (at_most.sensitivity.value, at_most.specificity.value) == pytest.approx((0.1, 0.75))
    assert threshold_for_sensitivity(labels, scores, 1.0) == 0.0
    assert at_threshold([1, 1], [0.1, 0.2], 0.15) is None
    with pytest.raises(DataError, match="no positive case"):
        threshold_for_sensitivity([0], [0.5], 0.9)
    with pytest.raises(DataError, match="wanted share is 90"):
        threshold_for_specificity(labels, scores, 90)


def test_calibration_by_hand() -> None:
    # Bins of width 0.5: mean 0.2 against 1/2 of two cases, mean 0.9 against 2/2 of two.
    result = calibration([0, 1, 1, 1], [0.1, 0.3, 0.8, 1.0], bins=2)
    assert [(b.low, b.high, b.count) for b in result.bins] == [(0, 0.5, 2), (0.5, 1, 2)]
    assert result.expected_error == pytest.approx((0.3 * 2 + 0.1 * 2) / 4)
    assert result.largest_error == pytest.approx(0.3)
    assert result.brier == pytest.approx((0.01 + 0.49 + 0.04 + 0) / 4)
    assert result.brier_of_prevalence == pytest.approx(0.75 * 0.25)


def test_calibrated_scores_have_little_error_and_equal_counts_fill_every_bin() -> None:
    rng = np.random.default_rng(0)
    scores = rng.random(20000) ** 3
    labels = (rng.random(20000) < scores).astype(int)
    assert calibration(labels, scores).expected_error < 0.02
    even = calibration(labels, scores, equal_counts=True)
    assert [each.count for each in even.bins] == [2000] * 10
    assert len(calibration([0, 1], [0.5, 0.5], equal_counts=True).bins) == 1
    with pytest.raises(DataError, match=r"a score is 1\.5"):
        calibration([0, 1], [0.5, 1.5])
