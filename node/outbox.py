"""The transactional outbox: a message is a row, written in the transaction that makes it true, and sent by the relay.

A message names a task and carries one UUID. Losing the broker loses nothing: the relay writes the message again for
every run and delivery that is due and was not picked up, and a duplicate simply fails to claim.
"""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Protocol

from sqlalchemy import delete, insert, select
from sqlalchemy.orm import Session

from node.db import Database
from node.models import Outbox

INFER = ("tomonode.infer", "inference")
DELIVER = ("tomonode.deliver", "delivery")
COMMIT = ("tomonode.commit", "delivery")
PULL = ("tomonode.pull", "delivery")
TRAIN = ("tomonode.train", "training")
QUEUES = ("inference", "delivery", "training")


class Send(Protocol):
    """How a message gets to the broker (`workers.app` and the relay use Celery's `send_task`)."""

    def __call__(self, task: str, queue: str, subject_id: uuid.UUID) -> None:
        """Send one message, or raise BrokerUnavailable."""


def post(session: Session, kind: tuple[str, str], subject_id: uuid.UUID, at: datetime) -> None:
    """Write a message; a message that already waits is enough."""
    task, queue = kind
    waiting = select(Outbox.id).where(Outbox.task == task, Outbox.subject_id == subject_id)
    if session.execute(waiting).first() is None:
        session.execute(
            insert(Outbox).values(task=task, queue=queue, subject_id=subject_id, created_at=at)
        )


def drain(db: Database, send: Send, limit: int = 500) -> int:
    """Send what waits, oldest first, removing each message once the broker has it; returns how many were sent.

    Killed between sending and removing, the message is sent twice, which is harmless.

    Raises:
        BrokerUnavailable: from `send`; the rest stays.
        DatabaseUnavailable: no connection.
    """
    with db.reading() as session:
        waiting = session.execute(
            select(Outbox.id, Outbox.task, Outbox.queue, Outbox.subject_id)
            .order_by(Outbox.id)
            .limit(limit)
        ).all()
    for row in waiting:
        send(row.task, row.queue, row.subject_id)
        with db.transaction() as session:
            session.execute(delete(Outbox).where(Outbox.id == row.id))
    return len(waiting)


def depth(session: Session) -> int:
    """How many messages wait."""
    return len(session.execute(select(Outbox.id)).all())
