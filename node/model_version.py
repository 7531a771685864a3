"""Which model version new runs are queued for, without importing torch.

A safetensors file starts with the length of a JSON header; the entry `gmic` of its `__metadata__` is the card,
JSON too, that `gmic.weights` wrote.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path

from node.config import Settings
from node.errors import ConfigError

UNTRAINED = "3d-gmic-untrained-seed7"
UNTRAINED_SEED = 7
_ZIP = b"PK\x03\x04"  # what torch.save writes; as a length it is beyond the limit
_HEADER_LIMIT = 16 * 2**20


def model_version(settings: Settings) -> str:
    """The version string of the configured weights; the untrained one where none are configured.

    Raises:
        ConfigError: the file is missing or is no safetensors file.
    """
    return UNTRAINED if settings.weights is None else _named(settings.weights, "TOMONODE_WEIGHTS")


def model_version_2d(settings: Settings) -> str | None:
    """The same of the weights configured for mammograms; None where none are."""
    path = settings.weights_2d
    return None if path is None else _named(path, "TOMONODE_WEIGHTS_2D")


def _named(path: Path, setting: str) -> str:
    card = _card(path, setting)
    name = card.get("name") or path.stem
    version = card.get("version")
    return f"{name}-{version}" if version else str(name)


def _card(path: Path, setting: str) -> dict[str, str]:
    advice = f"give a safetensors file made by Tomonode ({setting}), or none"
    try:
        with path.open("rb") as file:
            if file.read(4) == _ZIP:
                raise ConfigError(
                    f"weights {path} are a PyTorch checkpoint; unset {setting}, convert it with"
                    " `tomonode model import FILE --name NAME` and promote that version"
                )
            file.seek(0)
            (length,) = struct.unpack("<Q", file.read(8))
            if not 2 <= length <= _HEADER_LIMIT:
                raise ValueError(f"header of {length} bytes")
            header = json.loads(file.read(length))
        card = json.loads(header["__metadata__"]["gmic"])
    except OSError as error:
        raise ConfigError(f"weights {path} cannot be read: {error.strerror}; {advice}") from None
    except (ValueError, struct.error, LookupError, TypeError) as error:
        raise ConfigError(f"weights {path} are no safetensors file ({error}); {advice}") from None
    return card if isinstance(card, dict) else {}
