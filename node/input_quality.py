"""What comes in, by month of the exam: from rows alone, no header and no pixel is read. Pure.

Spacing and grey values are known of images that a worker read, and are in the run's rows since then. Thickness,
manufacturer, site and age are known of images that a frozen data set holds. `NOT_KEPT` says so wherever this is shown.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from node.drift import Estimate, Quantiles, grouped, quantiles, share

NOT_KEPT = (
    "Spacing and grey values are those of images that a run read and measured; of others they are not known.",
    "Thickness, manufacturer, site and age are those of images in frozen data sets; of others no row holds them.",
)


@dataclass(frozen=True)
class Measured:
    """What a worker measured of one image that it read; None is not known.

    `pixel_spacing_mm` is the side of a pixel in the breast's plane as the header says (Pixel Spacing, else Imager Pixel
    Spacing by the magnification), of oblong pixels the side of a square as large; `slice_spacing_mm` the distance of
    slices. `intensity_*` are quantiles of the grey values inside the breast: stored values, MONOCHROME1 turned over,
    rescaled, not standardised; without a unit.
    """

    pixel_spacing_mm: float | None
    slice_spacing_mm: float | None
    intensity_p05: float | None
    intensity_p50: float | None
    intensity_p95: float | None


@dataclass(frozen=True)
class Spread:
    """How the measures of `images` images are spread; `unspaced` is the share without pixel spacing.

    `intensity_p05` is how the images' own 5 % quantiles are spread, and so on.
    """

    images: int
    unspaced: Estimate | None
    pixel_spacing_mm: Quantiles | None
    slice_spacing_mm: Quantiles | None
    intensity_p05: Quantiles | None
    intensity_p50: Quantiles | None
    intensity_p95: Quantiles | None


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
    measured: Measured | None


@dataclass(frozen=True)
class QualityMonth:
    """The images of one month: shares with intervals, quantiles, and counts of images by name.

    `complete` studies have every expected view; `unnamed` images lack laterality or view; `left_out` is of those that
    the newest run judged; `described` images are in a frozen data set, and the four figures after it are theirs.
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
    measured: Spread


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
        measured=spread(row.measured for row in rows if row.measured),
    )


def spread(rows: Iterable[Measured]) -> Spread:
    """How measures are spread over images; those without any, which were read before they were kept, count for none."""
    known = [row for row in rows if row.intensity_p50 is not None]

    def of(name: str) -> Quantiles | None:
        return quantiles([value for row in known if (value := getattr(row, name)) is not None])

    return Spread(
        images=len(known),
        unspaced=share(sum(row.pixel_spacing_mm is None for row in known), len(known)),
        **{field.name: of(field.name) for field in fields(Measured)},
    )


def _counted(names: Iterable[str | None]) -> dict[str, int]:
    """How often each is there, the most frequent first."""
    return dict(Counter(name or "not said" for name in names).most_common())
