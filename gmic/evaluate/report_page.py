"""The evaluation report as one self-contained page: charts and pictures are inside it."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from jinja2 import Environment
from PIL import Image

from gmic.config import CLASSES
from gmic.evaluate import charts
from gmic.evaluate.report import (
    LEVELS,
    WANTED,
    Cell,
    Evaluation,
    Extras,
    ModelFigures,
    Table,
    cells,
    worst,
)
from gmic.evaluate.report_template import TEMPLATE
from gmic.evaluate.roc import Comparison, Estimate
from gmic.evaluate.scores import ImageScore

NONE = "–"


class Case(NamedTuple):
    """A worst case as it is shown."""

    name: str
    patient: str
    labels: str
    score: str
    picture: str | None
    """A data URI."""


class CaseGroup(NamedTuple):
    """Worst cases under a heading."""

    heading: str
    cases: list[Case]


def page(evaluation: Evaluation, extras: Extras) -> str:
    """The page's text."""
    first = evaluation.models[0]
    return (
        Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
        .from_string(TEMPLATE)
        .render(
            title=extras.title,
            about=extras.about,
            models=[model.name for model in evaluation.models],
            counts=_counts(first),
            headline=list(_headline(evaluation)),
            level=f"{evaluation.level:.0%}".replace("%", " %"),
            resamples=f"{evaluation.resamples:,}",
            seed=evaluation.seed,
            tables=[_auc_table(evaluation), *extras.tables],
            details=[_points_table(evaluation), _calibration_table(evaluation)],
            roc_charts=[(f"{level.title()}-wise", _roc(evaluation, level)) for level in LEVELS],
            calibration_chart=_calibration(evaluation),
            charts=[(title, data_uri(svg.encode(), "svg+xml")) for title, svg in extras.charts],
            gallery=[(caption, embedded(image)) for caption, image in extras.gallery],
            groups=list(_groups(evaluation, extras)),
        )
    )


def embedded(image: Image.Image) -> str:
    """A picture as a data URI, in the smallest form every browser shows."""
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, format="WEBP", quality=82, method=4)
    return data_uri(buffer.getvalue(), "webp")


def data_uri(content: bytes, kind: str) -> str:
    """Bytes of an image as a data URI."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"


def interval(estimate: Estimate | None, digits: int = 3) -> str:
    """ "0.831 (0.769-0.887)", as the paper writes it."""
    if estimate is None:
        return NONE
    low, high = f"{estimate.low:.{digits}f}", f"{estimate.high:.{digits}f}"
    between = " to " if low.startswith("-") else "–"
    return f"{estimate.value:.{digits}f} ({low}{between}{high})"


def _counts(model: ModelFigures) -> list[tuple[str, str]]:
    images, breasts = model.scores["image"], model.scores["breast"]
    counts = [
        ("patients", str(len({score.patient_id for score in images}))),
        ("breasts", str(len(breasts))),
        ("images", str(len(images))),
    ]
    for c, name in reversed(list(enumerate(CLASSES))):
        positive = sum(score.labels[c] for score in breasts)
        counts.append((f"{name} breasts", str(positive)))
    return counts


def _headline(evaluation: Evaluation) -> Iterator[tuple[str, str, str, str]]:
    """(what, model, AUC, interval) of the paper's main figure."""
    for model in evaluation.models:
        for name in reversed(CLASSES):
            estimate = model.auc[Cell("breast", name)]
            text = NONE if estimate is None else f"{estimate.value:.3f}"
            between = "" if estimate is None else f"{estimate.low:.3f} – {estimate.high:.3f}"
            yield f"breast-wise AUC, {name}", model.name, text, between


def _auc_table(evaluation: Evaluation) -> Table:
    header = ["level", "class", "positive", "negative", *(m.name for m in evaluation.models)]
    if evaluation.comparisons:
        header += ["difference", "p"]
    rows = []
    for cell in cells():
        estimates = [model.auc[cell] for model in evaluation.models]
        row = [f"{cell.level}-wise", cell.name, *_numbers(evaluation.models[0], cell)]
        row += [interval(estimate) for estimate in estimates]
        if evaluation.comparisons:
            row += _difference(evaluation.comparisons[cell])
        rows.append(tuple(row))
    note = "Area under the ROC curve with its bootstrap interval; whole patients are drawn."
    if evaluation.comparisons:
        note += " Differences are paired: both models on the same resamples, first less second."
    return Table("Classification", tuple(header), tuple(rows), note)


