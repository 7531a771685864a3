"""Algorithm 1 against a naive reading of it, and the rules for ties, borders and nothing left."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gmic import roi


def _naive(
    combined: roi.FloatArray, window: tuple[int, int], num_patches: int, margin: int
) -> list[tuple[int, int, int]]:
    left, found = combined.copy(), []
    depth, rows, cols = left.shape
    for _ in range(num_patches):
        best, place = -1.0, (0, 0, 0)
        for d in range(depth):
            for i in range(rows - window[0] + 1):
                for j in range(cols - window[1] + 1):
                    total = left[d, i : i + window[0], j : j + window[1]].sum()
                    if total > best + 1e-12:
                        best, place = total, (d, i, j)
        found.append(place)
        d, i, j = place
        for e in range(depth):
            if abs(e - d) <= margin:
                left[e, i : i + window[0], j : j + window[1]] = 0
    return found


@pytest.mark.parametrize("seed", range(12))
def test_picks_equal_a_naive_search(seed: int) -> None:
    rng = np.random.default_rng(seed)
    depth, rows, cols = rng.integers((1, 3, 3), (7, 9, 9))
    window = (int(rng.integers(1, 4)), int(rng.integers(1, 4)))
    margin, count = int(rng.integers(0, 4)), int(rng.integers(1, 9))
    combined = rng.random((depth, rows, cols)) * (rng.random((depth, rows, cols)) < 0.5)
    picks = roi.pick_windows(combined, window, count, margin)
    places = [
        (d, i, j)
        for d, (i, j) in zip(picks.slices_K.tolist(), picks.cells_K2.tolist(), strict=True)
    ]
    assert places == _naive(combined, window, count, margin)


def test_clearing_reaches_the_margin_and_no_further() -> None:
    combined = np.zeros((8, 4, 4))
    combined[:, 1, 1] = [0.1, 0.2, 0.3, 0.9, 0.3, 0.25, 0.15, 0.05]
    picks = roi.pick_windows(combined, (1, 1), 4, slice_margin=2)
    assert picks.slices_K.tolist() == [3, 6, 0, 0]
    assert picks.scores_K.tolist() == pytest.approx([0.9, 0.15, 0.1, 0])


def test_of_equal_windows_the_first_wins() -> None:
    combined = np.zeros((2, 5, 5))
    combined[0, 4, 4] = combined[1, 0, 0] = combined[0, 2, 3] = 1
    picks = roi.pick_windows(combined, (2, 2), 3, slice_margin=0)
    assert picks.slices_K.tolist() == [0, 0, 1]
    assert picks.cells_K2.tolist() == [[1, 2], [3, 3], [0, 0]]


def test_when_nothing_is_left_picks_score_nothing() -> None:
    picks = roi.pick_windows(np.zeros((3, 4, 4)), (2, 2), 3, slice_margin=1)
    assert picks.scores_K.tolist() == [0, 0, 0]
    assert picks.slices_K.tolist() == [0, 0, 0]
    assert not picks.cells_K2.any()


def test_cleared_cells_leave_no_rounding_behind() -> None:
    combined = np.random.default_rng(0).random((1, 6, 6)) / 3
    picks = roi.pick_windows(combined, (3, 3), 40, slice_margin=0)
    assert picks.scores_K[-1] == 0


def test_each_class_is_scaled_over_the_whole_volume() -> None:
    saliency = np.zeros((2, 2, 1, 2))
    saliency[0] = [[[0.2, 0.4]], [[0.6, 0.3]]]
    saliency[1] = [[[0.0, 0.01]], [[0.0, 0.02]]]
    np.testing.assert_allclose(
        roi.combined_saliency(saliency), [[[0, 1.0]], [[1.0, 1.25]]], atol=1e-12
    )


@pytest.mark.parametrize("level", [0.0, 0.7])
def test_a_constant_class_adds_nothing(level: float) -> None:
    rng = np.random.default_rng(1)
    saliency = np.stack([rng.random((2, 3, 3)), np.full((2, 3, 3), level)])
    alone = roi.combined_saliency(saliency[:1])
    np.testing.assert_array_equal(roi.combined_saliency(saliency), alone)
    assert not roi.combined_saliency(saliency[1:]).any()


@pytest.mark.parametrize(
    ("pixels", "cells", "window"),
    [
        ((2116, 1339), (33, 21), (4, 4)),
        ((2866, 1814), (44, 28), (4, 4)),
        ((256, 256), (4, 4), (4, 4)),
        ((256, 4000), (3, 62), (3, 4)),
    ],
)
def test_window_of_a_patch(
    pixels: tuple[int, int], cells: tuple[int, int], window: tuple[int, int]
) -> None:
    assert roi.window_cells(256, pixels, cells) == window


def test_window_is_never_empty() -> None:
    assert roi.window_cells(2, (1000, 1000), (10, 10)) == (1, 1)


def test_corners_round_halves_to_even() -> None:
    corners = roi.patch_corners(np.array([[4, 1], [7, 3], [0, 0]]), (700, 500), (11, 8))
    assert corners.tolist() == [[255, 62], [445, 188], [0, 0]]
    assert corners.dtype == np.int64


def test_a_patch_inside_the_image_is_cut_as_it_is() -> None:
    image = torch.arange(48.0).reshape(6, 8)
    assert torch.equal(roi.crop_patch(image, (1, 2), 4), image[1:5, 2:6])


def test_a_patch_that_leaves_the_image_sits_at_its_lower_right() -> None:
    image = torch.arange(48.0).reshape(6, 8) - 5
    patch = roi.crop_patch(image, (4, 6), 4)
    assert torch.equal(patch[2:, 2:], image[4:, 6:])
    assert bool((patch[:2] == -5).all())
    assert bool((patch[:, :2] == -5).all())
