"""Digests of patients: how one is made, and whether those of several data sets come from the secret that is here.

Only digests of one secret tell that two data sets share a patient: with another secret the same patient is nobody.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from node.datasets.secret import key_path, keyed, load_key
from node.errors import Conflict
from node.learning_models import Dataset, DatasetItem
from node.models import Study


def patient_digest(key: bytes, patient_id: str | None, study_uid: str) -> str:
    """Digest of the patient: of the patient ID, or, where the study has none, of its UID alone."""
    if patient_id is None:
        return keyed(key, "study", study_uid)
    return keyed(key, "patient", patient_id)


def secret_to_freeze_with(session: Session, home: Path) -> bytes:
    """The secret for a new data set; made where no data set exists.

    One data set of this secret is enough: what was frozen with a lost one stays, and comparisons refuse it.

    Raises:
        Conflict: it is missing while data sets exist, or none of them was frozen with it.
        ConfigError: see `load_key`.
    """
    ids = session.execute(select(Dataset.id).order_by(Dataset.created_at.desc())).scalars().all()
    key = load_key(home, make=not ids)
    fits = [found for found in (_fits(session, key, one) for one in ids) if found is not None]
    if fits and not any(fits):
        raise Conflict(
            f"secret {key_path(home)} is not the one that the {len(fits)} data sets here were frozen with, so nobody"
            " could tell whether they share a patient; put back the copy of your backup, or of the host that froze them"
        )
    return key


def require_one_secret(session: Session, home: Path, dataset_ids: Iterable[uuid.UUID]) -> None:
    """Check that patients of these data sets can be told to be the same; one data set always can.

    Raises:
        Conflict: the secret is missing, or a data set was frozen with another one.
        ConfigError: see `load_key`.
    """
    ids = sorted(set(dataset_ids))
    if len(ids) < 2:
        return
    key = load_key(home)
    for one in ids:
        if _fits(session, key, one) is False:
            name = session.get_one(Dataset, one).name
            raise Conflict(
                f"data set {name!r} was not frozen with secret {key_path(home)}, so patients that a model learned from"
                " cannot be told from others; put back the copy of your backup, or of the host that froze it, or"
                " freeze it again and train on that"
            )


def _fits(session: Session, key: bytes, dataset_id: uuid.UUID) -> bool | None:
    """Whether a data set's digests are of this key, by one of its studies; None where it has none that is here."""
    query = (
        select(DatasetItem.patient, Study.patient_id, Study.study_uid)
        .join(Study, Study.study_uid == DatasetItem.study_uid)
        .where(DatasetItem.dataset_id == dataset_id)
        .limit(1)
    )
    row = session.execute(query).first()
    if row is None:
        return None
    return bool(row.patient == patient_digest(key, row.patient_id, row.study_uid))
