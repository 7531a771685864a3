"""Content-addressed store: `ab/cd/<sha256>`, immutable, durable once `hold` says so.

An object enters by a hard link from the spool (same file system) or is written by a worker. A per-digest lock (flock on
the shard folder, so it works between processes) covers "link, then row": whoever takes a fresh link back after a failed
row cannot take it from under somebody whose row was committed in between.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from node.errors import DiskFull

_CHUNK = 4 * 1024 * 1024


class BlobStore:
    """Blobs under one folder. Creates the folder and its spool."""

    def __init__(self, root: Path, spool: Path) -> None:
        self.root = root
        self.spool = spool
        spool.mkdir(parents=True, exist_ok=True)

    def path(self, sha256: str) -> Path:
        """Where the blob with this digest lies or would lie."""
        return self.root / sha256[:2] / sha256[2:4] / sha256

    def free_bytes(self) -> int:
        """Room left on the file system for an unprivileged writer."""
        return shutil.disk_usage(self.root).free

    def require_room(self, reserve_bytes: int) -> None:
        """Raises DiskFull when less than the reserve is left."""
        free = self.free_bytes()
        if free < reserve_bytes:
            raise DiskFull(
                f"{free // 2**20} MB left at {self.root}, the reserve is {reserve_bytes // 2**20} MB;"
                " free some space or lower TOMONODE_DISK_RESERVE_MB"
            )

    @contextmanager
    def hold(self, source: Path, sha256: str) -> Iterator[Path]:
        """Link a durable spool file into the store and keep it if the block succeeds.

        The block commits the row that refers to the blob. If it raises, a link that this call made is removed again.

        Args:
            source: a file on the same file system, already flushed to disk by the caller (`sync_file`).
            sha256: its digest, hexadecimal.

        Raises:
            DiskFull: no room for the folder entry.
        """
        target = self.path(sha256)
        with _as_disk_full(target), self._lock(sha256):
            made = self._link(source, target)
            try:
                yield target
            except BaseException:
                if made:
                    target.unlink(missing_ok=True)
                raise

    def write(self, content: bytes) -> str:
        """Store bytes that the node made itself; returns the digest. Durable on return.

        Raises:
            DiskFull: no room.
        """
        digest = hashlib.sha256(content).hexdigest()
        target = self.path(digest)
        with _as_disk_full(target):
            handle, name = tempfile.mkstemp(dir=self.spool, prefix="made-")
            spooled = Path(name)
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                with self._lock(digest):
                    self._link(spooled, target)
            finally:
                spooled.unlink(missing_ok=True)
        return digest

    def sweep_spool(self, older_than_s: float) -> list[Path]:
        """Remove what killed senders and processes left in the spool; returns the removed files."""
        removed = []
        for path in self.spool.iterdir():
            try:
                if time.time() - path.stat().st_mtime > older_than_s:
                    path.unlink()
                    removed.append(path)
            except FileNotFoundError:
                continue  # its owner removed it just now
        return removed

    @contextmanager
    def _lock(self, sha256: str) -> Iterator[None]:
        shard = self.path(sha256).parent
        if not shard.is_dir():
            shard.mkdir(parents=True, exist_ok=True)
            for folder in (shard.parent, self.root):
                sync_folder(folder)
        handle = os.open(shard, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    def _link(self, source: Path, target: Path) -> bool:
        try:
            os.link(source, target)
        except FileExistsError:
            return False
        sync_folder(target.parent)
        return True


def sha256_of(path: Path) -> str:
    """Digest of a file, in chunks."""
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def sync_file(path: Path) -> None:
    """Flush a file's content to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_folder(path: Path) -> None:
    """Flush a folder's entries to disk."""
    sync_file(path)


@contextmanager
def _as_disk_full(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(
                f"no room at {target.parent}: {error.strerror}; free some space"
            ) from error
        raise
