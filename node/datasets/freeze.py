"""Freezing: judge every study of a range, split the patients, write the snapshot.

Headers are read with no transaction open. What is frozen is what the labels and studies were when they were read.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from node.blobs import BlobStore
from node.config import Settings
from node.datasets import store
from node.datasets.candidates import in_range, reader
from node.datasets.content import content_hash, counts
from node.datasets.digests import patient_digest, secret_to_freeze_with
from node.datasets.eligibility import Excluded, Included, judge
from node.datasets.rule import Rule, check_name
from node.datasets.split import Exam, split_patients
from node.db import Database, now
from node.errors import Conflict
from node.labels.values import name_of
from node.learning_models import Dataset, DatasetExclusion, DatasetItem


@dataclass(frozen=True)
class Wish:
    """What a person asks for: a name, a rule, and whether one class in train or test will do."""

    name: str
    rule: Rule
    by: str
    allow_one_class: bool = False


@dataclass(frozen=True)
class Frozen:
    """The data set, and whether this call wrote it (else it was there, with the same content)."""

    dataset: Dataset
    new: bool


def freeze(db: Database, settings: Settings, wish: Wish) -> Frozen:
    """Freeze a data set under a name; again with the same content it is a no-op.

    Raises:
        ConfigError: the name cannot be used.
        InvalidLabel: `by` is no name.
        Conflict: the name is taken by other content; too few patients; one class alone in train or test; the
            secret is missing, or not the one of the data sets that exist.
    """
    check_name(wish.name)
    name_of("by", wish.by)
    with db.reading() as session:
        key = secret_to_freeze_with(session, settings.home)
        at = now(session)
        found = in_range(session, wish.rule)
    look = reader(BlobStore.of(settings), key)
    verdicts = [v for study in found for v in judge(study, wish.rule, at.date(), look)]
    snapshot = assemble(wish, verdicts, key, at)
    with db.transaction() as session:
        secret_to_freeze_with(session, settings.home)  # another host may have frozen meanwhile
        new = store.save(session, *snapshot)
        dataset = store.find(session, wish.name)
    return Frozen(dataset, new)


def assemble(
    wish: Wish, verdicts: Iterable[Included | Excluded], key: bytes, at: datetime
) -> tuple[Dataset, list[DatasetItem], list[DatasetExclusion]]:
    """The rows of a data set. Pure, but for its id.

    Raises:
        Conflict: too few patients, or one class alone in train or test.
    """
    dataset_id = uuid.uuid4()
    included: list[Included] = []
    exclusions: list[DatasetExclusion] = []
    for verdict in verdicts:
        if isinstance(verdict, Included):
            included.append(verdict)
        else:
            exclusions.append(DatasetExclusion(dataset_id=dataset_id, **vars(verdict)))
    items = _items(dataset_id, included, key)
    figures = counts(items, exclusions)
    if figures["one_class"] and not wish.allow_one_class:
        raise Conflict(
            f"data set {wish.name!r} is not frozen: {'; '.join(figures['one_class'])}; widen the range, wait for"
            " pathology, or give --allow-one-class"
        )
    rule = wish.rule.as_json()
    dataset = Dataset(
        id=dataset_id,
        name=wish.name,
        rule=rule,
        content_hash=content_hash(rule, items, exclusions),
        counts=figures,
        created_by=wish.by,
        created_at=at,
    )
    return dataset, items, exclusions


def _items(dataset_id: uuid.UUID, included: list[Included], key: bytes) -> list[DatasetItem]:
    patients = [patient_digest(key, one.patient_id, one.study_uid) for one in included]
    exams = [
        Exam(one.study_date, one.study_uid, patient)
        for one, patient in zip(included, patients, strict=True)
    ]
    splits = split_patients(exams)
    return [
        DatasetItem(
            dataset_id=dataset_id,
            sop_uid=one.object.sop_uid,
            sop_class_uid=one.object.sop_class_uid,
            sha256=one.object.sha256,
            study_uid=one.study_uid,
            patient=patient,
            laterality=one.laterality,
            view=one.view,
            split=splits[patient],
            benign=one.benign,
            malignant=one.malignant,
            birads=one.birads,
            pathology_revision=one.pathology_revision,
            assessment_revision=one.assessment_revision,
            strata=dict(one.strata),
        )
        for one, patient in zip(included, patients, strict=True)
    ]
