"""Slices drawn beside the picked ones: range, evenness, repetition."""

from __future__ import annotations

import numpy as np
import pytest

from gmic.train.jitter import jitter_slices


@pytest.mark.parametrize(
    ("picked", "depth", "margin", "reachable"),
    [
        (5, 12, 2, range(3, 8)),
        (0, 12, 3, range(4)),
        (11, 12, 3, range(8, 12)),
        (2, 4, 10, range(4)),
        (7, 12, 0, range(7, 8)),
    ],
)
def test_every_neighbour_is_drawn_as_often_as_any_other(
    picked: int, depth: int, margin: int, reachable: range
) -> None:
    draws = 4000
    rng = np.random.default_rng(0)
    drawn = jitter_slices(np.full(draws, picked), depth, margin, rng)
    counts = np.bincount(drawn, minlength=depth)
    assert counts.nonzero()[0].tolist() == list(reachable)
    share = 1 / len(reachable)
    spread = 4.5 * np.sqrt(draws * share * (1 - share))
    assert np.abs(counts[list(reachable)] - draws * share).max() <= spread


def test_the_same_state_draws_the_same_slices() -> None:
    picked = np.array([0, 4, 9, 2])
    first, second = (jitter_slices(picked, 10, 3, np.random.default_rng(8)) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert first.dtype == np.int64


def test_a_single_slice_draws_nothing() -> None:
    rng = np.random.default_rng(0)
    before = rng.bit_generator.state
    np.testing.assert_array_equal(jitter_slices(np.zeros(3, np.int64), 1, 10, rng), [0, 0, 0])
    assert rng.bit_generator.state == before
