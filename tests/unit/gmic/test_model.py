"""The model's forward pass: modes, inputs, memory."""

from __future__ import annotations

import dataclasses
import gc
import weakref
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gmic.backbone import GlobalNetwork
from gmic.errors import InputError
from gmic.model import GMIC3D, GMIC3DOutput
from gmic.weights import seeded
from tests.unit.gmic.small import CONFIG, volume


@pytest.fixture(scope="module")
def model() -> GMIC3D:
    return seeded(CONFIG, 3)[0]


def _tensors(output: GMIC3DOutput) -> dict[str, Tensor]:
    return {k: v for k, v in vars(output).items() if isinstance(v, Tensor)}


def test_output_shapes_and_ranges(model: GMIC3D) -> None:
    output = model(volume())
    assert output.y_global.shape == output.y_local.shape == output.y_final.shape == (2,)
    assert output.saliency_CDHW.shape == (2, 4, 32, 24)
    assert output.patch_slices.shape == (3,)
    assert output.patch_corners.shape == (3, 2)
    assert output.patch_corners.dtype == output.patch_slices.dtype == torch.int64
    assert output.patch_attention.sum().item() == pytest.approx(1)
    assert output.window_shape == (256, 192)
    for prediction in (output.y_global, output.y_local, output.y_final):
        assert bool(((prediction > 0) & (prediction < 1)).all())
    np.testing.assert_allclose(output.y_final, (output.y_global + output.y_local) / 2)


def test_same_input_same_output(model: GMIC3D) -> None:
    first, second = model(volume()), model(volume())
    for name, value in _tensors(first).items():
        assert torch.equal(value, getattr(second, name)), name


def test_evaluation_builds_no_graph_and_changes_nothing(model: GMIC3D) -> None:
    before = {k: v.clone() for k, v in model.state_dict().items()}
    output = model(volume())
    assert not any(value.requires_grad for value in _tensors(output).values())
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def _train_with_frozen_statistics() -> GMIC3D:
    model = seeded(CONFIG, 3)[0].train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    return model


def test_slice_by_slice_equals_the_differentiable_path(model: GMIC3D) -> None:
    trained = _train_with_frozen_statistics()(volume())
    assert trained.y_final.requires_grad
    for name, value in _tensors(model(volume())).items():
        np.testing.assert_allclose(
            value.numpy(), getattr(trained, name).detach().numpy(), atol=2e-6, err_msg=name
        )


def test_gradients_reach_every_parameter_and_the_input() -> None:
    model = _train_with_frozen_statistics()
    x = torch.from_numpy(volume()).requires_grad_()
    output = model(x)
    (output.y_final.sum() + 1e-3 * output.saliency_CDHW.sum()).backward()
    without = [
        name
        for name, parameter in model.named_parameters()
        if parameter.grad is None or not bool(parameter.grad.abs().sum() > 0)
    ]
    assert not without
    assert x.grad is not None
    assert bool(x.grad.abs().amax(dim=(1, 2)).gt(0).all())


def test_gradient_of_the_saliency_head_is_the_true_one() -> None:
    """Against central differences, in float64, through pooling and both predictions."""
    model = _train_with_frozen_statistics().double()
    weight = model.saliency_head.conv.weight
    x = volume(2).astype(np.float64)
    model(x).y_final.sum().backward()
    assert weight.grad is not None
    wanted = weight.grad[0, 1, 0, 0].item()
    values = []
    for step in (1e-6, -1e-6):
        with torch.no_grad():
            weight[0, 1] += step
            values.append(model(x).y_final.sum().item())
            weight[0, 1] -= step
    assert (values[0] - values[1]) / 2e-6 == pytest.approx(wanted, rel=1e-5)


class Lazy:
    """Slices made when asked, each watched to see whether it is still held."""

    def __init__(self, depth: int) -> None:
        self.shape = (depth, 256, 192)
        self.asked: list[int] = []
        self.alive: list[weakref.ref[Any]] = []
        self.most = 0

    def __getitem__(self, index: int) -> Tensor:
        gc.collect()
        self.most = max(self.most, sum(ref() is not None for ref in self.alive))
        made = torch.from_numpy(volume(1, seed=index)[0])
        self.asked.append(index)
        self.alive.append(weakref.ref(made))
        return made


@pytest.mark.parametrize("depth", [5, 17])
def test_slices_held_do_not_grow_with_the_volume(model: GMIC3D, depth: int) -> None:
    source = Lazy(depth)
    output = model(source)
    assert source.asked[:depth] == list(range(depth))
    assert len(source.asked) <= depth + CONFIG.num_patches
    assert source.most <= 2  # the one in work and the one before it
    whole = model(np.concatenate([volume(1, seed=d) for d in range(depth)]))
    assert torch.equal(output.y_final, whole.y_final)


