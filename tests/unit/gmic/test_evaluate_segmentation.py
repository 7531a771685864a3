from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score

from gmic.errors import DataError
from gmic.evaluate import segmentation as seg
from gmic.evaluate.localisation import (
    LesionBox,
    covered_share,
    find_peak,
    patch_on_lesion,
    peak_distance,
    peak_on_lesion,
)
from gmic.geometry import PatchBox, ReceptiveField

FIELD = ReceptiveField(stride=8, offset=2.0, size=31)
"""Centres at 2, 10, 18, ...: cell 0 owns pixels 0 to 5, cell 1 owns 6 to 13."""
WINDOW = (40, 30)


def example(seed: int = 0) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    rng = np.random.default_rng(seed)
    mask = np.zeros((3, *WINDOW), dtype=bool)
    mask[0, 5:17, 4:9] = True
    mask[2, 10:22, 4:20] = True
    return rng.random((3, 5, 4)).round(1), mask


def enlarged(map_hw: NDArray[np.float64]) -> NDArray[np.float64]:
    """The value of the nearest centre at every pixel, the later of two, found one by one."""
    nearest = [
        [min(range(n), key=lambda i: (abs(FIELD.cell_centre(i) - p), -i)) for p in range(extent)]
        for n, extent in zip(map_hw.shape, WINDOW, strict=True)
    ]
    return map_hw[np.ix_(*nearest)]


def test_figures_equal_those_of_the_enlarged_map() -> None:
    saliency, mask = example()
    pixels, label = enlarged(saliency.max(axis=0)), mask.any(axis=0)
    score = seg.segmentation_score(saliency, seg.project_masks(mask), FIELD)
    assert score is not None
    both = (pixels * label).sum()
    assert score.dsc == pytest.approx(2 * both / ((pixels**2).sum() + label.sum()))
    assert score.pxap == pytest.approx(average_precision_score(label.ravel(), pixels.ravel()))
    image = seg.cell_labels(saliency, label, FIELD)
    found = pixels >= 0.8
    assert seg.dice_at(image, 0.8) == pytest.approx(
        2 * (found & label).sum() / (found.sum() + label.sum())
    )


def test_a_map_that_is_the_label_is_perfect() -> None:
    saliency = np.zeros((2, 5, 4))
    saliency[1, 1, 2] = 1.0
    label = np.zeros(WINDOW, dtype=bool)
    label[6:14, 14:22] = True
    assert seg.segmentation_score(saliency, label, FIELD) == seg.SegmentationScore(1.0, 1.0)
    # Half as salient: the order of the pixels, and so PxAP, stays; DSC is 2 * 32 / (16 + 64).
    half = seg.segmentation_score(saliency / 2, label, FIELD)
    assert half is not None
    assert (half.dsc, half.pxap) == (pytest.approx(0.8), 1.0)


def test_half_a_cell_matters() -> None:
    saliency = np.zeros((1, 5, 4))
    saliency[0, 1, 2] = 1.0
    label = np.zeros(WINDOW, dtype=bool)
    label[8:16, 16:24] = True  # where a cell would be if it were a box [8 i, 8 i + 8)
    score = seg.segmentation_score(saliency, label, FIELD)
    assert score is not None
    assert score.dsc == pytest.approx(36 / 64)


def test_images_without_a_lesion_are_left_out() -> None:
    saliency, mask = example()
    none = np.zeros(WINDOW, dtype=bool)
    assert seg.segmentation_score(saliency, none, FIELD) is None
    assert seg.dice_at(seg.cell_labels(saliency, none, FIELD), 0.5) is None
    assert seg.mean_score([None]) is None
    scores = [seg.SegmentationScore(0.2, 0.4), None, seg.SegmentationScore(0.4, 0.8)]
    mean = seg.mean_score(scores)
    assert mean is not None
    assert (mean.dsc, mean.pxap) == pytest.approx((0.3, 0.6))
    assert mask.any()


def test_the_threshold_is_the_best_of_those_tried() -> None:
    images = [
        seg.cell_labels(example(seed)[0], example(seed)[1].any(axis=0), FIELD) for seed in (1, 2)
    ]
    tried = [0.1, 0.5, 0.9]
    threshold, dice = seg.best_threshold(images, tried)
    means = {t: np.mean([seg.dice_at(image, t) or 0 for image in images]) for t in tried}
    assert dice == pytest.approx(max(means.values()))
    assert means[threshold] == max(means.values())
    with pytest.raises(DataError, match="at least one image"):
        seg.best_threshold([], tried)


def test_bad_maps_and_masks() -> None:
    saliency, mask = example()
    with pytest.raises(DataError, match=r"give \(D, h, w\)"):
        seg.segmentation_score(saliency[0], mask[0], FIELD)
    saliency[0, 0, 0] = np.nan
    with pytest.raises(DataError, match="NaN"):
        seg.segmentation_score(saliency, mask[0], FIELD)
    with pytest.raises(DataError, match="no mask"):
        seg.project_masks([])
    with pytest.raises(DataError, match=r"shape \(3, 3\)"):
        seg.project_masks([mask[0], np.zeros((3, 3), bool)])


def test_the_peak_lies_on_a_lesion_that_its_cell_touches_in_the_right_slices() -> None:
    saliency = np.zeros((4, 5, 4))
    saliency[2, 1, 2] = 0.5
    peak = find_peak(saliency, FIELD, WINDOW)
    assert peak is not None
    assert (peak.slice_index, peak.row, peak.col, peak.value) == (2, 10.0, 18.0, 0.5)
    assert (peak.rows, peak.cols) == ((6, 14), (14, 22))
    box = LesionBox(1, 13, 21, 3, 20, 25)  # one pixel of the cell
    assert peak_on_lesion(peak, [box])
    assert not peak_on_lesion(peak, [box._replace(row0=14)])
    assert not peak_on_lesion(peak, [box._replace(col0=22)])
    assert not peak_on_lesion(peak, [box._replace(slice1=2)])
    assert peak_on_lesion(peak, [box._replace(slice1=2)], slice_margin=1)
    assert not peak_on_lesion(peak, [])
    assert not peak_on_lesion(None, [box])
    assert peak_distance(peak, box) == pytest.approx(np.hypot(3, 3))
    assert find_peak(saliency * 0, FIELD, WINDOW) is None
    with pytest.raises(DataError, match="finite"):
        find_peak(saliency * np.nan, FIELD, WINDOW)


def test_a_patch_covers_a_lesion() -> None:
    patch = PatchBox(2, 0, 0, 16, 16, 0.5, 0.5)
    lesion = LesionBox(1, 8, 0, 4, 18, 10)
    assert covered_share(patch, lesion) == pytest.approx(0.8)
    assert patch_on_lesion(patch, [lesion])
    assert not patch_on_lesion(patch, [lesion], least_share=0.9)
    assert not patch_on_lesion(patch._replace(slice_index=4), [lesion])
    assert covered_share(patch, lesion._replace(row0=30, row1=40)) == 0


def test_the_box_around_a_mask() -> None:
    _, mask = example()
    assert LesionBox.around(mask) == (0, 5, 4, 3, 22, 20)
    with pytest.raises(DataError, match="no voxel"):
        LesionBox.around(mask & False)
