"""The tables of learning: labels, frozen data sets, training runs, model versions, evaluations.

Labels and data sets are only ever added to; a correction is a new row with the next revision. Times are UTC, dates are
calendar days. Names of people are those who did something here (authors, approvers), never patients.
"""

from __future__ import annotations

import uuid
from datetime import date, datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ForeignKey,
    Index,
    LargeBinary,
    String,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from node.lifecycle import ModelState, TrainingState
from node.models import UID, Base, one_of

PERSON = String(128)
_LATERALITY = "laterality IN ('L', 'R')"
_SHA256 = "length(sha256) = 64"


class LabelImport(Base):
    """One import of a table of labels; its report is kept, and the file's digest makes a second import a no-op."""

    __tablename__ = "label_imports"
    __table_args__ = (CheckConstraint(_SHA256, name="sha256"),)

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    source: Mapped[str] = mapped_column(String(128))  # what to call the origin, e.g. a file's name
    sha256: Mapped[str] = mapped_column(String(64))
    author: Mapped[str] = mapped_column(PERSON)
    created_at: Mapped[datetime]
    counts: Mapped[dict[str, Any]]  # rows by outcome: matched, unchanged, ambiguous, unmatched, ...


class Pathology(Base):
    """What pathology said of one breast of one study: benign, malignant, both, or neither after all."""

    __tablename__ = "pathology"
    __table_args__ = (
        CheckConstraint(_LATERALITY, name="laterality"),
        CheckConstraint("revision >= 1", name="revision"),
        UniqueConstraint("study_id", "laterality", "revision"),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    study_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("studies.id"))
    laterality: Mapped[str] = mapped_column(String(1))
    revision: Mapped[int]  # the highest one counts
    benign: Mapped[bool]
    malignant: Mapped[bool]
    found_on: Mapped[date]  # day of the biopsy or surgery
    source: Mapped[str] = mapped_column(String(128))
    author: Mapped[str] = mapped_column(PERSON)
    note: Mapped[str | None] = mapped_column(Text)
    import_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("label_imports.id"))
    created_at: Mapped[datetime]


class Assessment(Base):
    """A radiologist's BI-RADS category of one breast of one study, as reported when it was read."""

    __tablename__ = "assessments"
    __table_args__ = (
        CheckConstraint(_LATERALITY, name="laterality"),
        CheckConstraint("revision >= 1", name="revision"),
        CheckConstraint("category BETWEEN 0 AND 6", name="category"),
        UniqueConstraint("study_id", "laterality", "revision"),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    study_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("studies.id"))
    laterality: Mapped[str] = mapped_column(String(1))
    revision: Mapped[int]
    category: Mapped[int]
    source: Mapped[str] = mapped_column(String(128))
    author: Mapped[str] = mapped_column(PERSON)
    import_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("label_imports.id"))
    created_at: Mapped[datetime]


class Annotation(Base):
    """A box around a lesion on one frame of one stored image, or the box around a mask on its largest frame.

    For evaluation only, never for training.
    """

    __tablename__ = "annotations"
    __table_args__ = (
        CheckConstraint("label IN ('benign', 'malignant')", name="label"),
        CheckConstraint("frame >= 0 AND row >= 0 AND col >= 0", name="place"),
        CheckConstraint("height > 0 AND width > 0", name="size"),
        CheckConstraint("(mask IS NULL) = (drawn_in IS NULL)", name="mask"),
        CheckConstraint("revision >= 1", name="revision"),
        UniqueConstraint("instance_id", "number", "revision"),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    instance_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("instances.id"))
    number: Mapped[int]  # of the box within the image, from 1
    revision: Mapped[int]
    label: Mapped[str] = mapped_column(String(16))
    frame: Mapped[int]  # stored frame, row and column from 0; the box is half-open
    row: Mapped[int]
    col: Mapped[int]
    height: Mapped[int]
    width: Mapped[int]
    mask: Mapped[bytes | None] = mapped_column(LargeBinary, deferred=True)  # dicom_io.outline
    drawn_in: Mapped[str | None] = mapped_column(String(80))  # of a mask: SEG's UID, "#", segment
    withdrawn: Mapped[bool] = mapped_column(default=False)
    source: Mapped[str] = mapped_column(String(128))
    author: Mapped[str] = mapped_column(PERSON)
    created_at: Mapped[datetime]


