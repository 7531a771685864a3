"""The node's secret for data sets: patients and sites are kept as keyed digests, which nobody can find by guessing."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import stat
from pathlib import Path

from node.errors import ConfigError, Conflict

_BYTES = 32
_SEPARATOR = b"\x1f"
PRIVATE = 0o600


def key_path(home: Path) -> Path:
    """Where the secret lies."""
    return home / "secret" / "datasets.key"


def load_key(home: Path, make: bool = False) -> bytes:
    """The secret under the node's home, readable by its owner alone; `make` one where there is none.

    A new one is right only while no data set exists: patients of those that do could be matched with nobody any more.

    Raises:
        Conflict: there is none, and none is to be made.
        ConfigError: others may read it, or it is not what was written.
    """
    path = key_path(home)
    if not path.exists():
        if not make:
            raise Conflict(
                f"secret {path} is missing, and the patients of the data sets here are named with it; put back the copy"
                " of your backup, or of the host that froze them, with mode 600"
            )
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _make(path)
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        raise ConfigError(f"secret {path} has mode {mode:o}, so others may read it; chmod 600 it")
    key = path.read_bytes()
    if len(key) != _BYTES:
        raise ConfigError(
            f"secret {path} has {len(key)} bytes, not {_BYTES}; put the copy of your backup there"
        )
    return key


def _make(path: Path) -> None:
    """Write a new secret whole or not at all: of two processes at once, the first one's counts."""
    made = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    write_private(made, secrets.token_bytes(_BYTES))
    try:
        os.link(made, path)
    except FileExistsError:
        pass
    finally:
        made.unlink()


def write_private(path: Path, content: bytes) -> None:
    """Write a file, durably, that its owner alone may read."""
    handle = os.open(path, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, PRIVATE)
    with os.fdopen(handle, "wb") as file:
        os.fchmod(handle, PRIVATE)  # of a file that was there before, too
        file.write(content)
        file.flush()
        os.fsync(handle)


def keyed(key: bytes, *parts: str) -> str:
    """HMAC-SHA256 of the parts, hexadecimal; ("ab", "c") and ("a", "bc") differ."""
    message = _SEPARATOR.join(part.encode() for part in parts)
    return hmac.new(key, message, hashlib.sha256).hexdigest()
