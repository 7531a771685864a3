"""The bytes of a weights file: safetensors with a card in its metadata's entry `gmic`, a JSON object.

What the card must hold is said by `gmic.weights` (one model) and `gmic.bundle` (an ensemble).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from gmic.errors import WeightsError

# What torch.save writes: a zip archive, or in old files a pickle. A safetensors file may begin with the second by
# chance, so it is looked at only where a file is none.
_PICKLED = (b"PK\x03\x04", b"\x80")
_CONVERT = "convert it with `tomonode model import FILE --name NAME`"


def read_file(path: Path) -> tuple[dict[str, Tensor], dict[str, Any], str]:
    """The tensors of a weights file, its card as it is, and the file's SHA-256.

    Raises:
        WeightsError: The file cannot be read, is damaged or is foreign.
    """
    try:
        data = path.read_bytes()
        tensors = safetensors.torch.load(data)
    except OSError as error:
        raise WeightsError(f"cannot read weights file {path}: {error.strerror}") from error
    except SafetensorError as error:
        if data.startswith(_PICKLED):
            raise WeightsError(
                f"weights file {path} is a PyTorch checkpoint, not safetensors; {_CONVERT}"
            ) from error
        raise WeightsError(
            f"weights file {path} is damaged or not safetensors ({error}); copy it again"
        ) from error
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    try:
        card = json.loads(header["__metadata__"]["gmic"])
    except (KeyError, TypeError, json.JSONDecodeError):
        card = None
    if not isinstance(card, dict):
        raise no_card(path)
    return tensors, card, hashlib.sha256(data).hexdigest()


def serialised(tensors: Mapping[str, Tensor], card: Mapping[str, Any]) -> bytes:
    """The bytes of a file with these tensors and this card."""
    plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    return safetensors.torch.save(plain, {"gmic": json.dumps(card, sort_keys=True)})


def write_file(path: Path, data: bytes) -> str:
    """Write bytes, durably, whole or not at all; returns their SHA-256.

    Raises:
        OSError: They could not be written.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return hashlib.sha256(data).hexdigest()


def no_card(path: Path) -> WeightsError:
    """What to say of a file whose card is not there or is not one."""
    return WeightsError(
        f"weights file {path} has no gmic card; if it is a published checkpoint, {_CONVERT}"
    )
