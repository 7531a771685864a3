"""`tomonode delivery`: what was sent, what waits, what was given up."""

from __future__ import annotations

import uuid
from dataclasses import asdict
from typing import Annotated

import typer

from node import deliveries, views
from node.cli import output
from node.cli.context import database
from node.config import load_settings
from node.db import now
from node.errors import NotFound
from node.lifecycle import DeliveryState

app = typer.Typer(help="Deliveries of results to peers.")


@app.command("list")
def list_(
    state: Annotated[str | None, typer.Option(help=f"One of {', '.join(DeliveryState)}.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most this many, newest first.")] = 100,
    as_json: output.AsJson = False,
) -> None:
    """List deliveries, newest first, each with what it waits for."""
    settings = load_settings()
    with database(settings) as db, db.reading() as session:
        found = views.delivery_list(session, settings, now(session), state, limit)
    if as_json:
        output.as_json([asdict(row) for row in found.rows])
        return
    columns = ("id", "study_uid", "peer", "state", "attempt", "sent_at", "why", "error")
    output.table(
        ("delivery", "study", "peer", "state", "attempt", "sent", "why", "error"),
        [[getattr(row, name) for name in columns] for row in found.rows],
        "no deliveries yet" if state is None else f"no deliveries are {state}",
    )
    if found.total > len(found.rows):
        output.say(f"{len(found.rows)} of {found.total} deliveries; --limit shows more")


@app.command()
def retry(
    delivery: Annotated[str, typer.Argument(help="Id of a delivery that has failed, or was sent.")],
) -> None:
    """Try a failed delivery again, with a new deadline; or send what the peer gets since a delivery was sent."""
    try:
        delivery_id = uuid.UUID(delivery)
    except ValueError:
        raise NotFound(
            f"no delivery {delivery!r}; `tomonode delivery list` shows what is here"
        ) from None
    settings = load_settings()
    with database(settings) as db, db.transaction() as session:
        deliveries.retry(session, delivery_id, settings, now(session))
    output.say(f"delivery {delivery_id} waits to be sent")
