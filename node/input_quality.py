"""What comes in, by month of the exam: from rows alone, no header and no pixel is read. Pure.

Thickness, manufacturer, site and age are known of images that a frozen data set holds. Spacing and intensity are in no
row; `NOT_KEPT` says so wherever this is shown.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from node.drift import Estimate, Quantiles, grouped, quantiles, share

NOT_KEPT = (
    "Pixel spacing and intensity are not shown: no row holds them, and this page reads no header and no pixel.",
    "Thickness, manufacturer, site and age are those of images in frozen data sets; of others no row holds them.",
)


@dataclass(frozen=True)
class Image:
    """One received image. `strata` are those of a data set that holds it; `left_out` is None before it was judged."""

    month: str | None
    study_uid: str
    laterality: str | None
    view: str | None
    frames: int | None
    size_bytes: int
    sender: str
    left_out: bool | None
    strata: Mapping[str, Any] | None


@dataclass(frozen=True)
class QualityMonth:
    """The images of one month: shares with intervals, quantiles, and counts of images by name.

    `complete` studies have every expected view; `unnamed` images lack laterality or view; `left_out` is of those that
    the newest run judged; `described` images are in a frozen data set, and the last four figures are theirs.
    """

    month: str
    studies: int
    images: int
    complete: Estimate | None
    unnamed: Estimate | None
    left_out: Estimate | None
    slices: Quantiles | None
    kb_a_slice: Quantiles | None
    senders: Mapping[str, int]
    described: int
    thickness_mm: Quantiles | None
    manufacturers: Mapping[str, int]
    sites: Mapping[str, int]
    ages: Mapping[str, int]


def quality_months(rows: Iterable[Image], expected: Collection[str]) -> list[QualityMonth]:
    """Input quality, newest month first; images without a month are left out.

    Args:
        rows: every image.
        expected: views of a complete study, such as `L-CC`.
    """
    months = grouped(rows, lambda row: row.month)
    return [_month(month, months[month], expected) for month in sorted(months, reverse=True)]


def _month(month: str, rows: Sequence[Image], expected: Collection[str]) -> QualityMonth:
    views: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        views[row.study_uid].add(f"{row.laterality}-{row.view}")
    judged = [row.left_out for row in rows if row.left_out is not None]
    strata = [row.strata for row in rows if row.strata is not None]
    thickness = [one["thickness_mm"] for one in strata if one.get("thickness_mm")]
    return QualityMonth(
        month=month,
        studies=len(views),
        images=len(rows),
        complete=share(sum(seen.issuperset(expected) for seen in views.values()), len(views)),
        unnamed=share(sum(not row.laterality or not row.view for row in rows), len(rows)),
        left_out=share(sum(judged), len(judged)),
        slices=quantiles([row.frames for row in rows if row.frames]),
        kb_a_slice=quantiles([row.size_bytes / 1024 / row.frames for row in rows if row.frames]),
        senders=_counted(row.sender for row in rows),
        described=len(strata),
        thickness_mm=quantiles(thickness),
        manufacturers=_counted(one.get("manufacturer") for one in strata),
        sites=_counted(one.get("site") for one in strata),
        ages=_counted(one.get("age") for one in strata),
    )


def _counted(names: Iterable[str | None]) -> dict[str, int]:
    """How often each is there, the most frequent first."""
    return dict(Counter(name or "not said" for name in names).most_common())
