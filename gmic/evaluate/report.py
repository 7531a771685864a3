"""An evaluation of one model, or of two side by side, as JSON and as one page that needs no network.

`evaluate` makes the figures, `write_report` the files. Both levels of the paper are there (VI-B):
image-wise, and breast-wise with the mean over a breast's views.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal, NamedTuple

from PIL import Image

from gmic.config import CLASSES
from gmic.errors import DataError
from gmic.evaluate import operating, roc
from gmic.evaluate.calibration import Calibration, calibration
from gmic.evaluate.curves import RocBand, roc_band
from gmic.evaluate.scores import ImageScore, by_breast, check_scores, columns_of, identity

SCHEMA = 1
Level = Literal["breast", "image"]
LEVELS: tuple[Level, Level] = ("breast", "image")
WANTED = 0.9
"""Sensitivity, and specificity, of the operating points shown."""
WORST = 6
GALLERY = 6
"""Pictures in a gallery of images with lesions, at most."""

Picture = Callable[[str], Image.Image | None]
"""Gives the picture of an image or breast by its id, or None."""


class Cell(NamedTuple):
    """A level and a class: what one row of the report is about."""

    level: Level
    name: str
    """Of the class."""


@dataclass(frozen=True)
class ModelFigures:
    """Everything about one model. What needs both classes is None where there is one only."""

    name: str
    scores: Mapping[Level, Sequence[ImageScore]]
    auc: Mapping[Cell, roc.AucEstimate | None]
    bands: Mapping[Cell, RocBand | None]
    points: Mapping[Cell, tuple[operating.OperatingPoint, operating.OperatingPoint] | None]
    """At a sensitivity, and at a specificity, of `WANTED`, chosen on these cases."""
    calibration: Mapping[Cell, Calibration | None]
    """None where scores leave [0, 1]."""


@dataclass(frozen=True)
class Evaluation:
    """One or two models on the same images; `comparisons` is empty for one."""

    models: tuple[ModelFigures, ...]
    comparisons: Mapping[Cell, roc.Comparison | None]
    resamples: int
    level: float
    seed: int


@dataclass(frozen=True)
class Table:
    """A table to be shown as it is: segmentation, detection, an ablation."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


@dataclass(frozen=True)
class Extras:
    """What a report can hold beside the scores' figures.

    Attributes:
        title: Of the report.
        about: Sentences that say what was evaluated, and on what.
        tables: Shown after the figures.
        charts: (title, SVG text), such as of `gmic.evaluate.charts.froc_chart`.
        gallery: (caption, picture).
        picture_of: Pictures of the worst cases.
        worst: How many worst cases of each kind are shown.
        worst_of: The model whose worst cases are shown; None: all models'.
    """

    title: str = "Evaluation"
    about: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    charts: tuple[tuple[str, str], ...] = ()
    gallery: tuple[tuple[str, Image.Image], ...] = ()
    picture_of: Picture = field(default=lambda _name: None)
    worst: int = WORST
    worst_of: str | None = None


def evaluate(
    models: Mapping[str, Sequence[ImageScore]],
    *,
    breasts_agree: bool = True,
    resamples: int = roc.RESAMPLES,
    level: float = roc.LEVEL,
    seed: int = 0,
) -> Evaluation:
    """All figures of one or two models.

    Args:
        models: Scores by the model's name; two models must have read the same images.
        breasts_agree: See `gmic.evaluate.scores.by_breast`.
        resamples: Of every bootstrap; patients are drawn.
        level: Of every interval.
        seed: Of every bootstrap.

    Raises:
        DataError: Not one or two models, models on different images, or contradictory scores.
    """
    if not 1 <= len(models) <= 2:
        raise DataError(f"{len(models)} models to report on; give one or two")
    tables = {name: _sorted(scores, breasts_agree) for name, scores in models.items()}
    if len({tuple(map(identity, table["image"])) for table in tables.values()}) > 1:
        raise DataError(f"models {' and '.join(models)} did not read the same images")
    bootstrap = {"resamples": resamples, "level": level, "seed": seed}
    figures = tuple(_figures(name, table, bootstrap) for name, table in tables.items())
    comparisons = {}
    if len(figures) == 2:
        comparisons = {cell: _compared(cell, figures, bootstrap) for cell in cells()}
    return Evaluation(figures, comparisons, resamples, level, seed)


def cells() -> list[Cell]:
    """All levels and classes, malignant first."""
    return [Cell(level, name) for level in LEVELS for name in reversed(CLASSES)]


def worst(
    scores: Sequence[ImageScore], class_name: str, count: int = WORST
) -> tuple[list[ImageScore], list[ImageScore]]:
    """The negatives with the highest scores, and the positives with the lowest."""
    c = CLASSES.index(class_name)
    negatives = sorted((s for s in scores if not s.labels[c]), key=lambda s: -s.scores[c])
    positives = sorted((s for s in scores if s.labels[c]), key=lambda s: s.scores[c])
    return negatives[:count], positives[:count]


