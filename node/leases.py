"""What runs, deliveries, commitments and pulls have in common: a lease that its worker prolongs, and a message while
they wait. What else happens to each stands in its own module."""

from __future__ import annotations

import uuid
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, CursorResult, select, update
from sqlalchemy.orm import Session

from node import outbox
from node.config import Settings
from node.db import Database, now
from node.exchange_models import Commitment, Pull
from node.models import Delivery, Run

Leased = type[Run] | type[Delivery] | type[Commitment] | type[Pull]


def prolong(
    db: Database, table: Leased, held: str, row_id: uuid.UUID, attempt: int, settings: Settings
) -> bool:
    """Prolong a lease; `held` is the state of a claimed row. False: no longer ours; stop."""
    with db.transaction() as session:
        until = now(session) + timedelta(seconds=settings.lease_s)
        result = session.execute(
            update(table)
            .where(table.id == row_id, table.attempt == attempt, table.state == held)
            .values(lease_until=until)
        )
        assert isinstance(result, CursorResult)
        return result.rowcount == 1


def without_message(table: Leased, settings: Settings, at: datetime) -> ColumnElement[bool]:
    """The condition of rows that have no message on its way, or one that nobody took in time."""
    stale = at - timedelta(seconds=settings.redispatch_s)
    return table.dispatched_at.is_(None) | (table.dispatched_at < stale)


def dispatch_due(
    session: Session,
    table: Leased,
    waiting: str,
    message: tuple[str, str],
    settings: Settings,
    at: datetime,
) -> int:
    """Write a message of `outbox` for every row in the state `waiting` that is due and has none; returns how many."""
    due = [table.state == waiting, table.not_before <= at, without_message(table, settings, at)]
    found = session.execute(select(table.id).where(*due)).scalars().all()
    for row_id in found:
        send(session, table, row_id, message, at)
    return len(found)


def send(
    session: Session, table: Leased, row_id: uuid.UUID, message: tuple[str, str], at: datetime
) -> None:
    """Write the message of one row."""
    outbox.post(session, message, row_id, at)
    session.execute(update(table).where(table.id == row_id).values(dispatched_at=at))
