"""Random shifting and resizing: what is drawn, and what is then done."""

from __future__ import annotations

import numpy as np
import pytest

from gmic.errors import ConfigError
from gmic.train.augment import Shift, apply, draw, reach
from tests.unit.gmic.small import volume


def test_nothing_drawn_is_nothing_done() -> None:
    image = volume()
    assert apply(image, Shift()) is image


def test_whole_pixels_copy_values_and_fill_with_the_slices_minimum() -> None:
    image = volume()
    moved = apply(image, Shift(rows=7, cols=-5))
    assert moved.shape == image.shape
    for d, slice_HW in enumerate(image):
        np.testing.assert_array_equal(moved[d][7:, :-5], slice_HW[:-7, 5:])
        assert set(moved[d][:7].ravel()) == set(moved[d][:, -5:].ravel()) == {slice_HW.min()}


def test_growth_is_about_the_centre_and_counts_pixels_of_the_longer_side() -> None:
    rows = np.broadcast_to(np.arange(201.0, dtype=np.float32)[:, None], (1, 201, 101))
    grown = apply(rows, Shift(growth=20.1))[0]
    np.testing.assert_allclose(grown[:, 50], 100 + (np.arange(201) - 100) / 1.1, atol=0.05)
    shrunk = apply(rows, Shift(growth=-20.1))[0]
    inside = shrunk[15:-15, 50]
    np.testing.assert_allclose(inside, 100 + (np.arange(201) - 100)[15:-15] / 0.9, atol=0.05)


def test_shift_and_growth_together_move_the_grown_image() -> None:
    spot = np.zeros((1, 64, 64), dtype=np.float32)
    spot[0, 40, 20] = 1
    moved = apply(spot, Shift(rows=6, cols=3, growth=12.8))[0]
    row, col = np.unravel_index(moved.argmax(), moved.shape)
    assert abs(row - (31.5 + (40 - 31.5) * 1.2 + 6)) <= 0.5
    assert abs(col - (31.5 + (20 - 31.5) * 1.2 + 3)) <= 0.5


def test_draws_fill_their_range_and_no_more() -> None:
    drawn = [draw(np.random.default_rng(seed), (9, 2116, 1339)) for seed in range(300)]
    parts = np.array([[s.rows, s.cols, s.growth] for s in drawn])
    assert np.abs(parts).max() <= 100
    assert (parts.min(axis=0) < -90).all()
    assert (parts.max(axis=0) > 90).all()
    assert np.abs(np.corrcoef(parts.T) - np.eye(3)).max() < 0.2


def test_the_reach_follows_small_windows_and_stays_100_in_large_ones() -> None:
    assert reach((529, 335)) == 25
    assert reach((2116, 1339)) == reach((2866, 1814)) == 100


def test_the_same_generator_draws_the_same_shift() -> None:
    first, second = (draw(np.random.default_rng(5), (96, 64)) for _ in range(2))
    assert first == second != Shift()


def test_slices_are_made_when_asked_for_and_alike_each_time() -> None:
    image = volume()
    asked = []

    class Source:
        shape = image.shape

        def __getitem__(self, index: int) -> np.ndarray:
            asked.append(index)
            return image[index]

    moved = apply(Source(), Shift(rows=1.5, growth=3))
    assert asked == []
    np.testing.assert_array_equal(moved[2], moved[2])
    assert asked == [2, 2]


def test_shrinking_to_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"growth is -300; it must be above -256"):
        apply(volume(), Shift(growth=-300))
