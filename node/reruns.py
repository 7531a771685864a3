"""Reading a study again with the present model: never by itself, only when somebody asks for it."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from node import outbox, studies, timeline
from node.catalogue import rows
from node.config import Settings
from node.db import Database, now, transition
from node.errors import ConfigError, Conflict, NotFound
from node.lifecycle import RunEvent, RunState, StudyState
from node.models import Run, Study
from node.rules import apply as routing
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

    The routing rules say anew which model reads it and who gets the results; a study that they left unread before is
    read now if they want it.

    Raises:
        NotFound: the study has no run yet.
        Conflict: the newest run is queued or running, or the rules want no model.
        ConfigError: the rules were never without fault.
    """
    newest = newest_run_id(session, study.id)
    run = None if newest is None else session.get_one(Run, newest)
    if study.state != StudyState.COMPLETE and run is None:
        raise NotFound(f"study {study.study_uid} has no run; it is {study.state}")
    decided = routing.decide(session, study, settings, model_version)
    if decided.version is None and decided.route is not None:
        raise Conflict(f"study {study.study_uid} is not read: {decided.said}; change the rules")
    version = decided.version or model_version  # a study that was only fetched is read if one asks
    if run is None or run.generation < study.generation:
        return _read_now(session, study, settings, version, decided.route, at)
    if run.state == RunState.FAILED:
        transition(
            session, Run, RunEvent.RETRY, [Run.id == run.id],
            not_before=at, dispatched_at=at, finished_at=None, max_attempts=run.attempt + settings.max_attempts,
            model_version=version,  # the present one: nobody may hold the old one any more
            route=decided.route,
        )  # fmt: skip
        outbox.post(session, outbox.INFER, run.id, at)
        timeline.add(session, study.id, at, "retry", f"run {run.id} queued again by an operator")
        return run.id
    if run.state != RunState.SUCCEEDED:
        raise Conflict(f"run {run.id} is {run.state}; wait for it, or look at why it waits")
    transition(session, Run, RunEvent.SUPERSEDE, [Run.id == run.id])
    cancel_deliveries(session, run.id)
    rows.withdraw(session, run.id)
    new_id = queue_run(
        session, study.id, run.generation, settings, version, at, route=decided.route
    )
    timeline.add(
        session, study.id, at, "retry", f"run {new_id} replaces {run.id}, asked for by an operator"
    )
    return new_id


def _read_now(
    session: Session,
    study: Study,
    settings: Settings,
    version: str,
    route: dict[str, Any] | None,
    at: datetime,
) -> uuid.UUID:
    """The first run of a generation that was left unread."""
    if study.state != StudyState.COMPLETE:
        raise Conflict(f"study {study.study_uid} is {study.state}; there is nothing to read now")
    run_id = queue_run(session, study.id, study.generation, settings, version, at, route=route)
    timeline.add(session, study.id, at, "retry", f"run {run_id} asked for by an operator")
    return run_id


def rerun(db: Database, study_uid: str, settings: Settings, model_version: str) -> bool:
    """Queue one of these studies for the present version. False: nothing was queued, for it is being read just now, or
    the routing rules want no model, or the one that read it."""
    try:
        with db.transaction() as session:
            study = studies.find(session, study_uid)
            wanted = routing.decide(session, study, settings, model_version).version
            newest = newest_run_id(session, study.id)
            if newest is not None and session.get_one(Run, newest).model_version == wanted:
                return False
            retry(session, study, settings, model_version, now(session))
    except Conflict:
        return False
    return True


def _day(study: Study) -> date:
    try:
        return datetime.strptime(study.study_date or "", "%Y%m%d").date()
    except ValueError:
        return study.received_at.date()
