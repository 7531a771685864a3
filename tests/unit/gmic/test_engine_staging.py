"""Slices made ready ahead by a thread: the same slices, sooner."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from gmic.engine.staging import StagedSlices
from gmic.errors import ConfigError, InputError
from gmic.inference import Predictor
from gmic.weights import seeded
from tests.unit.gmic.small import CONFIG, volume

LIMIT_S = 30.0
_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
DEVICES = ["cpu", pytest.param("cuda", marks=_GPU)]


class Source:
    """A volume that notes who asks for which slice, and can be told to do something then."""

    def __init__(self, volume_DHW: NDArray[np.float32]) -> None:
        self.shape = volume_DHW.shape
        self.asked: list[int] = []
        self.threads: set[int] = set()
        self.came = threading.Condition()
        self.meanwhile: Callable[[int], None] = lambda index: None
        self._volume_DHW = volume_DHW

    def __getitem__(self, index: int) -> NDArray[np.float32]:
        self.meanwhile(index)
        with self.came:
            self.asked.append(index)
            self.threads.add(threading.get_ident())
            self.came.notify_all()
        return self._volume_DHW[index]

    def wait_for(self, count: int) -> bool:
        with self.came:
            return self.came.wait_for(lambda: len(self.asked) >= count, LIMIT_S)


def _staged(source: Source, ahead: int = 2, device: str = "cpu") -> StagedSlices:
    return StagedSlices(source, 64, torch.zeros(1, device=device), binning=1, ahead=ahead)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("ahead", [1, 3, 50])
def test_predictions_are_the_same(device: str, ahead: int) -> None:
    plain = Predictor(*seeded(CONFIG, 3), device=device, ahead=0)
    staged = Predictor(*seeded(CONFIG, 3), device=device, ahead=ahead)
    one, other = plain.predict(volume(7)), staged.predict(Source(volume(7)))
    assert torch.equal(one.saliency_CDHW, other.saliency_CDHW)
    assert torch.equal(one.y_final, other.y_final)
    assert torch.equal(one.patch_corners, other.patch_corners)


@pytest.mark.parametrize("device", DEVICES)
def test_every_slice_is_itself_in_any_order(device: str) -> None:
    x = volume(6)
    with _staged(Source(x), device=device) as slices:
        for index in (0, 1, 4, 2, 3, 5, 0, 5):
            assert slices[index].device.type == device
            assert torch.equal(slices[index].cpu(), torch.from_numpy(x[index]))


def test_the_next_slices_are_made_while_one_is_in_work() -> None:
    source = Source(volume(6))
    with _staged(source, ahead=2) as slices:
        slices[0]
        assert source.wait_for(3)
        assert source.asked == [0, 1, 2]


def test_no_more_slices_are_made_than_were_wanted() -> None:
    source = Source(volume(9))
    ahead, most = 2, 0
    with _staged(source, ahead) as slices:
        for index in range(9):
            slices[index]
            most = max(most, len(source.asked) - index)
            assert source.wait_for(min(index + 1 + ahead, 9))
    assert most <= 1 + ahead
    assert source.asked == list(range(9))


def test_one_thread_that_is_not_ours_does_all_the_reading() -> None:
    source = Source(volume(5))
    Predictor(*seeded(CONFIG, 3), device="cpu", ahead=2).predict(source)
    assert len(source.asked) > 5  # slices with patches are read again
    assert len(source.threads) == 1
    assert threading.get_ident() not in source.threads


def test_an_error_is_raised_where_its_slice_is_asked_for() -> None:
    x = volume(5)
    x[2, 7, 9] = np.nan
    with _staged(Source(x)) as slices:
        slices[0], slices[1]
        with pytest.raises(InputError, match="slice 2 holds NaN"):
            slices[2]


def test_after_an_error_nothing_is_left_running() -> None:
    def fail(index: int) -> None:
        if index == 3:
            raise OSError("the disk is gone")

    source = Source(volume(8))
    source.meanwhile = fail
    before = threading.active_count()
    with pytest.raises(OSError, match="the disk is gone"):
        Predictor(*seeded(CONFIG, 3), device="cpu", ahead=2).predict(source)
    assert threading.active_count() == before
    asked = list(source.asked)
    assert 3 not in asked
    assert max(asked) <= 5


def test_a_volume_without_contrast_is_refused_as_before() -> None:
    with pytest.raises(InputError, match="every voxel is 3"):
        Predictor(*seeded(CONFIG, 3), device="cpu", ahead=2).predict(
            np.full((3, 256, 192), 3.0, np.float32)
        )


def test_fewer_than_no_slices_ahead_are_refused() -> None:
    with pytest.raises(ConfigError, match="ahead is -1"):
        Predictor(*seeded(CONFIG, 3), device="cpu", ahead=-1)
