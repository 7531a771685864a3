"""The catalogue made again from the blobs: after an upgrade, or where the doctor finds objects without a row.

It may run while the node works, be killed at any moment and be started again: a transaction lists a part of one study
and holds that study alone, a row is replaced by a new reading of the same bytes, and what cannot be read keeps the row
it has.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import delete, exists, select
from sqlalchemy.orm import Session

from dicom_io.errors import UnreadableDataset
from node.blobs import BlobStore
from node.catalogue import rows
from node.catalogue.described import Header, read
from node.db import Database
from node.exchange_models import CatalogueRow
from node.models import Artifact, Instance, Run, Study

_PART = 50  # objects that one transaction lists


@dataclass(frozen=True)
class Done:
    """What became of a few objects: how many are listed, and which cannot be read (SOP Instance UIDs)."""

    listed: int
    unreadable: tuple[str, ...]


@dataclass(frozen=True)
class _Object:
    id: uuid.UUID
    sop_uid: str
    sha256: str


def rebuild(db: Database, store: BlobStore, only_missing: bool = False) -> Iterator[Done]:
    """List every object anew, or only those without a row, and remove rows of what is not given out; lazily, a few
    objects at a time. What `studies` does not say of patient and study is filled on the way, the first received object
    first.

    Raises:
        DatabaseUnavailable, BlobStoreUnavailable, DiskFull: start it again, it finds what it has done.
    """
    for study_id in _studies(db):
        with db.reading() as session:
            received, made = _todo(session, study_id, only_missing)
        for part in _parts(received):
            yield _list_instances(db, study_id, part, _headers(store, part))
        for part in _parts(made):
            yield _list_artifacts(db, study_id, part, _headers(store, part))
    _remove_unlisted(db)


def _studies(db: Database) -> Iterator[uuid.UUID]:
    last: uuid.UUID | None = None
    while True:
        query = select(Study.id).order_by(Study.id).limit(1000)
        with db.reading() as session:
            query = query if last is None else query.where(Study.id > last)
            found = session.execute(query).scalars().all()
        if not found:
            return
        yield from found
        last = found[-1]


def _todo(
    session: Session, study_id: uuid.UUID, only_missing: bool
) -> tuple[list[_Object], list[_Object]]:
    """Received objects in the order they came, and what runs made."""
    received = rows.instances().where(Instance.study_id == study_id)
    made = rows.artifacts().where(Run.study_id == study_id)
    if only_missing:
        received = received.where(~exists().where(CatalogueRow.instance_id == Instance.id))
        made = made.where(~exists().where(CatalogueRow.artifact_id == Artifact.id))
    came = session.execute(received.order_by(Instance.received_at, Instance.id)).scalars()
    return (
        [_Object(one.id, one.sop_uid, one.sha256) for one in came],
        [
            _Object(one.id, one.sop_uid or "", one.sha256)
            for one in session.execute(made.order_by(Artifact.id)).scalars()
        ],
    )


def _parts(objects: Sequence[_Object]) -> Iterator[Sequence[_Object]]:
    return (objects[start : start + _PART] for start in range(0, len(objects), _PART))


def _headers(store: BlobStore, part: Sequence[_Object]) -> dict[uuid.UUID, Header]:
    found = {}
    for one in part:
        try:
            found[one.id] = read(store.fetch(one.sha256))
        except (FileNotFoundError, UnreadableDataset):
            continue  # said in `Done`
    return found


def _list_instances(
    db: Database, study_id: uuid.UUID, part: Sequence[_Object], headers: dict[uuid.UUID, Header]
) -> Done:
    with db.transaction() as session:
        study = _lock(session, study_id)
        still = {
            one.id: one
            for one in session.execute(rows.instances().where(Instance.id.in_(headers))).scalars()
        }
        for one in part:  # in the order they came
            if one.id in still:
                rows.fill_study(session, study, headers[one.id].of_study)
                rows.add_instance(session, still[one.id], headers[one.id].described)
    return _done(part, headers, len(still))


def _list_artifacts(
    db: Database, study_id: uuid.UUID, part: Sequence[_Object], headers: dict[uuid.UUID, Header]
) -> Done:
    with db.transaction() as session:
        _lock(session, study_id)
        # whoever supersedes such a run waits for us, and withdraws what we list
        still = rows.artifacts().where(Artifact.id.in_(headers)).with_for_update(read=True, of=Run)
        found = session.execute(still).scalars().all()
        for artifact in found:
            rows.add_artifact(session, study_id, artifact, headers[artifact.id])
    return _done(part, headers, len(found))


def _lock(session: Session, study_id: uuid.UUID) -> Study:
    # of a strength that lets others refer to the study meanwhile
    query = select(Study).where(Study.id == study_id).with_for_update(key_share=True)
    return session.execute(query).scalar_one()


def _done(part: Sequence[_Object], headers: dict[uuid.UUID, Header], listed: int) -> Done:
    return Done(listed, tuple(one.sop_uid for one in part if one.id not in headers))


def _remove_unlisted(db: Database) -> None:
    received = select(rows.instances().subquery().c.id)
    made = select(rows.artifacts().subquery().c.id)
    with db.transaction() as session:
        session.execute(
            delete(CatalogueRow).where(
                (CatalogueRow.instance_id.is_not(None) & CatalogueRow.instance_id.not_in(received))
                | (CatalogueRow.artifact_id.is_not(None) & CatalogueRow.artifact_id.not_in(made))
            )
        )
