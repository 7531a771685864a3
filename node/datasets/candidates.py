"""Studies with their labels, read from the database, and the headers of their images, read from the blob store."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from datetime import date
from functools import partial
from typing import TypeVar

from sqlalchemy import select
from sqlalchemy.orm import Session

from dicom_io.dbt import open_image
from dicom_io.errors import ImageRefused, UnreadableDataset
from node.blobs import BlobStore
from node.datasets.eligibility import Candidate, Look, Object, Refused, Seen
from node.datasets.rule import Rule
from node.datasets.strata import strata
from node.labels.rule import dicom_date
from node.labels.store import newest_assessments, pathology_revisions
from node.labels.values import LATERALITIES
from node.models import Instance, Study

_Label = TypeVar("_Label")
_BATCH = 500  # studies a query; SQLite takes a limited number of parameters


def in_range(session: Session, rule: Rule) -> list[Candidate]:
    """Every study of the rule's range, and those without a usable date, which are in no range; by study UID."""
    dated = session.execute(select(Study.id, Study.study_date).order_by(Study.study_uid)).all()
    wanted = []
    for study_id, text in dated:
        day = dicom_date(text)
        if day is None or rule.since <= day <= rule.until:
            wanted.append(study_id)
    return candidates(session, wanted)


def candidates(session: Session, study_ids: Sequence[uuid.UUID]) -> list[Candidate]:
    """These studies with their objects and labels, by study UID."""
    found: list[Candidate] = []
    for start in range(0, len(study_ids), _BATCH):
        found += _batch(session, study_ids[start : start + _BATCH])
    return sorted(found, key=lambda study: study.study_uid)


def _batch(session: Session, study_ids: Sequence[uuid.UUID]) -> list[Candidate]:
    objects: dict[uuid.UUID, list[Object]] = {study_id: [] for study_id in study_ids}
    columns = (Instance.study_id, Instance.sop_uid, Instance.sop_class_uid, Instance.sha256)
    for study_id, *values in session.execute(
        select(*columns).where(Instance.study_id.in_(study_ids))
    ):
        objects[study_id].append(Object(*values))
    pathology = pathology_revisions(session, study_ids)
    assessments = newest_assessments(session, study_ids)
    studies = session.execute(select(Study).where(Study.id.in_(study_ids))).scalars()
    return [
        Candidate(
            id=study.id,
            study_uid=study.study_uid,
            state=study.state,
            excluded_reason=study.excluded_reason,
            patient_id=study.patient_id,
            study_date=dicom_date(study.study_date),
            objects=tuple(objects[study.id]),
            pathology=_sides(pathology, study.id),
            assessments=_sides(assessments, study.id),
        )
        for study in studies
    ]


def _sides(rows: Mapping[tuple[uuid.UUID, str], _Label], study_id: uuid.UUID) -> dict[str, _Label]:
    return {side: rows[study_id, side] for side in LATERALITIES if (study_id, side) in rows}


def reader(blobs: BlobStore, key: bytes) -> Look:
    """A function that reads an image's header; `key` is the node's secret for sites."""
    return partial(_look, blobs, key)


def _look(blobs: BlobStore, key: bytes, one: Object, day: date) -> Seen | Refused:
    try:
        image = open_image(blobs.fetch(one.sha256))
    except ImageRefused as error:
        return Refused(error.code.value, str(error))
    except UnreadableDataset as error:
        return Refused("unreadable", str(error))
    except FileNotFoundError:
        return Refused("missing", "the image's bytes are not in the blob store any more")
    return Seen(image.laterality, image.view, strata(image.dataset, day, key))
