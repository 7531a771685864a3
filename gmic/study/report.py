"""The study's report: a markdown page and its plot, from the results that are there."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gmic.study.against import against_main
from gmic.study.measure import mean_and_spread
from gmic.study.settings import MAIN, StudySettings
from gmic.train.checkpoint import write_atomically

Result = Mapping[str, Any]

GOALS = (
    ("malignant", "auc", "breast-wise AUC, malignant", 0.95),
    ("benign", "auc", "breast-wise AUC, benign", 0.90),
    ("malignant", "peak_on_lesion", "highest malignant cell on the lesion", 0.85),
    ("malignant", "first_patch_on_lesion", "first patch covers the malignant lesion", 0.95),
    ("malignant", "first_patch_on_lesion_alone", "the same, breasts with this lesion alone", 0.95),
)
TOO_EASY = 0.65


def write_report(settings: StudySettings, out: Path) -> Path:
    """Write `report.md`, `report.json` and `report.png` into the study's folder.

    Returns:
        The page's path. Runs that have no result yet are named as missing.

    Raises:
        OSError: A file cannot be written.
    """
    results = {
        (variant.name, seed): json.loads(path.read_text())
        for variant, seed in settings.runs()
        if (path := out / "runs" / f"{variant.name}-{seed}" / "result.json").exists()
    }
    missing = [f"{v.name}-{s}" for v, s in settings.runs() if (v.name, s) not in results]
    main = [result for (name, _), result in results.items() if name == MAIN.name]
    baselines = out / "baselines.json"
    trivial = json.loads(baselines.read_text()) if baselines.exists() else {}
    lines = _head(settings)
    lines += _goals(main) if main else ["No main run is finished yet.", ""]
    lines += _seeds(main)
    lines += _baselines(trivial)
    lines += _ablations(settings, results)
    lines += _beside_paper(settings, results, out / "runs")
    if results:
        _plot(settings, results, trivial, out / "report.png")
        lines += ["![AUC of each run, with 95 % intervals](report.png)", ""]
    if missing:
        lines += [f"Not run yet: {', '.join(missing)}.", ""]
    page = out / "report.md"
    write_atomically(page, "\n".join(lines).encode())
    everything = {"study": settings.name, "results": list(results.values()), "baselines": trivial}
    write_atomically(out / "report.json", (json.dumps(everything, indent=2) + "\n").encode())
    return page


def _head(settings: StudySettings) -> list[str]:
    breasts, images = settings.breasts, settings.images
    depth, rows, cols = images.shape[0], *images.window_shape
    return [
        f"# Learning from image-level labels: {settings.name} study on phantoms",
        "",
        "Research use only, not for clinical use. Phantoms test a method; they say nothing about patients.",
        "",
        f"{breasts['train']} breasts to learn from, {breasts['valid']} to choose the epoch, "
        f"{breasts['test']} unseen ones to test on, {len(images.views)} views each; "
        f"{depth} slices of {rows} x {cols} pixels of {images.spacing_mm} mm, every {images.slice_mm} mm. "
        f"{images.prevalence:.0%} of the breasts have a benign and, independently, as many a malignant "
        f"lesion. The only label a model is told is whether a breast has which.",
        "",
        "A breast's score is the mean over its views. Intervals: 95 %, 1000 bootstrap resamples of breasts. "
        "Where a model looks is taken from the view of the breast with the higher peak. Patches serve both "
        "classes at once, so a breast with lesions of both counts as covered by the first patch when one of "
        "the first two covers the lesion; the figure for breasts with one lesion alone stands beside it.",
        "",
    ]


def _goals(main: Sequence[Result]) -> list[str]:
    lines = [f"## Goals ({len(main)} seeds)", "", "| figure | goal | worst seed | mean | met |"]
    lines.append("|---|---|---|---|---|")
    for label, figure, name, goal in GOALS:
        mean, _ = mean_and_spread(main, label, figure)
        worst = min(float(result[label][figure]) for result in main)
        met = "yes" if worst >= goal else "no"
        lines.append(f"| {name} | {goal:.2f} | {worst:.3f} | {mean:.3f} | {met} |")
    return [*lines, ""]


def _seeds(main: Sequence[Result]) -> list[str]:
    if not main:
        return []
    lines = ["## Seeds", "", _COLUMNS, _RULE]
    for result in main:
        lines += [_row(f"seed {result['seed']}", result, label) for label in _LABELS]
    return [*lines, ""]


def _baselines(trivial: Mapping[str, Any]) -> list[str]:
    if not trivial:
        return []
    lines = [
        "## Trivial baselines",
        "",
        f"The phantom is hard enough while these stay below {TOO_EASY}.",
    ]
    lines += ["", "| baseline | malignant | benign |", "|---|---|---|"]
    for name, figures in trivial.items():
        cells = ["{:.3f} ({:.3f}-{:.3f})".format(*figures[label]) for label in _LABELS]
        lines.append(f"| {name} | {cells[0]} | {cells[1]} |")
    return [*lines, ""]


def _ablations(settings: StudySettings, results: Mapping[tuple[str, int], Result]) -> list[str]:
    seed = settings.seeds[0]
    found = [(v, results[v.name, seed]) for v in settings.variants if (v.name, seed) in results]
    if not found or (MAIN.name, seed) not in results:
        return []
    lines = [f"## Ablations (seed {seed})", "", _COLUMNS, _RULE]
    lines += [_row("main", results[MAIN.name, seed], label) for label in _LABELS]
    for variant, result in found:
        lines += [_row(variant.about, result, label) for label in _LABELS]
    return [*lines, ""]


def _beside_paper(
    settings: StudySettings, results: Mapping[tuple[str, int], Result], runs: Path
) -> list[str]:
    """What each variant changes, and what the paper says of it."""
    seed = settings.seeds[0]
    found = [v for v in settings.variants if (v.name, seed) in results]
    if not found or (MAIN.name, seed) not in results:
        return []
    lines = [
        "## Beside the paper",
        "",
        "Breast-wise AUC of malignant lesions, the variant's less the main run's, on the same breasts; 95 % "
        "intervals of the paired difference. One seed each: a difference between seeds may be as large.",
        "",
        "| variant | difference | here it is | the paper | agrees |",
        "|---|---|---|---|---|",
    ]
    for variant in found:
        beside = against_main(
            runs / f"{variant.name}-{seed}" / "scores.csv",
            runs / f"{MAIN.name}-{seed}" / "scores.csv",
        )
        difference = beside.comparison.difference
        lines.append(
            f"| {variant.about} | {difference.value:+.3f} ({difference.low:+.3f} to {difference.high:+.3f}) | "
            f"{beside.finding} | {variant.paper} | {beside.agrees(variant.expected)} |"
        )
    return [*lines, ""]


_LABELS = ("malignant", "benign")
_COLUMNS = (
    "| run | class | AUC (95 %) | highest cell on lesion | first patch | any patch | DSC | PxAP |"
)
_RULE = "|---|---|---|---|---|---|---|---|"


def _row(name: str, result: Result, label: str) -> str:
    figures = result[label]
    auc = "{auc:.3f} ({auc_low:.3f}-{auc_high:.3f})".format(**figures)
    shares = [
        f"{figures[key]:.0%}"
        for key in ("peak_on_lesion", "first_patch_on_lesion", "any_patch_on_lesion")
    ]
    return (
        f"| {name} | {label} | {auc} | {' | '.join(shares)} | "
        f"{figures['dsc']:.3f} | {figures['pxap']:.3f} |"
    )


def _plot(
    settings: StudySettings,
    results: Mapping[tuple[str, int], Result],
    trivial: Mapping[str, Any],
    path: Path,
) -> None:
    from matplotlib.figure import Figure

    rows = [
        (f"{v.name}, seed {s}", results[v.name, s])
        for v, s in settings.runs()
        if (v.name, s) in results
    ]
    names = [name for name, _ in rows] + list(trivial)
    figure = Figure(figsize=(8, 1.2 + 0.35 * len(names)))
    axes = figure.subplots()
    for label, colour, shift in (("malignant", "#b2182b", -0.12), ("benign", "#2166ac", 0.12)):
        found = [(r[label]["auc"], r[label]["auc_low"], r[label]["auc_high"]) for _, r in rows] + [
            tuple(figures[label]) for figures in trivial.values()
        ]
        places = [index + shift for index in range(len(names))]
        values = [value for value, _, _ in found]
        below = [value - low for value, low, _ in found]
        above = [high - value for value, _, high in found]
        axes.errorbar(
            values, places, xerr=[below, above], fmt="o", color=colour, label=label, capsize=2
        )
    axes.axvline(0.5, color="grey", linewidth=0.8)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlabel("breast-wise AUC")
    axes.legend(loc="center")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
