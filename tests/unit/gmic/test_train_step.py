"""The two-pass step against plain autograd, its memory, and what it leaves out."""

from __future__ import annotations

import copy
import dataclasses
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gmic.errors import ConfigError, InputError
from gmic.model import GMIC3D
from gmic.train.initialise import initialise
from gmic.train.step import StepOptions, StepResult, plain_step, train_step
from tests.unit.gmic.small import CONFIG, Watched

NARROW = dataclasses.replace(
    CONFIG, window_shape=(128, 96), patch_size=32, local_channels=(8, 8, 16, 16)
)
Volumes = Sequence[NDArray[np.float32]]


def _volume(depth: int, seed: int = 0) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    coarse = rng.standard_normal((depth, 32, 24))
    return np.kron(coarse, np.ones((1, 4, 4))).astype(np.float32)


def _model(config: Any = NARROW, omega: float = 0.02) -> GMIC3D:
    """A fresh model whose two saliency maps differ."""
    model = GMIC3D(config)
    initialise(model, 3, omega)
    with torch.no_grad():
        weight = model.saliency_head.conv.weight
        weight += 0.1 * torch.linspace(-1, 1, weight.numel()).cos().reshape(weight.shape)
    return model.double().train()


def _constant_class(model: GMIC3D) -> None:
    with torch.no_grad():
        model.saliency_head.conv.weight[1] = -1  # features are never negative: its map is 0


def _grads(model: GMIC3D) -> dict[str, Tensor]:
    return {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


def _both(
    model: GMIC3D, volumes: Any, seed: int | None = None, **options: Any
) -> tuple[StepResult, StepResult, dict[str, Tensor], dict[str, Tensor]]:
    labels = torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.0, 0.0]])[: len(volumes)]
    results, grads = [], []
    for step in (train_step, plain_step):
        own = copy.deepcopy(model)
        rng = None if seed is None else np.random.default_rng(seed)
        results.append(step(own, volumes, labels, 1e-4, rng, **options))
        grads.append(_grads(own))
    return results[0], results[1], grads[0], grads[1]


