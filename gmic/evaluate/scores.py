"""The table of scores an evaluation starts from: one row an image, read, written and averaged.

Classes are in the order of `gmic.config.CLASSES`: benign, malignant.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gmic.config import CLASSES
from gmic.errors import DataError
from gmic.evaluate.tables import Row, number, read_table, refuse, words, write_table, zero_or_one

COLUMNS = (
    "image_id",
    "breast_id",
    "patient_id",
    *(f"{name}_label" for name in CLASSES),
    *(f"{name}_score" for name in CLASSES),
)


@dataclass(frozen=True)
class ImageScore:
    """What a model says of one image, beside the truth.

    Attributes:
        image_id: Unique in a table.
        breast_id: Images of one breast (its CC and MLO views) share it. Unique over patients.
        patient_id: What the bootstrap draws.
        labels: 1 or 0 for each class; an image may be both, or neither.
        scores: One finite number a class, higher is more suspicious.
    """

    image_id: str
    breast_id: str
    patient_id: str
    labels: tuple[int, int]
    scores: tuple[float, float]

    def __post_init__(self) -> None:
        """Raise DataError for a value that cannot be evaluated; names it."""
        for name in COLUMNS[:3]:
            if not getattr(self, name):
                raise DataError(f"{name} is empty; give one")
        if len(self.labels) != len(CLASSES) or any(label not in (0, 1) for label in self.labels):
            raise DataError(
                f"labels of image {self.image_id!r} are {self.labels}; give 0 or 1 a class"
            )
        if len(self.scores) != len(CLASSES) or not all(map(math.isfinite, self.scores)):
            raise DataError(
                f"scores of image {self.image_id!r} are {self.scores}; give a finite number a class"
            )


def read_scores(path: Path, *, breasts_agree: bool = True) -> list[ImageScore]:
    """Read a table of scores: CSV in UTF-8 with the columns `COLUMNS` in any order; others are ignored.

    Args:
        path: The file.
        breasts_agree: Refuse a breast whose images have different labels. Give False for a set
            that is labelled image by image, where a finding can show in one view only.

    Raises:
        DataError: A missing column, a bad row (the first is named by its line, the others are
            counted), no row, an image twice, or a breast with contradictory labels or two patients.
        OSError: The file cannot be read.
    """
    rows = read_table(path, COLUMNS, _parse)
    refuse(path, check_scores(rows, breasts_agree=breasts_agree))
    if not rows:
        raise DataError(f"{path}: the table has no row; give at least one image")
    return rows


def write_scores(path: Path, scores: Iterable[ImageScore]) -> None:
    """Write a table that `read_scores` reads back to the same values.

    Raises:
        OSError: The file cannot be written.
    """
    write_table(path, COLUMNS, map(table_row, scores))


def table_row(score: ImageScore) -> list[str]:
    """One row of the table, in the order of `COLUMNS`; numbers keep every digit."""
    numbers = [*map(str, score.labels), *(repr(float(value)) for value in score.scores)]
    return [score.image_id, score.breast_id, score.patient_id, *numbers]


def check_scores(scores: Sequence[ImageScore], *, breasts_agree: bool = True) -> list[str]:
    """What contradicts itself between the rows of a table: a sentence each, none where all is well."""
    problems = []
    images: set[str] = set()
    first: dict[str, ImageScore] = {}
    for score in scores:
        if score.image_id in images:
            problems.append(f"image {score.image_id!r} is there twice; give every image once")
        images.add(score.image_id)
        other = first.setdefault(score.breast_id, score)
        if other.patient_id != score.patient_id:
            problems.append(
                f"breast {score.breast_id!r} belongs to patients {other.patient_id!r} and "
                f"{score.patient_id!r}; give every breast an id of its own"
            )
        elif breasts_agree and other.labels != score.labels:
            problems.append(
                f"breast {score.breast_id!r} has labels {other.labels} in image {other.image_id!r} "
                f"and {score.labels} in {score.image_id!r}; make them agree"
            )
    return problems


def by_breast(scores: Sequence[ImageScore], *, breasts_agree: bool = True) -> list[ImageScore]:
    """One row a breast: the mean score of its images (CC and MLO: paper, VI-B.2), in order of appearance.

    The breast's id stands for the image's. A breast with images that disagree is positive when one
    of them is, but only where `breasts_agree` is False.

    Raises:
        DataError: See `check_scores`.
    """
    if problems := check_scores(scores, breasts_agree=breasts_agree):
        raise DataError(problems[0])
    groups: dict[str, list[ImageScore]] = {}
    for score in scores:
        groups.setdefault(score.breast_id, []).append(score)
    return [
        ImageScore(
            breast_id,
            breast_id,
            group[0].patient_id,
            (max(s.labels[0] for s in group), max(s.labels[1] for s in group)),
            _mean(group),
        )
        for breast_id, group in groups.items()
    ]


def average(
    tables: Sequence[Sequence[ImageScore]], *, common_only: bool = False
) -> list[ImageScore]:
    """The ensemble of several models: the mean score of each image (paper, VII-B).

    Models of different modalities have no image in common; average their breasts instead:
    `average([by_breast(dbt), by_breast(ffdm)])`.

    Args:
        tables: One table a model.
        common_only: Leave out what a table lacks; else that is an error.

    Raises:
        DataError: No table, an image that is not in every table, or with other labels there.
    """
    if not tables:
        raise DataError("no table to average; give at least one")
    maps = [{score.image_id: score for score in table} for table in tables]
    result = []
    for image_id in dict.fromkeys(name for each in maps for name in each):
        group = [each[image_id] for each in maps if image_id in each]
        if len(group) < len(maps):
            if common_only:
                continue
            raise DataError(
                f"{image_id!r} is in {len(group)} of {len(maps)} tables; give the same to all"
            )
        if any(identity(score) != identity(group[0]) for score in group):
            raise DataError(f"{image_id!r} has different labels, breast or patient in two tables")
        one = group[0]
        result.append(ImageScore(image_id, one.breast_id, one.patient_id, one.labels, _mean(group)))
    return result


def identity(score: ImageScore) -> tuple[object, ...]:
    """Everything of a row but its scores: rows of two models on one image share it."""
    return score.image_id, score.breast_id, score.patient_id, score.labels


def columns_of(
    scores: Sequence[ImageScore], class_index: int
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.str_]]:
    """Labels (N,), scores (N,) and patients (N,) of one class, as `gmic.evaluate.roc` takes them."""
    labels_N = np.array([score.labels[class_index] for score in scores], dtype=np.int64)
    scores_N = np.array([score.scores[class_index] for score in scores], dtype=np.float64)
    return labels_N, scores_N, np.array([score.patient_id for score in scores], dtype=np.str_)


def _mean(group: Sequence[ImageScore]) -> tuple[float, float]:
    benign = math.fsum(score.scores[0] for score in group) / len(group)
    return benign, math.fsum(score.scores[1] for score in group) / len(group)


def _parse(row: Row) -> ImageScore:
    benign, malignant = CLASSES
    return ImageScore(
        image_id=words(row, "image_id"),
        breast_id=words(row, "breast_id"),
        patient_id=words(row, "patient_id"),
        labels=(zero_or_one(row, f"{benign}_label"), zero_or_one(row, f"{malignant}_label")),
        scores=(number(row, f"{benign}_score"), number(row, f"{malignant}_score")),
    )