def _numbers(model: ModelFigures, cell: Cell) -> tuple[str, str]:
    c = CLASSES.index(cell.name)
    positive = sum(score.labels[c] for score in model.scores[cell.level])
    return str(positive), str(len(model.scores[cell.level]) - positive)


def _difference(comparison: Comparison | None) -> list[str]:
    if comparison is None:
        return [NONE, NONE]
    return [interval(comparison.difference), f"{comparison.p_value:.3f}"]


def _points_table(evaluation: Evaluation) -> Table:
    rows = []
    for cell in cells():
        for model in evaluation.models:
            for what, point in zip(
                ("sensitivity", "specificity"), model.points[cell] or (), strict=False
            ):
                rows.append(
                    (
                        f"{cell.level}-wise",
                        cell.name,
                        model.name,
                        f"{what} ≥ {WANTED:g}",
                        f"{point.threshold:.4f}",
                        interval(point.sensitivity),
                        interval(point.specificity),
                    )
                )
    header = ("level", "class", "model", "wanted", "threshold", "sensitivity", "specificity")
    note = (
        "Thresholds are chosen on these same cases, so they flatter; the intervals hold the "
        "threshold fixed."
    )
    return Table("Operating points", header, tuple(rows), note)


def _calibration_table(evaluation: Evaluation) -> Table:
    rows = []
    for cell in cells():
        for model in evaluation.models:
            result = model.calibration[cell]
            figures = [NONE] * 4
            if result is not None:
                figures = [
                    f"{value:.4f}"
                    for value in (
                        result.brier,
                        result.brier_of_prevalence,
                        result.expected_error,
                        result.largest_error,
                    )
                ]
            rows.append((f"{cell.level}-wise", cell.name, model.name, *figures))
    header = (
        *("level", "class", "model", "Brier score", "of the prevalence alone"),
        *("expected error", "largest error"),
    )
    note = "Scores are model outputs and no probabilities; lower is better in every column."
    return Table("Calibration", header, tuple(rows), note)


def _roc(evaluation: Evaluation, level: Any) -> str:
    panels = {}
    for name in reversed(CLASSES):
        cell = Cell(level, name)
        panels[name.title()] = [
            (f"{model.name}: {interval(model.auc[cell])}", model.bands[cell])
            for model in evaluation.models
        ]
    return data_uri(charts.roc_chart(panels).encode(), "svg+xml")


def _calibration(evaluation: Evaluation) -> str | None:
    panels = {}
    for name in reversed(CLASSES):
        results = [(m.name, m.calibration[Cell("breast", name)]) for m in evaluation.models]
        panels[f"{name.title()}, breast-wise"] = [(n, r) for n, r in results if r is not None]
    if not any(panels.values()):
        return None
    return data_uri(charts.calibration_chart(panels).encode(), "svg+xml")


def _groups(evaluation: Evaluation, extras: Extras) -> Iterator[CaseGroup]:
    for model in evaluation.models:
        if extras.worst_of not in (None, model.name):
            continue
        for name in reversed(CLASSES):
            negatives, positives = worst(model.scores["image"], name, extras.worst)
            c = CLASSES.index(name)
            whose = f"{model.name}: " if len(evaluation.models) > 1 else ""
            for what, scores in (
                (f"{whose}not {name}, highest scores", negatives),
                (f"{whose}{name}, lowest scores", positives),
            ):
                if scores:
                    yield CaseGroup(what, _cases(scores, c, extras))


def _cases(scores: Sequence[ImageScore], c: int, extras: Extras) -> list[Case]:
    result = []
    for score in scores:
        image = extras.picture_of(score.image_id)
        labels = [name for name, label in zip(CLASSES, score.labels, strict=True) if label]
        result.append(
            Case(
                score.image_id,
                score.patient_id,
                " and ".join(labels) or "no finding",
                f"{score.scores[c]:.3f}",
                None if image is None else embedded(image),
            )
        )
    return result
