"""Detection with boxes in the style of the open tomosynthesis benchmark on the Duke set (DBTex).

A prediction finds a lesion when their centres lie within half the diagonal of the lesion's box, or
100 pixels where that is more, in the slice plane, and their slices differ by at most a quarter of the
volume's. A lesion found twice counts once; the repeat counts as nothing. A prediction that finds none
is a false positive. The ranking figure is the mean sensitivity at 1, 2, 3 and 4 false positives a
volume over the volumes with biopsied lesions; equal ones are ranked by the sensitivity at 2 over all
volumes. Between two points of the curve the sensitivity is interpolated, as the benchmark does.

A prediction within reach of several lesions finds the nearest that no higher score has found. The
benchmark's own script gives it the first in the table; that differs only where lesions are neighbours.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gmic.errors import DataError
from gmic.evaluate.tables import Row, number, read_table, words, write_table

RATES = (1.0, 2.0, 3.0, 4.0)
TIE_RATE = 2.0
LEAST_REACH = 100.0
"""Pixels within which a centre always counts."""
SLICE_SHARE = 0.25

PREDICTION_COLUMNS = (
    *("PatientID", "StudyUID", "View"),
    *("X", "Width", "Y", "Height", "Z", "Depth", "Score"),
)


class Volume(NamedTuple):
    """Names an image of the set."""

    patient_id: str
    study_uid: str
    view: str


@dataclass(frozen=True)
class Prediction:
    """A box that a model found; pixels from the upper left corner, slices from 0."""

    volume: Volume
    x: float
    width: float
    y: float
    height: float
    z: float
    depth: float
    score: float


@dataclass(frozen=True)
class TrueBox:
    """A biopsied lesion in its central slice; `slices` is the number of slices of its volume."""

    volume: Volume
    x: float
    y: float
    width: float
    height: float
    slice_index: float
    slices: int


@dataclass(frozen=True)
class FrocCurve:
    """From the highest score down; both arrays start at 0."""

    false_positives: NDArray[np.float64]
    """A volume."""
    sensitivity: NDArray[np.float64]
    volumes: int
    lesions: int

    def at(self, rate: float) -> float:
        """Sensitivity at `rate` false positives a volume; that of the last point beyond it."""
        return float(np.interp(rate, self.false_positives, self.sensitivity))


@dataclass(frozen=True)
class FrocResult:
    """The benchmark's figures."""

    mean_sensitivity: float
    """Over `RATES`, in volumes with lesions."""
    sensitivity_all: float
    """At `TIE_RATE`, in all volumes."""
    with_lesions: FrocCurve
    all_volumes: FrocCurve


def read_predictions(path: Path) -> list[Prediction]:
    """Read a predictions file of the benchmark (`PREDICTION_COLUMNS`).

    Raises:
        DataError: A missing column or a bad row, named by its line.
        OSError: The file cannot be read.
    """
    return read_table(path, PREDICTION_COLUMNS, _parse)


def write_predictions(path: Path, predictions: Iterable[Prediction]) -> None:
    """Write a predictions file of the benchmark. Raises OSError."""
    write_table(path, PREDICTION_COLUMNS, map(prediction_row, predictions))


def prediction_row(p: Prediction) -> list[object]:
    """One row of the file, in the order of `PREDICTION_COLUMNS`."""
    places = (p.x, p.width, p.y, p.height, p.z, p.depth)
    return [*p.volume, *(int(n) if n == int(n) else n for n in places), float(p.score)]


def froc(
    predictions: Sequence[Prediction],
    lesions: Sequence[TrueBox],
    volumes: Iterable[Volume] | None = None,
) -> FrocResult:
    """Compare predicted boxes with true ones.

    Args:
        predictions: Of all volumes, in any order.
        lesions: All biopsied lesions.
        volumes: All images that were read, also those in which nothing was found; by default those
            that a prediction or a lesion names.

    Raises:
        DataError: No lesion, or a prediction or lesion in an image that was not read.
    """
    named = {p.volume for p in predictions} | {lesion.volume for lesion in lesions}
    known = set(volumes) if volumes is not None else named
    if not lesions:
        raise DataError("no true box; detection is measured with at least one")
    if strange := sorted(named - known):
        raise DataError(f"{'/'.join(strange[0])} is not among the volumes that were read")
    with_lesions = {lesion.volume for lesion in lesions}
    events = _events(predictions, lesions)
    positive = _curve([e for e in events if e.volume in with_lesions], len(lesions), with_lesions)
    everything = _curve(events, len(lesions), known)
    mean = sum(positive.at(rate) for rate in RATES) / len(RATES)
    return FrocResult(mean, everything.at(TIE_RATE), positive, everything)


def finds(prediction: Prediction, lesion: TrueBox) -> bool:
    """Whether a prediction is near enough to a lesion of the same volume."""
    reach = max(math.hypot(lesion.width, lesion.height) / 2, LEAST_REACH)
    slices_off = abs(prediction.z + prediction.depth / 2 - lesion.slice_index)
    return _distance(prediction, lesion) <= reach and slices_off <= lesion.slices * SLICE_SHARE


class _Event(NamedTuple):
    """One prediction: it found a lesion for the first time, or it is false, or neither."""

    score: float
    volume: Volume
    found: bool
    false: bool


def _events(predictions: Sequence[Prediction], lesions: Sequence[TrueBox]) -> list[_Event]:
    """What each prediction is, from the highest score down."""
    left: dict[Volume, list[TrueBox]] = defaultdict(list)
    truth: dict[Volume, list[TrueBox]] = defaultdict(list)
    for lesion in lesions:
        truth[lesion.volume].append(lesion)
        left[lesion.volume].append(lesion)
    events = []
    for prediction in sorted(predictions, key=lambda p: -p.score):
        in_reach = [box for box in truth[prediction.volume] if finds(prediction, box)]
        new = [box for box in left[prediction.volume] if finds(prediction, box)]
        if new:
            nearest = min(new, key=lambda box: _distance(prediction, box))
            left[prediction.volume].remove(nearest)
        events.append(_Event(prediction.score, prediction.volume, bool(new), not in_reach))
    return events


def _curve(events: Sequence[_Event], lesions: int, volumes: set[Volume]) -> FrocCurve:
    found = np.cumsum([event.found for event in events])
    false = np.cumsum([event.false for event in events])
    scores = np.array([event.score for event in events])
    # Predictions of one score come together, at the last of them.
    last = np.flatnonzero(np.r_[scores[1:] != scores[:-1], True][: len(scores)])
    return FrocCurve(
        np.r_[0.0, false[last] / len(volumes)],
        np.r_[0.0, found[last] / lesions],
        len(volumes),
        lesions,
    )


def _distance(prediction: Prediction, lesion: TrueBox) -> float:
    """Between the centres, in the slice plane (pixels)."""
    across = prediction.x + prediction.width / 2 - lesion.x - lesion.width / 2
    down = prediction.y + prediction.height / 2 - lesion.y - lesion.height / 2
    return math.hypot(across, down)


def _parse(row: Row) -> Prediction:
    volume = Volume(words(row, "PatientID"), words(row, "StudyUID"), words(row, "View").lower())
    return Prediction(
        volume,
        x=number(row, "X"),
        width=number(row, "Width"),
        y=number(row, "Y"),
        height=number(row, "Height"),
        z=number(row, "Z"),
        depth=number(row, "Depth"),
        score=number(row, "Score"),
    )
