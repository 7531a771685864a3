"""What tables of revisions share: where a label comes from, the lock, the newest revision of each."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import NotRequired, TypedDict, TypeVar

from sqlalchemy import Select, and_, func, select
from sqlalchemy.orm import Session

from node.labels.values import name_of
from node.learning_models import Assessment, Pathology
from node.models import Study

Breast = tuple[uuid.UUID, str]
"""A study and "L" or "R"."""

_Revised = TypeVar("_Revised", Pathology, Assessment)
CHUNK = 500
"""How many values a statement carries."""


class Origin(TypedDict):
    """Where a label comes from, and when it was given here."""

    source: str
    author: str
    at: datetime
    import_id: NotRequired[uuid.UUID | None]


def newest_pathology(
    session: Session, study_ids: Iterable[uuid.UUID] | None = None
) -> dict[Breast, Pathology]:
    """The newest revision a breast, of these studies or of all."""
    return _newest(session, Pathology, study_ids)


def pathology_revisions(
    session: Session, study_ids: Iterable[uuid.UUID]
) -> dict[Breast, list[Pathology]]:
    """Every revision of each breast of these studies, newest first."""
    found: dict[Breast, list[Pathology]] = {}
    for chunk in chunks(study_ids):
        query = select(Pathology).where(Pathology.study_id.in_(chunk))
        for row in session.execute(query.order_by(Pathology.revision.desc())).scalars():
            found.setdefault((row.study_id, row.laterality), []).append(row)
    return found


def newest_assessments(
    session: Session, study_ids: Iterable[uuid.UUID] | None = None
) -> dict[Breast, Assessment]:
    """The newest BI-RADS category a breast, of these studies or of all."""
    return _newest(session, Assessment, study_ids)


def chunks(ids: Iterable[uuid.UUID]) -> Iterable[Sequence[uuid.UUID]]:
    """Ids in lists that a statement can carry, sorted, so that whoever locks them does so in one order."""
    ordered = sorted(set(ids))
    return [ordered[start : start + CHUNK] for start in range(0, len(ordered), CHUNK)]


def lock(session: Session, study_ids: Iterable[uuid.UUID]) -> None:
    """Let nobody else write a revision of these studies until the transaction ends."""
    for chunk in chunks(study_ids):
        query = select(Study.id).where(Study.id.in_(chunk)).order_by(Study.id)
        # a share of the key is left: rows that refer to the study can still be written
        session.execute(query.with_for_update(key_share=True))


def columns(origin: Origin) -> dict[str, object]:
    """The columns that say where a row comes from. Raises InvalidLabel where a name cannot be one."""
    return {
        "source": name_of("source", origin["source"]),
        "author": name_of("author", origin["author"]),
        "import_id": origin.get("import_id"),
        "created_at": origin["at"],
    }


def line_of(laterality: str, revision: int, what: str) -> str:
    """A line of the study's history."""
    return f"{laterality}: {what} (revision {revision})"


def _newest(
    session: Session, table: type[_Revised], study_ids: Iterable[uuid.UUID] | None
) -> dict[Breast, _Revised]:
    if study_ids is None:
        rows = list(session.execute(_newest_query(table)).scalars())
    else:
        rows = []
        for chunk in chunks(study_ids):
            query = _newest_query(table).where(table.study_id.in_(chunk))
            rows += session.execute(query).scalars()
    return {(row.study_id, row.laterality): row for row in rows}


def _newest_query(table: type[_Revised]) -> Select[_Revised]:
    top = (
        select(table.study_id, table.laterality, func.max(table.revision).label("revision"))
        .group_by(table.study_id, table.laterality)
        .subquery()
    )
    same = [table.study_id == top.c.study_id, table.laterality == top.c.laterality]
    return select(table).join(top, and_(*same, table.revision == top.c.revision))