def _worst(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> float:
    """Greatest difference of any parameter's gradient, relative to that gradient's largest value."""
    assert found.keys() == wanted.keys()
    return max(
        ((found[n] - wanted[n]).abs().max() / wanted[n].abs().max().clamp(min=1e-300)).item()
        for n in wanted
    )


def _tied() -> Volumes:
    """Slices that repeat, and one that is flat: many cells share their saliency."""
    one = _volume(1)
    return [np.concatenate([one, one, np.zeros_like(one), one])]


CASES: dict[str, tuple[Volumes, Callable[[GMIC3D], None] | None]] = {
    "one slice": ([_volume(1)], None),
    "fewer slices than zeta": ([_volume(3)], None),
    "many slices": ([_volume(9)], None),
    "a class that is constant": ([_volume(4)], _constant_class),
    "ties": (_tied(), None),
    "volumes of different depth": ([_volume(5), _volume(1, 1), _volume(3, 2)], None),
}


@pytest.mark.parametrize("seed", [None, 11], ids=["no jitter", "jitter"])
@pytest.mark.parametrize("case", CASES)
def test_gradients_equal_plain_autograd(case: str, seed: int | None) -> None:
    volumes, change = CASES[case]
    margin = 5 if case == "fewer slices than zeta" else 2
    model = _model(dataclasses.replace(NARROW, slice_margin=margin))
    if change is not None:
        change(model)
    two_pass, plain, found, wanted = _both(model, volumes, seed)
    assert len(found) == len(list(model.parameters()))
    assert two_pass.loss == pytest.approx(plain.loss, rel=1e-12)
    torch.testing.assert_close(two_pass.y_global_B2, plain.y_global_B2)
    torch.testing.assert_close(two_pass.y_local_B2, plain.y_local_B2)
    assert _worst(found, wanted) < 1e-10


@pytest.mark.parametrize(
    "options",
    [
        {"target_smoothing": 0.01},
        {"scale": 1024.0},
        {"slice_choice": [np.array([0, 2, 5, 8]), None]},
    ],
    ids=lambda options: next(iter(options)),
)
def test_gradients_equal_plain_autograd_with(options: dict[str, Any]) -> None:
    _, _, found, wanted = _both(_model(), [_volume(9), _volume(2, 1)], 5, **options)
    assert _worst(found, wanted) < 1e-10


def test_gradients_in_single_precision_differ_by_rounding_alone() -> None:
    _, _, found, wanted = _both(_model().float(), [_volume(6)], 5)
    assert _worst(found, wanted) < 1e-4


def test_with_binning_and_with_a_patch_that_leaves_the_image() -> None:
    config = dataclasses.replace(NARROW, window_shape=(64, 64), binning=2, num_patches=6)
    volumes = [np.pad(_volume(3), ((0, 0), (0, 3), (0, 1)))]
    _, _, found, wanted = _both(_model(config), volumes, 5)
    assert _worst(found, wanted) < 1e-10


def test_it_is_the_gradient_of_the_reported_loss() -> None:
    """Against central differences, for a weight of each part; patches stay where they are."""
    model, volumes, labels = _model(), [_volume(3), _volume(2, 4)], torch.eye(2)
    train_step(model, volumes, labels, 1e-4, None)
    for name in (
        "global_network.stem.weight",
        "saliency_head.conv.weight",
        "local_network.conv1.weight",
    ):
        weight = model.get_parameter(name)
        assert weight.grad is not None
        place = np.unravel_index(int(weight.grad.abs().argmax()), weight.shape)
        losses = []
        for change in (1e-6, -1e-6):
            other = copy.deepcopy(model)
            with torch.no_grad():
                other.get_parameter(name)[place] += change
            losses.append(plain_step(other, volumes, labels, 1e-4, None).loss)
        assert (losses[0] - losses[1]) / 2e-6 == pytest.approx(weight.grad[place].item(), rel=1e-4)


def test_gradients_add_up() -> None:
    model = _model()
    volumes, labels = [_volume(2)], torch.tensor([[0.0, 1.0]])
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    train_step(model, volumes, labels, 1e-4, None)
    once = {name: grad.clone() for name, grad in _grads(model).items()}
    train_step(model, volumes, labels, 1e-4, None)
    twice = _grads(model)
    for name, grad in once.items():
        torch.testing.assert_close(twice[name], 2 * grad)


def test_batch_norm_sees_the_patches_of_the_whole_batch_once() -> None:
    model = _model()
    volumes = [_volume(3), _volume(2, 4)]
    train_step(model, volumes, torch.eye(2), 1e-4, None)
    alone = _model()
    with torch.no_grad():
        patches = []
        for x in volumes:
            slices = alone.slices_of(x)
            saliency = alone.saliency_of(slices[d][None] for d in range(slices.depth))
            chosen = alone.choose_patches(saliency, slices.pixels)
            patches.append(alone.cut_patches(slices, chosen.slices_K, chosen.corners_K2))
        alone.local_network(torch.cat(patches))
    for name, value in alone.local_network.state_dict().items():
        torch.testing.assert_close(model.local_network.state_dict()[name], value)
    assert int(model.local_network.bn1.num_batches_tracked) == 1


def test_slices_without_saliency_are_left_out_and_nothing_changes() -> None:
    """Flat slices light up nowhere here, so they have no part in the loss beyond their zeros."""
    model = _model()
    x = _volume(8)
    x[[1, 2, 5, 6]] = 0  # features 0 after the last norm and ReLU of a flat slice
    flat = model(x).saliency_CDHW.detach()[:, [1, 2, 5, 6]]
    assert not flat.any()
    source = Watched(x)
    train_step(model, [source], torch.tensor([[0.0, 1.0]]), 1e-4, None)
    patches = source.asked[8 : len(source.asked) - 4]
    assert source.asked[:8] == list(range(8))
    assert len(patches) <= NARROW.num_patches
    assert source.asked[-4:] == [0, 3, 4, 7]
    _, _, found, wanted = _both(_model(), [x])
    assert _worst(found, wanted) < 1e-10


def test_slices_that_were_not_chosen_are_read_for_drawn_patches_only() -> None:
    source, chosen = Watched(_volume(9)), np.array([1, 4, 7])
    train_step(_model(), [source], torch.tensor([[0.0, 1.0]]), 1e-4, None, slice_choice=[chosen])
    assert set(source.asked) == set(chosen.tolist())
    drawn = Watched(_volume(9))
    rng = np.random.default_rng(2)
    train_step(_model(), [drawn], torch.tensor([[0.0, 1.0]]), 1e-4, rng, slice_choice=[chosen])
    assert drawn.asked[:3] == drawn.asked[-3:] == chosen.tolist()
    assert set(drawn.asked[3:-3]) - set(chosen.tolist())


def test_a_choice_of_all_slices_is_no_choice() -> None:
    _, _, found, _ = _both(_model(), [_volume(5)], 7)
    _, _, wanted, _ = _both(_model(), [_volume(5)], 7, slice_choice=[np.arange(5)])
    assert _worst(found, wanted) == 0


def test_the_generator_decides_and_is_left_where_plain_training_leaves_it() -> None:
    states, grads = [], []
    for step, seed in ((train_step, 1), (plain_step, 1), (train_step, 2)):
        model, rng = _model(), np.random.default_rng(seed)
        step(model, [_volume(9)], torch.tensor([[0.0, 1.0]]), 1e-4, rng)
        states.append(rng.bit_generator.state["state"])
        grads.append(_grads(model))
    assert states[0] == states[1]
    name = "local_network.conv1.weight"
    assert not torch.allclose(grads[0][name], grads[2][name])


def test_frozen_parts_get_no_gradient() -> None:
    model = _model()
    model.global_network.requires_grad_(False)
    model.saliency_head.requires_grad_(False)
    source = Watched(_volume(4))
    train_step(model, [source], torch.tensor([[0.0, 1.0]]), 1e-4, None)
    assert source.asked[:4] == [0, 1, 2, 3]
    assert len(source.asked) <= 4 + NARROW.num_patches
    assert {name.split(".")[0] for name in _grads(model)} == {"local_network", "attention"}


def test_bfloat16_keeps_saliency_and_predictions_in_single_precision() -> None:
    model = _model().float()
    seen: list[torch.dtype] = []
    model.saliency_head.register_forward_hook(lambda _m, _i, out: seen.append(out.dtype))
    options: StepOptions = {"autocast_dtype": torch.bfloat16}
    labels = torch.tensor([[0.0, 1.0]])
    half = train_step(model, [_volume(4)], labels, 1e-4, None, **options)
    assert set(seen) == {torch.float32}
    assert half.y_local_B2.dtype == half.y_global_B2.dtype == torch.float32
    full_model = _model().float()
    full = train_step(full_model, [_volume(4)], labels, 1e-4, None)
    assert half.loss == pytest.approx(full.loss, rel=0.05)
    assert half.loss != full.loss
    stem = "global_network.stem.weight"
    found, wanted = _grads(model)[stem], _grads(full_model)[stem]
    assert found.dtype == torch.float32
    cosine = torch.cosine_similarity(found.flatten(), wanted.flatten(), dim=0)
    assert cosine > 0.9


@pytest.mark.parametrize(
    ("volumes", "labels", "options", "says"),
    [
        ([], torch.zeros(0, 2), {}, "0 volumes"),
        ([_volume(2)], torch.zeros(2, 2), {}, "1 volumes come with labels of shape"),
        ([_volume(2)], torch.tensor([[0.0, 2.0]]), {}, r"give values in \[0, 1\]"),
        ([_volume(2)], torch.tensor([[0.0, torch.nan]]), {}, r"give values in \[0, 1\]"),
        ([_volume(2)], torch.zeros(1, 2), {"slice_choice": [None, None]}, "for 2 volumes"),
        ([_volume(2)], torch.zeros(1, 2), {"slice_choice": [np.array([0, 2])]}, "from 0 to 1"),
        ([_volume(2)], torch.zeros(1, 2), {"slice_choice": [np.array([1, 0])]}, "rising"),
        ([_volume(2)], torch.zeros(1, 2), {"slice_choice": [np.array([], int)]}, "rising"),
        ([np.zeros((2, 128, 96), np.float32)], torch.zeros(1, 2), {}, "every voxel is 0"),
        ([_volume(2)], torch.zeros(1, 2), {"target_smoothing": 0.5}, "target_smoothing is 0.5"),
    ],
)
def test_what_does_not_fit_is_refused(
    volumes: Any, labels: Tensor, options: Any, says: str
) -> None:
    with pytest.raises((InputError, ConfigError), match=says):
        train_step(_model().float(), volumes, labels, 1e-4, None, **options)


STEP_ALONE = """
import sys
import numpy as np, torch
from gmic.model import GMIC3D
from gmic.config import GMIC3DConfig
from gmic.train.initialise import initialise
from gmic.train.step import train_step

torch.set_num_threads(1)
config = GMIC3DConfig(window_shape=(768, 512), patch_size=64, num_patches=2, stem_channels=8,
    stage_channels=(8, 16), stage_strides=(2, 2), blocks_per_stage=1, local_channels=(8, 8, 8, 8))
model = GMIC3D(config).train()
initialise(model, 0, 0.1)

class Drawn:
    def __init__(self, depth):
        self.shape = (depth, *config.window_shape)
    def __getitem__(self, index):
        return np.random.default_rng(index).standard_normal(self.shape[1:], np.float32)

def peak():
    # Of this program alone; what getrusage tells includes the process that started it.
    status = dict(line.split(":", 1) for line in open("/proc/self/status"))
    return int(status["VmHWM"].split()[0])

idle = peak()
result = train_step(model, [Drawn(int(sys.argv[1]))], torch.tensor([[0.0, 1.0]]), 1e-6,
    np.random.default_rng(0))
assert result.loss > 0
print(peak() - idle)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak memory from /proc")
def test_memory_does_not_grow_with_the_slices() -> None:
    """Peak resident memory above what the process held before the step, for 8 and 96 slices."""
    growth = [
        int(
            subprocess.run(
                [sys.executable, "-c", STEP_ALONE, depth],
                capture_output=True,
                text=True,
                check=True,
            ).stdout
        )
        for depth in ("8", "96")
    ]
    assert growth[0] > 10_000  # kB: a slice's graph at least, so that the ratio means something
    assert growth[1] <= 1.3 * growth[0]
