"""Following studies of the demonstration through the node's database, with a line a change."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from node import lifecycle
from node.db import Database
from node.models import Delivery, ImageResult, Run, Study
from workers.errors import DemoFailed

_POLL_S = 0.3
_STILL_S = 15.0  # without a change, a line says so

FINAL = frozenset({"delivered", "excluded", "failed", "delivery failed", "done"})

Say = Callable[[str], None]


@dataclass(frozen=True)
class Progress:
    """Where a study stands: the one word for people, and why where it did not succeed."""

    study_uid: str
    status: str
    reason: str | None
    stage_seconds: dict[str, Any]
    left_out: dict[str, str]  # reason by SOP Instance UID


def follow(
    db: Database,
    study_uids: Collection[str],
    check: Callable[[], None],
    say: Say,
    limit_s: float,
) -> list[Progress]:
    """Wait until every study came to an end, good or bad.

    Args:
        db: the node's database.
        study_uids: what to wait for.
        check: called at each look; raises when there is nothing to wait for any more.
        say: gets each change, with the seconds since the beginning.
        limit_s: seconds to wait at most.

    Raises:
        DemoFailed: not all came to an end in time.
    """
    started = spoke = time.monotonic()
    shown: dict[str, str] = {}
    while True:
        check()
        with db.reading() as session:
            found = [progress for uid in sorted(study_uids) if (progress := _look(session, uid))]
        elapsed = time.monotonic() - started
        for progress in found:
            if shown.get(progress.study_uid) != progress.status:
                shown[progress.study_uid] = progress.status
                spoke = time.monotonic()
                say(f"{elapsed:6.1f} s  study ...{progress.study_uid[-12:]}  {progress.status}")
        if len(found) == len(study_uids) and all(p.status in FINAL for p in found):
            return found
        if elapsed > limit_s:
            raise DemoFailed(
                f"not through after {limit_s:.0f} s; {', '.join(sorted(shown.values()))}; see the node's logs"
            )
        if time.monotonic() - spoke > _STILL_S:
            spoke = time.monotonic()
            say(f"{elapsed:6.1f} s  still {', '.join(sorted(set(shown.values())))}")
        time.sleep(_POLL_S)


def _look(session: Session, study_uid: str) -> Progress | None:
    study = session.execute(select(Study).where(Study.study_uid == study_uid)).scalar_one_or_none()
    if study is None:
        return None
    run = session.execute(
        select(Run)
        .where(Run.study_id == study.id, Run.shadow.is_(False))
        .order_by(Run.created_at.desc())
        .limit(1)
    ).scalar_one_or_none()
    if run is None:
        status = lifecycle.status(study.state, None, [])
        return Progress(study_uid, status, study.excluded_reason, {}, {})
    sent = session.execute(
        select(Delivery.state, Delivery.error).where(Delivery.run_id == run.id)
    ).all()
    left_out = session.execute(
        select(ImageResult.sop_uid, ImageResult.excluded_reason).where(
            ImageResult.run_id == run.id, ImageResult.excluded_reason.is_not(None)
        )
    ).all()
    return Progress(
        study_uid,
        lifecycle.status(study.state, run.state, [row.state for row in sent]),
        study.excluded_reason or run.error or next((r.error for r in sent if r.error), None),
        dict(run.stage_seconds or {}),
        {row.sop_uid: row.excluded_reason or "" for row in left_out},
    )
