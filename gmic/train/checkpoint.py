"""Checkpoints: everything a training needs to go on as if it had never stopped.

A file is one line, `gmic-checkpoint-1 SHA-256`, and then what `torch.save` makes of tensors and plain
containers. It is read back whole or refused, and never runs code.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from gmic.errors import CheckpointError, TrainingError

_MAGIC = b"gmic-checkpoint-1 "
_HEADER = len(_MAGIC) + 64 + 1


def write_atomically(path: Path, data: bytes) -> None:
    """Put `data` in place of a file, so that a reader, or a power cut, finds the old or the new one.

    Raises:
        OSError: It could not be written; the old file is as it was.
    """
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def encode(state: Mapping[str, Any]) -> bytes:
    """A checkpoint file's bytes for a mapping of tensors, numbers, texts, lists and mappings."""
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    data = buffer.getvalue()
    return _MAGIC + hashlib.sha256(data).hexdigest().encode() + b"\n" + data


def decode(data: bytes, path: Path) -> dict[str, Any]:
    """The state in a checkpoint file's bytes; `path` is for messages alone.

    Raises:
        CheckpointError: Not a checkpoint, or damaged.
    """
    if not data.startswith(_MAGIC):
        raise CheckpointError(
            f"{path} is no checkpoint of this program; give another, or remove it"
        )
    digest = data[len(_MAGIC) : _HEADER].rstrip(b"\n").decode("ascii", "replace")
    content = data[_HEADER:]
    if hashlib.sha256(content).hexdigest() != digest:
        raise CheckpointError(
            f"checkpoint {path} is truncated or damaged ({len(data)} bytes); copy it again or remove it"
        )
    try:
        state: dict[str, Any] = torch.load(
            io.BytesIO(content), map_location="cpu", weights_only=True
        )
    except MemoryError:
        raise
    except Exception as error:  # what foreign bytes make torch raise has no end
        raise CheckpointError(
            f"checkpoint {path} holds more than tensors and was not opened; remove it"
        ) from error
    return state


def require_same(kept: Any, now: Any, path: Path) -> None:
    """Refuse a checkpoint that another training wrote; both sides are nested JSON values.

    Raises:
        CheckpointError: Names the first difference.
    """
    before, after = dict(_leaves(kept)), dict(_leaves(now))
    for name in sorted({*before, *after}):
        if before.get(name) != after.get(name):
            raise CheckpointError(
                f"checkpoint {path} is of another training: {name} was {before.get(name)!r}, "
                f"now it is {after.get(name)!r}; start in another folder, or as before"
            )


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves(inner, f"{name}.{key}" if name else str(key))
    else:
        yield name, json.loads(json.dumps(value))  # tuples and lists are one


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Hold a folder for this process, and clear away what a killed one left half written.

    Raises:
        TrainingError: Another process holds it.
    """
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise TrainingError(f"another process is training in {folder}; wait for it") from error
        for partial in folder.glob(".*.partial"):
            partial.unlink()
        yield
