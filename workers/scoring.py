"""Scores of stored images by several models, by the pipeline that also reads studies; kept: a kill costs one image.

A score depends on the image's bytes, the weights' bytes and the program alone. It is kept in a file named by all three,
under `scores` in the node's home, which may be deleted at any time.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dicom_io.errors import DicomIoError
from dicom_io.findings import LABELS
from gmic.errors import InputError
from gmic.preprocess import preprocess
from node.learning_models import DatasetItem
from workers.models import CODE_VERSION
from workers.predictor import Predictor
from workers.volumes import Decoded, Source, Stopwatch, decoded

Scores = tuple[float, float]
"""Benign and malignant, in [0, 1]."""
Check = Callable[[], None]


class ScoreCache:
    """Scores on disk; a file that cannot be read counts as none."""

    def __init__(self, home: Path) -> None:
        self._folder = home / "scores"

    def _path(self, weights_sha256: str, sha256: str) -> Path:
        return self._folder / CODE_VERSION / weights_sha256 / sha256[:2] / f"{sha256}.json"

    def get(self, weights_sha256: str, sha256: str) -> Scores | None:
        """What these weights said of this image before; None if they were not asked."""
        try:
            found = json.loads(self._path(weights_sha256, sha256).read_text())
            benign, malignant = float(found["benign"]), float(found["malignant"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return benign, malignant

    def put(self, weights_sha256: str, sha256: str, scores: Scores) -> None:
        """Keep them, whole or not at all."""
        path = self._path(weights_sha256, sha256)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}")
        partial.write_text(json.dumps(dict(zip(LABELS, scores, strict=True))))
        partial.replace(path)


class Contender:
    """A version that is measured; its model is loaded only if an image has no score yet."""

    def __init__(self, version: str, weights_sha256: str, load: Callable[[], Predictor]) -> None:
        self.version = version
        self.weights_sha256 = weights_sha256
        self._load = load

    @cached_property
    def predictor(self) -> Predictor:
        """The model."""
        return self._load()


@dataclass(frozen=True)
class Failed:
    """An image that a version could not read."""

    sop_uid: str
    version: str
    reason: str


@dataclass(frozen=True)
class Scored:
    """Scores by version and SOP Instance UID, and what could not be read."""

    scores: Mapping[str, dict[str, Scores]]
    failed: list[Failed] = field(default_factory=list)


@dataclass(frozen=True)
class Reading:
    """Where images and scores lie, and when to stop."""

    path_of: Callable[[str], Path]
    """The file of an instance's digest."""
    cache: ScoreCache
    check: Check
    progress: Callable[[int, int], None] = lambda _done, _all: None
    """Told after each image: how many are done, of how many."""


def score(
    items: Sequence[DatasetItem], contenders: Sequence[Contender], reading: Reading
) -> Scored:
    """Read every image with every version that has no score of it yet, one volume in memory at a time.

    Raises:
        DeviceMemoryError, WeightsGone, WeightsError: of a model.
        LeaseLost: by `reading.check`.
    """
    result = Scored({contender.version: {} for contender in contenders})
    wanted: dict[str, list[Contender]] = {}
    for item in items:
        for contender in contenders:
            known = reading.cache.get(contender.weights_sha256, item.sha256)
            if known is None:
                wanted.setdefault(item.sop_uid, []).append(contender)
            else:
                result.scores[contender.version][item.sop_uid] = known
    waiting = [item for item in items if item.sop_uid in wanted]
    if not waiting:
        return result
    sources = [Source(reading.path_of(i.sha256), i.sop_uid, i.sop_class_uid) for i in waiting]
    ahead = any(contender.predictor.on_gpu for contender in wanted[waiting[0].sop_uid])
    images = decoded(sources, Stopwatch(), ahead=ahead)
    for count, (item, (_, decode)) in enumerate(zip(waiting, images, strict=True), 1):
        reading.check()
        _read(item, decode, wanted[item.sop_uid], reading, result)
        reading.progress(count, len(waiting))
    return result


def _read(
    item: DatasetItem,
    decode: Callable[[], Decoded],
    contenders: Sequence[Contender],
    reading: Reading,
    result: Scored,
) -> None:
    try:
        image, volume_DHW = decode()
    except (DicomIoError, FileNotFoundError) as error:
        missing = isinstance(error, FileNotFoundError)
        reason = "its file is not in the blob store" if missing else str(error)
        result.failed.extend(Failed(item.sop_uid, c.version, reason) for c in contenders)
        return
    windows: dict[tuple[int, int], NDArray[np.float32]] = {}
    for contender in contenders:
        shape = contender.predictor.identity.window_shape
        try:
            if shape not in windows:
                windows[shape], _ = preprocess(
                    volume_DHW, image.laterality, image.view_family, window_shape=shape
                )
            found = contender.predictor.predict(windows[shape], reading.check).scores
        except InputError as error:
            result.failed.append(Failed(item.sop_uid, contender.version, str(error)))
            continue
        scores = (found["benign"], found["malignant"])
        reading.cache.put(contender.weights_sha256, item.sha256, scores)
        result.scores[contender.version][item.sop_uid] = scores
