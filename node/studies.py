"""Studies: when one closes, into which run, and what a later generation replaces."""

from __future__ import annotations

import uuid
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from node import outbox, registry, timeline
from node.catalogue import rows
from node.completion import Because, Received, Rule, Verdict, judge
from node.config import Settings
from node.db import transition
from node.errors import Conflict, NotFound
from node.lifecycle import DeliveryEvent, RunEvent, RunState, StudyEvent, StudyState
from node.models import Activity, Delivery, Instance, Run, Study
from node.rules import apply as routing
from node.rules.apply import Decision


def received(session: Session, study: Study, fresh_after: datetime) -> Received:
    """What is known of a receiving study; associations not seen since `fresh_after` count as closed."""
    sliced = Instance.volume_uid.is_not(None).label("sliced")
    views = session.execute(
        select(Instance.laterality, Instance.view, sliced)
        .where(Instance.study_id == study.id, Instance.is_image)
        .distinct()
    ).all()
    carrying = session.execute(
        select(Activity.in_flight).where(
            Activity.study_uid == study.study_uid, Activity.seen_at >= fresh_after
        )
    ).scalars()
    flags = list(carrying)
    return Received(
        generation_at=study.generation_at,
        last_activity_at=study.last_activity_at,
        views={f"{row.laterality}-{row.view}" for row in views},
        open_associations=len(flags),
        in_flight=sum(flags),
        sliced=any(row.sliced for row in views),
    )


def rule_of(settings: Settings) -> Rule:
    """The completion rule of these settings."""
    return Rule(
        quiet_s=settings.quiet_s,
        views_quiet_s=settings.views_quiet_s,
        expected_views=frozenset(settings.expected_views),
        deadline_s=settings.deadline_s,
    )


def missing_views(session: Session, study: Study, settings: Settings) -> list[str]:
    """Expected views of which no image is here."""
    there = session.execute(
        select(Instance.laterality, Instance.view).where(
            Instance.study_id == study.id, Instance.is_image
        )
    )
    return sorted(set(settings.expected_views) - {f"{row.laterality}-{row.view}" for row in there})


def fresh_after(settings: Settings, at: datetime) -> datetime:
    """An association that the listener has not said to be open since then counts as closed."""
    return at - timedelta(seconds=max(5.0, 5 * settings.tick_s))


def verdict(session: Session, study: Study, settings: Settings, at: datetime) -> Verdict:
    """Whether to close this study now, and what it waits for if not."""
    return judge(received(session, study, fresh_after(settings, at)), rule_of(settings), at)


def close_due(session: Session, settings: Settings, model_version: str, at: datetime) -> int:
    """Close every study whose time has come; returns how many. One step of the relay."""
    session.execute(delete(Activity).where(Activity.seen_at < at - timedelta(seconds=600)))
    open_studies = (
        session.execute(select(Study).where(Study.state == StudyState.RECEIVING)).scalars().all()
    )
    closed = 0
    for study in open_studies:
        because = verdict(session, study, settings, at).because
        if because is not None:
            closed += close(session, study.id, because, settings, model_version, at)
    return closed


def close(
    session: Session,
    study_id: uuid.UUID,
    because: Because,
    settings: Settings,
    model_version: str,
    at: datetime,
) -> bool:
    """Close one study: to a queued run with its message, to COMPLETE without one where the routing rules want no model,
    or to EXCLUDED with the reason. False: it was not open.

    Raises:
        ConfigError: there are routing rules, and they were never without fault.
    """
    study = session.execute(
        select(Study).where(Study.id == study_id).with_for_update()
    ).scalar_one()
    images = session.execute(
        select(func.count()).where(Instance.study_id == study_id, Instance.is_image)
    ).scalar_one()
    reason = None
    if not images:
        reason = _aside(session, study_id) or (
            "nothing in it that the model reads (tomosynthesis, or mammography for presentation)"
        )
    elif because == "deadline" and settings.deadline_policy == "exclude":
        reason = f"not complete {settings.deadline_s:.0f} s after its first image"
    event = StudyEvent.EXCLUDE if reason else StudyEvent.CLOSE
    changed = transition(
        session,
        Study,
        event,
        [Study.id == study_id, Study.generation == study.generation],
        completed_at=at,
        completed_because=because,
        excluded_reason=reason,
    )
    if not changed:
        return False
    timeline.add(
        session, study_id, at, "excluded" if reason else "complete", reason or f"closed: {because}"
    )
    supersede(session, study_id, study.generation, at)
    if reason is None:
        _follow(
            session, study, routing.decide(session, study, settings, model_version), settings, at
        )
    return True


