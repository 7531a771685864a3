"""The bfloat16 engine: close to the exact one, the same kind of output, refused where it is no gain."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from gmic.engine.reduced import in_bfloat16, require_bfloat16
from gmic.errors import ConfigError
from gmic.inference import ENGINES, Predictor
from gmic.weights import seeded
from tests.bench.drift import drift
from tests.unit.gmic.small import CONFIG, volume


def _bfloat16_here() -> bool:
    try:
        require_bfloat16(torch.device("cpu"))
    except ConfigError:
        return False
    return True


def test_bfloat16_is_close_and_not_equal() -> None:
    model, _ = seeded(CONFIG, 3)
    exact, reduced = model(volume()), in_bfloat16(model)(volume())
    error = (reduced.saliency_CDHW - exact.saliency_CDHW).abs().max().item()
    assert 0 < error < 0.05
    assert (reduced.y_final - exact.y_final).abs().max().item() < 0.01


def test_outputs_are_of_the_same_kind() -> None:
    model, _ = seeded(CONFIG, 3)
    exact, reduced = model(volume()), in_bfloat16(model)(volume())
    for name, value in vars(exact).items():
        other = getattr(reduced, name)
        assert type(other) is type(value), name
        if isinstance(value, torch.Tensor):
            assert other.dtype == value.dtype, name
            assert other.shape == value.shape, name


def test_the_same_input_gives_the_same_output() -> None:
    model = in_bfloat16(seeded(CONFIG, 3)[0])
    assert torch.equal(model(volume()).saliency_CDHW, model(volume()).saliency_CDHW)


def test_the_exact_model_is_left_alone_and_its_weights_are_the_same() -> None:
    model, _ = seeded(CONFIG, 3)
    before = model(volume())
    reduced = in_bfloat16(model)
    reduced(volume())
    assert torch.equal(model(volume()).saliency_CDHW, before.saliency_CDHW)
    ours, theirs = reduced.state_dict(), model.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    assert reduced.receptive_field == model.receptive_field


def test_patches_are_read_in_float32() -> None:
    """Given the same patches, what the local module says is the exact engine's."""
    model, _ = seeded(CONFIG, 3)
    reduced = in_bfloat16(model)
    assert reduced.local_network is model.local_network
    seen = []
    reduced.local_network.register_forward_hook(lambda m, i, out: seen.append(out.dtype))
    reduced(volume())
    assert seen == [torch.float32]


@pytest.mark.skipif(not _bfloat16_here(), reason="this processor has no bfloat16 arithmetic")
def test_one_switch_chooses_the_engine() -> None:
    exact, reduced = (Predictor(*seeded(CONFIG, 3), device="cpu", engine=e) for e in ENGINES)
    wanted = in_bfloat16(seeded(CONFIG, 3)[0])(volume())
    assert torch.equal(reduced.predict(volume()).saliency_CDHW, wanted.saliency_CDHW)
    assert torch.equal(
        exact.predict(volume()).saliency_CDHW, seeded(CONFIG, 3)[0](volume()).saliency_CDHW
    )


def test_an_unknown_engine_is_refused() -> None:
    with pytest.raises(ConfigError, match="engine is 'fast'; it must be one of exact, bfloat16"):
        Predictor(*seeded(CONFIG, 3), device="cpu", engine="fast")


def test_a_processor_without_bfloat16_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        torch.cpu, "get_capabilities", lambda: {"avx2": True, "cpu_name": "Old One"}
    )
    with pytest.raises(ConfigError, match=r"slower than 'exact' here: .*Old One") as caught:
        Predictor(*seeded(CONFIG, 3), device="cpu", engine="bfloat16")
    assert "\n" not in str(caught.value)


def test_what_the_benchmark_says_of_two_engines() -> None:
    output = seeded(CONFIG, 3)[0](volume())
    same = drift(output, output)
    assert same["saliency_max"] == same["final"] == 0
    assert same["patches"] == same["same_patches"] == same["same_order"] == 3
    turned = dataclasses.replace(
        output,
        y_final=output.y_final + torch.tensor([0.0, 0.25]),
        patch_slices=output.patch_slices[[1, 0, 2]],
        patch_corners=output.patch_corners[[1, 0, 2]],
    )
    other = drift(output, turned)
    assert other["final"] == pytest.approx(0.25)
    assert (other["same_patches"], other["same_order"]) == (3, 1)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_engines_on_a_gpu_agree_with_the_processor() -> None:
    wanted = seeded(CONFIG, 3)[0](volume())
    for engine, tolerance in (("exact", 1e-4), ("bfloat16", 0.05)):
        output = Predictor(*seeded(CONFIG, 3), device="cuda", engine=engine).predict(volume())
        error = (output.saliency_CDHW - wanted.saliency_CDHW).abs().max().item()
        assert error < tolerance, engine
