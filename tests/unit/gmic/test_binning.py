"""A model that averages pixels first: what it sees, and that what it gives out counts the window's."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch

from gmic.config import GMIC3DConfig
from gmic.errors import ConfigError, InputError
from gmic.model import GMIC3D
from gmic.volume import CheckedSlices
from gmic.weights import load, save, seeded
from tests.unit.gmic.small import CONFIG, volume

BINNED = dataclasses.replace(CONFIG, window_shape=(515, 386), binning=2)


def _blown_up(binning: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """The small volume with every pixel repeated, so that averaging gives it back."""
    return np.kron(volume(), np.ones((1, binning, binning), np.float32))


@pytest.mark.parametrize("binning", [2, 3])
def test_it_sees_what_the_plain_model_sees_in_the_averaged_volume(binning: int) -> None:
    plain, _ = seeded(CONFIG, 3)
    binned = GMIC3D(dataclasses.replace(CONFIG, window_shape=(800, 600), binning=binning)).eval()
    binned.load_state_dict(plain.state_dict())
    small, large = plain(volume()), binned(_blown_up(binning))
    torch.testing.assert_close(large.y_final, small.y_final, rtol=0, atol=2e-6)
    assert torch.equal(large.patch_slices, small.patch_slices)
    assert torch.equal(large.patch_corners, small.patch_corners * binning)
    assert large.window_shape == (256 * binning, 192 * binning)
    for box, other in zip(binned.patch_boxes(large), plain.patch_boxes(small), strict=True):
        assert box[1:5] == tuple(edge * binning for edge in other[1:5])


def test_rows_and_columns_that_fill_no_square_are_left_out() -> None:
    binned, _ = seeded(BINNED, 3)
    whole = _blown_up(2)
    ragged = np.pad(whole, ((0, 0), (0, 1), (0, 1)), constant_values=7)
    with_edge, without = binned(ragged), binned(whole)
    assert torch.equal(with_edge.saliency_CDHW, without.saliency_CDHW)
    assert torch.equal(with_edge.patch_corners, without.patch_corners)
    assert with_edge.window_shape == (513, 385)


def test_slices_are_means_over_squares() -> None:
    x = np.arange(2 * 5 * 7, dtype=np.float64).reshape(2, 5, 7)
    slices = CheckedSlices(x, 2, torch.zeros(1, dtype=torch.float64), binning=2)
    assert (slices.pixels, slices.window_shape) == ((2, 3), (5, 7))
    wanted = x[1, :4, :6].reshape(2, 2, 3, 2).mean(axis=(1, 3))
    np.testing.assert_array_equal(slices[1].numpy(), wanted)


@pytest.mark.parametrize("binning", [1, 2, 4])
def test_cell_centres_lie_on_the_window(binning: int) -> None:
    """The published network: 64 i + 2 in binned pixels, whose centres lie at b p + (b - 1) / 2."""
    config = GMIC3DConfig(binning=binning, patch_size=64)
    field = GMIC3D(config).receptive_field
    assert field.stride == 64 * binning
    assert field.cell_centre(1) == binning * 66 + (binning - 1) / 2


def test_sensitivity_of_a_cell_is_centred_where_the_field_says() -> None:
    model, _ = seeded(BINNED, 3)
    model = model.double()
    field = model.receptive_field
    x = torch.zeros(512, 384, dtype=torch.float64, requires_grad=True)
    with torch.enable_grad():
        # Without norms, which look everywhere, sensitivity is the receptive field.
        pooled = torch.nn.functional.avg_pool2d(x[None, None], 2)
        for layer in model.global_network.spatial_layers():
            weight = torch.ones(1, 1, layer.kernel, layer.kernel, dtype=torch.float64)
            pooled = torch.nn.functional.conv2d(pooled, weight, None, layer.stride, layer.padding)
        cell = pooled.shape[2] // 2
        (gradient,) = torch.autograd.grad(pooled[0, 0, cell, 5], x)
    rows = gradient.abs().sum(dim=1).nonzero()[:, 0]
    assert (int(rows[0]) + int(rows[-1])) / 2 == field.cell_centre(cell)
    assert int(rows[-1]) - int(rows[0]) + 1 == field.size


def test_least_size_counts_window_pixels() -> None:
    with pytest.raises(ConfigError, match=r"patch_size \* binning \(128\)"):
        dataclasses.replace(CONFIG, window_shape=(256, 127), binning=2)
    with pytest.raises(InputError, match="127 x 200 pixels; give at least 128 x 128"):
        seeded(BINNED, 3)[0](np.zeros((1, 127, 200), np.float32))
    with pytest.raises(ConfigError, match="binning"):
        dataclasses.replace(CONFIG, binning=0)


@pytest.mark.parametrize("channels", [(8, 8, 16, 24), (4, 8, 8, 8)])
def test_a_narrow_local_network(tmp_path: Path, channels: tuple[int, int, int, int]) -> None:
    model, info = seeded(dataclasses.replace(BINNED, local_channels=channels), 5)
    assert model.attention.classifier.weight.shape == (2, channels[-1])
    save(model, tmp_path / "narrow.safetensors", info)
    again, read = load(tmp_path / "narrow.safetensors")
    assert read.config == model.config
    assert torch.equal(again(_blown_up(2)).y_final, model(_blown_up(2)).y_final)


@pytest.mark.parametrize("channels", [(8, 8, 16), (8, 8, 16, 0), [8, 8, 16, "32"]])
def test_widths_no_network_can_have_are_refused(channels: object) -> None:
    with pytest.raises(ConfigError, match="local_channels"):
        GMIC3DConfig(local_channels=channels)  # type: ignore[arg-type]


def test_a_weights_file_from_before_these_fields_still_loads(tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, local_channels=(64, 128, 256, 512))
    model, info = seeded(config, 5)
    path = tmp_path / "old.safetensors"
    save(model, path, info)
    with safetensors.safe_open(path, "pt") as file:
        card = json.loads(file.metadata()["gmic"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    for field in ("local_channels", "binning"):
        del card["config"][field]
    safetensors.torch.save_file(tensors, path, {"gmic": json.dumps(card)})
    again, read = load(path)
    assert read.config == config
    assert torch.equal(again(volume()).y_final, model(volume()).y_final)
