"""`tomonode delivery`: what was sent, what waits, what was given up."""

from __future__ import annotations

import uuid
from typing import Annotated

import typer
from sqlalchemy import select

from node import deliveries
from node.cli import output
from node.cli.context import database
from node.config import load_settings
from node.db import now
from node.errors import NotFound
from node.models import Delivery, Peer, Run, Study

app = typer.Typer(help="Deliveries of results to peers.")


@app.command("list")
def list_(
    limit: Annotated[int, typer.Option(min=1, help="At most this many, newest first.")] = 100,
    as_json: output.AsJson = False,
) -> None:
    """List deliveries, newest first."""
    query = (
        select(
            Delivery.id,
            Study.study_uid,
            Peer.name.label("peer"),
            Delivery.state,
            Delivery.attempt,
            Delivery.created_at,
            Delivery.sent_at,
            Delivery.not_before,
            Delivery.deadline_at,
            Delivery.error_code,
            Delivery.error,
        )
        .join(Run, Run.id == Delivery.run_id)
        .join(Study, Study.id == Run.study_id)
        .join(Peer, Peer.id == Delivery.peer_id)
        .order_by(Delivery.created_at.desc(), Delivery.id)
        .limit(limit)
    )
    with database() as db, db.reading() as session:
        rows = [dict(row) for row in session.execute(query).mappings()]
    if as_json:
        output.as_json(rows)
        return
    columns = ("id", "study_uid", "peer", "state", "attempt", "sent_at", "error")
    output.table(
        ("delivery", "study", "peer", "state", "attempt", "sent", "error"),
        [[row[name] for name in columns] for row in rows],
        "no deliveries",
    )


@app.command()
def retry(
    delivery: Annotated[str, typer.Argument(help="Id of a delivery that has failed.")],
) -> None:
    """Try a failed delivery again, with a new deadline."""
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