class Dataset(Base):
    """An immutable snapshot of images and labels, split by patient."""

    __tablename__ = "datasets"
    __table_args__ = (CheckConstraint("length(content_hash) = 64", name="content_hash"),)

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    name: Mapped[str] = mapped_column(String(64), unique=True)
    rule: Mapped[dict[str, Any]]  # since, until, window of pathology, shares of the splits, ...
    content_hash: Mapped[str] = mapped_column(String(64))
    counts: Mapped[dict[str, Any]]  # patients, breasts, images, classes by split
    created_by: Mapped[str] = mapped_column(PERSON)
    created_at: Mapped[datetime]


class DatasetItem(Base):
    """One image of a data set, with the labels of its breast as they were."""

    __tablename__ = "dataset_items"
    __table_args__ = (
        CheckConstraint("split IN ('train', 'valid', 'test')", name="split"),
        CheckConstraint(_LATERALITY, name="laterality"),
        CheckConstraint(_SHA256, name="sha256"),
        CheckConstraint("birads BETWEEN 0 AND 6", name="birads"),
    )

    dataset_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("datasets.id"), primary_key=True)
    sop_uid: Mapped[str] = mapped_column(UID, primary_key=True)
    sop_class_uid: Mapped[str] = mapped_column(UID)
    sha256: Mapped[str] = mapped_column(String(64))
    study_uid: Mapped[str] = mapped_column(UID)
    patient: Mapped[str] = mapped_column(String(64))  # digest of the patient ID, or the study UID's
    laterality: Mapped[str] = mapped_column(String(1))
    view: Mapped[str | None] = mapped_column(String(16))
    split: Mapped[str] = mapped_column(String(8))
    benign: Mapped[bool]
    malignant: Mapped[bool]
    birads: Mapped[int | None]
    pathology_revision: Mapped[int | None]  # None: negative because nothing came in the window
    assessment_revision: Mapped[int | None]
    strata: Mapped[dict[str, Any]]  # manufacturer, site, thickness_mm, age band: as the header says


class DatasetExclusion(Base):
    """Why a study, or one image of it, is not in a data set."""

    __tablename__ = "dataset_exclusions"
    __table_args__ = (Index("ix_dataset_exclusions_dataset_id", "dataset_id"),)

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    dataset_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("datasets.id"))
    study_uid: Mapped[str] = mapped_column(UID)
    sop_uid: Mapped[str | None] = mapped_column(UID)  # None: the whole study
    code: Mapped[str] = mapped_column(String(32))
    reason: Mapped[str] = mapped_column(Text)


class TrainingRun(Base):
    """One training: which data, from which model, by which recipe, and how far it is."""

    __tablename__ = "training_runs"
    __table_args__ = (
        one_of("state", TrainingState),
        CheckConstraint("attempt >= 0", name="attempt"),
        CheckConstraint("(state = 'RUNNING') = (lease_until IS NOT NULL)", name="lease"),
        CheckConstraint("state <> 'FAILED' OR error IS NOT NULL", name="error"),
        Index("ix_training_runs_state", "state"),
        # one live training for the same request: a second launch is told of the first
        Index(
            "uq_training_runs_live",
            "request_hash",
            unique=True,
            sqlite_where=text("state IN ('QUEUED', 'RUNNING', 'PAUSED')"),
            postgresql_where=text("state IN ('QUEUED', 'RUNNING', 'PAUSED')"),
        ),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    dataset_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("datasets.id"))
    base_version: Mapped[str | None] = mapped_column(String(128))  # None: from constant weights
    recipe: Mapped[str] = mapped_column(String(64))
    config: Mapped[dict[str, Any]]  # every setting of the recipe, as it was started
    seed: Mapped[int]
    request_hash: Mapped[str] = mapped_column(String(64))  # of all of the above
    code_version: Mapped[str] = mapped_column(String(64))
    requested_by: Mapped[str] = mapped_column(PERSON)
    state: Mapped[str] = mapped_column(String(16), default=TrainingState.QUEUED.value)
    wanted: Mapped[str | None] = mapped_column(
        String(16)
    )  # "pause" or "cancel": asked of a running one
    attempt: Mapped[int] = mapped_column(default=0)  # raised by each claim; fences late writers
    max_attempts: Mapped[int] = mapped_column(default=5)
    not_before: Mapped[datetime]
    dispatched_at: Mapped[datetime | None]
    lease_until: Mapped[datetime | None]
    time_limit_s: Mapped[float]  # of computing, over all attempts
    used_s: Mapped[float] = mapped_column(default=0.0)
    disk_limit_mb: Mapped[int]
    worker: Mapped[str | None] = mapped_column(String(128))
    host: Mapped[str | None] = mapped_column(String(255))
    epoch: Mapped[int | None]
    error: Mapped[str | None] = mapped_column(Text)
    error_code: Mapped[str | None] = mapped_column(String(64))
    created_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]


