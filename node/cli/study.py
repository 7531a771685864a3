"""`tomonode study`: what was received and what became of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from node import lifecycle, runs, studies
from node.cli import output
from node.cli.context import database
from node.config import Settings, load_settings
from node.db import now
from node.lifecycle import StudyState
from node.model_version import model_version
from node.models import Artifact, Delivery, ImageResult, Instance, Peer, Run, Study, TimelineEvent

app = typer.Typer(help="Studies: received, read by the model, delivered.")

Uid = Annotated[str, typer.Argument(help="Study Instance UID, or the node's own id of the study.")]


@app.command("list")
def list_(
    limit: Annotated[int, typer.Option(min=1, help="At most this many, newest first.")] = 100,
    as_json: output.AsJson = False,
) -> None:
    """List studies, newest first, each with its state in one word and what it waits for."""
    settings = load_settings()
    query = select(Study).order_by(Study.received_at.desc(), Study.id).limit(limit)
    with database(settings) as db, db.reading() as session:
        rows = [_row(session, study, settings) for study in session.execute(query).scalars()]
    if as_json:
        output.as_json(rows)
        return
    columns = ("study_uid", "status", "generation", "views", "received_at", "reason")
    output.table(
        ("study", "status", "generation", "views", "received", "why"),
        [[row[name] for name in columns] for row in rows],
        "no studies yet",
    )


@app.command()
def show(study: Uid, as_json: output.AsJson = False) -> None:
    """Show a study: objects, runs, scores, result files, deliveries, history. Research use only."""
    settings = load_settings()
    with database(settings) as db, db.reading() as session:
        found = studies.find(session, study)
        page = {**_row(session, found, settings), **_details(session, found)}
    if as_json:
        output.as_json(page)
        return
    output.fields({name: value for name, value in page.items() if not isinstance(value, list)})
    _section(
        "objects", page["instances"], ("sop_uid", "laterality", "view", "frames", "size_bytes")
    )
    _section("runs", page["runs"], ("id", "state", "model_version", "attempt", "error"))
    _section(
        "results of the newest run",
        page["images"],
        ("sop_uid", "laterality", "view", "score_malignant", "score_benign", "segments", "excluded_reason"),
    )  # fmt: skip
    if page["images"]:
        output.scores_notice(page["trained"])
    _section("result files", page["artifacts"], ("kind", "name", "size_bytes", "sop_uid"))
    _section("deliveries", page["deliveries"], ("id", "peer", "state", "attempt", "error"))
    _section("history", page["timeline"], ("at", "kind", "message"))


def _section(title: str, rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> None:
    if rows:
        output.say(f"\n{title}")
        headings = [name.replace("_", " ") for name in columns]
        output.table(headings, [[row[name] for name in columns] for row in rows], "")


def _row(session: Session, study: Study, settings: Settings) -> dict[str, Any]:
    run = _newest_run(session, study)
    sent: Sequence[str] = []
    if run is not None:
        by_run = select(Delivery.state).where(Delivery.run_id == run.id)
        sent = session.execute(by_run).scalars().all()
    waiting = None
    if study.state == StudyState.RECEIVING:
        waiting = studies.verdict(session, study, settings, now(session)).waiting
    seen = session.execute(
        select(Instance.laterality, Instance.view)
        .where(Instance.study_id == study.id, Instance.is_image)
        .distinct()
    ).all()
    return {
        "study_uid": study.study_uid,
        "id": study.id,
        "status": lifecycle.status(study.state, run.state if run else None, sent),
        "state": study.state,
        "generation": study.generation,
        "views": sorted(f"{row.laterality or '?'}-{row.view or '?'}" for row in seen),
        "received_at": study.received_at,
        "completed_at": study.completed_at,
        "completed_because": study.completed_because,
        "reason": study.excluded_reason or (run.error if run else None) or waiting,
    }


def _details(session: Session, study: Study) -> dict[str, Any]:
    run = _newest_run(session, study)
    run_id = run.id if run else None
    all_runs = select(Run.id).where(Run.study_id == study.id)
    peer_names = dict(session.execute(select(Peer.id, Peer.name)).tuples().all())
    deliveries = _records(session, select(Delivery).where(Delivery.run_id.in_(all_runs)))
    for delivery in deliveries:
        delivery["peer"] = peer_names[delivery["peer_id"]]
    trained = bool(run and run.model and run.model.get("trained"))
    of_study = select(Instance).where(Instance.study_id == study.id).order_by(Instance.sop_uid)
    images = select(ImageResult).where(ImageResult.run_id == run_id).order_by(ImageResult.sop_uid)
    files = select(Artifact).where(Artifact.run_id == run_id).order_by(Artifact.name)
    history = select(TimelineEvent).where(TimelineEvent.study_id == study.id)
    return {
        "trained": trained,
        "notice": output.RESEARCH_ONLY if trained else f"{output.UNTRAINED} {output.RESEARCH_ONLY}",
        "objects": session.execute(
            select(func.count()).where(Instance.study_id == study.id)
        ).scalar_one(),
        "instances": _records(session, of_study),
        "runs": _records(session, select(Run).where(Run.study_id == study.id).order_by(Run.created_at)),
        "images": _records(session, images),
        "artifacts": _records(session, files),
        "deliveries": deliveries,
        "timeline": _records(session, history.order_by(TimelineEvent.id)),
    }  # fmt: skip


def _newest_run(session: Session, study: Study) -> Run | None:
    query = select(Run).where(Run.study_id == study.id).order_by(Run.created_at.desc()).limit(1)
    return session.execute(query).scalar_one_or_none()


def _records(session: Session, query: Any) -> list[dict[str, Any]]:
    """Rows of one table as values, column by column."""
    rows = session.execute(query).scalars().all()
    return [{c.key: getattr(row, c.key) for c in row.__table__.columns} for row in rows]


@app.command()
def retry(study: Uid) -> None:
    """Run the model on a study again: a failed run once more, a finished one replaced by a new one."""
    settings = load_settings()
    wanted = model_version(settings)
    with database(settings) as db, db.transaction() as session:
        found = studies.find(session, study)
        run_id = runs.retry(session, found, settings, wanted, now(session))
    output.say(f"run {run_id} is queued")


@app.command()
def complete(study: Uid) -> None:
    """Close a study that is still receiving, without waiting for more."""
    settings = load_settings()
    wanted = model_version(settings)
    with database(settings) as db, db.transaction() as session:
        studies.force_complete(session, study, settings, wanted, now(session))
    output.say(f"study {study} is closed")
