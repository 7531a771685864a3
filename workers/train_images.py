"""The images that a training reads: standardised windows, made once from the blobs and kept for later trainings.

    TRAINING_ROOT/images/ab/<sha256 of the object>-<form>.npy   the cache
    TRAINING_ROOT/runs/<id>/data/<sha256>.npy, index.csv        links to it, as `gmic.train.data.FolderSet` reads them

A training holds links of its own, so images may leave the cache under it. A file appears whole or not at all.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import shutil
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dicom_io.dbt import open_image
from dicom_io.errors import DicomIoError
from gmic.breast import THRESHOLD
from gmic.errors import DataError, InputError
from gmic.preprocess import preprocess
from gmic.train.checkpoint import write_atomically
from gmic.train.pretrain_step import birads_group
from node.blobs import BlobStore
from node.config import Settings
from node.errors import DiskFull
from node.trainings import Image
from workers.errors import OverLimit, UnusableImage

_FORM = 1  # raise it when the same settings make other windows
_COLUMNS = ("file", "image_id", "breast_id", "patient_id", "benign", "malignant", "birads", "split")
MB = 2**20


@dataclass(frozen=True)
class Form:
    """How windows are made: rows and columns, and the type they are kept in."""

    window_shape: tuple[int, int]
    dtype: str

    @property
    def tag(self) -> str:
        """Names everything that the content of a file depends on, besides the object."""
        values = [_FORM, *self.window_shape, THRESHOLD, self.dtype]
        return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:12]


class ImageCache:
    """The cache of one training root. Several processes may use it at once."""

    def __init__(self, settings: Settings, blobs: BlobStore) -> None:
        self._root = settings.training_root / "images"
        self._limit = settings.training_cache_mb * MB
        self._reserve = settings.disk_reserve_mb * MB
        self._blobs = blobs
        self._root.mkdir(parents=True, exist_ok=True)

    def get(self, image: Image, form: Form) -> Path:
        """The file of an image, made where it is not there.

        Raises:
            UnusableImage: the object cannot be read.
            DiskFull: the file system is at its reserve.
            OSError: no blob, or no room.
        """
        path = self._root / image.sha256[:2] / f"{image.sha256}-{form.tag}.npy"
        if _usable(path, form):
            with suppress(OSError):
                os.utime(path)  # used just now
            return path
        require_room(self._root, self._reserve)
        path.parent.mkdir(exist_ok=True)
        _make(path, self._blobs.fetch(image.sha256), image, form)
        return path

    def trim(self) -> int:
        """Remove the images unused for longest until the rest keeps the limit; returns how many went."""
        found = sorted(self._files(), reverse=True)
        kept, gone = 0, 0
        for _, size, path in found:
            kept += size
            if kept > self._limit:
                path.unlink(missing_ok=True)
                gone += 1
        return gone

    def _files(self) -> Iterator[tuple[float, int, Path]]:
        """Time of last use, size and place of each image; what a killed maker left half written is removed."""
        for path in self._root.glob("*/*"):
            with suppress(FileNotFoundError):  # another process trims, too
                facts = path.stat()
                if path.suffix == ".npy":
                    yield facts.st_mtime, facts.st_size, path
                elif time.time() - facts.st_mtime > 3600:
                    path.unlink()


def require_room(folder: Path, reserve_bytes: int) -> None:
    """Raises DiskFull when less than the reserve is left where a folder lies."""
    free = shutil.disk_usage(folder).free
    if free < reserve_bytes:
        raise DiskFull(
            f"{free // MB} MB left at {folder}, the reserve is {reserve_bytes // MB} MB; free some space, or lower"
            " TOMONODE_TRAINING_CACHE_MB or TOMONODE_DISK_RESERVE_MB"
        )


def _usable(path: Path, form: Form) -> bool:
    try:
        volume = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return False
    return bool(volume.dtype == form.dtype and volume.shape[1:] == form.window_shape)


def _make(path: Path, blob: Path, image: Image, form: Form) -> None:
    """Write an image's standardised window, read as inference reads it."""
    try:
        opened = open_image(blob)
        window_DHW, _ = preprocess(
            opened.read_volume(),
            opened.laterality,
            opened.view_family,
            window_shape=form.window_shape,
        )
    except (DicomIoError, InputError) as error:
        raise UnusableImage(
            f"image {image.sop_uid} of the data set cannot be read: {error}; freeze one without it"
        ) from error
    # Named by process and not by image alone: another training may make the same one now.
    partial = path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            np.save(file, window_DHW.astype(form.dtype, copy=False))
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def lay_out(
    folder: Path,
    images: Sequence[Image],
    cache: ImageCache,
    form: Form,
    limit_mb: int,
    check: Callable[[], None],
) -> None:
    """Fill a training's folder with the images it reads and the index of them; `check` is called before each.

    Raises:
        OverLimit: the images take more room than a training may.
        UnusableImage, DiskFull, OSError: see `ImageCache.get`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    used = 0
    for image in images:
        check()
        target = folder / f"{image.sha256}.npy"
        if not target.exists():
            with suppress(FileExistsError):
                os.link(cache.get(image, form), target)
        used += target.stat().st_size
        if used > limit_mb * MB:
            raise OverLimit(
                f"the images of the data set take more than {limit_mb} MB; raise TOMONODE_TRAINING_DISK_MB, or freeze"
                " a smaller one"
            )
    cache.trim()
    write_atomically(folder / "index.csv", _index(images))


def lay_out_groups(folder: Path, images: Sequence[Image], data: Path) -> None:
    """The index of those images whose breast has a BI-RADS group, beside the folder `data` that holds the files.

    Raises:
        DataError: no image has one.
    """
    known = [image for image in images if image.birads in range(6)]
    if not known:
        raise DataError(
            "no image of the data set has a BI-RADS category; import some, or use from-scratch"
        )
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "index.csv", _index(known, f"../{data.name}/"))


def _index(images: Iterable[Image], prefix: str = "") -> bytes:
    text = io.StringIO()
    rows = csv.writer(text)
    rows.writerow(_COLUMNS)
    for image in images:
        breast = f"{image.study_uid}-{image.laterality}"
        group = "" if image.birads not in range(6) else birads_group(image.birads or 0)
        labels = (int(image.benign), int(image.malignant))
        file = f"{prefix}{image.sha256}.npy"
        rows.writerow((file, image.sop_uid, breast, image.patient, *labels, group, image.split))
    return text.getvalue().encode()


def folder_bytes(folder: Path) -> int:
    """Room that a folder's files take."""
    total = 0
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):
            total += path.stat().st_size if path.is_file() else 0
    return total
