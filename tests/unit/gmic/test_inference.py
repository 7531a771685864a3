"""The predictor: where it runs, and what it says when memory runs out."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from gmic.errors import ConfigError, DeviceMemoryError, GmicError
from gmic.inference import Predictor, choose_device
from gmic.weights import save, seeded
from tests.unit.gmic.small import CONFIG, volume


def test_a_predictor_from_a_file_gives_what_the_model_gives(tmp_path: Path) -> None:
    model, info = seeded(CONFIG, 2)
    save(model, tmp_path / "w", info)
    predictor = Predictor.from_file(tmp_path / "w", device="cpu")
    assert predictor.info == info
    assert predictor.config == CONFIG
    ours, theirs = predictor.predict(volume()), model(volume())
    assert torch.equal(ours.y_final, theirs.y_final)
    assert torch.equal(ours.saliency_CDHW, theirs.saliency_CDHW)
    assert ours.window_shape == theirs.window_shape
    again = predictor.predict(volume())
    assert torch.equal(again.y_final, ours.y_final)


def test_a_predictor_reads_in_evaluation_mode() -> None:
    model, info = seeded(CONFIG, 2)
    model.train()
    assert not Predictor(model, info, device="cpu").predict(volume()).y_final.requires_grad


def test_the_default_device_is_one_that_is_there() -> None:
    wanted = "cuda" if torch.cuda.is_available() else "cpu"
    assert choose_device(None).type == wanted


@pytest.mark.parametrize("name", ["gpu", "meta", "cuda:99", ""])
def test_devices_that_are_not_there_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"device .*{name!r}"):
        choose_device(name)


def test_a_number_of_threads_is_set_and_checked() -> None:
    model, info = seeded(CONFIG, 2)
    before = torch.get_num_threads()
    try:
        Predictor(model, info, device="cpu", threads=1)
        assert torch.get_num_threads() == 1
        with pytest.raises(ConfigError, match="threads is 0"):
            Predictor(model, info, device="cpu", threads=0)
    finally:
        torch.set_num_threads(before)


def test_other_errors_pass_through_unchanged() -> None:
    model, info = seeded(CONFIG, 2)

    class Broken:
        shape = (1, 256, 192)

        def __getitem__(self, index: int) -> torch.Tensor:
            raise RuntimeError("the disk is gone")

    with pytest.raises(RuntimeError, match="the disk is gone") as caught:
        Predictor(model, info, device="cpu").predict(Broken())
    assert not isinstance(caught.value, GmicError)


STARVED = """
import resource, torch
from gmic.errors import DeviceMemoryError
from gmic.inference import Predictor
from gmic.weights import seeded
from tests.unit.gmic.small import CONFIG, volume
torch.set_num_threads(1)
predictor = Predictor(*seeded(CONFIG, 2), device="cpu")
wanted = predictor.predict(volume(1)).y_final
large = torch.randn(1, 1024, 1024).repeat(1, 4, 4)
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
unlimited = resource.getrlimit(resource.RLIMIT_AS)
resource.setrlimit(resource.RLIMIT_AS, (used + 8 * 2**20, unlimited[1]))
try:
    predictor.predict(large)
except DeviceMemoryError as error:
    resource.setrlimit(resource.RLIMIT_AS, unlimited)
    assert torch.equal(predictor.predict(volume(1)).y_final, wanted)
    print("told:", error)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits memory as Linux does")
def test_running_out_of_memory_is_told_and_survived() -> None:
    done = subprocess.run(
        [sys.executable, "-c", STARVED], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout.startswith("told: cpu ran out of memory"), done.stderr


def test_gpu_memory_errors_are_told_too() -> None:
    model, info = seeded(CONFIG, 2)

    class Full:
        shape = (1, 256, 192)

        def __getitem__(self, index: int) -> torch.Tensor:
            raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 2 GiB")

    with pytest.raises(DeviceMemoryError, match="CUDA out of memory") as caught:
        Predictor(model, info, device="cpu").predict(Full())
    assert "\n" not in str(caught.value)