class TrainingEpoch(Base):
    """The figures of one epoch; an epoch done again after a kill replaces its row with the same figures."""

    __tablename__ = "training_epochs"

    training_run_id: Mapped[uuid.UUID] = mapped_column(
        ForeignKey("training_runs.id"), primary_key=True
    )
    stage: Mapped[str] = mapped_column(String(64), primary_key=True)  # "fit", "trial-03", ...
    epoch: Mapped[int] = mapped_column(primary_key=True)
    metrics: Mapped[dict[str, Any]]
    seconds: Mapped[float]
    at: Mapped[datetime]


class ModelVersion(Base):
    """One set of weights, never changed; only its state does."""

    __tablename__ = "model_versions"
    __table_args__ = (
        one_of("state", ModelState),
        CheckConstraint(_SHA256, name="sha256"),
        # one model answers for the node
        Index(
            "uq_model_versions_active",
            "state",
            unique=True,
            sqlite_where=text("state = 'ACTIVE'"),
            postgresql_where=text("state = 'ACTIVE'"),
        ),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    version: Mapped[str] = mapped_column(String(128), unique=True)  # as reports name it
    state: Mapped[str] = mapped_column(String(16), default=ModelState.CANDIDATE.value)
    sha256: Mapped[str] = mapped_column(String(64))  # of the weights file, in the blob store
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    architecture: Mapped[dict[str, Any]]
    preprocessing: Mapped[dict[str, Any]]
    operating_points: Mapped[dict[str, Any]]
    trained: Mapped[bool]
    description: Mapped[str] = mapped_column(Text)
    licence: Mapped[str] = mapped_column(String(128))
    dataset_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("datasets.id"))
    dataset_hash: Mapped[str | None] = mapped_column(String(64))
    training_run_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("training_runs.id"))
    metrics: Mapped[dict[str, Any]]
    code_version: Mapped[str] = mapped_column(String(64))
    created_by: Mapped[str] = mapped_column(PERSON)
    created_at: Mapped[datetime]


class Evaluation(Base):
    """One version measured on a data set's test split, beside the version that was active then."""

    __tablename__ = "evaluations"
    __table_args__ = (
        CheckConstraint("length(report_sha256) = 64", name="report_sha256"),
        Index("ix_evaluations_version_id", "version_id"),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    version_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("model_versions.id"))
    against_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("model_versions.id"))
    dataset_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("datasets.id"))
    summary: Mapped[dict[str, Any]]  # AUC, intervals, paired difference, strata, failures
    report_sha256: Mapped[str] = mapped_column(String(64))  # the HTML page, in the blob store
    created_at: Mapped[datetime]


class ModelDecision(Base):
    """Who changed what a version is used for, and why; only ever added to."""

    __tablename__ = "model_decisions"
    __table_args__ = (Index("ix_model_decisions_version_id", "version_id"),)

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    version_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("model_versions.id"))
    event: Mapped[str] = mapped_column(String(16))
    from_state: Mapped[str | None] = mapped_column(String(16))
    to_state: Mapped[str] = mapped_column(String(16))
    by: Mapped[str] = mapped_column(PERSON)
    approved_by: Mapped[str | None] = mapped_column(PERSON)
    reason: Mapped[str | None] = mapped_column(
        Text
    )  # always given where the comparison is overridden
    overridden: Mapped[bool] = mapped_column(default=False)
    evaluation_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("evaluations.id"))
    at: Mapped[datetime]
