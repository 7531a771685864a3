"""Pages of models, data sets and drift; they change nothing. Promotion is for the command line, where people sign."""

from __future__ import annotations

import uuid

from fastapi import APIRouter
from starlette.responses import FileResponse, Response

from node import views
from node.datasets import store
from node.db import now
from node.errors import NotFound
from node.learning_models import Evaluation
from node.views.models import model_list, model_page
from node.web.curve import Curve, curve
from node.web.pages import Here, stored
from node.web.render import page

router = APIRouter()

# The page is a file of ours that needs its own style and its pictures, and nothing else: no script, form, link to frame
# it; `sandbox` takes it out of this site's origin.
_REPORT_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; form-action 'none'; base-uri 'none';"
    " frame-ancestors 'none'; sandbox"
)


@router.get("/models")
def models(node: Here) -> Response:
    """All model versions."""
    with node.db.reading() as session:
        at = now(session)
        return page(
            "models.html",
            now=at,
            overview=views.overview(session, node.settings, at),
            rows=model_list(session),
        )


@router.get("/models/{version:path}")
def model(node: Here, version: str) -> Response:
    """One version: card, evaluations, decisions."""
    with node.db.reading() as session:
        at = now(session)
        return page(
            "model.html",
            now=at,
            overview=views.overview(session, node.settings, at),
            model=model_page(session, version),
        )


@router.get("/evaluations/{evaluation_id}")
def evaluation(node: Here, evaluation_id: uuid.UUID) -> Response:
    """The page of an evaluation, as it was made, under a policy of its own."""
    with node.db.reading() as session:
        found = session.get(Evaluation, evaluation_id)
    if found is None:
        raise NotFound(f"no evaluation {evaluation_id}; the model's page lists what was measured")
    path = stored(node, found.report_sha256)
    if path is None:
        raise NotFound(
            f"the page of this evaluation is not in the blob store ({found.report_sha256});"
            " `tomonode model compare` makes another"
        )
    return FileResponse(
        path,
        media_type="text/html; charset=utf-8",
        headers={
            "Content-Security-Policy": _REPORT_POLICY,
            "Cache-Control": "private, max-age=31536000, immutable",
        },
    )


@router.get("/datasets")
def datasets(node: Here) -> Response:
    """All data sets, with their counts."""
    with node.db.reading() as session:
        at = now(session)
        return page(
            "datasets.html",
            now=at,
            overview=views.overview(session, node.settings, at),
            rows=store.listed(session),
        )


@router.get("/drift")
def drift(node: Here) -> Response:
    """Scores, input and outcomes by month."""
    with node.db.reading() as session:
        at = now(session)
        found = views.drift_page(session, node.settings)
        return page(
            "drift.html",
            now=at,
            overview=views.overview(session, node.settings, at),
            drift=found,
            curves=_score_curves(found),
        )


def _score_curves(found: views.DriftPage) -> list[Curve]:
    """The malignant scores of each version, oldest month first; none of a version with a single month."""
    curves = []
    for version in sorted({row.version for row in found.scores}):
        months = [row for row in reversed(found.scores) if row.version == version]
        if len(months) > 1:
            lines = {
                "95 %": [row.malignant.p95 for row in months],
                "median": [row.malignant.p50 for row in months],
                "5 %": [row.malignant.p05 for row in months],
            }
            curves.append(curve(version, lines, (months[0].month, months[-1].month), (0.0, 1.0)))
    return curves
