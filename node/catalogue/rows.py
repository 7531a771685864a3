"""The catalogue's rows, written in the transaction that writes the object they are of.

Listed are received objects, and what runs made that answer for their study: neither in shadow nor superseded.
Quarantined objects are no instances and so have no row. A result of ours that a PACS sent back is the run's object and
not another: it goes with its run.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import fields

from sqlalchemy import Select, delete, exists, func, select, update
from sqlalchemy.orm import Session

from dicom_io.errors import UnreadableDataset
from node import log
from node.blobs import BlobStore
from node.catalogue.described import Described, Header, OfStudy, read
from node.exchange_models import CatalogueRow
from node.lifecycle import RunState
from node.models import Artifact, Instance, Run, Study
from node.results import TWIN


def instances() -> Select[Instance]:
    """Received objects that may be given out."""
    ours = exists().where(Artifact.sop_uid == Instance.sop_uid)
    return select(Instance).where(~ours)


def artifacts() -> Select[Artifact]:
    """Results that may be given out."""
    answers = (Run.state == RunState.SUCCEEDED) & Run.shadow.is_(False)
    listed = Artifact.sop_uid.is_not(None) & (Artifact.kind != TWIN)
    return select(Artifact).join(Run).where(answers, listed)


def without_row(session: Session) -> int:
    """How many objects should be listed and are not."""
    no_instance = ~exists().where(CatalogueRow.instance_id == Instance.id)
    no_artifact = ~exists().where(CatalogueRow.artifact_id == Artifact.id)
    missing = (instances().where(no_instance), artifacts().where(no_artifact))
    return sum(
        session.execute(select(func.count()).select_from(query.subquery())).scalar_one()
        for query in missing
    )


def headers(store: BlobStore, digests: Sequence[str]) -> dict[str, Header]:
    """Headers of stored results by their sha256, of those that can be read; asked for before a transaction begins.

    Raises:
        BlobStoreUnavailable, BlobDamaged, DiskFull: of a shared store.
    """
    found = {}
    for sha256 in digests:
        try:
            found[sha256] = read(store.fetch(sha256))
        except (FileNotFoundError, UnreadableDataset) as error:
            log.get().warning("not catalogued", sha256=sha256, code=type(error).__name__)
    return found


def add_instance(session: Session, instance: Instance, described: Described) -> None:
    """List a received object whose row is flushed; one that lists already is listed anew. Not one of our results."""
    ours = select(Artifact.id).where(Artifact.sop_uid == instance.sop_uid)
    if session.execute(ours).first() is not None:
        return
    values = {**vars(described), "laterality": instance.laterality, "frames": instance.frames}
    row = CatalogueRow(
        sop_uid=instance.sop_uid,
        study_id=instance.study_id,
        instance_id=instance.id,
        series_uid=instance.series_uid,
        sop_class_uid=instance.sop_class_uid,
        transfer_syntax_uid=instance.transfer_syntax_uid,
        sha256=instance.sha256,
        size_bytes=instance.size_bytes,
        **values,
    )
    _put(session, row)


def add_artifact(session: Session, study_id: uuid.UUID, artifact: Artifact, header: Header) -> None:
    """List a result whose row is flushed; one that lists already is listed anew."""
    row = CatalogueRow(
        sop_uid=artifact.sop_uid,
        study_id=study_id,
        artifact_id=artifact.id,
        series_uid=header.series_uid,
        sop_class_uid=artifact.sop_class_uid,
        transfer_syntax_uid=header.transfer_syntax_uid,
        sha256=artifact.sha256,
        size_bytes=artifact.size_bytes,
        **vars(header.described),
    )
    _put(session, row)


def withdraw(session: Session, run_id: uuid.UUID) -> None:
    """What a run made is not given out any more."""
    made = select(Artifact.id).where(Artifact.run_id == run_id)
    session.execute(delete(CatalogueRow).where(CatalogueRow.artifact_id.in_(made)))


def fill_study(session: Session, study: Study, of_study: OfStudy) -> None:
    """Take what the study's row does not say yet: the first object that says a thing is believed."""
    said = {one.name: getattr(of_study, one.name) for one in fields(of_study)}
    new = {
        name: value
        for name, value in said.items()
        if value is not None and getattr(study, name) is None
    }
    if new:
        session.execute(update(Study).where(Study.id == study.id).values(**new))


def _put(session: Session, row: CatalogueRow) -> None:
    session.execute(delete(CatalogueRow).where(CatalogueRow.sop_uid == row.sop_uid))
    session.add(row)
    session.flush()
