"""Receptive fields against what the layers really do, and spans against nearest centres."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from gmic.backbone import GlobalNetwork
from gmic.config import GMIC3DConfig
from gmic.geometry import ReceptiveField, SpatialLayer


def test_published_network_has_its_centres_at_64_i_plus_2() -> None:
    field = GlobalNetwork(GMIC3DConfig()).receptive_field()
    assert (field.stride, field.offset) == (64, 2)
    assert field.cell_centres(3) == (2, 66, 130)


layers = st.lists(
    st.builds(
        lambda kernel, stride, pad: SpatialLayer(kernel, stride, min(pad, kernel // 2)),
        st.integers(1, 5),
        st.integers(1, 3),
        st.integers(0, 2),
    ),
    min_size=1,
    max_size=4,
)


@given(layers)
def test_field_is_where_the_gradient_of_a_cell_lies(stack: list[SpatialLayer]) -> None:
    extent = 700
    x = torch.zeros(1, 1, extent, dtype=torch.float64, requires_grad=True)
    out = x
    for layer in stack:
        weight = torch.ones(1, 1, layer.kernel, dtype=torch.float64)
        out = F.conv1d(out, weight, None, layer.stride, layer.padding)
    cell = out.shape[2] // 2
    out[0, 0, cell].backward()
    assert x.grad is not None
    touched = x.grad[0, 0].nonzero().flatten()
    low, high = int(touched[0]), int(touched[-1])
    field = ReceptiveField.of(stack)
    assert field.size >= high - low + 1
    assert field.cell_centre(cell) == (low + high) / 2
    if all(layer.kernel >= layer.stride for layer in stack):
        assert field.size == high - low + 1


def test_the_network_lists_the_layers_it_applies() -> None:
    config = GMIC3DConfig(
        patch_size=64, stem_channels=8, stage_channels=(8, 16, 8), stage_strides=(2, 1, 2)
    )
    network = GlobalNetwork(config)
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    longest = [m for m in convolutions if m.kernel_size != (1, 1)]
    assert len(list(network.spatial_layers())) == len(longest) + 1
    assert network.receptive_field().stride == 16
    with torch.no_grad():
        assert network(torch.randn(1, 1, 320, 320)).shape[2:] == (20, 20)


@given(st.integers(1, 96), st.integers(-8, 40), st.integers(1, 40), st.integers(1, 500))
def test_spans_tile_the_axis_by_nearest_centre(
    stride: int, offset: int, n: int, extent: int
) -> None:
    field = ReceptiveField(stride, float(offset), 1)
    spans = [field.cell_span(i, n, extent) for i in range(n)]
    assert spans[0][0] == 0
    assert spans[-1][1] == extent
    assert all(a[1] == b[0] for a, b in itertools.pairwise(spans))
    centres = field.cell_centres(n)
    for i, (start, stop) in enumerate(spans):
        for pixel in range(start, stop):
            distance = abs(pixel - centres[i])
            assert all(distance <= abs(pixel - other) for other in centres)


def test_spans_of_a_full_window() -> None:
    field = GlobalNetwork(GMIC3DConfig()).receptive_field()
    assert field.cell_span(0, 33, 2116) == (0, 34)
    assert field.cell_span(1, 33, 2116) == (34, 98)
    assert field.cell_span(32, 33, 2116) == (2018, 2116)


@pytest.mark.parametrize("i", [-1, 33])
def test_a_cell_that_is_not_there_is_refused(i: int) -> None:
    with pytest.raises(IndexError, match="33 cells"):
        ReceptiveField(64, 2.0, 1).cell_span(i, 33, 2116)
