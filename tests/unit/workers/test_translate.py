"""From a cell of the saliency map to the frame, row and column of the stored image."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import highdicom
import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from dicom_io import seg
from dicom_io.dbt import MammogramImage, open_image
from dicom_io.findings import ImageFindings, SourceRef
from dicom_io.write import write
from gmic.backbone import GlobalNetwork
from gmic.config import GMIC3DConfig
from gmic.preprocess import preprocess
from tests.support.sources import make_run
from tests.unit.workers.breasts import BRIGHT, breast, shuffle_frames, write_marked
from workers.translate import MAX_REGIONS, CellGrid, Translated, connected, levels, translate

Side = Literal["L", "R"]
FIELD = GlobalNetwork(GMIC3DConfig()).receptive_field()
CELLS = (33, 21)  # of a full window
SMALL, LARGE = (4, 640, 400), (2, 2600, 1700)


def _marked_cell(image: MammogramImage) -> tuple[CellGrid, tuple[int, int, int]]:
    """The grid of an image, and slice, row and column of the cell nearest to its brightest voxel."""
    window, transform = preprocess(image.read_volume(), image.laterality, image.view_family)
    d, row, col = (int(i) for i in np.unravel_index(int(window.argmax()), window.shape))
    centres = 64 * np.arange(33) + 2  # of the published network
    cell_row = int(np.abs(centres - row).argmin())
    cell_col = int(np.abs(centres[:21] - col).argmin())
    return CellGrid(FIELD, CELLS, transform, image), (d, cell_row, cell_col)


def _lit(image: MammogramImage, score: float = 0.9) -> Translated:
    """What comes of one malignant cell, the one over the bright voxel."""
    grid, (d, row, col) = _marked_cell(image)
    saliency = np.zeros((2, image.number_of_frames, *CELLS), dtype=np.float32)
    saliency[1, d, row, col] = score
    return translate(saliency, 0.5, grid)


def _stored_mark(path: Path) -> tuple[int, int, int]:
    """Frame, row and column of the brightest stored voxel, read by pydicom alone."""
    found = np.argwhere(pydicom.dcmread(path).pixel_array == BRIGHT)
    assert len(found) == 1
    frame, row, col = (int(i) for i in found[0])
    return frame, row, col


@pytest.mark.parametrize("shuffle", [False, True], ids=["in-order", "shuffled"])
@pytest.mark.parametrize("turned", [False, True], ids=["upright", "turned"])
@pytest.mark.parametrize("view", ["CC", "MLO"])
@pytest.mark.parametrize("side", ["L", "R"])
def test_a_marked_voxel_comes_back_to_its_frame_row_and_column(
    tmp_path: Path, side: Side, view: str, turned: bool, shuffle: bool
) -> None:
    col = 90 if (side == "L") != turned else 400 - 1 - 90
    path = write_marked(tmp_path, side, view, SMALL, (1, 270, col), turned=turned)
    if shuffle:
        shuffle_frames(path)
    image = open_image(path)
    assert image.flipped is turned
    _check_back_mapping(image, _stored_mark(path))


@pytest.mark.parametrize("view", ["CC", "MLO"])
@pytest.mark.parametrize("side", ["L", "R"])
@pytest.mark.parametrize("row", [500, 1300, 2050])
def test_a_marked_voxel_comes_back_from_a_cropped_image(
    tmp_path: Path, side: Side, view: str, row: int
) -> None:
    col = 150 if side == "L" else 1700 - 1 - 150
    path = write_marked(tmp_path, side, view, LARGE, (1, row, col))
    _check_back_mapping(open_image(path), _stored_mark(path))


def _check_back_mapping(image: MammogramImage, mark: tuple[int, int, int]) -> None:
    frame, row, col = mark
    found = _lit(image)
    (segment,), (region,) = found.segments, found.regions
    assert segment.label == region.label == "malignant"
    assert list(segment.frames) == [frame]
    mask = segment.frames[frame]
    assert mask.shape == (image.rows, image.columns)
    assert mask[row, col]
    assert mask.sum() <= 64 * 64
    rows, cols = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    assert region.box == (rows[0], cols[0], rows[-1] + 1, cols[-1] + 1)
    assert (region.first_frame, region.key_frame, region.last_frame) == (frame, frame, frame)
    # Half a stride, and no more: the mark is nearer to this cell's centre than to any other's.
    assert abs(region.centre_row - row) <= 32
    assert abs(region.centre_col - col) <= 32
    assert mask[round(region.centre_row), round(region.centre_col)]
    assert region.score == pytest.approx(0.9)


@pytest.mark.parametrize(("side", "turned"), [("L", False), ("R", False), ("R", True)])
def test_the_segmentation_object_holds_the_marked_pixel(
    tmp_path: Path, side: Side, turned: bool
) -> None:
    col = 90 if (side == "L") != turned else 400 - 1 - 90
    path = write_marked(tmp_path, side, "MLO", SMALL, (2, 300, col), turned=turned)
    image = open_image(path)
    found = _lit(image)
    findings = ImageFindings(
        SourceRef.of(image), {"benign": 0.1, "malignant": 0.9}, found.segments, found.regions
    )
    dataset = seg.build_seg(findings, make_run())
    assert dataset is not None
    write(dataset, tmp_path / "seg.dcm")
    stored = highdicom.seg.segread(tmp_path / "seg.dcm")
    frames = stored.get_pixels_by_source_frame(
        image.header.sop_instance_uid, [1, 2, 3, 4], assert_missing_frames_are_empty=True
    )
    frame, row, col = _stored_mark(path)
    assert frames[frame, row, col, 0] == 1
    assert [bool(pixels.any()) for pixels in frames] == [i == frame for i in range(4)]


def test_cells_that_see_air_alone_are_not_marked(tmp_path: Path) -> None:
    path = write_marked(tmp_path, "L", "CC", LARGE, (0, 1300, 100))
    image = open_image(path)
    grid, _ = _marked_cell(image)
    shown = CellGrid(FIELD, CELLS, grid.transform, image, breast("L", LARGE)[0] > 0)
    everywhere = np.full((2, 2, *CELLS), 0.9, dtype=np.float32)
    bare = translate(everywhere, 0.5, grid).segments[0].frames[0]
    clipped = translate(everywhere, 0.5, shown).segments[0].frames[0]
    inside = breast("L", LARGE)[0] > 0
    assert clipped[inside & bare].all()  # nothing of the breast is lost
    assert (bare & ~clipped).any()
    assert not (clipped & ~bare).any()


@pytest.mark.parametrize("side", ["L", "R"])
def test_levels_lie_where_the_masks_do(side: Side, tmp_path: Path) -> None:
    """Pixels with a score of at least the operating point are those of the mask, on every stored frame."""
    path = write_marked(tmp_path, side, "CC", (4, 640, 400), (2, 300, 200))
    shuffle_frames(path)
    image = open_image(path)
    grid, _ = _marked_cell(image)
    saliency = np.random.default_rng(3).random((2, 4, *grid.cells), dtype=np.float32)
    found = translate(saliency, 0.5, grid)
    scores = levels(saliency, grid)
    for segment in found.segments:
        for frame in range(4):
            # 127.5 is half of 255; levels are rounded
            np.testing.assert_array_equal(
                scores[segment.label][frame] >= 128, segment.frames[frame]
            )
    assert scores["malignant"][0].dtype == np.uint8


def test_nothing_at_the_operating_point_gives_nothing(tmp_path: Path) -> None:
    image = open_image(write_marked(tmp_path, "L", "CC", SMALL, (0, 300, 100)))
    grid, _ = _marked_cell(image)
    assert translate(np.zeros((2, 4, *CELLS), dtype=np.float32), 0.5, grid) == ((), (), 0)


def test_the_highest_regions_are_listed_and_the_mask_keeps_all(tmp_path: Path) -> None:
    image = open_image(write_marked(tmp_path, "L", "CC", LARGE, (0, 1300, 100)))
    grid, _ = _marked_cell(image)
    saliency = np.zeros((2, 2, *CELLS), dtype=np.float32)
    scores = np.linspace(0.5, 0.95, 15, dtype=np.float32)
    for number, score in enumerate(scores):
        saliency[0, number % 2, 2 + 2 * number, 3] = score
    found = translate(saliency, 0.5, grid)
    assert [r.score for r in found.regions] == pytest.approx(
        sorted(scores, reverse=True)[:MAX_REGIONS]
    )
    assert found.dropped == 15 - MAX_REGIONS
    (segment,) = found.segments
    marked = sum(int(mask.sum()) for mask in segment.frames.values())
    assert marked == 15 * 64 * 64
    assert segment.max_score == pytest.approx(0.95)


@pytest.mark.parametrize("shuffle", [False, True], ids=["in-order", "shuffled"])
def test_a_region_spans_slices_and_its_key_frame_is_the_highest(
    tmp_path: Path, shuffle: bool
) -> None:
    path = write_marked(tmp_path, "R", "CC", SMALL, (0, 300, 350))
    if shuffle:
        shuffle_frames(path)
    image = open_image(path)
    grid, (_, row, col) = _marked_cell(image)
    saliency = np.zeros((2, 4, *CELLS), dtype=np.float32)
    saliency[1, :3, row, col] = (0.6, 0.9, 0.7)
    found = translate(saliency, 0.5, grid)
    stored = (1, 3, 0) if shuffle else (0, 1, 2)
    assert image.source_frames[:3] == stored
    assert sorted(found.segments[0].frames) == sorted(stored)
    (region,) = found.regions
    assert (region.first_frame, region.key_frame, region.last_frame) == (
        min(stored),
        stored[1],
        max(stored),
    )


def _flood(found: NDArray[np.bool_]) -> list[frozenset[tuple[int, int, int]]]:
    """Connected sets by plain search, in the order of their first cell."""
    left = {(int(d), int(r), int(c)) for d, r, c in np.argwhere(found)}
    sets = []
    while left:
        todo, reached = [min(left)], set()
        while todo:
            d, r, c = todo.pop()
            if (d, r, c) not in left:
                continue
            left.remove((d, r, c))
            reached.add((d, r, c))
            todo += [(d, r + i, c + j) for i in (-1, 0, 1) for j in (-1, 0, 1)]
            todo += [(d - 1, r, c), (d + 1, r, c)]
        sets.append(frozenset(reached))
    return sorted(sets, key=min)


@given(hnp.arrays(bool, st.tuples(*[st.integers(1, 5)] * 3)))
def test_connected_cells_are_those_a_plain_search_finds(found: NDArray[np.bool_]) -> None:
    labelled, count = connected(found)
    sets = [
        frozenset((int(d), int(r), int(c)) for d, r, c in np.argwhere(labelled == number))
        for number in range(1, count + 1)
    ]
    assert sorted(sets, key=min) == _flood(found)
    assert np.array_equal(labelled > 0, found)
