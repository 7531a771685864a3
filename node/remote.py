"""The shared blob store: one place that all hosts of a node read and write, named by an fsspec URL.

    URL/TOMONODE           written first: a folder without it holds nothing of a node, whatever it is
    URL/ab/cd/<sha256>     a blob

It is a copy and a way between hosts: what was received lies on its host's disk before it is acknowledged. An object
appears whole or not at all. Credentials are left to the usual environment of the store (AWS_ACCESS_KEY_ID,
AWS_PROFILE, ...), so that none can get into a log line or an error.
"""

from __future__ import annotations

import errno
import os
import shutil
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from node.errors import BlobAbsent, BlobStoreUnavailable, ConfigError

_MARK = "TOMONODE"
_MARK_TEXT = (
    b"Blobs of a Tomonode, named by their SHA-256. Every host of it reads and writes here.\n"
)
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})
_PACKAGES = {"s3": "s3fs", "s3a": "s3fs"}


class Remote:
    """The store behind one URL. Safe between threads; opening it does not connect."""

    def __init__(self, url: str) -> None:
        """
        Raises:
            ConfigError: no such kind of store, one whose package is missing, or a URL with credentials in it.
        """
        if "@" in url:
            raise ConfigError(
                "setting TOMONODE_BLOB_URL holds credentials, which could get into a log; leave them to the environment"
                " (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE)"
            )
        scheme, _, place = url.partition("://")
        self.shown = url.partition("?")[0]
        if not place:
            raise ConfigError(
                f"setting TOMONODE_BLOB_URL={url!r} is no URL; give s3://bucket/prefix, or file:///folder"
            )
        try:
            self._fs, root = url_to_fs(url)
        except ImportError as error:
            package = _PACKAGES.get(scheme)
            raise ConfigError(
                f"blob store {self.shown} needs a package that is not installed; "
                + (f"run `{sys.executable} -m pip install {package}`" if package else str(error))
            ) from error
        except ValueError as error:
            raise ConfigError(
                f"setting TOMONODE_BLOB_URL={self.shown!r}: there is no such store; give s3://bucket/prefix, or"
                " file:///folder"
            ) from error
        self._root = str(root).rstrip("/")

    def put(self, source: Path, sha256: str) -> bool:
        """Copy a file into the store, unless it is there already. False: it is.

        Raises:
            BlobStoreUnavailable: it does not answer or does not let us write.
        """
        with self._asked():
            self._mark()
            if self._size(self._key(sha256)) == source.stat().st_size:
                return False
            self._write(source, self._key(sha256))
            return True

    def size(self, sha256: str) -> int:
        """Bytes of a blob.

        Raises:
            BlobAbsent: the store answers and does not have it.
            BlobStoreUnavailable: it does not answer, or holds nothing of a node.
        """
        with self._asked():
            found = self._size(self._key(sha256))
            if found is None:
                self._require_mark()
        if found is None:
            raise self._absent(sha256)
        return found

    def get(self, sha256: str, target: Path) -> None:
        """Copy a blob out of the store into a file, as it lies there: its digest is the caller's to check.

        Raises:
            BlobAbsent, BlobStoreUnavailable: see `size`.
            OSError: no room for the file.
        """
        with self._asked(_NO_ROOM):
            try:
                self._fs.get_file(self._key(sha256), str(target))
                return
            except FileNotFoundError:
                self._require_mark()
        raise self._absent(sha256)

    def probe(self) -> float:
        """Write, read and remove an object, and leave nothing behind; returns how long it took, in seconds.

        Raises:
            BlobStoreUnavailable: one of them is not possible.
        """
        started = time.monotonic()
        key, content = f"{self._root}/probe-{uuid.uuid4().hex}", uuid.uuid4().bytes
        with self._asked():
            self._require_folder()
            self._fs.pipe_file(key, content)
            came_back = self._fs.cat_file(key) == content
            self._fs.rm_file(key)
        if not came_back:
            raise BlobStoreUnavailable(
                f"blob store {self.shown} gave back other bytes than were written; look at the store itself"
            )
        return time.monotonic() - started

    def _key(self, sha256: str) -> str:
        return f"{self._root}/{sha256[:2]}/{sha256[2:4]}/{sha256}"

    def _absent(self, sha256: str) -> BlobAbsent:
        return BlobAbsent(
            f"blob {sha256[:12]} is neither on this host nor in {self.shown} yet; the listener that received it copies"
            " it, `tomonode blob copy` on its host what is older"
        )

    def _size(self, key: str) -> int | None:
        try:
            return int(self._fs.info(key)["size"])
        except FileNotFoundError:
            return None

    def _require_mark(self) -> None:
        """A mount that is missing, or another bucket, must not look like a lost blob."""
        self._require_folder()
        if self._size(f"{self._root}/{_MARK}") is None:
            raise FileNotFoundError(f"it holds nothing of a node (no {_MARK} in it)")

    def _require_folder(self) -> None:
        if isinstance(self._fs, LocalFileSystem) and not Path(self._root).is_dir():
            raise FileNotFoundError("the folder is not there: mount it, or make it")

    def _mark(self) -> None:
        self._require_folder()
        key = f"{self._root}/{_MARK}"
        if self._size(key) is None:
            self._fs.pipe_file(key, _MARK_TEXT)

    def _write(self, source: Path, key: str) -> None:
        """An object store shows an object when it is whole; a file must be made so."""
        if not isinstance(self._fs, LocalFileSystem):
            self._fs.put_file(str(source), key)
            return
        target = Path(key)
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.{uuid.uuid4().hex}.partial")
        try:
            with source.open("rb") as file, partial.open("xb") as copy:
                shutil.copyfileobj(file, copy)
                copy.flush()
                os.fsync(copy.fileno())
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)

    @contextmanager
    def _asked(self, ours: frozenset[int] = frozenset()) -> Iterator[None]:
        """`ours` are errors of the system that this host is to blame for."""
        try:
            yield
        except Exception as error:
            if isinstance(error, OSError) and error.errno in ours:
                raise
            raise BlobStoreUnavailable(
                f"blob store {self.shown} cannot be used now ({_reason(error)}); nothing is lost, work that needs it"
                " waits: see to the store, its credentials and TOMONODE_BLOB_URL"
            ) from error


def _reason(error: Exception) -> str:
    """Words of the system and of AWS are safe to show; of other back ends only the kind of the error is."""
    if isinstance(error, OSError) or type(error).__module__.startswith("botocore."):
        words = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return " ".join(words.split()) or type(error).__name__
    return type(error).__name__
