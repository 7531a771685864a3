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


def test_cut_off_before_any_write_is_done_again(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stops at every file written in turn, up to the last epoch's line in the table of epochs."""
    real, written = Path.replace, []
    cut_at = 0

    def until(self: Path, target: Path) -> Path:
        if len(written) == cut_at:
            raise Power
        written.append(Path(target).name)
        return real(self, target)

    torch.set_num_threads(1)
    while True:
        out = tmp_path / str(cut_at)
        written.clear()
        with monkeypatch.context() as patched:
            patched.setattr(Path, "replace", until)
            try:
                run(out)
                break
            except Power:
                pass
        run(out)
        assert _result(out) == _result(whole), f"cut off after {written}"
        assert not list(out.glob(".*.partial"))
        cut_at += 1
    epoch = ["checkpoint", "checkpoint", "metrics.jsonl"]
    assert [name for name in written if name != "best.safetensors"] == [
        "checkpoint",
        *epoch,
        *epoch,
    ]
    assert "best.safetensors" in written


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


def test_another_omega_is_noticed_where_both_are_known(tmp_path: Path) -> None:
    def go(omega: float | None) -> None:
        sets = images(5), images(4, 50)
        train(tiny_model(), *sets, SHORT, tmp_path, resume=True, omega=omega)

    go(0.05)
    go(0.05)
    with pytest.raises(
        CheckpointError, match=r"of another training: omega was 0.05, now it is 0.5"
    ):
        go(0.5)
    go(None)


def test_a_checkpoint_that_says_no_omega_is_gone_on_with(whole: Path) -> None:
    assert "omega" not in decode((whole / "checkpoint").read_bytes(), whole)["identity"]
    train(tiny_model(), images(5), images(4, 50), SHORT, whole, resume=True, omega=0.05)


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


@pytest.mark.parametrize(
    "content", [b"", b"PK\x03\x04", b"\x80\x02}", b"\x80\x02K\x01a.", b"(lp0\n", b"x" * 40]
)
def test_whatever_torch_cannot_read_is_one_error(tmp_path: Path, content: bytes) -> None:
    """The digest fits, so the content was written so, by whatever program."""
    digest = hashlib.sha256(content).hexdigest().encode()
    with pytest.raises(CheckpointError, match="was not opened; remove it"):
        decode(b"gmic-checkpoint-1 " + digest + b"\n" + content, tmp_path)


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
