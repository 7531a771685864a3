"""The work list: which studies, newest first, and how many have each status word."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from node.config import Settings
from node.errors import ConfigError
from node.models import Instance, Study
from node.views.rows import StudyRow, study_rows
from node.views.status import shape, with_shape, word_of_shapes

#: Every word `lifecycle.status` can say, in the order of a study's journey; what needs a person first.
STATUSES = (
    "failed",
    "delivery failed",
    "excluded",
    "receiving",
    "queued",
    "running",
    "delivering",
    "delivered",
    "done",
    "not read",
)

MAX_ROWS = 1000


@dataclass(frozen=True)
class Filter:
    """Which studies: a status word; text in the Study Instance UID or a calling AE title, or a whole accession number.

    Raises:
        ConfigError: no such status, or a limit out of bounds.
    """

    status: str | None = None
    text: str | None = None
    limit: int = 100
    offset: int = 0

    def __post_init__(self) -> None:
        if self.status is not None and self.status not in STATUSES:
            raise ConfigError(f"status {self.status!r} is none of {', '.join(STATUSES)}")
        if not 1 <= self.limit <= MAX_ROWS or self.offset < 0:
            raise ConfigError(
                f"limit {self.limit}, offset {self.offset}: give a limit of 1 to {MAX_ROWS} and no negative offset"
            )


@dataclass(frozen=True)
class WorkList:
    """A part of the work list, newest first, and how many studies the filter matches in all."""

    rows: tuple[StudyRow, ...]
    total: int


def work_list(session: Session, wanted: Filter, settings: Settings, at: datetime) -> WorkList:
    """The studies that the filter matches, newest first."""
    matching = select(Study.id).where(*_conditions(wanted))
    if wanted.status:
        matching = with_shape(matching)
    total = session.execute(select(func.count()).select_from(matching.subquery())).scalar_one()
    page = matching.order_by(Study.received_at.desc(), Study.id)
    ids = session.execute(page.limit(wanted.limit).offset(wanted.offset)).scalars()
    rows = study_rows(session, list(ids), settings, at)
    return WorkList(rows, total)


def count_by_status(session: Session) -> dict[str, int]:
    """How many studies have each status word; every word is there."""
    words = word_of_shapes()
    counts = dict.fromkeys(STATUSES, 0)
    query = with_shape(select(shape().label("shape"), func.count()).select_from(Study))
    for found, count in session.execute(query.group_by("shape")):
        counts[words[found]] += count
    return counts


def _conditions(wanted: Filter) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if wanted.status:
        shapes = [text for text, word in word_of_shapes().items() if word == wanted.status]
        conditions.append(shape().in_(shapes))
    if wanted.text:
        sent_by = select(Instance.study_id).where(
            Instance.calling_ae.icontains(wanted.text, autoescape=True)
        )
        conditions.append(
            Study.study_uid.contains(wanted.text, autoescape=True)
            | (Study.accession_number == wanted.text)
            | Study.id.in_(sent_by)
        )
    return conditions
