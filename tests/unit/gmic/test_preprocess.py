"""Cropping, placing and standardising: against plain definitions, and at the edges."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gmic.breast import breast_mask, find_crop
from gmic.errors import InputError, NoBreastError
from gmic.preprocess import Preprocessed, best_centre, place_window, preprocess, standardise


def half_ellipse(height: int, width: int, radii: tuple[float, float], value: int) -> np.ndarray:
    """One frame, chest wall at the left edge, background 0."""
    rows, cols = np.ogrid[:height, :width]
    inside = ((rows - height / 2) / radii[0]) ** 2 + (cols / radii[1]) ** 2 < 1
    return np.where(inside, value, 0).astype(np.uint16)


def opened_step_by_step(mask: np.ndarray, steps: int) -> np.ndarray:
    """Erode, keep the largest component, dilate; one pixel at a time."""
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    border = {"borderType": cv2.BORDER_CONSTANT, "borderValue": 0}
    core = cv2.erode(mask.astype(np.uint8), cross, iterations=steps, **border)
    count, labels = cv2.connectedComponents(core, connectivity=4)
    largest = 1 + int(np.argmax([(labels == i).sum() for i in range(1, count)]))
    kept = (labels == largest).astype(np.uint8)
    return cv2.dilate(kept, cross, iterations=steps, **border).astype(bool)


@pytest.mark.parametrize("seed", range(4))
def test_mask_is_the_opening_by_100_steps(seed: int) -> None:
    rng = np.random.default_rng(seed)
    frame = np.zeros((1400, 900), np.uint8)
    for top in range(0, 1400, 140):  # tongues from the chest wall: parts, bridges, but no holes
        frame[top : top + int(rng.integers(100, 280)), : int(rng.integers(20, 900))] = 200
    mask = frame > 100
    assert 0 < opened_step_by_step(mask, 100).sum() < mask.sum()
    np.testing.assert_array_equal(breast_mask(frame), opened_step_by_step(mask, 100))


def test_holes_are_filled_before_the_erosions() -> None:
    frame = np.full((500, 400), 300, np.uint16)
    frame[:, 390:] = 0
    whole = breast_mask(frame)
    frame[200:240, 150:190] = 0
    np.testing.assert_array_equal(breast_mask(frame), whole)


def test_labels_and_lines_are_no_breast() -> None:
    breast = half_ellipse(900, 700, (350, 420), 900)
    marked = breast.copy()
    marked[20:80, 560:690] = 3500
    marked[:, 650:653] = 2500
    assert find_crop(marked) == find_crop(breast)


def test_crop_keeps_a_buffer_except_at_the_chest_wall() -> None:
    frame = np.zeros((1200, 900), np.uint16)
    frame[300:900, 40:640] = 500
    crop = find_crop(frame)
    assert crop.box == (250, 40, 950, 690)
    assert (crop.rightmost_col, crop.bottommost_row) == (599, 649)


def test_an_armpit_in_the_upper_third_is_not_the_foremost_point() -> None:
    frame = np.zeros((1500, 1400), np.uint16)
    frame[:1200, :600] = 500
    frame[:300, :1300] = 500
    assert find_crop(frame).rightmost_col == 599


@pytest.mark.parametrize("thickness", [1, 2, 3, 40, 150, 200])
def test_a_breast_too_thin_for_100_erosions_is_still_found(thickness: int) -> None:
    frame = np.zeros((600, 500), np.uint16)
    frame[200:500, :thickness] = 400
    top, left, bottom, right = find_crop(frame).box
    assert (left, right) == (0, thickness + 50)
    assert 150 <= top < bottom <= 550


@pytest.mark.parametrize(
    "volume",
    [np.zeros((2, 40, 30), np.uint16), np.full((2, 40, 30), 100, np.int16)],
    ids=["empty", "at the threshold"],
)
def test_no_voxel_above_the_threshold(volume: np.ndarray) -> None:
    with pytest.raises(NoBreastError, match=f"threshold 100.*largest is {volume.max()}"):
        preprocess(volume, "L", "CC")


@pytest.mark.parametrize(
    ("volume", "laterality", "view", "message"),
    [
        (np.ones((40, 30)), "L", "CC", r"shape \(40, 30\)"),
        (np.ones((0, 40, 30)), "L", "CC", r"shape \(0, 40, 30\)"),
        (np.ones((2, 40, 30), bool), "L", "CC", "type bool"),
        (np.ones((2, 40, 30), np.uint16), "B", "CC", "laterality is 'B'"),
        (np.ones((2, 40, 30), np.uint16), "L", "RCC", "view is 'RCC'"),
        (np.stack([np.ones((9, 9)), np.full((9, 9), np.nan)]), "L", "CC", "slice 1 .* NaN"),
        (np.full((1, 9, 9), -np.inf, np.float32), "L", "CC", "slice 0 .* infinity"),
        (np.full((2, 400, 300), 500, np.uint16), "L", "CC", "every voxel of the volume is 500"),
        (np.full((2, 3000, 1500), 500.0), "R", "MLO", "every voxel of the volume is 500"),
        (np.linspace(0, 3e38, 2400).reshape(2, 40, 30), "L", "CC", r"a voxel .* is 3e\+38"),
        (np.linspace(-1e300, 200, 2400).reshape(2, 40, 30), "L", "CC", r"is -1e\+300"),
        ([[[1, 2], [3, 4]]], "L", "CC", "volume is a list; give a numpy array"),
    ],
)
def test_refused_inputs(volume: np.ndarray, laterality: str, view: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        preprocess(volume, laterality, view)


@pytest.mark.parametrize("dtype", [np.uint16, np.int16, np.float32, np.float64])
def test_voxel_type_does_not_matter(dtype: type) -> None:
    volume = np.stack([half_ellipse(300, 200, (120, 150), value) for value in (300, 900)])
    expected = preprocess(volume, "L", "CC").window_DHW
    np.testing.assert_array_equal(preprocess(volume.astype(dtype), "L", "CC").window_DHW, expected)


@pytest.mark.parametrize("shape", [(1, 7, 5), (3, 401, 377), (5, 640, 513)])
def test_standardise_is_numpy_bit_for_bit(shape: tuple[int, int, int]) -> None:
    values = np.random.default_rng(5).uniform(0, 4000, shape).astype(np.float32)
    expected = (values - values.mean()) / values.std()
    standardise(values)
    np.testing.assert_array_equal(values, expected)


def test_a_flat_window_becomes_zero_not_nan() -> None:
    volume = np.full((2, 60, 50), 700, np.uint16)
    volume[:, 55:] = 0  # outside the window
    window_DHW, _ = preprocess(volume, "L", "CC", window_shape=(9, 8))
    np.testing.assert_array_equal(window_DHW, 0)


def test_small_image_is_padded_above_and_below_and_before_the_tip() -> None:
    volume = half_ellipse(1010, 638, (400, 500), 600)[None]
    window_DHW, transform = preprocess(volume, "L", "CC")
    top, left, bottom, right = transform.content
    assert window_DHW.shape == (1, 2116, 1339)
    assert left == 0
    assert right < 638
    assert 2116 - bottom - top in (0, 1)
    shown = window_DHW[0, top:bottom, left:right]
    assert (shown > 0).sum() == np.count_nonzero(volume)
    assert window_DHW[0, top - 1].max() == window_DHW[0, :, right].max() == window_DHW.min()


def test_a_breast_wider_than_the_window_keeps_its_tip() -> None:
    volume = half_ellipse(800, 900, (300, 780), 600)[None]
    mask = breast_mask(volume[0])
    foremost = int(np.flatnonzero(mask.any(axis=0))[-1])
    for laterality, voxels in (("L", volume), ("R", volume[:, :, ::-1])):
        _, transform = preprocess(voxels, laterality, "CC", window_shape=(500, 400))
        assert transform.col_offset + 400 == foremost
        assert transform.flipped == (laterality == "R")


def test_only_lateral_views_must_reach_the_lowest_point() -> None:
    frame = np.zeros((1400, 700), np.uint16)
    frame[50:1300, :400] = 300
    frame[50:700, :400] = 3000  # most signal is above
    lowest = int(np.flatnonzero(breast_mask(frame).any(axis=1))[-1])
    end = {}
    for view in ("CC", "MLO"):
        _, transform = preprocess(frame[None], "L", view, window_shape=(800, 600))
        end[view] = transform.row_offset + 800
    assert end["MLO"] == lowest
    assert end["CC"] < lowest


@given(
    height=st.integers(3, 24),
    width=st.integers(3, 24),
    rows=st.integers(1, 30),
    cols=st.integers(1, 30),
    seed=st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_best_centre_is_the_best_of_all_windows(
    height: int, width: int, rows: int, cols: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    frame = rng.integers(0, 3, (height, width)).astype(np.uint16)
    reach_row, reach_col = int(rng.integers(height)), int(rng.integers(width))
    centre = best_centre(frame, (rows, cols), reach_row=reach_row, reach_col=reach_col)
    tall, wide = min(rows, height), min(cols, width)
    found = []
    for top in range(height - tall + 1):
        for left in range(width - wide + 1):
            if top + tall >= reach_row and left + wide >= reach_col:
                middle = (top + tall // 2, left + wide // 2)
                away = (middle[0] - height // 2) ** 2 + (middle[1] - width // 2) ** 2
                total = int(frame[top : top + tall, left : left + wide].sum(dtype=np.int64))
                found.append((-total, away, middle))
    assert centre == min(found)[2]


def test_a_centre_near_the_edge_does_not_push_the_window_out() -> None:
    transform = place_window((1, 90, 80), (20, 30), (10, 0, 90, 60), (2, 59), flipped=False)
    assert (transform.row_offset, transform.col_offset) == (10, 30)
    assert transform.content == (0, 0, 20, 30)


def test_result_unpacks_in_order() -> None:
    result = preprocess(half_ellipse(90, 70, (40, 50), 500)[None], laterality="L", view="CC")
    window_DHW, transform = result
    assert isinstance(result, Preprocessed)
    assert window_DHW.shape == transform.window_shape
    assert transform.source_shape == (1, 90, 70)