@pytest.mark.parametrize(
    "other",
    [
        lambda x: torch.from_numpy(x),
        lambda x: x.astype(np.float64),
        lambda x: x.astype(">f4"),
        lambda x: x[:, :, ::-1].copy()[:, :, ::-1],
        lambda x: np.asfortranarray(x),
        lambda x: np.broadcast_to(x, x.shape),
    ],
    ids=["tensor", "float64", "big-endian", "reversed", "fortran", "read-only"],
)
@pytest.mark.filterwarnings("error")
def test_every_kind_of_array_reads_the_same(model: GMIC3D, other: Any) -> None:
    assert torch.equal(model(other(volume())).y_final, model(volume()).y_final)


def _with(value: float) -> np.ndarray[Any, Any]:
    x = volume()
    x[2, 100, 50] = value
    return x


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (volume()[0], "slices, rows, columns"),
        (volume()[None], "slices, rows, columns"),
        (3.0, "slices, rows, columns"),
        (volume()[:0], "at least one slice"),
        (volume()[:, :63], "63 x 192 pixels; give at least 64 x 64"),
        (volume()[:, :, :63], "256 x 63 pixels"),
        (_with(np.nan), "slice 2 holds NaN"),
        (_with(np.inf), "slice 2 holds NaN or infinity"),
        (_with(-np.inf), "slice 2 holds NaN or infinity"),
        (np.full((2, 256, 192), 3.0, np.float32), "every voxel is 3"),
        (volume().astype(complex), "complex128"),
        (torch.from_numpy(volume()).bool(), "torch.bool"),
        (volume().astype(str), "real numbers"),
    ],
)
def test_bad_input_is_refused_with_the_reason(model: GMIC3D, bad: Any, says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        model(bad)
    assert "\n" not in str(caught.value)


def test_training_mode_refuses_the_same() -> None:
    model = seeded(CONFIG, 3)[0].train()
    with pytest.raises(InputError, match="NaN"):
        model(_with(np.nan))
    with pytest.raises(InputError, match="every voxel"):
        model(np.zeros((2, 256, 192), np.float32))


def test_slices_of_different_shapes_are_refused(model: GMIC3D) -> None:
    class Ragged:
        shape = (2, 256, 192)

        def __getitem__(self, index: int) -> np.ndarray[Any, Any]:
            return volume(1)[0, index:]

    with pytest.raises(InputError, match="slice 1 has shape"):
        model(Ragged())


def test_one_constant_slice_among_others_is_fine(model: GMIC3D) -> None:
    x = volume()
    x[1] = 0
    assert bool(model(x).y_final.isfinite().all())


def test_more_cells_than_one_slice_has_are_clamped() -> None:
    model = GMIC3D(dataclasses.replace(CONFIG, top_t_fraction=2.3)).eval()
    output = model(volume(1))
    torch.testing.assert_close(output.y_global, output.saliency_CDHW.mean(dim=(1, 2, 3)))


def test_pooled_cells_do_not_depend_on_the_number_of_slices(model: GMIC3D) -> None:
    one = volume(1)
    blank = np.full((4, 256, 192), one.min(), np.float32)
    single, among = model(one), model(np.concatenate([one, blank]))
    bright = among.saliency_CDHW[:, :1].flatten(1).sort(descending=True).values
    count = round(32 * 24 * CONFIG.top_t_fraction)
    floor = among.saliency_CDHW[:, 1:].amax(dim=(1, 2, 3))
    for c in range(2):
        if bright[c, count - 1] >= floor[c]:
            assert among.y_global[c] == pytest.approx(single.y_global[c].item(), abs=1e-6)
        else:
            assert among.y_global[c] >= single.y_global[c] - 1e-6


def test_boxes_are_cut_off_at_the_border(model: GMIC3D) -> None:
    output = model(volume())
    moved = dataclasses.replace(output, patch_corners=torch.tensor([[200, 150], [0, 0], [10, 20]]))
    boxes = model.patch_boxes(moved)
    assert boxes[0][1:5] == (200, 150, 256, 192)
    assert boxes[2][1:5] == (10, 20, 74, 84)
    assert [box.slice_index for box in boxes] == output.patch_slices.tolist()


@pytest.mark.parametrize("shape", [(256, 192), (259, 301), (64, 65)])
def test_bands_give_the_same_values_as_the_plain_layers(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    network = GlobalNetwork(CONFIG)
    x = torch.randn(2, 1, *shape)
    with torch.no_grad():
        bands = torch.cat(list(network._entry_bands(x)), dim=2)
        plain = network.pool(network.stem(x))
    assert bands.shape == plain.shape
    torch.testing.assert_close(bands, plain)


def test_parts_can_be_passed_in() -> None:
    network = GlobalNetwork(CONFIG)
    assert GMIC3D(CONFIG, global_network=network).global_network is network
