"""The relay: once a tick it closes quiet studies, takes back expired leases, writes due messages and sends them.

Any number may run; each step is one transaction of conditional updates. It holds nothing in memory, so it may be killed
at any moment.
"""

from __future__ import annotations

import threading
import uuid

from celery import Celery
from kombu.exceptions import OperationalError as BrokerError
from redis.exceptions import RedisError

from node import (
    commitments,
    deliveries,
    log,
    outbox,
    pulls,
    registry,
    runs,
    studies,
    trainings,
)
from node.config import Settings
from node.db import Database, now
from node.errors import BrokerUnavailable, ConfigError, Transient
from node.rules import apply as rules


def sender(settings: Settings) -> outbox.Send:
    """A function that sends one message by Celery. A message nobody took in time expires: the relay writes it again."""
    app = Celery("tomonode", broker=settings.broker_url, set_as_current=False)
    app.conf.update(
        task_ignore_result=True,
        broker_transport_options={"socket_timeout": 5, "socket_connect_timeout": 5},
        broker_connection_timeout=5,
    )

    def send(task: str, queue: str, subject_id: uuid.UUID) -> None:
        try:
            app.send_task(
                task,
                args=[str(subject_id)],
                queue=queue,
                retry=False,
                expires=settings.redispatch_s,
            )
        except (BrokerError, RedisError, OSError) as error:
            raise BrokerUnavailable(
                f"Redis does not answer ({error}); see `tomonode doctor`"
            ) from error

    return send


def tick(db: Database, settings: Settings, model_version: str, send: outbox.Send) -> int:
    """One round; returns how many messages were sent. New runs are of the active model version, or of `model_version`
    where none is active.

    Raises:
        Transient: database or broker does not answer; the next tick tries again.
    """
    with db.transaction() as session:
        at = now(session)
        rules.watch(session, settings)
        studies.close_due(session, settings, registry.answering(session, model_version), at)
        runs.reap(session, at)
        deliveries.reap(session, at)
        commitments.reap(session, at)
        pulls.reap(session, at)
        trainings.reap(session, at)
        runs.dispatch_due(session, settings, at)
        deliveries.dispatch_due(session, settings, at)
        commitments.dispatch_due(session, settings, at)
        pulls.dispatch_due(session, settings, at)
        trainings.dispatch_due(session, settings, at)
    return outbox.drain(db, send)


def run(settings: Settings, model_version: str, stop: threading.Event) -> None:
    """Tick until told to stop; trouble outside is logged once when it starts and once when it ends."""
    db = Database(settings.db_url)
    send = sender(settings)
    logger = log.get()
    logger.info("relay started")
    trouble = ""
    while not stop.is_set():
        try:
            sent = tick(db, settings, model_version, send)
            if trouble:
                logger.info("relay recovered")
            trouble = ""
            if sent:
                logger.info("messages sent", count=sent)
        except (Transient, ConfigError) as error:  # rules that were never good: studies wait
            if error.code != trouble:
                logger.warning("relay waits", code=error.code, error=str(error))
            trouble = error.code
        stop.wait(settings.tick_s)
    db.dispose()
    logger.info("relay stopped")
