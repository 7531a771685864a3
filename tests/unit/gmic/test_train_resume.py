"""A training killed at any moment ends where it would have ended; checkpoints that do not fit are refused."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import multiprocessing
import os
import signal
import time
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest
import torch

from gmic.errors import CheckpointError, TrainingError
from gmic.train.checkpoint import decode, encode, only_writer, write_atomically
from gmic.train.settings import TrainConfig
from gmic.train.trainer import train
from tests.unit.gmic.training import SHORT as LONGER
from tests.unit.gmic.training import images, tiny_model

SHORT = dataclasses.replace(LONGER, epochs=2, batch=2)

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["gmic.train.trainer", "sklearn.metrics", "torch._dynamo"])


def run(out: Path, config: TrainConfig = SHORT, seed: int = 1) -> None:
    train(tiny_model(seed), images(5), images(4, 50), config, out, resume=True)


def _child(out: str, steps: Connection) -> None:
    """One training in a process of its own that says so after each step."""
    torch.set_num_threads(1)
    train(
        # Other first weights than the uninterrupted run once a checkpoint is there: they must not matter.
        tiny_model(2 if (Path(out) / "checkpoint").exists() else 1),
        images(5),
        images(4, 50),
        SHORT,
        out,
        resume=True,
        on_progress=lambda progress: steps.send(progress.step),
    )


def _result(out: Path) -> tuple[str, str, str]:
    state = decode((out / "checkpoint").read_bytes(), out)
    weights = hashlib.sha256()
    for name, tensor in sorted(state["module"].items()):
        weights.update(name.encode() + tensor.numpy().tobytes())
    best = hashlib.sha256((out / "best.safetensors").read_bytes())
    return weights.hexdigest(), best.hexdigest(), (out / "metrics.jsonl").read_text()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same training, never interrupted."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("whole")
    run(out)
    torch.set_num_threads(threads)
    return out


@pytest.mark.parametrize("seed", [1, 2])
def test_killed_and_resumed_is_the_same_bit_for_bit(whole: Path, tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    kills = 0
    while True:
        ours, theirs = FORKS.Pipe(duplex=False)
        child = FORKS.Process(target=_child, args=(str(tmp_path), theirs))
        child.start()
        theirs.close()
        if kills < 3:
            with contextlib.suppress(EOFError):
                for _ in range(int(rng.integers(0, 4))):
                    ours.recv()
                time.sleep(float(rng.uniform(0, 0.1)))
            if child.is_alive() and child.pid is not None:
                os.kill(child.pid, signal.SIGKILL)
                kills += 1
        else:
            with contextlib.suppress(EOFError):
                while True:
                    ours.recv()
        child.join()
        ours.close()
        if child.exitcode == 0:
            break
        assert child.exitcode == -signal.SIGKILL
    assert kills > 0
    assert _result(tmp_path) == _result(whole)


class Power(Exception):
    """The power went away."""


@pytest.mark.parametrize("replaced", range(1, 6))
def test_cut_off_before_any_write_is_done_again(
    whole: Path, tmp_path: Path, replaced: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stops at each file written in turn: first checkpoint, mid-epoch, best weights, end of epoch."""
    real, done = Path.replace, 0

    def until(self: Path, target: Path) -> Path:
        nonlocal done
        done += 1
        if done == replaced:
            raise Power
        return real(self, target)

    torch.set_num_threads(1)
    monkeypatch.setattr(Path, "replace", until)
    with pytest.raises(Power):
        run(tmp_path)
    monkeypatch.undo()
    run(tmp_path)
    assert _result(tmp_path) == _result(whole)
    assert not list(tmp_path.glob(".*.partial"))


def test_a_training_that_ended_is_read_back_without_a_step(whole: Path) -> None:
    before = _result(whole)
    told = []
    result = train(
        tiny_model(9), images(5), images(4, 50), SHORT, whole, resume=True, on_progress=told.append
    )
    assert told == []
    assert len(result.history) == SHORT.epochs
    assert _result(whole) == before


def test_a_folder_in_use_is_not_overwritten(whole: Path) -> None:
    with pytest.raises(CheckpointError, match="holds a training already"):
        train(tiny_model(), images(5), images(4, 50), SHORT, whole)
    with only_writer(whole), pytest.raises(TrainingError, match="another process is training"):
        run(whole)


@pytest.mark.parametrize("length", [0, 10, 70, 90, 2000, -1])
def test_a_truncated_checkpoint_is_refused(whole: Path, tmp_path: Path, length: int) -> None:
    data = (whole / "checkpoint").read_bytes()
    (tmp_path / "checkpoint").write_bytes(data[:length])
    with pytest.raises(CheckpointError, match=r"is no checkpoint|truncated or damaged") as caught:
        run(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_flipped_bit_is_noticed(whole: Path, tmp_path: Path) -> None:
    data = bytearray((whole / "checkpoint").read_bytes())
    data[len(data) // 2] ^= 4
    (tmp_path / "checkpoint").write_bytes(data)
    with pytest.raises(CheckpointError, match="truncated or damaged"):
        run(tmp_path)


@pytest.mark.parametrize(
    ("config", "seed", "named"),
    [
        (dataclasses.replace(SHORT, learning_rate=2e-3), 1, "settings.learning_rate was 0.001"),
        (dataclasses.replace(SHORT, epochs=9), 1, "settings.epochs was 2, now it is 9"),
    ],
)
def test_a_checkpoint_of_another_training_is_refused(
    whole: Path, config: TrainConfig, seed: int, named: str
) -> None:
    with pytest.raises(CheckpointError, match=f"of another training: {named}"):
        run(whole, config, seed)


def test_a_checkpoint_for_other_images_is_refused(whole: Path) -> None:
    with pytest.raises(CheckpointError, match="training images was"):
        train(tiny_model(), images(5, 20), images(4, 50), SHORT, whole, resume=True)


def test_how_often_checkpoints_are_written_may_change(whole: Path) -> None:
    run(whole, dataclasses.replace(SHORT, checkpoint_every=1))
    assert len((whole / "metrics.jsonl").read_text().splitlines()) == SHORT.epochs


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "exploded"),)

    buffer = io.BytesIO()
    torch.save({"x": Bomb()}, buffer)
    content = buffer.getvalue()
    digest = hashlib.sha256(content).hexdigest().encode()
    (tmp_path / "checkpoint").write_bytes(b"gmic-checkpoint-1 " + digest + b"\n" + content)
    with pytest.raises(CheckpointError, match="more than tensors and was not opened"):
        run(tmp_path)
    assert not (tmp_path / "exploded").exists()


def test_a_checkpoint_reads_back_what_was_put_in() -> None:
    state = {"tensor": torch.arange(3), "text": "a", "numbers": [1, 2.5], "none": None}
    back = decode(encode(state), Path("x"))
    assert torch.equal(back.pop("tensor"), torch.arange(3))
    assert back == {"text": "a", "numbers": [1, 2.5], "none": None}


def test_an_atomic_write_leaves_the_new_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]
