"""`tomonode drift`: scores, input and outcomes by month."""

from __future__ import annotations

from dataclasses import asdict

from node.cli import output
from node.cli.context import database
from node.config import load_settings
from node.drift import Estimate, OutcomeMonth, Quantiles, ScoreMonth, Shift
from node.input_quality import QualityMonth
from node.views import drift_page

_GREY = ("grey 5 %", "grey 50 %", "grey 95 %")


def drift(as_json: output.AsJson = False) -> None:
    """Show by month how scores, images and late pathology went, and whether they moved. Research use only."""
    settings = load_settings()
    with database(settings) as db, db.reading() as session:
        page = drift_page(session, settings)
    caveat = " ".join(dict.fromkeys(page.caveats.values()))
    if as_json:
        output.as_json({"notice": output.notice(caveat), **asdict(page)})
        return
    headings = ("month", "version", "breasts", "malignant", "PSI", "benign", "PSI", "")
    output.table(headings, [_score_row(row) for row in page.scores], "no scores yet")
    output.say()
    headings = (
        "month",
        "studies",
        "complete",
        "images",
        "left out",
        "slices",
        "kB a slice",
        "from",
    )
    output.table(headings, [_quality_row(row) for row in page.quality], "no images yet")
    output.say()
    headings = ("month", "measured", "no spacing", "pixel, mm", "slice, mm", *_GREY)
    output.table(headings, [_measured_row(row) for row in page.quality], "nothing measured yet")
    output.say()
    headings = ("version", "month", "late", "malignant", "benign", "neither", "AUC", "known before")
    output.table(headings, [_outcome_row(row) for row in page.outcomes], "no outcomes yet")
    output.say()
    for line in page.not_kept:
        output.say(line)
    output.say(
        "Scores: median (5 % to 95 %) of breasts. PSI: against the first months (docs/drift.md)."
        " Measured: median (5 % to 95 %) of images; grey 5 % is the image's own quantile in the breast, and so on."
    )
    output.scores_notice(caveat)


def _score_row(row: ScoreMonth) -> tuple[object, ...]:
    said = ["reference"] if row.reference else []
    said += [] if row.trained else ["untrained: means nothing"]
    figures = (_middle(row.malignant, 3), _shift(row.malignant_shift))
    more = (_middle(row.benign, 3), _shift(row.benign_shift), "; ".join(said))
    return (row.month, row.version, row.breasts, *figures, *more)


def _quality_row(row: QualityMonth) -> tuple[object, ...]:
    shares = (_percent(row.complete), row.images, _percent(row.left_out))
    kb = f"{row.kb_a_slice.p50:.0f}" if row.kb_a_slice else None
    slices = f"{row.slices.p50:.0f}" if row.slices else None
    return (row.month, row.studies, *shares, slices, kb, list(row.senders))


def _measured_row(row: QualityMonth) -> tuple[object, ...]:
    found = row.measured
    spacing = (_middle(found.pixel_spacing_mm, 3), _middle(found.slice_spacing_mm, 3))
    grey = (found.intensity_p05, found.intensity_p50, found.intensity_p95)
    counts = (row.month, f"{found.images} of {row.images}", _percent(found.unspaced))
    return (*counts, *spacing, *(_middle(one, 0) for one in grey))


def _outcome_row(row: OutcomeMonth) -> tuple[object, ...]:
    counts = (row.breasts, row.malignant, row.benign, row.neither)
    area = row.malignant_auc
    shown = f"{area.value:.3f} ({area.low:.3f} to {area.high:.3f})" if area else None
    return (row.version, row.month or "all", *counts, shown, row.known_before)


def _middle(one: Quantiles | None, digits: int) -> str | None:
    if one is None:
        return None
    median, low, high = (f"{value:.{digits}f}" for value in (one.p50, one.p05, one.p95))
    return f"{median} ({low} to {high})"


def _shift(one: Shift | None) -> str | None:
    return f"{one.psi:.2f} {one.word}" if one else None


def _percent(one: Estimate | None) -> str | None:
    return f"{100 * one.value:.0f} % ({100 * one.low:.0f} to {100 * one.high:.0f})" if one else None
