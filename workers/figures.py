"""Figures of a version beside another on one test split: pure, from scores to a summary and a page.

AUCs are breast-wise (mean over a breast's images) and image-wise, with bootstrap intervals over patients; thresholds
are chosen on the validation split and measured on the test split. Research use only, not for clinical use.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gmic.config import CLASSES
from gmic.errors import DataError
from gmic.evaluate import operating, report, roc
from gmic.evaluate.report import Cell, Extras, Level, Picture, Table
from gmic.evaluate.report_page import NONE, interval, page
from gmic.evaluate.scores import ImageScore, by_breast, columns_of
from node.learning_models import DatasetItem
from workers.gallery import WORST
from workers.located import Located
from workers.looks import Scores
from workers.scoring import Failed

SCHEMA = 1
WANTED = 0.9
"""Sensitivity, and specificity, that thresholds are chosen for on the validation split."""
_THICKNESS_MM = (30, 50, 70)
_SHOWN_FAILURES = 100

# A breast has one device, site and age; a view and a thickness belong to the image.
STRATA: tuple[tuple[str, Level], ...] = (
    ("manufacturer", "breast"),
    ("site", "breast"),
    ("view", "image"),
    ("thickness", "image"),
    ("age", "breast"),
)


@dataclass(frozen=True)
class Split:
    """Images of a split that every version could read, and their scores by version and SOP Instance UID."""

    items: Sequence[DatasetItem]
    scores: Mapping[str, Mapping[str, Scores]]
    patients: Mapping[str, str]
    """What a report calls a patient of the data set."""

    def table(self, version: str) -> list[ImageScore]:
        """The scores of a version, as `gmic.evaluate` takes them."""
        return [
            ImageScore(
                image_id=item.sop_uid,
                breast_id=f"{item.study_uid} {item.laterality}",
                patient_id=self.patients[item.patient],
                labels=(int(item.benign), int(item.malignant)),
                scores=self.scores[version][item.sop_uid],
            )
            for item in self.items
        ]


@dataclass(frozen=True)
class Measured:
    """What an evaluation found, as JSON-ready values and as a page."""

    summary: dict[str, Any]
    page: str


def measure(
    versions: Sequence[str],
    test: Split,
    valid: Split,
    failed: Sequence[Failed],
    about: Mapping[str, Any],
    located: Located | None = None,
    picture_of: Picture = lambda _uid: None,
) -> Measured:
    """All figures of one version, or of two: the first less the second.

    Args:
        versions: One or two names, the candidate first.
        test: What is reported on.
        valid: What thresholds are chosen on; may be empty.
        failed: Images of the test split that a version could not read; they are in neither split.
        about: More for the summary, and `lines`, sentences for the page.
        located: How well drawn lesions are found; None where none is drawn.
        picture_of: Pictures of images as the candidate sees them, by SOP Instance UID.
    """
    located = located or Located()
    figures = report.evaluate({version: test.table(version) for version in versions})
    points = list(_operating_points(versions, test, valid))
    strata = list(_strata(versions, test))
    alone = _failed_alone(versions, failed)
    summary: dict[str, Any] = {
        "schema": SCHEMA,
        "notice": "Research use only, not for clinical use.",
        "version": versions[0],
        "against": versions[1] if len(versions) > 1 else None,
        **{name: value for name, value in about.items() if name != "lines"},
        "images": len(test.items),
        "breasts": len(figures.models[0].scores["breast"]),
        "patients": len({item.patient for item in test.items}),
        "intervals": {"resamples": roc.RESAMPLES, "level": roc.LEVEL, "drawn": "patients"},
        "breast": {name: _cell_json(figures, Cell("breast", name)) for name in CLASSES},
        "image": {name: _cell_json(figures, Cell("image", name)) for name in CLASSES},
        "operating_points": points,
        "strata": strata,
        **located.summary,
        "failed": [dataclasses.asdict(one) for one in failed],
        "failed_alone": alone,
    }
    tables = (_points_table(points), *located.tables, _strata_table(strata, versions))
    extras = Extras(
        title=" against ".join(versions),
        about=(*about["lines"], *located.lines),
        tables=(*tables, _failed_table(failed)),
        charts=located.charts,
        gallery=report.gallery_of(located.gallery, picture_of),
        picture_of=picture_of,
        worst=WORST,
        worst_of=versions[0],
    )
    return Measured(summary, page(figures, extras))


def _cell_json(figures: report.Evaluation, cell: Cell) -> dict[str, Any]:
    estimates = [model.auc[cell] for model in figures.models]
    comparison = figures.comparisons.get(cell)
    c = CLASSES.index(cell.name)
    cases = figures.models[0].scores[cell.level]
    positives = sum(case.labels[c] for case in cases)
    return {
        "positives": positives,
        "negatives": len(cases) - positives,
        "auc": _estimate(estimates[0]),
        "against": _estimate(estimates[1]) if len(estimates) > 1 else None,
        "difference": _estimate(comparison.difference) if comparison else None,
        "p_value": comparison.p_value if comparison else None,
    }


def _estimate(estimate: roc.Estimate | None) -> dict[str, float] | None:
    if estimate is None:
        return None
    return {"value": estimate.value, "low": estimate.low, "high": estimate.high}


def _operating_points(
    versions: Sequence[str], test: Split, valid: Split
) -> Iterator[dict[str, Any]]:
    """Breast-wise; a class without the cases to choose or measure a threshold on has none."""
    for name in reversed(CLASSES):
        c = CLASSES.index(name)
        for version in versions:
            labels, scores, patients = columns_of(by_breast(test.table(version)), c)
            for what, threshold in _thresholds(valid, version, c).items():
                point = operating.at_threshold(labels, scores, threshold, patients)
                if point is not None:
                    yield {
                        "class": name,
                        "version": version,
                        "wanted": f"{what} {WANTED:g}",
                        "threshold": threshold,
                        "sensitivity": _estimate(point.sensitivity),
                        "specificity": _estimate(point.specificity),
                    }


def _thresholds(valid: Split, version: str, c: int) -> dict[str, float]:
    found: dict[str, float] = {}
    if not valid.items:
        return found
    labels, scores, _ = columns_of(by_breast(valid.table(version)), c)
    choose = {
        "sensitivity": operating.threshold_for_sensitivity,
        "specificity": operating.threshold_for_specificity,
    }
    for what, chosen in choose.items():
        try:
            found[what] = chosen(labels, scores, WANTED)
        except DataError:
            continue  # no case of the kind that it is chosen by
    return found


def _strata(versions: Sequence[str], test: Split) -> Iterator[dict[str, Any]]:
    for name, level in STRATA:
        groups: dict[str, list[DatasetItem]] = defaultdict(list)
        for item in test.items:
            groups[_stratum(item, name)].append(item)
        for value in sorted(groups):
            part = Split(groups[value], test.scores, test.patients)
            tables = [part.table(version) for version in versions]
            if level == "breast":
                tables = [by_breast(table) for table in tables]
            for class_name in reversed(CLASSES):
                yield {
                    "stratum": name,
                    "value": value,
                    "level": level,
                    "class": class_name,
                    **_stratum_figures(tables, CLASSES.index(class_name)),
                }


def _stratum(item: DatasetItem, name: str) -> str:
    """The value of a stratum that an image belongs to."""
    value = item.view if name == "view" else item.strata.get(name)
    if name == "thickness":
        value = _thickness_band(item.strata.get("thickness_mm"))
    return str(value) if value else "not said"


def _thickness_band(thickness_mm: float | None) -> str | None:
    if thickness_mm is None:
        return None
    low = max((edge for edge in _THICKNESS_MM if thickness_mm >= edge), default=None)
    high = min((edge for edge in _THICKNESS_MM if thickness_mm < edge), default=None)
    if low is None:
        return f"below {high} mm"
    return f"{low} mm and more" if high is None else f"{low} to below {high} mm"


def _stratum_figures(tables: Sequence[Sequence[ImageScore]], c: int) -> dict[str, Any]:
    labels, first, patients = columns_of(tables[0], c)
    positives = int(labels.sum())
    counts: dict[str, Any] = {"positives": positives, "negatives": len(labels) - positives}
    if len(tables) == 1:
        auc = _estimate(roc.bootstrap_auc(labels, first, patients))
        return {**counts, "auc": auc, "against": None, "difference": None}
    found = roc.compare(labels, first, columns_of(tables[1], c)[1], patients)
    return {
        **counts,
        "auc": _estimate(found.first) if found else None,
        "against": _estimate(found.second) if found else None,
        "difference": _estimate(found.difference) if found else None,
    }


def _failed_alone(versions: Sequence[str], failed: Sequence[Failed]) -> int:
    """Images that the first could not read and the second could; alone, it answers for all that it could not."""
    by_version = {v: {one.sop_uid for one in failed if one.version == v} for v in versions}
    others = [by_version[version] for version in versions[1:]]
    return len(by_version[versions[0]].difference(*others)) if others else 0


def _points_table(points: Sequence[Mapping[str, Any]]) -> Table:
    header = ("class", "model", "wanted", "threshold", "sensitivity", "specificity")
    rows = [
        (
            point["class"],
            point["version"],
            point["wanted"],
            f"{point['threshold']:.4f}",
            _shown(point["sensitivity"]),
            _shown(point["specificity"]),
        )
        for point in points
    ]
    note = (
        "Breast-wise. Thresholds are chosen on the validation split and measured on the test split."
    )
    return Table("Operating points, chosen on validation", header, tuple(rows), note)


def _strata_table(strata: Sequence[Mapping[str, Any]], versions: Sequence[str]) -> Table:
    compared = ("difference",) if len(versions) > 1 else ()
    header = ("of", "", "class", "positive", "negative", *versions, *compared)
    rows = []
    for one in strata:
        figures = [_shown(one["auc"])]
        if compared:
            figures += [_shown(one["against"]), _shown(one["difference"])]
        counts = (str(one["positives"]), str(one["negatives"]))
        what = f"{one['stratum']} ({one['level']})"
        rows.append((what, one["value"], one["class"], *counts, *figures))
    note = (
        "Areas under the ROC curve. Many strata are looked at and most are small: an interval that leaves 0 out here"
        " and there is no finding."
    )
    return Table("Strata", header, tuple(rows), note)


def _failed_table(failed: Sequence[Failed]) -> Table:
    rows = [(one.version, one.sop_uid, one.reason) for one in failed[:_SHOWN_FAILURES]]
    more = len(failed) - len(rows)
    note = f"{more} more are in the summary." if more else ""
    if not failed:
        return Table("Images left out", (), (), "Every image of the test split could be read.")
    return Table("Images left out", ("model", "image", "why"), tuple(rows), note)


def _shown(estimate: Mapping[str, float] | None) -> str:
    return NONE if estimate is None else interval(roc.Estimate(**estimate))
