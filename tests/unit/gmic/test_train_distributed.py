"""Two real processes over gloo: what they compute together, and what happens when one is lost."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import multiprocessing
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gmic.errors import ConfigError, TrainingError
from gmic.model import GMIC3D
from gmic.train import loop
from gmic.train.data import MemorySet
from gmic.train.distributed import Group, joined, local_device, running_statistics
from gmic.train.search import Ranges, SearchConfig, Subject, search
from gmic.train.settings import TrainConfig
from gmic.train.step import train_step
from gmic.train.task import Progress
from gmic.train.trainer import moved, train
from tests.unit.gmic.training import SHORT, TINY, images, tiny_model

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["gmic.train.trainer", "sklearn.metrics", "torch._dynamo"])

CONFIG = dataclasses.replace(SHORT, epochs=2, checkpoint_every=1)
TRAIN, VALID = 7, 5
"""Neither is a multiple of the processes."""


class _Counted(MemorySet):
    """Images that remember which were asked for."""

    def __init__(self, source: MemorySet) -> None:
        volumes = [source.volume(n) for n in range(len(source.examples))]
        super().__init__(source.examples, volumes)
        self.asked: list[int] = []

    def volume(self, index: int) -> np.ndarray:
        self.asked.append(index)
        return super().volume(index)


def digest(model: GMIC3D) -> str:
    found = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        found.update(name.encode() + tensor.numpy().tobytes())
    return found.hexdigest()


def _train(out: str, group: Group, watch: Callable[[Progress], None]) -> dict[str, Any]:
    """One process's part of a training."""
    if not group.leads:
        loop.write_atomically = None  # type: ignore[assignment]  # only the first process writes
    # Every process starts from the first one's weights.
    model, valid = tiny_model(1 + group.rank), _Counted(images(VALID, 50))
    result = train(
        model, images(TRAIN), valid, CONFIG, out, resume=True, group=group, on_progress=watch
    )
    return {"digest": digest(model), "asked": valid.asked, "history": result.history}


def whole(out: str, group: Group) -> dict[str, Any]:
    return _train(out, group, lambda progress: None)


def dying(out: str, group: Group) -> dict[str, Any]:
    """The second process is killed in the second epoch."""

    def watch(progress: Progress) -> None:
        if group.rank == 1 and (progress.epoch, progress.step) == (2, 1):
            os.kill(os.getpid(), signal.SIGKILL)

    return _train(out, group, watch)


def silent(out: str, group: Group) -> dict[str, Any]:
    """The second process stops without ending."""

    def watch(progress: Progress) -> None:
        if group.rank == 1:
            os.kill(os.getpid(), signal.SIGSTOP)

    return _train(out, group, watch)


class _WildOnce(MemorySet):
    """Images of which the first that is asked for is too large for a network, on one process alone."""

    def __init__(self, source: MemorySet, wild: bool) -> None:
        super().__init__(source.examples, [source.volume(n) for n in range(len(source.examples))])
        self._wild = wild

    def volume(self, index: int) -> np.ndarray:
        volume = super().volume(index)
        if self._wild:
            self._wild = False
            return (volume * 1e38).clip(-3e38, 3e38)
        return volume


def searching(out: str, group: Group) -> dict[str, Any]:
    """A search whose first trial diverges in the second process alone."""
    training = dataclasses.replace(CONFIG, epochs=1, augment=False)
    sets = _WildOnce(images(TRAIN), group.rank == 1), images(VALID, 50)
    ranges = Ranges(num_patches=(2,), top_t_fraction=(0.1, 0.2))
    config = SearchConfig(ranges, trials=2, keep=1)
    kept = search(Subject(TINY, *sets, training), config, out, group=group)
    return {"kept": [str(path.relative_to(out)) for path in kept]}


def _child(
    body: Callable[[str, Group], dict[str, Any]],
    out: str,
    environment: dict[str, str],
    timeout_s: float,
    answer: Connection,
) -> None:
    torch.set_num_threads(1)
    os.environ.update(environment)
    try:
        with joined(torch.device("cpu"), timeout_s) as group:
            answer.send(body(out, group))
    except TrainingError as error:
        answer.send(str(error))


