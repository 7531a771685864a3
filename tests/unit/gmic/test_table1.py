"""The counting behind Table I: against sums that can be done by hand, and against the paper."""

from __future__ import annotations

import gc

import pytest
import torch
from torch import nn

from tests.bench import counted, networks, table1


def _step(network: nn.Module, x: torch.Tensor) -> None:
    torch.autograd.backward(network(x).sum())


def test_a_convolution_is_counted_as_by_hand() -> None:
    network = nn.Conv2d(3, 8, 5, stride=2, padding=2)
    image = torch.empty(1, 3, 64, 48)
    macs = 8 * 32 * 24 * 3 * 25
    assert counted.gmac(network, image) == pytest.approx(macs / 1e9)


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_memory_of_two_layers_is_counted_as_by_hand(device: str) -> None:
    """At most: parameters, input, both hidden arrays, the sum, and the first gradients."""
    with torch.device(device):
        network = nn.Sequential(
            nn.Linear(100, 50, bias=False), nn.ReLU(), nn.Linear(50, 1, bias=False)
        )
        x = torch.zeros(1000, 100)
    floats = 100 * 50 + 50 + 1000 * 100  # what is there before
    before_backward = floats + 2 * 1000 * 50 + 1000 + 1
    mb = counted.step_mb(network, x, _step)
    assert (
        before_backward * 4e-6
        < mb
        <= (before_backward + 2 * 1000 * 50 + 3 * 1000 + 50 * 101) * 4e-6
    )


def test_freed_memory_does_not_count() -> None:
    with counted.LiveBytes() as live:
        for _ in range(5):
            x = torch.zeros(1000)
            del x
            gc.collect()
        held = torch.zeros(10)
    assert live.peak == 4000
    assert live.now == 40
    del held
    assert live.now == 0


def test_views_and_writing_in_place_need_nothing() -> None:
    with counted.LiveBytes() as live:
        x = torch.zeros(1000)
        x.view(10, 100).t().add_(1)
    assert live.peak == 4000


def test_the_line_is_drawn_to_96_slices() -> None:
    assert table1.extrapolated({4: 50.0, 8: 90.0, 16: 170.0}) == pytest.approx(970)


@pytest.mark.parametrize(
    ("name", "tolerance"),
    [("ResNet-18", 0.01), ("ResNet-34", 0.01), ("3D ResNet-18", 0.15), ("3D ResNet-34", 0.15)],
)
def test_the_networks_of_the_table_do_the_work_of_the_paper_s(name: str, tolerance: float) -> None:
    """What the paper says of its networks besides their names is how much they multiply."""
    with torch.device("meta"):
        network = networks.BASELINES[name]()
    gmac = {
        count: counted.gmac(network, networks.volume(count, table1.WINDOW, "meta"))
        for count in table1.SLICES
    }
    _, wanted = table1.PAPER[name]
    assert table1.extrapolated(gmac) == pytest.approx(wanted, rel=tolerance)
