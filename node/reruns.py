"""Reading old studies again with the present model: never by itself, only when an administrator asks for it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from node import runs, studies
from node.config import Settings
from node.db import Database, now
from node.errors import ConfigError, Conflict
from node.lifecycle import RunState
from node.models import Run, Study
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


def rerun(db: Database, study_uid: str, settings: Settings, model_version: str) -> bool:
    """Queue one of these studies for the present version. False: it is being read just now, so nothing was queued."""
    try:
        with db.transaction() as session:
            study = studies.find(session, study_uid)
            runs.retry(session, study, settings, model_version, now(session))
    except Conflict:
        return False
    return True


def _day(study: Study) -> date:
    try:
        return datetime.strptime(study.study_date or "", "%Y%m%d").date()
    except ValueError:
        return study.received_at.date()