@contextmanager
def two_processes(
    body: Callable[[str, Group], dict[str, Any]], out: Path, timeout_s: float = 60
) -> Iterator[list[Any]]:
    """Run `body` in two processes; gives (process, where its answer comes from) of each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = []
    for rank in range(2):
        ours, theirs = FORKS.Pipe(duplex=False)
        environment = {
            "RANK": str(rank),
            "WORLD_SIZE": "2",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "GLOO_SOCKET_IFNAME": "lo",
        }
        arguments = (body, str(out), environment, timeout_s, theirs)
        process = FORKS.Process(target=_child, args=arguments)
        process.start()
        theirs.close()
        started.append((process, ours))
    try:
        yield started
    finally:
        for process, ours in started:
            process.kill()
            process.join()
            ours.close()


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """A training by two processes, and what each had at the end."""
    out = tmp_path_factory.mktemp("together")
    with two_processes(whole, out) as started:
        answers = [ours.recv() for _, ours in started]
    assert all(isinstance(answer, dict) for answer in answers), answers
    return out, answers


def _alone() -> GMIC3D:
    """The same work by one process: both halves of each batch in turn, then the mean of both."""
    torch.set_num_threads(1)
    model, train_set = tiny_model(), images(TRAIN)
    adam = torch.optim.Adam(model.parameters(), lr=CONFIG.learning_rate)
    for epoch in range(CONFIG.epochs):
        drawn = np.random.default_rng([CONFIG.seed, epoch]).permutation(TRAIN)
        order = np.append(drawn, drawn[0])  # the eighth image, so that both have four
        model.train()
        for step in range(2):
            batch = order[4 * step : 4 * step + 4]
            before = [buffer.clone() for buffer in running_statistics(model)]
            halves = []
            for rank in range(2):
                rng = np.random.default_rng([CONFIG.seed, epoch, step, rank])
                for buffer, value in zip(running_statistics(model), before, strict=True):
                    buffer.copy_(value)
                halves.append(_half(model, train_set, batch[rank::2], rng))
            means = [(a + b) / 2 for a, b in zip(*halves, strict=True)]
            parameters = list(model.parameters())
            for parameter, mean in zip(parameters, means[: len(parameters)], strict=True):
                parameter.grad = mean
            for buffer, mean in zip(
                running_statistics(model), means[len(parameters) :], strict=True
            ):
                buffer.copy_(mean)
            adam.step()
    return model


def _half(
    model: GMIC3D, train_set: MemorySet, indices: np.ndarray, rng: np.random.Generator
) -> list[torch.Tensor]:
    """Gradients of one process's images, and the running statistics after them."""
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    drawn = [moved(train_set, int(n), CONFIG, rng)[0] for n in indices]
    labels = torch.tensor([train_set.examples[n].labels for n in indices])
    train_step(model, drawn, labels, CONFIG.beta, rng)
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    return [*gradients, *(buffer.clone() for buffer in running_statistics(model))]


def test_two_processes_do_what_one_does_with_both_halves(
    together: tuple[Path, list[dict[str, Any]]],
) -> None:
    model, found = _alone(), loop.decode((together[0] / loop.CHECKPOINT).read_bytes(), Path("x"))
    for name, tensor in model.state_dict().items():
        if name.endswith("num_batches_tracked"):
            continue  # counts this process's calls; evaluation does not use it
        assert torch.equal(tensor, found["module"][name]), name


def test_all_end_with_the_same_weights_and_share_the_validation(
    together: tuple[Path, list[dict[str, Any]]],
) -> None:
    first, second = together[1]
    assert first["digest"] == second["digest"]
    assert first["history"] == second["history"]
    assert first["asked"] == [0, 2, 4] * CONFIG.epochs
    assert second["asked"] == [1, 3] * CONFIG.epochs


def test_a_process_that_dies_ends_the_others_and_all_go_on_the_same(
    together: tuple[Path, list[dict[str, Any]]], tmp_path: Path
) -> None:
    with two_processes(dying, tmp_path) as started:
        told = started[0][1].recv()
        assert isinstance(told, str)
        assert "process 0 of 2 waited in vain for another, which ended" in told
        assert "--resume" in told
        assert "\n" not in told
    with two_processes(whole, tmp_path) as started:
        answers = [ours.recv() for _, ours in started]
    assert [answer["digest"] for answer in answers] == [together[1][0]["digest"]] * 2
    for name in (loop.BEST, loop.METRICS):
        assert (tmp_path / name).read_bytes() == (together[0] / name).read_bytes()


def test_a_trial_that_diverges_in_one_process_ends_in_all(tmp_path: Path) -> None:
    with two_processes(searching, tmp_path, timeout_s=20) as started:
        answers = [ours.recv() for _, ours in started]
    assert answers == [{"kept": ["trial-001/best.safetensors"]}] * 2
    first, second = json.loads((tmp_path / "search.json").read_text())["trials"]
    assert "epoch 1, step 1: the loss is nan" in first["failed"]
    assert "failed" not in second


def test_a_process_that_falls_silent_ends_the_others_after_the_time_out(tmp_path: Path) -> None:
    with two_processes(silent, tmp_path, timeout_s=3) as started:
        told = started[0][1].recv()
    assert isinstance(told, str)
    assert "was silent for 3 s" in told


def test_a_batch_that_cannot_be_shared_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="batch is 4; 3 processes can only share a multiple of 3"):
        TrainConfig(batch=4).require_shareable(3)


def test_a_process_alone_needs_no_others() -> None:
    with joined(torch.device("cpu")) as group:
        assert group.leads
        assert list(group.share([3, 1, 2])) == [3, 1, 2]
        values = torch.tensor([1.0, 2.0])
        group.average([values])
        assert values.tolist() == [1, 2]
        assert group.from_leader(b"x") == b"x"


def test_an_incomplete_environment_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match=r"WORLD_SIZE is 2, but .* start with torchrun"):
        joined(torch.device("cpu")).__enter__()


def test_each_process_of_a_machine_takes_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    assert local_device("cpu") == "cpu"
    monkeypatch.setenv("LOCAL_RANK", "2")
    assert local_device("cuda") == "cuda:2"
    assert local_device("cuda:1") == "cuda:1"
