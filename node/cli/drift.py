"""`tomonode drift`: scores, input and outcomes by month."""

from __future__ import annotations

from dataclasses import asdict

from node.cli import output
from node.cli.context import database
from node.config import load_settings
from node.drift import Estimate, OutcomeMonth, Quantiles, ScoreMonth, Shift
from node.input_quality import QualityMonth
from node.views import drift_page


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
    headings = ("version", "month", "late", "malignant", "benign", "neither", "AUC", "known before")
    output.table(headings, [_outcome_row(row) for row in page.outcomes], "no outcomes yet")
    output.say()
    for line in page.not_kept:
        output.say(line)
    output.say(
        "Scores: median (5 % to 95 %) of breasts. PSI: against the first months (docs/drift.md)."
    )
    output.scores_notice(caveat)


def _score_row(row: ScoreMonth) -> tuple[object, ...]:
    said = ["reference"] if row.reference else []
    said += [] if row.trained else ["untrained: means nothing"]
    figures = (_spread(row.malignant), _shift(row.malignant_shift))
    more = (_spread(row.benign), _shift(row.benign_shift), "; ".join(said))
    return (row.month, row.version, row.breasts, *figures, *more)


def _quality_row(row: QualityMonth) -> tuple[object, ...]:
    shares = (_percent(row.complete), row.images, _percent(row.left_out))
    kb = f"{row.kb_a_slice.p50:.0f}" if row.kb_a_slice else None
    slices = f"{row.slices.p50:.0f}" if row.slices else None
    return (row.month, row.studies, *shares, slices, kb, list(row.senders))


def _outcome_row(row: OutcomeMonth) -> tuple[object, ...]:
    counts = (row.breasts, row.malignant, row.benign, row.neither)
    area = row.malignant_auc
    shown = f"{area.value:.3f} ({area.low:.3f} to {area.high:.3f})" if area else None
    return (row.version, row.month or "all", *counts, shown, row.known_before)


def _spread(one: Quantiles) -> str:
    return f"{one.p50:.3f} ({one.p05:.3f} to {one.p95:.3f})"


def _shift(one: Shift | None) -> str | None:
    return f"{one.psi:.2f} {one.word}" if one else None


def _percent(one: Estimate | None) -> str | None:
    return f"{100 * one.value:.0f} % ({100 * one.low:.0f} to {100 * one.high:.0f})" if one else None
