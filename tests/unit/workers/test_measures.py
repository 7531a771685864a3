"""What is measured of an image as it comes in: spacing by headers good and bad, grey values by their definition."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from dicom_io.dbt import MammogramImage, open_image
from gmic.breast import breast_mask
from gmic.preprocess import max_projection
from node.input_quality import Measured
from tests.support.breast_edits import Edit, setting, without
from tests.support.breast_objects import edited, shared_item, view_file
from tests.unit.workers.breasts import breast
from workers.measures import intensity, measure

BREAST_HW = np.ones((60, 40), np.bool_)


def measured(image: MammogramImage) -> Measured:
    return measure(image, image.read_volume(), BREAST_HW)


def test_a_stack_has_the_spacing_of_its_header(tmp_path: Path) -> None:
    found = measured(open_image(view_file(tmp_path, spacing_mm=(0.085, 0.085))))
    assert (found.pixel_spacing_mm, found.slice_spacing_mm) == (0.085, 1.0)


@pytest.mark.parametrize(
    ("edit", "mm"),
    [
        (setting(), 0.07),
        (setting(EstimatedRadiographicMagnificationFactor="1.4"), 0.05),
        (setting(PixelSpacing=[0.04, 0.09]), 0.06),  # oblong
        (without("ImagerPixelSpacing"), None),
        (setting(ImagerPixelSpacing=[0, 0]), None),
        (setting(ImagerPixelSpacing=[0.07]), None),
    ],
    ids=["imager", "magnified", "oblong", "none", "zero", "one-value"],
)
def test_a_2d_image_has_what_its_header_gives(tmp_path: Path, edit: Edit, mm: float | None) -> None:
    volume_DHW = breast("L", (1, 60, 40))
    options = {"kind": "mammogram", "spacing_mm": (0.07, 0.07), "volume_DHW": volume_DHW}
    found = measured(open_image(edited(view_file(tmp_path, **options), edit)))
    assert found.pixel_spacing_mm == pytest.approx(mm)
    assert found.slice_spacing_mm is None
    assert found.intensity_p50 is not None


def test_a_stack_without_spacing_is_measured_all_the_same(tmp_path: Path) -> None:
    path = view_file(tmp_path)
    whole = measured(open_image(path))

    def bare(dataset: Dataset) -> None:
        measures = shared_item(dataset, "PixelMeasuresSequence")
        del measures.PixelSpacing, measures.SpacingBetweenSlices

    found = measured(open_image(edited(path, bare)))
    assert found.pixel_spacing_mm is None
    assert found.slice_spacing_mm == 1.0  # from the positions
    assert found.intensity_p50 == whole.intensity_p50


@pytest.mark.parametrize("fault", [1e308, 1e-320, float("inf"), float("nan"), 5000.0])
def test_a_length_that_no_mammogram_has_is_none(tmp_path: Path, fault: float) -> None:
    image = open_image(view_file(tmp_path))
    odd = dataclasses.replace(image, spacing_mm=(fault, fault), slice_spacing_mm=fault)
    found = measured(odd)
    assert (found.pixel_spacing_mm, found.slice_spacing_mm) == (None, None)


def test_grey_values_are_those_of_the_breast_alone() -> None:
    volume_DHW = breast("L", (20, 640, 400), seed=3)
    breast_HW = breast_mask(max_projection(volume_DHW))
    volume_DHW[:, ~breast_HW] = 60_000
    volume_DHW[[0, -1]] = 60_000  # the outermost slices are not looked at
    inside = volume_DHW[1:-1, breast_HW]
    expected = np.quantile(inside, (0.05, 0.5, 0.95))
    found = intensity(volume_DHW, breast_HW)
    assert found == pytest.approx(tuple(expected), rel=0.01)
    assert found == intensity(volume_DHW, breast_HW)


def test_grey_values_of_a_turned_breast_are_the_same() -> None:
    volume_DHW = breast("L", (1, 64, 40), seed=4)
    breast_HW = volume_DHW[0] > 0  # fewer pixels than are taken: all of them
    turned = intensity(volume_DHW[:, :, ::-1].copy(), breast_HW[:, ::-1])
    assert turned == intensity(volume_DHW, breast_HW)


@settings(deadline=None)
@given(st.integers(1, 12), st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32))
def test_any_breast_of_any_size_has_quantiles_in_order(
    depth: int, height: int, width: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    volume_DHW: NDArray[np.uint16] = rng.integers(0, 2**16, (depth, height, width), np.uint16)
    breast_HW = rng.random((height, width)) < 0.3
    breast_HW[rng.integers(height), rng.integers(width)] = True
    low, middle, high = intensity(volume_DHW, breast_HW)
    inside = volume_DHW[:, breast_HW]
    assert inside.min() <= low <= middle <= high <= inside.max()
