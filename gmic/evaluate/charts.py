"""Charts of an evaluation report as SVG text, drawn by matplotlib on figures of their own."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import matplotlib
from matplotlib.figure import Figure

from gmic.evaluate.calibration import Calibration
from gmic.evaluate.curves import RocBand
from gmic.evaluate.froc import RATES, FrocCurve

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = ("#1f5fa8", "#d9660b")
"""Of the first and the second model; told apart by colour-blind eyes and in grey."""
_STYLES = ("-", (0, (5, 1.5)))
_INK, _FAINT = "#333333", "#b8b8b8"


def roc_chart(panels: Mapping[str, Sequence[tuple[str, RocBand | None]]]) -> str:
    """ROC curves with their bands: a panel for each title, a curve for each (legend, band)."""
    figure = Figure(figsize=(5.3 * len(panels), 4.7))
    for axes, (title, curves) in zip(_axes(figure, len(panels)), panels.items(), strict=True):
        axes.plot([0, 1], [0, 1], color=_FAINT, linewidth=1, linestyle=":")
        for n, (name, band) in enumerate(curves):
            if band is None:
                continue
            x, colour = band.false_positive_rate, COLOURS[n % 2]
            axes.fill_between(x, band.low, band.high, color=colour, alpha=0.16, linewidth=0)
            axes.plot(x, band.sensitivity, color=colour, linestyle=_STYLES[n % 2], label=name)
        axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
        _label(axes, title, "False positive rate (1 - specificity)", "Sensitivity")
        _legend(axes, "lower right")
    return _svg(figure)


def calibration_chart(panels: Mapping[str, Sequence[tuple[str, Calibration]]]) -> str:
    """Shares of positives against mean scores; a point's size tells how many cases it stands for."""
    figure = Figure(figsize=(5.3 * len(panels), 4.7))
    for axes, (title, curves) in zip(_axes(figure, len(panels)), panels.items(), strict=True):
        axes.plot([0, 1], [0, 1], color=_FAINT, linewidth=1, linestyle=":")
        for n, (name, result) in enumerate(curves):
            total = sum(each.count for each in result.bins)
            x = [each.mean_score for each in result.bins]
            y = [each.positive_share for each in result.bins]
            sizes = [12 + 160 * each.count / total for each in result.bins]
            colour = COLOURS[n % 2]
            axes.plot(x, y, color=colour, linestyle=_STYLES[n % 2], linewidth=1, label=name)
            axes.scatter(x, y, s=sizes, color=colour, alpha=0.75, linewidths=0)
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
        _label(axes, title, "Mean score", "Share of positives")
        _legend(axes, "upper left")
    return _svg(figure)


def froc_chart(curves: Sequence[tuple[str, FrocCurve]]) -> str:
    """Sensitivity against false positives a volume, with the benchmark's four rates marked."""
    figure = Figure(figsize=(5.6, 4.1))
    (axes,) = _axes(figure, 1)
    for n, (name, curve) in enumerate(curves):
        x, y = [*curve.false_positives, max(8.0, curve.false_positives[-1])], [*curve.sensitivity]
        axes.plot(x, [*y, y[-1]], color=COLOURS[n % 2], linestyle=_STYLES[n % 2], label=name)
        axes.scatter(RATES, [curve.at(rate) for rate in RATES], color=COLOURS[n % 2], s=22)
    axes.set(xlim=(0, 8), ylim=(-0.01, 1.01))
    _label(axes, "", "False positives a volume", "Sensitivity")
    _legend(axes, "lower right")
    return _svg(figure)


def _axes(figure: Figure, count: int) -> list[Axes]:
    return [figure.add_subplot(1, count, n + 1) for n in range(count)]


def _label(axes: Axes, title: str, x: str, y: str) -> None:
    axes.set_title(title, fontsize=11, color=_INK, loc="left")
    axes.set_xlabel(x, fontsize=9, color=_INK)
    axes.set_ylabel(y, fontsize=9, color=_INK)
    axes.tick_params(labelsize=8, colors=_INK)
    axes.grid(color="#ececec", linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("bottom", "left"):
        axes.spines[side].set_color(_FAINT)


def _legend(axes: Axes, place: Literal["lower right", "upper left"]) -> None:
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc=place, fontsize=8, frameon=True, framealpha=0.85, edgecolor="none")
    else:
        axes.text(0.5, 0.5, "one class only", ha="center", color=_INK, transform=axes.transAxes)


def _svg(figure: Figure) -> str:
    # A fixed salt and no date: the same figures give the same file.
    with matplotlib.rc_context({"svg.hashsalt": "gmic"}):
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", bbox_inches="tight", metadata={"Date": None})
    return buffer.getvalue()
