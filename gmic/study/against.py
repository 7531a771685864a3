"""A variant beside the main run: the paired difference of their AUCs, and whether the paper found the same."""

from __future__ import annotations

import csv
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gmic.errors import DataError
from gmic.evaluate.roc import Comparison, compare

LOWER, SAME, HIGHER = "lower", "no different", "higher"


@dataclass(frozen=True)
class Against:
    """Breast-wise AUC of malignant lesions: the variant's less the main run's.

    Attributes:
        comparison: Both AUCs and their difference, with 95 % intervals.
        finding: LOWER, SAME or HIGHER, by where the interval of the difference lies.
    """

    comparison: Comparison
    finding: str

    def agrees(self, expected: tuple[str, ...]) -> str:
        """ "yes" or "no", or "not tried there" where the paper says nothing."""
        return "not tried there" if not expected else "yes" if self.finding in expected else "no"


def against_main(variant: Path, main: Path) -> Against:
    """Compare the scores of two runs on the same breasts.

    Args:
        variant: `scores.csv` of the variant.
        main: That of the main run.

    Raises:
        DataError: They hold other breasts, or one class only.
        OSError: One cannot be read.
    """
    labels, first = _breasts(variant)
    others, second = _breasts(main)
    if labels != others:
        raise DataError(f"{variant} and {main} hold other breasts; run both again")
    names = sorted(labels)
    found = compare(
        [labels[name] for name in names],
        [first[name] for name in names],
        [second[name] for name in names],
        names,
    )
    if found is None:
        raise DataError(f"{variant} holds one class only; test on more breasts")
    low, high = found.difference.low, found.difference.high
    return Against(found, LOWER if high < 0 else HIGHER if low > 0 else SAME)


def _breasts(path: Path) -> tuple[dict[str, int], dict[str, float]]:
    """Malignant label and mean score of each breast in a table of images."""
    labels: dict[str, int] = {}
    scores: dict[str, list[float]] = defaultdict(list)
    with path.open(newline="") as file:
        for _, breast, _, malignant, _, score in csv.reader(file):
            labels[breast] = int(malignant)
            scores[breast].append(float(score))
    return labels, {breast: float(np.mean(values)) for breast, values in scores.items()}
