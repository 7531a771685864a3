"""Data sets in the database: find, list, write once, check. Triggers refuse every change and removal of their rows."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence

from sqlalchemy import insert, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from node.datasets.content import content_hash
from node.errors import Conflict, NotFound
from node.learning_models import Dataset, DatasetExclusion, DatasetItem
from node.models import Base

_BATCH = 1000


def find(session: Session, name: str) -> Dataset:
    """A data set by its name.

    Raises:
        NotFound: no such data set.
    """
    found = session.execute(select(Dataset).where(Dataset.name == name)).scalar_one_or_none()
    if found is None:
        raise NotFound(f"no data set {name!r}; `tomonode dataset list` shows what is here")
    return found


def listed(session: Session) -> Sequence[Dataset]:
    """Every data set, newest first."""
    query = select(Dataset).order_by(Dataset.created_at.desc(), Dataset.name)
    return session.execute(query).scalars().all()


def items(session: Session, dataset_id: uuid.UUID, split: str | None = None) -> list[DatasetItem]:
    """The images of a data set, or of one of its splits, by SOP Instance UID."""
    query = select(DatasetItem).where(DatasetItem.dataset_id == dataset_id)
    if split is not None:
        query = query.where(DatasetItem.split == split)
    return list(session.execute(query.order_by(DatasetItem.sop_uid)).scalars())


def exclusions(session: Session, dataset_id: uuid.UUID) -> list[DatasetExclusion]:
    """What was left out, by study and image."""
    query = select(DatasetExclusion).where(DatasetExclusion.dataset_id == dataset_id)
    found = session.execute(query).scalars()
    return sorted(found, key=lambda one: (one.study_uid, one.sop_uid or ""))


def save(
    session: Session,
    dataset: Dataset,
    contents: Sequence[DatasetItem],
    left_out: Sequence[DatasetExclusion],
) -> bool:
    """Write a data set with all its rows, once. False: it is there already, with the same content.

    Raises:
        Conflict: another data set has the name.
    """
    to_insert = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    # Of two processes at once the second waits here, and then sees the first one's row.
    session.execute(
        to_insert(Dataset)
        .values(**_values(dataset))
        .on_conflict_do_nothing(index_elements=["name"])
    )
    known = find(session, dataset.name)
    if known.id != dataset.id:
        if known.content_hash != dataset.content_hash:
            raise Conflict(
                f"data set {dataset.name!r} is frozen with other content ({known.content_hash[:12]}, this would be"
                f" {dataset.content_hash[:12]}); a frozen data set does not change: give another name"
            )
        return False
    for batch in _batches(contents):
        session.execute(insert(DatasetItem), batch)
    for batch in _batches(left_out):
        session.execute(insert(DatasetExclusion), batch)
    return True


def verify(session: Session, dataset: Dataset) -> None:
    """Check that the rows are those that were frozen.

    Raises:
        Conflict: something was added or changed in the database, behind the node's back.
    """
    rows = items(session, dataset.id), exclusions(session, dataset.id)
    if content_hash(dataset.rule, *rows) != dataset.content_hash:
        raise Conflict(
            f"data set {dataset.name!r} is not what was frozen: its rows do not give its hash"
            f" {dataset.content_hash[:12]}; restore the database from a backup"
        )


def _values(row: Base) -> dict[str, object]:
    """A row's columns; the database counts up an id that is not given."""
    values = {column.key: getattr(row, column.key) for column in row.__table__.columns}
    return {name: value for name, value in values.items() if name != "id" or value is not None}


def _batches(rows: Sequence[Base]) -> Iterator[list[dict[str, object]]]:
    for start in range(0, len(rows), _BATCH):
        yield [_values(row) for row in rows[start : start + _BATCH]]
