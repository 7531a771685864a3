"""The rows that drift is told from, read in a few queries, and the page of it."""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import datetime
from functools import lru_cache
from typing import Any

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from node import drift, input_quality
from node.config import Settings
from node.drift import OutcomeMonth, Scored, ScoreMonth
from node.input_quality import Image, Measured, QualityMonth, Spread
from node.labels.outcomes import outcomes
from node.labels.rule import dicom_date
from node.learning_models import DatasetItem
from node.lifecycle import RunState
from node.models import ImageResult, Instance, Run, Study
from node.views.rows import caveat_of


@dataclass(frozen=True)
class DriftPage:
    """All figures by month, newest first. `undated` breasts and images are of studies without a date, in no month;
    `caveats` by version are what goes with every score."""

    caveats: dict[str, str]
    scores: list[ScoreMonth]
    undated_breasts: int
    quality: list[QualityMonth]
    undated_images: int
    outcomes: list[OutcomeMonth]
    not_kept: tuple[str, ...] = input_quality.NOT_KEPT
    reference_breasts: int = drift.REFERENCE_BREASTS
    fewest_breasts: int = drift.FEWEST_BREASTS


def drift_page(session: Session, settings: Settings) -> DriftPage:
    """Everything that is known of drift now."""
    breasts, images = scored(session), _images(session)
    return DriftPage(
        caveats={row.version: row.caveat for row in breasts if row.caveat},
        scores=drift.score_months(breasts),
        undated_breasts=sum(row.month is None for row in breasts),
        quality=input_quality.quality_months(images, settings.expected_views),
        undated_images=sum(row.month is None for row in images),
        outcomes=drift.outcome_months(outcomes(session)),
    )


def scored(session: Session, since: datetime | None = None) -> list[Scored]:
    """Every breast that a version read, once a version: by its newest run of the study that has results.

    Runs that were replaced since count too, so that reading old studies again hides no history, and so do those in
    shadow. Images whose header gives no one breast count for none.

    Args:
        session: of the database.
        since: only runs that ended since then and were not replaced.
    """
    found = []
    for study_date, version, model, benign, malignant in session.execute(_scores(since)):
        model = model or {}
        trained, caveat = model.get("trained") is True, caveat_of(model)
        found.append(Scored(_month(study_date), version, trained, benign, malignant, caveat))
    return found


def _scores(
    since: datetime | None,
) -> Select[str | None, str, dict[str, object] | None, float, float]:
    place = func.row_number().over(
        partition_by=(Run.study_id, Run.model_version), order_by=(Run.created_at.desc(), Run.id)
    )
    with_results = select(Run.id, place.label("place")).where(
        Run.id.in_(select(ImageResult.run_id)), Run.finished_at.is_not(None)
    )
    if since is not None:
        # of a run that was replaced, `finished_at` says when
        still = (Run.state == RunState.SUCCEEDED, Run.finished_at >= since)
        with_results = with_results.where(*still)
    newest = with_results.subquery()
    return (
        select(
            Study.study_date,
            Run.model_version,
            Run.model,
            func.avg(ImageResult.score_benign),
            func.avg(ImageResult.score_malignant),
        )
        .select_from(newest)
        .join(Run, (Run.id == newest.c.id) & (newest.c.place == 1))
        .join(Study, Study.id == Run.study_id)
        .join(ImageResult, ImageResult.run_id == Run.id)
        .where(ImageResult.excluded_reason.is_(None), ImageResult.laterality.in_(("L", "R")))
        .group_by(Study.id, Run.id, ImageResult.laterality)
    )


def measured(session: Session, since: datetime) -> Spread:
    """How the images are spread that runs read which ended since then and answer for the node."""
    rows = session.execute(_judged().where(Run.finished_at >= since))
    return input_quality.spread(Measured(*row[2:]) for row in rows)


def _images(session: Session) -> list[Image]:
    judged = {row[0]: (row[1], Measured(*row[2:])) for row in session.execute(_judged())}
    items = select(DatasetItem.sop_uid, DatasetItem.strata)
    strata = {row.sop_uid: row.strata for row in session.execute(items)}
    # columns and UIDs, not instances and ids: there may be hundreds of thousands
    names = ("laterality", "view", "frames", "size_bytes")
    columns = [getattr(Instance, name) for name in (*names, "sop_uid", "volume_uid", "calling_ae")]
    query = select(Study.study_uid, Study.study_date, *columns).join_from(Instance, Study)
    return [
        Image(
            month=_month(row.study_date),
            study_uid=row.study_uid,
            sender=row.calling_ae,
            left_out=left_out,
            strata=strata.get(row.sop_uid),
            measured=found,
            **{name: getattr(row, name) for name in names},
        )
        for row in session.execute(query.where(Instance.is_image))
        # of slices that are one volume, the one under which its result is kept
        if row.volume_uid is None or row.sop_uid in judged
        for left_out, found in [judged.get(row.sop_uid, (None, None))]
    ]


def _judged() -> Select[Any]:
    """Whether each image was left out by its study's newest run that succeeded and answers for the node, and what that
    run measured: the columns of `Measured` in their order."""
    # ranked in one pass: a subquery a study would search all runs for each where SQLite picks the index of states
    place = func.row_number().over(
        partition_by=Run.study_id, order_by=(Run.created_at.desc(), Run.id)
    )
    ranked = (
        select(Run.id, place.label("place"))
        .where(Run.state == RunState.SUCCEEDED, ~Run.shadow)
        .subquery()
    )
    return (
        select(
            ImageResult.sop_uid,
            ImageResult.excluded_reason.is_not(None),
            *(getattr(ImageResult, field.name) for field in fields(Measured)),
        )
        .select_from(ranked)
        .join(Run, (Run.id == ranked.c.id) & (ranked.c.place == 1))
        .join(ImageResult, ImageResult.run_id == Run.id)
    )


@lru_cache(maxsize=4096)
def _month(study_date: str | None) -> str | None:
    day = dicom_date(study_date)
    return day.strftime("%Y-%m") if day else None