def _aside(session: Session, study_id: uuid.UUID) -> str | None:
    """Why an object of the study is kept aside; None where none is."""
    query = select(Instance.kept_aside).where(
        Instance.study_id == study_id, Instance.kept_aside.is_not(None)
    )
    return session.execute(query.order_by(Instance.sop_uid).limit(1)).scalar_one_or_none()


def _follow(
    session: Session, study: Study, decided: Decision, settings: Settings, at: datetime
) -> None:
    """Queue the run of a study that has closed, as the routing rules want it, and what reads beside it in shadow."""
    generation = study.generation
    if decided.said:
        kind = "not read" if decided.version is None else "routed"
        timeline.add(session, study.id, at, kind, decided.said)
    if decided.version is None:
        return
    queue_run(session, study.id, generation, settings, decided.version, at, route=decided.route)
    for version in registry.shadows(session):
        if version.version != decided.version:
            queue_run(session, study.id, generation, settings, version.version, at, shadow=True)


def queue_run(
    session: Session,
    study_id: uuid.UUID,
    generation: int,
    settings: Settings,
    model_version: str,
    at: datetime,
    *,
    shadow: bool = False,
    route: dict[str, Any] | None = None,
) -> uuid.UUID:
    """A new run with its message; it names the run it replaces, if any. `route` is what the routing rules say.

    A run in shadow replaces nothing, and its message waits until no other run does (`node.runs.dispatch_due`).
    """
    predecessor = None if shadow else newest_run_id(session, study_id)
    run = Run(
        id=uuid.uuid4(),
        study_id=study_id,
        generation=generation,
        model_version=model_version,
        shadow=shadow,
        route=route,
        max_attempts=settings.max_attempts,
        not_before=at,
        dispatched_at=None if shadow else at,
        predecessor_id=predecessor,
        created_at=at,
    )
    session.add(run)
    if not shadow:
        outbox.post(session, outbox.INFER, run.id, at)
    return run.id


def newest_run_id(session: Session, study_id: uuid.UUID) -> uuid.UUID | None:
    """The newest run that answers for a study; what is read in shadow never does."""
    query = select(Run.id).where(Run.study_id == study_id, Run.shadow.is_(False))
    return session.execute(query.order_by(Run.created_at.desc()).limit(1)).scalar_one_or_none()


def supersede(session: Session, study_id: uuid.UUID, generation: int, at: datetime) -> None:
    """Runs of earlier generations no longer count, and what of them was not sent is cancelled."""
    old = (
        session.execute(
            select(Run.id).where(
                Run.study_id == study_id,
                Run.generation < generation,
                Run.state != RunState.SUPERSEDED,
            )
        )
        .scalars()
        .all()
    )
    for run_id in old:
        transition(
            session, Run, RunEvent.SUPERSEDE, [Run.id == run_id], lease_until=None, finished_at=at
        )
        cancel_deliveries(session, run_id)
        rows.withdraw(session, run_id)
        timeline.add(
            session, study_id, at, "superseded", f"run {run_id} replaced by generation {generation}"
        )


def cancel_deliveries(session: Session, run_id: uuid.UUID) -> None:
    """Cancel what of a run was not sent."""
    transition(
        session, Delivery, DeliveryEvent.CANCEL, [Delivery.run_id == run_id], lease_until=None
    )


def force_complete(
    session: Session, study_uid: str, settings: Settings, model_version: str, at: datetime
) -> None:
    """Close a receiving study because an operator says so.

    Raises:
        NotFound: no such study.
        Conflict: it is not receiving.
    """
    study = find(session, study_uid)
    if not close(session, study.id, "operator", settings, model_version, at):
        raise Conflict(f"study {study_uid} is {study.state}, not RECEIVING; nothing to complete")


def find(session: Session, study_uid: str) -> Study:
    """A study by its UID or by the node's own id.

    Raises:
        NotFound: no such study.
    """
    study = session.execute(select(Study).where(Study.study_uid == study_uid)).scalar_one_or_none()
    if study is None:
        try:
            study = session.get(Study, uuid.UUID(study_uid))
        except ValueError:
            study = None
    if study is None:
        raise NotFound(f"no study {study_uid!r}; `tomonode study list` shows what is here")
    return study
