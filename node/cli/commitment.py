"""`tomonode commitment`: storage commitments, asked of us and by us."""

from __future__ import annotations

import uuid
from dataclasses import asdict
from typing import Annotated

import typer

from node import commitments
from node.cli import output
from node.cli.context import database
from node.config import load_settings
from node.db import now
from node.errors import NotFound
from node.exchange_models import Commitment
from node.lifecycle import CommitmentState
from node.views.exchange import commitment_views, in_state

app = typer.Typer(help="Storage commitments: what others ask us to keep, and what we ask of peers.")


@app.command("list")
def list_(
    state: Annotated[str | None, typer.Option(help=f"One of {', '.join(CommitmentState)}.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most this many, newest first.")] = 100,
    as_json: output.AsJson = False,
) -> None:
    """List commitments, newest first: IN were asked of us, OUT by us."""
    with database() as db, db.reading() as session:
        found = commitment_views(session, now(session), in_state(Commitment, state), limit)
    if as_json:
        output.as_json([asdict(one) for one in found])
        return
    output.table(
        ("commitment", "", "with", "state", "objects", "not committed", "asked", "why"),
        [
            (
                one.id,
                one.direction,
                one.peer or one.ae_title,
                one.state,
                one.objects,
                one.missing,
                one.created_at,
                one.why,
            )
            for one in found
        ],
        "no commitments yet" if state is None else f"no commitments are {state}",
    )


@app.command()
def retry(
    commitment: Annotated[str, typer.Argument(help="Id of a commitment that is not well.")],
) -> None:
    """Ask a peer, or answer, once more: where it was given up, or an object was not committed."""
    try:
        commitment_id = uuid.UUID(commitment)
    except ValueError:
        raise NotFound(
            f"no commitment {commitment!r}; `tomonode commitment list` shows what is here"
        ) from None
    settings = load_settings()
    with database(settings) as db, db.transaction() as session:
        commitments.retry(session, commitment_id, settings, now(session))
    output.say(f"commitment {commitment_id} is on its way again")