def some_of_each(ids: Mapping[str, Sequence[str]], count: int = GALLERY) -> list[str]:
    """Ids for a gallery, by no score: each class's first, malignant ones before benign, then its second, ...

    Args:
        ids: Of images with a lesion of a class, by the class; an image may be of both.
        count: How many at most.
    """
    turns = zip_longest(*(ids.get(name, ()) for name in reversed(CLASSES)))
    return list(dict.fromkeys(one for turn in turns for one in turn if one is not None))[:count]


def gallery_of(
    shown: Sequence[tuple[str, str]], picture_of: Picture
) -> tuple[tuple[str, Image.Image], ...]:
    """What `Extras.gallery` takes, from captions and ids; those without a picture are left out."""
    found = [(caption, picture_of(name)) for caption, name in shown]
    return tuple((caption, image) for caption, image in found if image is not None)


def write_report(
    folder: Path, evaluation: Evaluation, extras: Extras | None = None
) -> tuple[Path, Path]:
    """Write report.json and report.html into a folder, which is made where it is missing.

    Returns:
        The two files.

    Raises:
        OSError: They cannot be written.
    """
    from gmic.evaluate.report_page import page

    extras = extras or Extras()
    folder.mkdir(parents=True, exist_ok=True)
    as_json, as_page = folder / "report.json", folder / "report.html"
    text = json.dumps(to_json(evaluation, extras), indent=1, allow_nan=False)
    as_json.write_text(text + "\n", encoding="utf-8")
    as_page.write_text(page(evaluation, extras), encoding="utf-8")
    return as_json, as_page


def to_json(evaluation: Evaluation, extras: Extras) -> dict[str, Any]:
    """The figures as JSON-ready values, without the curves' bands and the pictures."""
    first = evaluation.models[0].scores
    return {
        "schema": SCHEMA,
        "notice": "Research use only, not for clinical use.",
        "title": extras.title,
        "about": list(extras.about),
        "bootstrap": {
            "drawn": "patients",
            "resamples": evaluation.resamples,
            "level": evaluation.level,
            "seed": evaluation.seed,
        },
        "images": len(first["image"]),
        "breasts": len(first["breast"]),
        "patients": len({score.patient_id for score in first["image"]}),
        "models": {model.name: _model_json(model) for model in evaluation.models},
        "comparisons": [
            {"level": cell.level, "class": cell.name, "paired": _plain(comparison)}
            for cell, comparison in evaluation.comparisons.items()
        ],
        "tables": [dataclasses.asdict(table) for table in extras.tables],
    }


def _model_json(model: ModelFigures) -> list[dict[str, Any]]:
    rows = []
    for cell in cells():
        points = model.points[cell]
        negatives, positives = worst(model.scores[cell.level], cell.name)
        rows.append(
            {
                "level": cell.level,
                "class": cell.name,
                "auc": _plain(model.auc[cell]),
                "operating_points": [_plain(point) for point in points or ()],
                "calibration": _plain(model.calibration[cell]),
                "highest_negatives": [_plain(score) for score in negatives],
                "lowest_positives": [_plain(score) for score in positives],
            }
        )
    return rows


def _sorted(scores: Sequence[ImageScore], breasts_agree: bool) -> dict[Level, list[ImageScore]]:
    """Scores by level, in one order for all models."""
    if problems := check_scores(scores, breasts_agree=breasts_agree):
        raise DataError(problems[0])
    images = sorted(scores, key=lambda score: score.image_id)
    return {"image": images, "breast": by_breast(images, breasts_agree=breasts_agree)}


def _figures(
    name: str, table: Mapping[Level, Sequence[ImageScore]], bootstrap: Mapping[str, Any]
) -> ModelFigures:
    auc, bands, calibrations = {}, {}, {}
    points: dict[Cell, tuple[operating.OperatingPoint, operating.OperatingPoint] | None] = {}
    for cell in cells():
        labels, scores, patients = columns_of(table[cell.level], CLASSES.index(cell.name))
        auc[cell] = roc.bootstrap_auc(labels, scores, patients, **bootstrap)
        bands[cell] = roc_band(
            labels, scores, patients, level=bootstrap["level"], seed=bootstrap["seed"]
        )
        within = scores.min() >= 0 and scores.max() <= 1
        calibrations[cell] = calibration(labels, scores) if within else None
        points[cell] = None
        if auc[cell] is not None:
            sensitive = operating.threshold_for_sensitivity(labels, scores, WANTED)
            specific = operating.threshold_for_specificity(labels, scores, WANTED)
            both = [
                operating.at_threshold(labels, scores, threshold, patients, **bootstrap)
                for threshold in (sensitive, specific)
            ]
            points[cell] = None if both[0] is None or both[1] is None else (both[0], both[1])
    return ModelFigures(name, table, auc, bands, points, calibrations)


def _compared(
    cell: Cell, figures: Sequence[ModelFigures], bootstrap: Mapping[str, Any]
) -> roc.Comparison | None:
    c = CLASSES.index(cell.name)
    labels, first, patients = columns_of(figures[0].scores[cell.level], c)
    _, second, _ = columns_of(figures[1].scores[cell.level], c)
    return roc.compare(labels, first, second, patients, **bootstrap)


def _plain(value: Any) -> Any:
    return None if value is None else dataclasses.asdict(value)
