"""Equation 7 against its letters, and its behaviour at the ends."""

from __future__ import annotations

import math

import pytest
import torch

from gmic.train.loss import gmic_loss, soften


def test_equation_seven_by_hand() -> None:
    saliency = torch.tensor([0.1, 0.0, 0.3, 0.0, 0.0, 0.5], dtype=torch.float64).reshape(2, 3, 1, 1)
    y_local = torch.tensor([0.2, 0.9], dtype=torch.float64)
    y_global = torch.tensor([0.4, 0.7], dtype=torch.float64)
    labels = torch.tensor([0.0, 1.0], dtype=torch.float64)
    wanted = -math.log(0.8) - math.log(0.9) - math.log(0.6) - math.log(0.7) + 0.01 * 0.9
    loss = gmic_loss(y_local, y_global, saliency, labels, 0.01)
    assert loss.item() == pytest.approx(wanted, rel=1e-12)


def test_it_stays_finite_where_predictions_are_surely_wrong() -> None:
    y_local = torch.tensor([0.0, 1.0], requires_grad=True)
    y_global = torch.tensor([0.0, 1.0], requires_grad=True)
    saliency = torch.zeros(2, 1, 2, 2, requires_grad=True)
    loss = gmic_loss(y_local, y_global, saliency, torch.tensor([1.0, 0.0]), 1e-3)
    loss.backward()
    assert loss.item() == pytest.approx(400)  # each of the four logarithms ends at -100
    for tensor in (y_local, y_global, saliency):
        assert tensor.grad is not None
        assert bool(tensor.grad.isfinite().all())


@pytest.mark.parametrize("smoothing", [0.01, 0.1])
def test_softening_bounds_the_gradient(smoothing: float) -> None:
    y = torch.tensor([0.0, 1.0, 0.5], dtype=torch.float64, requires_grad=True)
    softened = soften(y, smoothing)
    torch.testing.assert_close(
        softened.detach(), torch.tensor([smoothing, 1 - smoothing, 0.5], dtype=torch.float64)
    )
    wrong = torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64)
    torch.nn.functional.binary_cross_entropy(softened, wrong, reduction="sum").backward()
    assert y.grad is not None
    assert y.grad.abs().max().item() == pytest.approx((1 - 2 * smoothing) / smoothing)
