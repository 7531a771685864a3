"""Volumes of a study one after the other, decoded ahead where that is free; and the clock of its stages."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dicom_io import unread
from dicom_io.dbt import MammogramImage, open_image
from dicom_io.findings import Excluded
from dicom_io.series import open_series


@dataclass(frozen=True)
class Source:
    """An image of the study; `find` gives its file, which may have to come from another host first.

    Of an image that came one object a slice, `slices` give the files of them all, and the rest is of one of them.
    """

    find: Callable[[], Path]
    sop_uid: str
    sop_class_uid: str
    slices: tuple[Callable[[], Path], ...] = ()

    def open(self) -> MammogramImage:
        """Check its headers; no pixel is decoded yet. Errors: see `open_image` and `open_series`."""
        if self.slices:
            return open_series([find() for find in self.slices])
        return open_image(self.find())

    def left_out(self, reason: str) -> Excluded:
        """The image as one that could not be read."""
        paths = [find() for find in self.slices or (self.find,)]
        return unread.left_out(paths, self.sop_uid, self.sop_class_uid, reason)

    def not_for_reading(self) -> Excluded | None:
        """The object as one that no model is asked to read; None where it is no image of a breast."""
        return unread.not_for_reading(self.find(), self.sop_uid, self.sop_class_uid)


@dataclass
class Stopwatch:
    """Seconds by stage, added up over the images of a study."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the block to a stage."""
        started = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - started


Decoded = tuple[MammogramImage, NDArray[np.uint16]]


def decoded(
    sources: Sequence[Source], watch: Stopwatch, *, ahead: bool
) -> Iterator[tuple[Source, Callable[[], Decoded]]]:
    """Each source with a call that gives its volume, or raises what is wrong with it.

    `ahead` decodes the next one meanwhile: for a GPU, which leaves the CPU idle. Where the CPU computes it has no time
    to spare, and a second volume would only need memory.
    """
    read = partial(_decode, watch=watch)
    if not ahead:
        yield from ((source, partial(read, source)) for source in sources)
        return
    with ThreadPoolExecutor(1, thread_name_prefix="decode") as pool:
        coming: deque[tuple[Source, Future[Decoded]]] = deque()
        for source in sources:
            coming.append((source, pool.submit(read, source)))
            if len(coming) == 2:
                yield _next(coming)
        while coming:
            yield _next(coming)


def _next(coming: deque[tuple[Source, Future[Decoded]]]) -> tuple[Source, Callable[[], Decoded]]:
    source, future = coming.popleft()
    return source, future.result


def _decode(source: Source, watch: Stopwatch) -> Decoded:
    with watch.stage("decode"):
        image = source.open()
        return image, image.read_volume()
