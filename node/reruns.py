"""Reading a study again with the present model: never by itself, only when somebody asks for it."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import date, datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from node import outbox, studies, timeline
from node.catalogue import rows
from node.config import Settings
from node.db import Database, now, transition
from node.errors import ConfigError, Conflict, NotFound
from node.lifecycle import RunEvent, RunState
from node.models import Run, Study
from node.studies import cancel_deliveries, newest_run_id, queue_run
from node.views.status import with_newest_run

_ENDED = (RunState.SUCCEEDED, RunState.FAILED)


@dataclass(frozen=True)
class Older:
    """A study whose newest run has ended and is of another model version than the present one."""

    study_uid: str
    study_date: date
    model_version: str
    state: str


def older(session: Session, since: date, until: date, model_version: str) -> list[Older]:
    """Studies from `since` to `until`, both included, that another version read; the oldest first.

    The day is the study date, or the day the study was received on (UTC) where its header does not say.

    Raises:
        ConfigError: the days are not in order.
    """
    if until < since:
        raise ConfigError(f"--until {until} is before --since {since}; give the days in order")
    query = with_newest_run(select(Study, Run).select_from(Study)).where(
        Run.state.in_(_ENDED), Run.model_version != model_version
    )
    found = [
        Older(study.study_uid, _day(study), run.model_version, run.state)
        for study, run in session.execute(query)
    ]
    return sorted(
        (one for one in found if since <= one.study_date <= until),
        key=lambda one: (one.study_date, one.study_uid),
    )


def retry(
    session: Session, study: Study, settings: Settings, model_version: str, at: datetime
) -> uuid.UUID:
    """An operator wants the newest run again: a failed one is queued again, a finished one is replaced by a new run.

    Raises:
        NotFound: the study has no run yet.
        Conflict: the newest run is queued or running.
    """
    newest = newest_run_id(session, study.id)
    if newest is None:
        raise NotFound(f"study {study.study_uid} has no run; it is {study.state}")
    run = session.get_one(Run, newest)
    if run.state == RunState.FAILED:
        transition(
            session, Run, RunEvent.RETRY, [Run.id == run.id],
            not_before=at, dispatched_at=at, finished_at=None, max_attempts=run.attempt + settings.max_attempts,
            model_version=model_version,  # the present one: nobody may hold the old one any more
        )  # fmt: skip
        outbox.post(session, outbox.INFER, run.id, at)
        timeline.add(session, study.id, at, "retry", f"run {run.id} queued again by an operator")
        return run.id
    if run.state != RunState.SUCCEEDED:
        raise Conflict(f"run {run.id} is {run.state}; wait for it, or look at why it waits")
    transition(session, Run, RunEvent.SUPERSEDE, [Run.id == run.id])
    cancel_deliveries(session, run.id)
    rows.withdraw(session, run.id)
    new_id = queue_run(session, study.id, run.generation, settings, model_version, at)
    timeline.add(
        session, study.id, at, "retry", f"run {new_id} replaces {run.id}, asked for by an operator"
    )
    return new_id


def rerun(db: Database, study_uid: str, settings: Settings, model_version: str) -> bool:
    """Queue one of these studies for the present version. False: it is being read just now, so nothing was queued."""
    try:
        with db.transaction() as session:
            study = studies.find(session, study_uid)
            retry(session, study, settings, model_version, now(session))
    except Conflict:
        return False
    return True


def _day(study: Study) -> date:
    try:
        return datetime.strptime(study.study_date or "", "%Y%m%d").date()
    except ValueError:
        return study.received_at.date()
