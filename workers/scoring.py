"""Stored images read by several models, by the pipeline that also reads studies; kept (`workers.looks`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path

from dicom_io.dbt import MammogramImage
from dicom_io.errors import DicomIoError
from gmic.errors import InputError
from gmic.evaluate.found import boxes_of, strongest
from gmic.preprocess import Preprocessed, preprocess
from node.learning_models import DatasetItem
from workers.looks import Look, LookCache, Scores
from workers.predictor import Prediction, Predictor
from workers.volumes import Decoded, Source, Stopwatch, decoded

Check = Callable[[], None]


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
    """Looks by version and SOP Instance UID, and what could not be read."""

    looks: Mapping[str, dict[str, Look]]
    failed: list[Failed] = field(default_factory=list)

    @property
    def scores(self) -> dict[str, dict[str, Scores]]:
        """The scores alone."""
        return {
            version: {uid: look.scores for uid, look in looks.items()}
            for version, looks in self.looks.items()
        }


@dataclass(frozen=True)
class Reading:
    """Where images and looks lie, of which images saliency is kept too, and when to stop."""

    path_of: Callable[[str], Path]
    """The file of an instance's digest."""
    cache: LookCache
    check: Check
    mapped: Set[str] = frozenset()
    """SOP Instance UIDs of images whose saliency is kept."""
    progress: Callable[[int, int], None] = lambda _done, _all: None
    """Told after each image: how many are done, of how many."""


def score(
    items: Sequence[DatasetItem], contenders: Sequence[Contender], reading: Reading
) -> Scored:
    """Read every image with every version that did not read it yet, one volume in memory at a time.

    Raises:
        DeviceMemoryError, WeightsGone, WeightsError: of a model.
        LeaseLost: by `reading.check`.
    """
    result = Scored({contender.version: {} for contender in contenders})
    wanted: dict[str, list[Contender]] = {}
    for item in items:
        for contender in contenders:
            known = reading.cache.get(contender.weights_sha256, item.sha256)
            if known is None or _lacks_saliency(item, contender, reading):
                wanted.setdefault(item.sop_uid, []).append(contender)
            else:
                result.looks[contender.version][item.sop_uid] = known
    waiting = [item for item in items if item.sop_uid in wanted]
    if not waiting:
        return result
    sources = [
        Source(partial(reading.path_of, i.sha256), i.sop_uid, i.sop_class_uid) for i in waiting
    ]
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
    windows: dict[tuple[int, int], Preprocessed] = {}
    for contender in contenders:
        shape = contender.predictor.identity.window_shape
        try:
            if shape not in windows:
                windows[shape] = preprocess(
                    volume_DHW, image.laterality, image.view_family, window_shape=shape
                )
            said = contender.predictor.predict(windows[shape].window_DHW, reading.check)
        except InputError as error:
            result.failed.append(Failed(item.sop_uid, contender.version, str(error)))
            continue
        look = _look(said, image, windows[shape], contender.predictor)
        if item.sop_uid in reading.mapped:
            reading.cache.put_saliency(contender.weights_sha256, item.sha256, said.saliency_CDhw)
        reading.cache.put(contender.weights_sha256, item.sha256, look)
        result.looks[contender.version][item.sop_uid] = look


def _look(said: Prediction, image: MammogramImage, cut: Preprocessed, predictor: Predictor) -> Look:
    field_ = predictor.receptive_field
    found = boxes_of(said.patches, said.saliency_CDhw, field_, cut.transform)
    return Look(
        scores=(said.scores["benign"], said.scores["malignant"]),
        frames=image.source_frames,
        turned=image.flipped,
        transform=cut.transform,
        field=field_,
        boxes=strongest(found, len(image.source_frames)),
    )


def _lacks_saliency(item: DatasetItem, contender: Contender, reading: Reading) -> bool:
    return (
        item.sop_uid in reading.mapped
        and reading.cache.saliency(contender.weights_sha256, item.sha256) is None
    )
