"""A study's history, one line an event, for people. No patient attribute."""

from __future__ import annotations

import uuid
from datetime import datetime

from sqlalchemy.orm import Session

from node.models import TimelineEvent


def add(session: Session, study_id: uuid.UUID, at: datetime, kind: str, message: str) -> None:
    """Add a line in the caller's transaction."""
    session.add(TimelineEvent(study_id=study_id, at=at, kind=kind, message=message))
