"""The model against outputs of the published code, for seeded weights and inputs."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from gmic.model import GMIC3D, GMIC3DOutput
from tests.support.goldens import NAMES, NAN
from tests.support.goldens import golden as case


def _run(name: str) -> tuple[GMIC3D, GMIC3DOutput, dict[str, NDArray[np.float64]]]:
    model, volume_DHW, published = case(name)
    return model, model(volume_DHW), published


@pytest.mark.parametrize("name", NAMES)
def test_outputs_equal_the_published_ones(name: str) -> None:
    _, output, golden = _run(name)
    for ours, theirs in (
        (output.y_global, golden["y_global"][0]),
        (output.y_local, golden["y_local"][0]),
        (output.y_final, golden["final_prediction"][0]),
        (output.patch_attention, golden["patch_attns"]),
    ):
        np.testing.assert_allclose(ours.numpy(), theirs, rtol=0, atol=5e-6)
    saliency = output.saliency_CDHW.transpose(0, 1).numpy()
    np.testing.assert_allclose(saliency, golden["saliency_map"], rtol=0, atol=1e-5)
    np.testing.assert_array_equal(output.patch_slices.numpy(), golden["max_slice_numbers"])
    np.testing.assert_array_equal(output.patch_corners.numpy(), golden["patch_locations"])
    np.testing.assert_allclose(output.patch_scores.numpy(), golden["best_window"], atol=1e-5)


def test_boxes_leave_out_picks_made_when_no_saliency_was_left() -> None:
    model, output, golden = _run("g_d1_512x384_k16_t1.0_exhaust")
    boxes = model.patch_boxes(output)
    assert len(boxes) == int((golden["best_window"] > 0).sum()) == 4
    assert len({box[:3] for box in boxes}) == 4


def test_a_class_that_is_constant_leaves_the_choice_to_the_other() -> None:
    """The published code divides 0 by 0 here and takes the first corner every time."""
    model, output, golden = _run(NAN)
    saliency = golden["saliency_map"][:, 0].astype(np.float64)
    assert np.ptp(golden["saliency_map"][:, 1]) == 0
    np.testing.assert_allclose(output.y_global.numpy(), golden["y_global"][0], rtol=0, atol=5e-6)
    assert all(
        bool(tensor.isfinite().all())
        for tensor in (output.y_local, output.y_final, output.patch_attention, output.patch_scores)
    )
    boxes = model.patch_boxes(output)
    assert len({box[:3] for box in boxes}) == len(boxes) == int(golden["K"])
    rows, cols = (int(n) for n in golden["window_cells"])
    windows = np.lib.stride_tricks.sliding_window_view(saliency[0], (rows, cols))
    scaled = (windows.mean(axis=(2, 3)) - saliency.min()) / np.ptp(saliency)
    assert boxes[0].score == pytest.approx(scaled.max(), abs=1e-6)
