"""Content-addressed store: `ab/cd/<sha256>`, immutable, durable once `hold` says so.

An object enters by a hard link from the spool (same file system) or is written by a worker. A per-digest lock (flock on
the shard folder, so it works between processes) covers "link, then row": whoever takes a fresh link back after a failed
row cannot take it from under somebody whose row was committed in between.

    ROOT/ab/cd/<sha256>        what this host received and made
    ROOT/spool/                what is on its way in
    ROOT/outgoing/<sha256>     links: received, and not in the shared store yet (`node.remote`)
    ROOT/fetched/ab/<sha256>   copies from the shared store, which may be deleted at any time
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from node.config import Settings
from node.errors import BlobDamaged, DiskFull

if TYPE_CHECKING:
    from node.remote import Remote

_CHUNK = 4 * 1024 * 1024
_IN_USE_S = 3600.0  # who was given a fetched copy may open it so much later


class BlobStore:
    """Blobs under one folder, and in the shared store where there is one. Creates the folder and its spool."""

    def __init__(
        self, root: Path, spool: Path, remote: Remote | None = None, reserve_bytes: int = 0
    ) -> None:
        """`reserve_bytes` are left free by what is fetched."""
        self.root = root
        self.spool = spool
        self.remote = remote
        self._reserve_bytes = reserve_bytes
        self._outgoing, self._fetched = root / "outgoing", root / "fetched"
        spool.mkdir(parents=True, exist_ok=True)
        if remote is not None:
            self._outgoing.mkdir(exist_ok=True)

    @classmethod
    def of(cls, settings: Settings) -> BlobStore:
        """The store of a host. Raises ConfigError for a shared store that cannot be one."""
        if not settings.blob_url:
            return cls(settings.blob_root, settings.spool)
        from node.remote import Remote  # fsspec, which one host can do without

        remote = Remote(settings.blob_url)
        return cls(settings.blob_root, settings.spool, remote, settings.disk_reserve_mb * 2**20)

    def path(self, sha256: str) -> Path:
        """Where the blob with this digest lies or would lie, if it is this host's; readers ask `fetch`."""
        return self.root / sha256[:2] / sha256[2:4] / sha256

    def fetch(self, sha256: str) -> Path:
        """A file with a blob's bytes: this host's, else a copy from the shared store, whole and of this digest.

        Without a shared store it is `path`, where nothing may be.

        Raises:
            BlobAbsent: neither has it.
            BlobStoreUnavailable: the shared store does not answer.
            BlobDamaged: it has other bytes under the digest.
            DiskFull: a copy would go below the reserve.
        """
        own, copy = self.path(sha256), self._fetched / sha256[:2] / sha256
        if self.remote is None or own.exists():
            return own
        with suppress(FileNotFoundError):
            os.utime(copy)  # used just now
            return copy
        with _as_disk_full(copy):
            self._make_room(self.remote.size(sha256))
            handle, name = tempfile.mkstemp(dir=self.spool, prefix="fetched-")
            os.close(handle)
            spooled = Path(name)
            try:
                self.remote.get(sha256, spooled)
                found = sha256_of(spooled)
                if found != sha256:
                    raise BlobDamaged(
                        f"blob {sha256[:12]} is damaged in {self.remote.shown} (its sha256 is {found[:12]}); remove it"
                        " there, then run `tomonode blob copy` on the host that received it"
                    )
                sync_file(spooled)
                copy.parent.mkdir(parents=True, exist_ok=True)
                spooled.replace(copy)
            finally:
                spooled.unlink(missing_ok=True)
        return copy

    def copy_out(self, stopped: Callable[[], bool] = lambda: False) -> int:
        """Copy what was received and is not in the shared store yet, oldest first; returns how many.

        Raises:
            BlobStoreUnavailable: the rest stays.
        """
        assert self.remote is not None, "no shared store"
        copied = 0
        for link in self.outgoing():
            if stopped():
                break
            with self._lock(link.name):
                pass  # "link, then row" is over: an object that was refused is taken back by now
            if link.exists():
                self.remote.put(link, link.name)
                link.unlink(missing_ok=True)
                copied += 1
        return copied

    def outgoing(self) -> list[Path]:
        """What was received and is not in the shared store yet, oldest first."""
        if not self._outgoing.is_dir():
            return []
        return [link for _, _, link in sorted(_facts(self._outgoing.iterdir()))]

    def digests(self) -> Iterator[str]:
        """Every blob that this host received or made."""
        return (path.name for path in self.root.glob("[0-9a-f][0-9a-f]/[0-9a-f][0-9a-f]/*"))

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
        target, outgoing = self.path(sha256), self._outgoing / sha256
        with _as_disk_full(target), self._lock(sha256):
            made: list[Path] = []
            try:
                # The copy is noted first: killed in between, one object too many is copied, and none too few.
                for link in (target,) if self.remote is None else (outgoing, target):
                    if self._link(source, link):
                        made.append(link)
                yield target
            except BaseException:
                for link in made:
                    link.unlink(missing_ok=True)
                raise

    def write(self, content: bytes) -> str:
        """Store bytes that the node made itself; as `make`."""
        return self.make(lambda path: path.write_bytes(content))

    def make(self, write: Callable[[Path], object]) -> str:
        """Store a file that the node makes itself, of any size; returns the digest. Durable on return, and in the
        shared store, so that another host can read whatever a row names.

        Args:
            write: writes the file at the path that it is given.

        Raises:
            DiskFull: no room.
            BlobStoreUnavailable: it is on this host alone; call again.
        """
        with _as_disk_full(self.spool):
            handle, name = tempfile.mkstemp(dir=self.spool, prefix="made-")
            os.close(handle)
            spooled = Path(name)
            try:
                write(spooled)
                sync_file(spooled)
                digest = sha256_of(spooled)
                target = self.path(digest)
                with self._lock(digest):
                    self._link(spooled, target)
            finally:
                spooled.unlink(missing_ok=True)
        if self.remote is not None:
            self.remote.put(target, digest)
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

    def _make_room(self, size_bytes: int) -> None:
        """Copies unused for longest give way to one of this size."""
        missing = self._reserve_bytes + size_bytes - self.free_bytes()
        if missing <= 0:
            return
        for used_at, size, path in sorted(_facts(self._fetched.glob("??/*"))):
            if missing <= 0 or time.time() - used_at < _IN_USE_S:
                break
            missing -= size
            path.unlink(missing_ok=True)
        self.require_room(self._reserve_bytes + size_bytes)

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


def _facts(paths: Iterable[Path]) -> Iterator[tuple[float, int, Path]]:
    """Time of last use, size and place."""
    for path in paths:
        with suppress(FileNotFoundError):  # taken back, or another process makes room, too
            facts = path.stat()
            yield facts.st_mtime, facts.st_size, path


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
