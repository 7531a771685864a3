"""Pre-training: gradients, memory's two passes, files, and the transfer onwards."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor

from gmic.config import GMIC3DConfig
from gmic.errors import ConfigError, DataError, WeightsError
from gmic.model import GMIC3D
from gmic.train import loop
from gmic.train.data import MemorySet
from gmic.train.pretrain import (
    PretrainConfig,
    Pretrainer,
    birads_group,
    load_pretrained,
    pretrain,
    pretrain_step,
    save_pretrained,
    transfer,
)
from gmic.train.step import SLICES_AT_ONCE
from gmic.weights import save, seeded
from tests.unit.gmic.training import SHORT, TINY, images, tiny_model

KINDS = [
    PretrainConfig(pooling, target) for pooling in ("attention", "max") for target in ("birads", "labels")
]  # fmt: skip


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def network(config: PretrainConfig, seed: int = 1, model: GMIC3DConfig = TINY) -> Pretrainer:
    net = Pretrainer(model, config)
    net.initialise(seed)
    return net


def _gradients(net: Pretrainer) -> dict[str, Tensor]:
    return {
        name: torch.zeros_like(p) if p.grad is None else p.grad.clone()
        for name, p in net.named_parameters()
    }


@pytest.mark.parametrize("config", KINDS, ids=str)
@pytest.mark.parametrize("binning", [1, 2])
def test_gradients_equal_plain_autograd(config: PretrainConfig, binning: int) -> None:
    model = dataclasses.replace(TINY, binning=binning)
    net = network(config, model=model).double()
    with torch.no_grad():  # away from the start at 0, where all passes on nothing
        net.classifier.weight.copy_(torch.linspace(-1, 1, net.classifier.weight.numel()).view_as(
            net.classifier.weight
        ))  # fmt: skip
    every = images(3, depth=4)
    volumes = [every.volume(n).astype(np.float64) for n in range(3)]
    targets = [e.labels if config.target == "labels" else e.birads or 0 for e in every.examples]
    choice = [None, np.array([0, 2]), None]
    loss = pretrain_step(
        net, volumes, targets, slice_choice=choice, scale=4.0, target_smoothing=0.1
    )
    found = _gradients(net)
    net.zero_grad()
    losses = [
        net.loss(net(volume if chosen is None else volume[chosen]), target, 0.1)
        for volume, target, chosen in zip(volumes, targets, choice, strict=True)
    ]
    plain = torch.stack(losses).mean()
    (4 * plain).backward()
    assert loss == pytest.approx(plain.item(), rel=1e-12)
    for name, wanted in _gradients(net).items():
        assert wanted.abs().max() > 0, name
        torch.testing.assert_close(found[name], wanted, rtol=1e-9, atol=1e-12, msg=name)


def _peak_of_graphs(config: PretrainConfig, depth: int) -> int:
    """Most bytes that graphs kept for the backward pass at any time of a step."""
    live = peak = 0

    class Kept:
        def __init__(self, tensor: Tensor) -> None:
            nonlocal live, peak
            self.tensor, self.size = tensor, tensor.nbytes
            live += self.size
            peak = max(peak, live)

        def __del__(self) -> None:
            nonlocal live
            live -= self.size

    net = network(config)
    with torch.no_grad():
        net.classifier.weight.fill_(1)
    volume = images(1, depth=depth).volume(0)
    with torch.autograd.graph.saved_tensors_hooks(Kept, lambda kept: kept.tensor):
        pretrain_step(net, [volume], [(0, 1)])
    return peak


@pytest.mark.parametrize("pooling", ["attention", "max"])
def test_what_graphs_keep_does_not_grow_with_the_slices(pooling: str) -> None:
    config = PretrainConfig(pooling, "labels")
    one, many = _peak_of_graphs(config, 1), _peak_of_graphs(config, 72)
    assert one > TINY.window_shape[0] * TINY.window_shape[1]
    assert many <= 1.1 * SLICES_AT_ONCE * one


def test_the_maximum_leaves_slices_without_one_out_of_pass_two() -> None:
    net = network(PretrainConfig("max", "labels"))
    with torch.no_grad():
        net.classifier.weight.fill_(1)
    read: list[tuple[int, bool]] = []
    image = images(1, depth=20).volume(0) / 10
    image[7] *= 100

    class Source:
        shape = image.shape

        def __getitem__(self, index: int) -> np.ndarray:
            read.append((index, torch.is_grad_enabled()))
            return image[index]

    pretrain_step(net, [Source()], [(0, 1)])
    assert [index for index, graph in read if not graph] == list(range(20))
    again = [index for index, graph in read if graph]
    assert 7 in again
    assert len(again) <= TINY.stage_channels[-1]


@pytest.mark.parametrize("config", KINDS, ids=str)
def test_it_learns_and_its_file_reads_back(tmp_path: Path, config: PretrainConfig) -> None:
    settings = dataclasses.replace(SHORT, epochs=3, learning_rate=3e-3, augment=False)
    net, valid = network(config), images(8, 100)
    result = pretrain(net, images(12), valid, settings, tmp_path)
    assert result.history[-1]["loss"] < result.history[0]["loss"]
    back = load_pretrained(result.weights)
    assert (back.config, back.model_config) == (config, TINY)
    save_pretrained(back, tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == result.weights.read_bytes()
    scores = np.array([back(valid.volume(n)).softmax(0).tolist() for n in range(8)])
    assert scores.shape == (8, config.outputs)
    done = pretrain(network(config), images(12), valid, settings, tmp_path, resume=True)
    assert done == result


def test_a_killed_pretraining_goes_on_the_same(tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def stop(progress: object) -> None:
        stopped.append(progress)
        if len(stopped) == 5:
            raise Stop

    sets = images(8), images(6, 50)
    whole = pretrain(network(KINDS[0]), *sets, SHORT, tmp_path / "whole")
    stopped: list[object] = []
    with pytest.raises(Stop):
        pretrain(network(KINDS[0]), *sets, SHORT, tmp_path / "cut", on_progress=stop)
    cut = pretrain(network(KINDS[0], seed=9), *sets, SHORT, tmp_path / "cut", resume=True)
    assert cut.weights.read_bytes() == whole.weights.read_bytes()
    assert cut.history == whole.history


def test_one_slice_is_average_pooling() -> None:
    net = network(KINDS[0])
    with torch.no_grad():
        net.classifier.weight.normal_(generator=torch.Generator().manual_seed(1))
        image = images(1, depth=1).volume(0)
        features = net.global_network(torch.from_numpy(image)[None])[0].mean((1, 2))
        torch.testing.assert_close(net(image), net.classifier(features))


def test_ffdm_goes_on_to_tomosynthesis_and_then_to_the_model() -> None:
    ffdm = network(KINDS[0], 5)
    dbt = network(KINDS[0], 6)
    transfer(ffdm, dbt)
    assert all(torch.equal(v, dbt.state_dict()[k]) for k, v in ffdm.state_dict().items())
    other = network(KINDS[3], 6)
    head = other.classifier.bias.clone()
    transfer(ffdm, other)
    assert torch.equal(head, other.classifier.bias)
    model = tiny_model()
    saliency = model.saliency_head.conv.weight.clone()
    transfer(dbt, model)
    for name, value in ffdm.global_network.state_dict().items():
        assert torch.equal(value, model.global_network.state_dict()[name])
    assert torch.equal(saliency, model.saliency_head.conv.weight)
    whole = GMIC3D(TINY)
    transfer(model, whole)
    assert all(torch.equal(v, whole.state_dict()[k]) for k, v in model.state_dict().items())
    wide = dataclasses.replace(TINY, stage_channels=(8, 16))
    with pytest.raises(WeightsError, match="of other channels than the model"):
        transfer(ffdm, GMIC3D(wide))


def test_foreign_and_damaged_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "w"
    save_pretrained(network(KINDS[0]), path)
    data = path.read_bytes()
    for bad in (data[:100], data[:-5], b"", b"\x80\x04."):
        path.write_bytes(bad)
        with pytest.raises(WeightsError, match="holds no pre-trained network, or is damaged"):
            load_pretrained(path)
    model, info = seeded(TINY, 1)
    save(model, path, info)
    with pytest.raises(WeightsError, match="has format 'gmic3d-1', not gmic-pretrained-1"):
        load_pretrained(path)
    with pytest.raises(WeightsError, match="cannot read weights file"):
        load_pretrained(tmp_path / "gone")


@pytest.mark.parametrize(
    "entry",
    [
        "{",
        "",
        "[]",
        "1" * 5000,
        '{"format": "gmic-pretrained-1"}',
        '{"format": "gmic-pretrained-1", "model": [], "pretrain": {}}',
        '{"format": "gmic-pretrained-1", "model": {"depth": 1}, "pretrain": {}}',
        '{"format": "gmic-pretrained-1", "model": {}, "pretrain": {"birads_classes": "x"}}',
    ],
)
def test_a_file_with_a_bad_card_is_refused(tmp_path: Path, entry: str) -> None:
    path = tmp_path / "pre.safetensors"
    safetensors.torch.save_file({"x": torch.zeros(1)}, path, {"gmic": entry})
    with pytest.raises(WeightsError, match="holds no pre-trained network, or is damaged"):
        load_pretrained(path)


def test_the_papers_groups() -> None:
    assert [birads_group(category) for category in range(6)] == [0, 1, 2, 2, 0, 0]
    with pytest.raises(DataError, match="BI-RADS category is 6"):
        birads_group(6)


def test_images_without_a_group_are_named(tmp_path: Path) -> None:
    every = images(4)
    example = dataclasses.replace(every.examples[2], birads=None)
    missing = MemorySet(
        [*every.examples[:2], example], [every.volume(0), every.volume(1), every.volume(2)]
    )
    with pytest.raises(DataError, match="image i2 of the training set has BI-RADS group None"):
        pretrain(network(KINDS[0]), missing, images(4, 50), SHORT, tmp_path)
    two = dataclasses.replace(KINDS[0], birads_classes=2)
    with pytest.raises(DataError, match=r"i0 .* BI-RADS group 2; give 0 to 1"):
        pretrain(network(two), every, images(4, 50), SHORT, tmp_path)
    with pytest.raises(DataError, match="the training set has 1 BI-RADS groups"):
        pretrain(network(KINDS[0]), images(1), images(4, 50), SHORT, tmp_path)
    assert not (tmp_path / loop.CHECKPOINT).exists()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"pooling": "mean"}, "pooling is 'mean'; it must be one of attention, max"),
        ({"target": "age"}, "target is 'age'"),
        ({"birads_classes": 1}, "birads_classes is 1"),
    ],
)
def test_pretrainings_there_are_not_are_refused(change: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        dataclasses.replace(KINDS[0], **change)  # type: ignore[arg-type]
