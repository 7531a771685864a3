"""`tomonode study`: what was received and what became of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any, NamedTuple

import typer

from node import registry, reruns, studies, views
from node.cli import output
from node.cli.context import database
from node.config import load_settings
from node.db import now
from node.model_version import model_version
from node.views.run import RunView

app = typer.Typer(help="Studies: received, read by the model, delivered.")

Uid = Annotated[str, typer.Argument(help="Study Instance UID, or the node's own id of the study.")]
Day = Annotated[
    datetime, typer.Option(formats=["%Y-%m-%d"], help="Study date, included: YYYY-MM-DD.")
]
_PATIENT = (
    "patient_id",
    "accession_number",
    "study_date",
)  # the terminal's history is no place for


@app.command("list")
def list_(
    status: Annotated[str | None, typer.Option(help=f"One of {', '.join(views.STATUSES)}.")] = None,
    limit: Annotated[int, typer.Option(help="At most this many, newest first.")] = 100,
    as_json: output.AsJson = False,
) -> None:
    """List studies, newest first, each with its state in one word and what it waits for."""
    settings = load_settings()
    wanted = views.Filter(status=status, limit=limit)
    with database(settings) as db, db.reading() as session:
        found = views.work_list(session, wanted, settings, now(session))
    if as_json:
        output.as_json([asdict(row) for row in found.rows])
        return
    output.table(
        ("study", "status", "generation", "views", "received", "why"),
        [
            (row.study_uid, row.status, row.generation, row.views, row.received_at, row.why)
            for row in found.rows
        ],
        "no studies yet" if status is None else f"no studies are {status}",
    )
    if found.total > len(found.rows):
        output.say(f"{len(found.rows)} of {found.total} studies; --limit shows more")


@app.command()
def show(study: Uid, as_json: output.AsJson = False) -> None:
    """Show a study: objects, runs, scores, result files, deliveries, history. Research use only."""
    settings = load_settings()
    with database(settings) as db, db.reading() as session:
        page = views.study_page(session, study, settings, now(session))
    if as_json:
        known = {name: value for name, value in asdict(page).items() if name not in _PATIENT}
        output.as_json({"notice": output.notice(page.row.caveat or ""), **known})
        return
    row = page.row
    output.fields(
        {
            "study": row.study_uid,
            "status": row.status,
            "why": row.why or None,
            "received": row.received_at,
            "complete": page.completed_at,
            "because": page.completed_because,
            "generation": row.generation,
        }
    )
    _show_details(page)


def _show_details(page: views.StudyPage) -> None:
    objects = ("sop_uid", "sop_class", "laterality", "view", "frames", "slices", "size_bytes")
    _section("received", page.instances, objects)
    _section("kept aside", page.quarantined, ("sop_uid", "size_bytes", "reason"))
    _section("runs, newest first", page.runs, ("id", "state", "model_version", "attempt", "error"))
    for run in page.runs[:1]:
        scores = ("laterality", "view", "malignant", "benign", "segments", "excluded_reason")
        _section("results of the newest run", run.images, (*scores, "sop_uid"))
        _section(
            "notes",
            [_Note(i.laterality, i.view, note, i.sop_uid) for i in run.images for note in i.notes],
            _Note._fields,
        )
        if run.images:
            output.scores_notice(run.caveat or "")
        _section("its files", run.artifacts, ("kind", "name", "size_bytes"))
    if page.shadow_runs:
        output.say("\nread in shadow, never delivered")
        output.table(("model", "state", "highest malignant", "highest benign", "error"),
                     [_shadow_row(run) for run in page.shadow_runs], "")  # fmt: skip
    deliveries = [delivery for run in page.runs for delivery in run.deliveries]
    _section("deliveries", deliveries, ("id", "peer", "state", "attempt", "why", "error"))
    committed = ("id", "peer", "state", "objects", "missing", "why")
    _section("storage commitments", page.commitments, committed)
    _section("pulls", page.pulls, ("id", "peer", "study_uid", "why", "state", "waits"))
    _section("history", page.timeline, ("at", "kind", "message"))


class _Note(NamedTuple):
    laterality: str | None
    view: str | None
    note: str
    sop_uid: str


def _shadow_row(run: RunView) -> tuple[object, ...]:
    malignant, benign = (
        max(
            (value for image in run.images if (value := getattr(image, name)) is not None),
            default=None,
        )
        for name in ("malignant", "benign")
    )
    return run.model_version, run.state, malignant, benign, run.error


def _section(title: str, rows: Sequence[Any], columns: Sequence[str]) -> None:
    if rows:
        output.say(f"\n{title}")
        headings = [name.replace("_", " ") for name in columns]
        output.table(headings, [[getattr(row, name) for name in columns] for row in rows], "")


@app.command()
def retry(study: Uid, as_json: output.AsJson = False) -> None:
    """Run the model on a study again: a failed run once more, a finished one replaced by a new one."""
    settings = load_settings()
    configured = model_version(settings)
    with database(settings) as db, db.transaction() as session:
        found = studies.find(session, study)
        wanted = registry.answering(session, configured)
        run_id = reruns.retry(session, found, settings, wanted, now(session))
    if as_json:
        output.as_json({"study_uid": study, "run_id": run_id, "state": "QUEUED"})
        return
    output.say(f"run {run_id} is queued")


@app.command()
def complete(study: Uid, as_json: output.AsJson = False) -> None:
    """Close a study that is still receiving, without waiting for more."""
    settings = load_settings()
    configured = model_version(settings)
    with database(settings) as db, db.transaction() as session:
        wanted = registry.answering(session, configured)
        studies.force_complete(session, study, settings, wanted, now(session))
    if as_json:
        output.as_json({"study_uid": study, "closed": True})
        return
    output.say(f"study {study} is closed")


@app.command()
def rerun(
    since: Day,
    until: Day,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list the studies.")] = False,
    as_json: output.AsJson = False,
) -> None:
    """Run the present model on studies that another model version read; what is being read just now is passed over."""
    settings = load_settings()
    configured = model_version(settings)
    with database(settings) as db:
        with db.reading() as session:
            wanted = registry.answering(session, configured)
            found = reruns.older(session, since.date(), until.date(), wanted)
        queued = [
            one.study_uid
            for one in found
            if not dry_run and reruns.rerun(db, one.study_uid, settings, wanted)
        ]
    if as_json:
        rows = [{**asdict(one), "study_date": str(one.study_date)} for one in found]
        output.as_json({"model_version": wanted, "studies": rows, "queued": queued})
        return
    output.table(
        ("study", "date", "read by", "state"),
        [(one.study_uid, str(one.study_date), one.model_version, one.state) for one in found],
        f"every study of these days was read by model {wanted}",
    )
    output.say(f"{len(queued)} of {len(found)} studies queued for model {wanted}")
