"""The paper's external evaluation on the public Duke set, an image after the other, resumable.

Folder of a run:

    run.json          what is evaluated; another model or other tables need another folder
    scores.csv        a row an image that was read (`gmic.evaluate.scores`)
    predictions.csv   its boxes, as the open benchmark takes them (`gmic.evaluate.froc`)
    left_out.csv      images that were not read, and why; tried again by the next run
    report.json, report.html

A row of scores is written last, so an image with one is done, whenever the run is killed.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray
from PIL import Image

from gmic.errors import DataError, InputError
from gmic.evaluate.duke import DukeImage, DukeTables, LeftOut, oriented, read_duke
from gmic.evaluate.duke_reader import VolumeReading
from gmic.evaluate.duke_report import write_duke_report
from gmic.evaluate.froc import (
    PREDICTION_COLUMNS,
    TrueBox,
    prediction_row,
    read_predictions,
    write_predictions,
)
from gmic.evaluate.localisation import LesionBox
from gmic.evaluate.scores import COLUMNS, ImageScore, read_scores, table_row
from gmic.evaluate.tables import write_table

OpenVolume = Callable[[Path], NDArray[Any]]
"""Gives the voxels of a file (D, H, W), slices and rows as stored. Raises DataError or OSError."""
Say = Callable[[str], None]


class Reader(Protocol):
    """What reads volumes: `gmic.evaluate.duke_reader.VolumeReader`."""

    def __call__(self, volume_DHW: NDArray[Any], laterality: str, view: str) -> VolumeReading:
        """Scores and boxes of a volume. Raises InputError where it cannot be read."""
        ...

    def picture(
        self,
        volume_DHW: NDArray[Any],
        laterality: str,
        view: str,
        lesions: Sequence[tuple[str, LesionBox]] = (),
        title: str = "",
    ) -> Image.Image:
        """Its saliency."""
        ...


@dataclass(frozen=True)
class DukeOutcome:
    """What came of a run."""

    scored: int
    left_out: tuple[LeftOut, ...]
    report_json: Path
    report_html: Path


def evaluate_duke(
    tables: DukeTables,
    open_volume: OpenVolume,
    predictor: Reader,
    out: Path,
    *,
    model: str,
    limit: int | None = None,
    pictures: bool = True,
    say: Say = lambda _line: None,
) -> DukeOutcome:
    """Read every image that has no score yet, then report on all that have one.

    Args:
        tables: Where the set lies.
        open_volume: Reads a file.
        predictor: Reads a volume.
        out: Folder of the run, made where it is missing.
        model: Name of what predicts, such as the weights' name and hash: it guards the folder.
        limit: Read at most so many images now; the others are for the next run.
        pictures: Read some images with lesions, and the worst cases, once more to show them.
        say: Takes a line for people now and then.

    Raises:
        DataError: Bad tables, a folder of another run, or no image that could be read.
        DeviceMemoryError: The device ran out of memory; what was read stays.
        OSError: A table cannot be read or a result not be written.
    """
    images, left_out = read_duke(tables)
    out.mkdir(parents=True, exist_ok=True)
    _guard(out / "run.json", {"set": "BCS-DBT", "model": model, "labels": tables.labels.name})
    done = _resume(out)
    waiting = [image for image in images if image.image_id not in done][:limit]
    say(f"{len(images)} images, {len(done)} with scores, {len(waiting)} to read now")
    left_out += _read_all(waiting, open_volume, predictor, out, say)
    write_table(out / "left_out.csv", LeftOut._fields, left_out)
    scores = _scores(out, images)
    painter = partial(_picture, {image.image_id: image for image in images}, open_volume, predictor)
    as_json, as_page = write_duke_report(
        out, model, images, scores, left_out, painter if pictures else lambda _name: None
    )
    return DukeOutcome(len(scores), tuple(left_out), as_json, as_page)


def _read_all(
    waiting: Sequence[DukeImage],
    open_volume: OpenVolume,
    predictor: Reader,
    out: Path,
    say: Say,
) -> list[LeftOut]:
    """Read images and append what was said of each; those that could not be read come back."""
    left_out = []
    with (
        (out / "scores.csv").open("a", newline="", encoding="utf-8") as scores,
        (out / "predictions.csv").open("a", newline="", encoding="utf-8") as boxes,
    ):
        for index, image in enumerate(waiting, start=1):
            reading = _read(image, open_volume, predictor)
            if isinstance(reading, LeftOut):
                left_out.append(reading)
                say(f"left out {reading.name}: {reading.kind}: {reading.detail}")
                continue
            _append(boxes, [prediction_row(box.prediction(image.volume)) for box in reading.boxes])
            _append(scores, [table_row(image.scored(reading.scores))])
            if index % 10 == 0 or index == len(waiting):
                say(f"{index} of {len(waiting)} read")
    return left_out


def _read(image: DukeImage, open_volume: OpenVolume, predictor: Reader) -> VolumeReading | LeftOut:
    try:
        volume_DHW = open_oriented(image, open_volume)
    except (InputError, OSError) as error:
        return LeftOut(image.image_id, "cannot be opened", str(error))
    try:
        return predictor(volume_DHW, image.laterality, image.view)
    except InputError as error:
        return LeftOut(image.image_id, "cannot be read", str(error))


def open_oriented(image: DukeImage, open_volume: OpenVolume) -> NDArray[Any]:
    """The voxels of an image in the orientation of its boxes.

    Raises:
        DataError: Not a volume; and what `open_volume` raises.
    """
    volume_DHW = open_volume(image.path)
    if volume_DHW.ndim != 3 or not volume_DHW.size:
        raise DataError(f"volume is of shape {volume_DHW.shape}; slices, rows, columns are needed")
    return oriented(volume_DHW, image.laterality)


def _guard(path: Path, run: dict[str, str]) -> None:
    """Refuse a folder with results of something else."""
    if path.exists():
        try:
            other = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise DataError(f"{path} is not the run's description; give another folder") from error
        if other != run:
            raise DataError(f"{path.parent} holds results of {other}; give another folder")
        return
    path.write_text(json.dumps(run) + "\n", encoding="utf-8")


def _resume(out: Path) -> set[str]:
    """Images that are done. A line cut off by a kill, and boxes of images not done, are taken away."""
    scores, boxes = out / "scores.csv", out / "predictions.csv"
    for path, columns in ((scores, COLUMNS), (boxes, PREDICTION_COLUMNS)):
        if not path.exists():
            write_table(path, columns, ())
        content = path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if whole != content:
            path.write_bytes(whole)
        if not whole:
            write_table(path, columns, ())
    if len(scores.read_bytes().splitlines()) < 2:
        write_predictions(boxes, ())
        return set()
    done = {score.image_id for score in read_scores(scores, breasts_agree=False)}
    found = read_predictions(boxes)
    kept = [p for p in found if "/".join(p.volume) in done]
    if len(kept) < len(found):
        write_predictions(boxes, kept)
    return done


def _append(file: Any, rows: Sequence[Sequence[object]]) -> None:
    """Write rows so that they are on the disk before anything else is written."""
    csv.writer(file).writerows(rows)
    file.flush()
    os.fsync(file.fileno())


def _scores(out: Path, images: Sequence[DukeImage]) -> list[ImageScore]:
    """All scores of the folder that belong to images of the tables."""
    if len((out / "scores.csv").read_bytes().splitlines()) < 2:
        raise DataError(f"no image could be read; {out / 'left_out.csv'} says why of each")
    known = {image.image_id for image in images}
    scores = read_scores(out / "scores.csv", breasts_agree=False)
    return [score for score in scores if score.image_id in known]


def _picture(
    images: Mapping[str, DukeImage], open_volume: OpenVolume, predictor: Reader, image_id: str
) -> Image.Image | None:
    """The picture of an image, which is read once more; None where it can no longer be."""
    image = images[image_id]
    lesions = [(box.label, _lesion_box(box.lesion)) for box in image.boxes]
    try:
        volume_DHW = open_oriented(image, open_volume)
        return predictor.picture(
            volume_DHW, image.laterality, image.view, lesions, image.volume.view
        )
    except (InputError, OSError):
        return None


def _lesion_box(lesion: TrueBox) -> LesionBox:
    """A true box as half-open pixels, in its one slice."""
    d, row, col = round(lesion.slice_index), round(lesion.y), round(lesion.x)
    return LesionBox(d, row, col, d + 1, row + round(lesion.height), col + round(lesion.width))
