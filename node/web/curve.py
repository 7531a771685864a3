"""Small curves as SVG: only points are worked out here, `curve` in `macros.html` draws them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 300, 90


@dataclass(frozen=True)
class Curve:
    """Lines over the same places: for each its name and the points of a polyline. `ends` name the first and last
    place, `low` and `high` the lower and upper edge."""

    title: str
    lines: Mapping[str, str]
    ends: tuple[str, str]
    low: float
    high: float


def curve(
    title: str,
    lines: Mapping[str, Sequence[float | None]],
    ends: tuple[str, str],
    edges: tuple[float, float] | None = None,
) -> Curve:
    """A curve of some lines, each a value a place (None: no point there).

    Args:
        title: of all.
        lines: values by name, not all None.
        ends: names of the first and the last place.
        edges: of the drawing, lower and upper; the least and the greatest value where they are not given.
    """
    values = [value for line in lines.values() for value in line if value is not None]
    low, high = edges or (min(values), max(values))
    span = high - low or 1.0
    drawn = {}
    for name, line in lines.items():
        step = WIDTH / max(1, len(line) - 1)
        points = [
            f"{place * step:.1f},{HEIGHT * (1 - (value - low) / span):.1f}"
            for place, value in enumerate(line)
            if value is not None
        ]
        drawn[name] = " ".join(points if len(points) != 1 else points * 2)  # one point is a dot
    return Curve(title, drawn, ends, low, high)
