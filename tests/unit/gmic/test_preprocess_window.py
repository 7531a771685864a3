"""The map between window and source is exact for every side, view and size."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gmic.errors import InputError
from gmic.preprocess import preprocess
from gmic.window import WindowTransform

SIDES_AND_VIEWS = [(side, view) for side in "LR" for view in ("CC", "MLO")]


class Case(NamedTuple):
    """A block of tissue at the chest wall, in L orientation, and the window to cut."""

    seed: int
    shape: tuple[int, int, int]
    block: tuple[int, int, int, int]
    window_shape: tuple[int, int]

    def volume(self, side: str) -> np.ndarray:
        rng = np.random.default_rng(self.seed)
        row0, col0, row1, col1 = self.block
        volume = rng.integers(0, 50, self.shape).astype(np.uint16)
        volume[:, row0:row1, col0:col1] += rng.integers(200, 900, dtype=np.uint16)
        return volume if side == "L" else np.ascontiguousarray(volume[:, :, ::-1])


@st.composite
def cases(draw: st.DrawFn) -> Case:
    height, width = draw(st.integers(20, 330)), draw(st.integers(20, 330))
    top = draw(st.integers(0, height - 10))
    bottom = draw(st.integers(top + 8, height))
    gap, tip = draw(st.integers(0, 6)), draw(st.integers(14, width))
    return Case(
        seed=draw(st.integers(0, 9999)),
        shape=(draw(st.integers(1, 3)), height, width),
        block=(top, gap, bottom, tip),
        window_shape=(draw(st.integers(8, 260)), draw(st.integers(8, 260))),
    )


@pytest.mark.parametrize(("side", "view"), SIDES_AND_VIEWS)
@given(case=cases(), data=st.data())
@settings(max_examples=40, deadline=None)
def test_a_marked_voxel_is_found_and_brought_back(
    side: str, view: str, case: Case, data: st.DataObject
) -> None:
    volume = case.volume(side)
    _, before = preprocess(volume, side, view, window_shape=case.window_shape)
    row0, col0, row1, col1 = before.box_to_source(*before.content)
    tissue = np.argwhere(volume[:, row0:row1, col0:col1] > 100) + np.array([0, row0, col0])
    frame, row, col = (int(i) for i in tissue[data.draw(st.integers(0, len(tissue) - 1))])
    volume[frame, row, col] = 5000

    window, transform = preprocess(volume, side, view, window_shape=case.window_shape)
    inside = transform.to_window(row, col)
    found = np.unravel_index(window.argmax(), window.shape)
    assert tuple(int(i) for i in found) == (frame, *inside)
    assert transform.to_source(*inside) == (row, col)
    mask = np.zeros(case.window_shape, bool)
    mask[inside] = True
    assert np.argwhere(transform.mask_to_source(mask)).tolist() == [[row, col]]
    box = transform.box_to_source(*inside, inside[0] + 1, inside[1] + 1)
    assert box == (row, col, row + 1, col + 1)


@pytest.mark.parametrize(("side", "view"), SIDES_AND_VIEWS)
@given(case=cases())
@settings(max_examples=25, deadline=None)
def test_every_window_pixel_is_the_source_pixel_it_says(side: str, view: str, case: Case) -> None:
    volume = case.volume(side)
    window, transform = preprocess(volume, side, view, window_shape=case.window_shape)
    top, left, bottom, right = transform.content
    expected = np.zeros(window.shape, np.float32)
    rows, cols = np.mgrid[top:bottom, left:right]
    source_rows, source_cols = transform.to_source(rows, cols)
    expected[:, top:bottom, left:right] = volume[:, source_rows, source_cols]
    mean, deviation = expected.mean(), max(expected.std(), np.float32(1e-5))
    np.testing.assert_array_equal(window, (expected - mean) / deviation)
    back_rows, back_cols = transform.to_window(source_rows, source_cols)
    np.testing.assert_array_equal(back_rows, rows)
    np.testing.assert_array_equal(back_cols, cols)
    # Turned so that the breast points right: left in the window is nearer the chest wall.
    assert (np.diff(source_cols[0]) == (1 if side == "L" else -1)).all()


TRANSFORM = WindowTransform(
    source_shape=(2, 50, 40),
    window_shape=(2, 60, 30),
    row_offset=-5,
    col_offset=12,
    flipped=True,
    content=(8, 0, 48, 28),
)


def test_a_box_is_clipped_to_what_the_window_took() -> None:
    assert TRANSFORM.box_to_source(10, 2, 12, 5) == (5, 23, 7, 26)
    assert TRANSFORM.box_to_source(0, 0, 60, 30) == (3, 0, 43, 28)
    row0, _, row1, _ = TRANSFORM.box_to_source(50, 2, 60, 5)
    assert row0 == row1


@given(st.tuples(*[st.integers(-10, 70)] * 4))
def test_a_box_and_its_mask_agree(box: tuple[int, int, int, int]) -> None:
    row0, row1 = sorted(box[:2])
    col0, col1 = sorted(box[2:])
    mask = np.zeros((60, 30), bool)
    mask[max(row0, 0) : max(row1, 0), max(col0, 0) : max(col1, 0)] = True
    expected = np.zeros((50, 40), bool)
    top, left, bottom, right = TRANSFORM.box_to_source(row0, col0, row1, col1)
    assert 0 <= top <= bottom <= 50
    assert 0 <= left <= right <= 40
    expected[top:bottom, left:right] = True
    np.testing.assert_array_equal(TRANSFORM.mask_to_source(mask), expected)


def test_coordinates_may_be_fractions_of_a_pixel() -> None:
    assert TRANSFORM.to_source(10.5, 2.25) == (5.5, 24.75)
    assert TRANSFORM.to_window(5.5, 24.75) == (10.5, 2.25)


def test_a_mask_of_another_shape_is_refused() -> None:
    with pytest.raises(InputError, match=r"\(50, 40\)"):
        TRANSFORM.mask_to_source(np.zeros((50, 40), bool))


def test_a_transform_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        TRANSFORM.row_offset = 0  # type: ignore[misc]
