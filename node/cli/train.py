"""`tomonode train`: trainings listed, shown, paused, given up. They are launched in `workers.cli_train`."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime
from typing import Annotated

import typer
from sqlalchemy.orm import Session

from node import trainings
from node.cli import output
from node.cli.context import database
from node.config import load_settings
from node.db import now
from node.lifecycle import TrainingState
from node.views.training import TrainingPage, training_list, training_page

app = typer.Typer(help="Trainings: launched on a frozen data set, run by the training workers.")

EXIT_FAILED, EXIT_TIME_IS_UP = 1, 3
_ENDED = (TrainingState.SUCCEEDED, TrainingState.FAILED, TrainingState.CANCELLED)
_POLL_S = 2.0

Id = Annotated[str, typer.Argument(help="Id of a training.")]


@app.command("list")
def list_(
    limit: Annotated[int, typer.Option(help="At most this many, newest first.")] = 100,
    as_json: output.AsJson = False,
) -> None:
    """List trainings, newest first."""
    with database() as db, db.reading() as session:
        rows = training_list(session, limit)
    if as_json:
        output.as_json([asdict(row) for row in rows])
        return
    columns = ("id", "state", "dataset", "recipe", "epoch", "best", "model", "created_at", "why")
    output.table(
        ("training", "state", "data set", "recipe", "epoch", "best", "model", "launched", "why"),
        [[getattr(row, name) for name in columns] for row in rows],
        "no trainings yet; `tomonode train launch` starts one",
    )


@app.command()
def show(training: Id, as_json: output.AsJson = False) -> None:
    """Show a training: settings, epochs, figures, the end of its log. Research use only."""
    settings = load_settings()
    with database(settings) as db, db.reading() as session:
        page = training_page(session, training, settings)
    if as_json:
        output.as_json({"notice": output.RESEARCH_ONLY, **asdict(page)})
        return
    row = page.row
    output.fields(
        {
            "training": row.id,
            "state": row.state,
            "why": row.why or None,
            "data set": row.dataset,
            "recipe": row.recipe,
            "base": row.base_version,
            "seed": row.seed,
            "model": row.model,
            "best": row.best,
            "computing": f"{row.used_s:.0f} s of {page.time_limit_s:.0f} s",
            "launched": row.created_at,
            "by": row.requested_by,
            "code": page.code_version,
        }
    )
    _show_epochs(page)
    for line in page.log:
        output.say(line)
    output.say(output.RESEARCH_ONLY)


def _show_epochs(page: TrainingPage) -> None:
    names = sorted({name for row in page.epochs for name in row.metrics} - {"epoch"})
    if page.epochs:
        output.say()
        output.table(
            ("stage", "epoch", *names, "seconds"),
            [
                (row.stage, row.epoch, *(row.metrics.get(name) for name in names), row.seconds)
                for row in page.epochs
            ],
            "",
        )
        output.say()


@app.command()
def pause(training: Id, as_json: output.AsJson = False) -> None:
    """Pause a training: a running one after the batch it is in, at a checkpoint; its worker is free then."""
    _change(training, trainings.pause, "pauses after the batch it is in", as_json)


@app.command()
def resume(training: Id, as_json: output.AsJson = False) -> None:
    """Let a paused training go on from its checkpoint."""
    _change(training, trainings.resume, "goes on", as_json)


@app.command()
def cancel(training: Id, as_json: output.AsJson = False) -> None:
    """Give a training up; what it computed is removed."""
    _change(training, trainings.cancel, "ends after the batch it is in", as_json)


@app.command()
def retry(training: Id, as_json: output.AsJson = False) -> None:
    """Try a failed training again, from its checkpoint, with new attempts and as much time again."""
    settings = load_settings()

    def again(session: Session, run_id: uuid.UUID, at: datetime) -> str:
        return trainings.retry(session, run_id, settings, at)

    _change(training, again, "goes on", as_json)


@app.command()
def wait(
    training: Id,
    timeout: Annotated[
        float | None, typer.Option(min=0, help="Seconds to wait; by default until it ends.")
    ] = None,
    as_json: output.AsJson = False,
) -> None:
    """Wait until a training ends. Exit code 0: it succeeded, 1: it failed or was cancelled, 3: time is up."""
    until = None if timeout is None else time.monotonic() + timeout
    with database() as db:
        while True:
            with db.reading() as session:
                run = trainings.find(session, training)
                state, error = run.state, run.error
            if state in _ENDED or (until is not None and time.monotonic() >= until):
                break
            left = _POLL_S if until is None else until - time.monotonic()
            time.sleep(max(0.0, min(_POLL_S, left)))
    if as_json:
        output.as_json({"id": training, "state": state, "error": error})
    else:
        output.say(f"training {training} is {state}{f': {error}' if error else ''}")
    if state != TrainingState.SUCCEEDED:
        raise typer.Exit(EXIT_FAILED if state in _ENDED else EXIT_TIME_IS_UP)


def _change(
    training: str,
    change: Callable[[Session, uuid.UUID, datetime], str],
    running: str,
    as_json: bool,
) -> None:
    """Make a change and say the state after it; `running` says what a running one will do."""
    with database() as db, db.transaction() as session:
        run = trainings.find(session, training)
        state = change(session, run.id, now(session))
    if as_json:
        output.as_json({"id": training, "state": state})
        return
    output.say(f"training {training} is {state}{f'; {running}' if state == 'RUNNING' else ''}")
