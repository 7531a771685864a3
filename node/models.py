"""The tables (SQLAlchemy 2, typed). Invariants are constraints, so that no code path can break them.

Times are UTC. Patient attributes live in `studies` alone, for matching pathology later and for queries, and nowhere in
logs.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    DateTime,
    Dialect,
    ForeignKey,
    Index,
    MetaData,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
    false,
    text,
    true,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from node.lifecycle import DeliveryState, RunState, StudyState
from node.results import KINDS, OVERLAY

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


class UtcDateTime(TypeDecorator[datetime]):
    """An aware UTC datetime on both engines (SQLite has no time zones)."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Store as UTC; a naive time is a programming error."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("naive datetime: give times with a time zone")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Give back as aware UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Base(DeclarativeBase):
    """Declarative base with named constraints, which migrations need."""

    metadata = MetaData(naming_convention=NAMING)
    type_annotation_map = {datetime: UtcDateTime, dict[str, Any]: JSON, list[Any]: JSON}


def one_of(column: str, states: type[StrEnum]) -> CheckConstraint:
    """A column that holds a state of a machine, and nothing else."""
    listed = _quoted(state.value for state in states)
    return CheckConstraint(f"{column} IN ({listed})", name=column)


def _quoted(words: Iterable[str]) -> str:
    return ", ".join(f"'{word}'" for word in words)


UID = String(64)


class Study(Base):
    """What was received under one Study Instance UID."""

    __tablename__ = "studies"
    __table_args__ = (
        one_of("state", StudyState),
        CheckConstraint("generation >= 1", name="generation"),
        CheckConstraint(
            "(state = 'EXCLUDED') = (excluded_reason IS NOT NULL)", name="excluded_reason"
        ),
        Index("ix_studies_state", "state"),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    study_uid: Mapped[str] = mapped_column(UID, unique=True)
    state: Mapped[str] = mapped_column(String(16), default=StudyState.RECEIVING.value)
    generation: Mapped[int] = mapped_column(default=1)
    received_at: Mapped[datetime]
    generation_at: Mapped[datetime]  # first image of this generation; the deadline counts from here
    last_activity_at: Mapped[datetime]
    completed_at: Mapped[datetime | None]
    completed_because: Mapped[str | None] = mapped_column(String(32))
    excluded_reason: Mapped[str | None] = mapped_column(Text)
    patient_id: Mapped[str | None] = mapped_column(String(64))
    accession_number: Mapped[str | None] = mapped_column(String(64))
    study_date: Mapped[str | None] = mapped_column(String(8))
    # for queries alone (`node.catalogue`); names are also kept folded, as they are compared
    patient_name: Mapped[str | None] = mapped_column(String(256))
    patient_name_folded: Mapped[str | None] = mapped_column(Text)
    patient_birth_date: Mapped[str | None] = mapped_column(String(8))
    patient_sex: Mapped[str | None] = mapped_column(String(16))
    study_time: Mapped[str | None] = mapped_column(String(16))
    study_id: Mapped[str | None] = mapped_column(String(64))
    study_description: Mapped[str | None] = mapped_column(String(64))
    referring_physician: Mapped[str | None] = mapped_column(String(256))
    referring_physician_folded: Mapped[str | None] = mapped_column(Text)
    pulled: Mapped[bool] = mapped_column(
        default=False, server_default=false()
    )  # fetched by `node.pulls`

    instances: Mapped[list[Instance]] = relationship(back_populates="study")
    runs: Mapped[list[Run]] = relationship(back_populates="study")


class Instance(Base):
    """One stored object; its bytes lie in the blob store under `sha256`."""

    __tablename__ = "instances"
    __table_args__ = (
        CheckConstraint("size_bytes > 0", name="size_bytes"),
        CheckConstraint("generation >= 1", name="generation"),
        CheckConstraint("length(sha256) = 64", name="sha256"),
        Index("ix_instances_study_id", "study_id"),
        Index("ix_instances_sha256", "sha256"),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    study_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("studies.id"))
    sop_uid: Mapped[str] = mapped_column(UID, unique=True)
    sop_class_uid: Mapped[str] = mapped_column(UID)
    series_uid: Mapped[str] = mapped_column(UID)
    transfer_syntax_uid: Mapped[str] = mapped_column(UID)
    is_image: Mapped[bool]  # of a class that the model may read: opens a new generation when late
    generation: Mapped[int]
    sha256: Mapped[str] = mapped_column(String(64))
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    laterality: Mapped[str | None] = mapped_column(String(2))
    view: Mapped[str | None] = mapped_column(String(16))
    frames: Mapped[int | None]
    volume_uid: Mapped[str | None] = mapped_column(
        UID
    )  # its series, where it is one slice of a volume
    kept_aside: Mapped[str | None] = mapped_column(
        Text
    )  # why it is quarantined: kept, shown, never read
    calling_ae: Mapped[str] = mapped_column(String(16))
    received_at: Mapped[datetime]

    study: Mapped[Study] = relationship(back_populates="instances")


class Quarantined(Base):
    """An object that came under a known SOP Instance UID with other bytes: kept aside, never used."""

    __tablename__ = "quarantined"
    __table_args__ = (
        UniqueConstraint("sop_uid", "sha256"),
        CheckConstraint("length(sha256) = 64", name="sha256"),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    sop_uid: Mapped[str] = mapped_column(UID)
    study_uid: Mapped[str] = mapped_column(UID)
    sha256: Mapped[str] = mapped_column(String(64))
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    reason: Mapped[str] = mapped_column(Text)
    calling_ae: Mapped[str] = mapped_column(String(16))
    received_at: Mapped[datetime]


class Activity(Base):
    """An open association that carries a study, kept fresh by the listener; a stale row counts as closed."""

    __tablename__ = "activity"

    association_id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    study_uid: Mapped[str] = mapped_column(UID, primary_key=True)
    in_flight: Mapped[bool]  # bytes of an object of this study are arriving now
    seen_at: Mapped[datetime]


class Run(Base):
    """One model version over one generation of one study."""

    __tablename__ = "runs"
    __table_args__ = (
        one_of("state", RunState),
        CheckConstraint("attempt >= 0", name="attempt"),
        CheckConstraint("(state = 'RUNNING') = (lease_until IS NOT NULL)", name="lease"),
        CheckConstraint("state <> 'FAILED' OR error IS NOT NULL", name="error"),
        Index("ix_runs_state", "state"),
        Index("ix_runs_study_id", "study_id"),
        # one live run for a generation and model; a re-run needs its predecessor to be superseded first, and what a
        # model said in shadow stays beside what it says later when it answers
        Index(
            "uq_runs_live",
            "study_id",
            "generation",
            "model_version",
            "shadow",
            unique=True,
            sqlite_where=text("state <> 'SUPERSEDED'"),
            postgresql_where=text("state <> 'SUPERSEDED'"),
        ),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    study_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("studies.id"))
    generation: Mapped[int]
    model_version: Mapped[str] = mapped_column(String(128))
    shadow: Mapped[bool] = mapped_column(default=False, server_default=false())  # never delivered
    state: Mapped[str] = mapped_column(String(16), default=RunState.QUEUED.value)
    attempt: Mapped[int] = mapped_column(default=0)  # raised by each claim; fences late writers
    max_attempts: Mapped[int] = mapped_column(default=3)
    not_before: Mapped[datetime]
    dispatched_at: Mapped[datetime | None]
    lease_until: Mapped[datetime | None]
    worker: Mapped[str | None] = mapped_column(String(128))
    error: Mapped[str | None] = mapped_column(Text)
    error_code: Mapped[str | None] = mapped_column(String(64))
    predecessor_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("runs.id"))
    created_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    model: Mapped[dict[str, Any] | None]  # name, version, sha256, trained, operating point: as used
    route: Mapped[
        dict[str, Any] | None
    ]  # what the routing rules said when it was queued (`node.rules`)
    stage_seconds: Mapped[dict[str, Any] | None]

    study: Mapped[Study] = relationship(back_populates="runs")
    images: Mapped[list[ImageResult]] = relationship(back_populates="run")
    artifacts: Mapped[list[Artifact]] = relationship(back_populates="run")
    deliveries: Mapped[list[Delivery]] = relationship(back_populates="run")


class ImageResult(Base):
    """What a run says of one instance: scores and regions, or why it was left out; what it measured of the input."""

    __tablename__ = "image_results"
    __table_args__ = (
        CheckConstraint(
            "(excluded_reason IS NULL) = (score_benign IS NOT NULL AND score_malignant IS NOT NULL)",
            name="scores_or_reason",
        ),
        CheckConstraint("score_benign BETWEEN 0 AND 1", name="score_benign"),
        CheckConstraint("score_malignant BETWEEN 0 AND 1", name="score_malignant"),
        CheckConstraint("pixel_spacing_mm > 0", name="pixel_spacing_mm"),
        CheckConstraint("slice_spacing_mm > 0", name="slice_spacing_mm"),
        CheckConstraint(
            "intensity_p05 <= intensity_p50 AND intensity_p50 <= intensity_p95", name="intensity"
        ),
    )

    run_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("runs.id"), primary_key=True)
    sop_uid: Mapped[str] = mapped_column(UID, primary_key=True)
    laterality: Mapped[str | None] = mapped_column(String(2))
    view: Mapped[str | None] = mapped_column(String(16))
    frames: Mapped[int | None]
    score_benign: Mapped[float | None]
    score_malignant: Mapped[float | None]
    segments: Mapped[int] = mapped_column(default=0)
    regions: Mapped[list[Any]] = mapped_column(default=list)
    excluded_reason: Mapped[str | None] = mapped_column(Text)
    notes: Mapped[list[Any] | None]  # what was odd about the image and got around, for people
    pixel_spacing_mm: Mapped[float | None]  # this and what follows: `node.input_quality.Measured`
    slice_spacing_mm: Mapped[float | None]
    intensity_p05: Mapped[float | None]
    intensity_p50: Mapped[float | None]
    intensity_p95: Mapped[float | None]

    run: Mapped[Run] = relationship(back_populates="images")


class Artifact(Base):
    """A file a run made: a DICOM object of one of `results.KINDS`, or an overlay picture; its bytes lie in the blob
    store."""

    __tablename__ = "artifacts"
    __table_args__ = (
        CheckConstraint(f"kind IN ({_quoted([*KINDS, OVERLAY])})", name="kind"),
        CheckConstraint("(kind = 'OVERLAY') = (sop_uid IS NULL)", name="sop_uid"),
        CheckConstraint("length(sha256) = 64", name="sha256"),
        UniqueConstraint("run_id", "name"),
        UniqueConstraint("sop_uid", "kind"),  # an object may have a twin (`results.TWIN`)
        Index("ix_artifacts_sha256", "sha256"),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    run_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("runs.id"))
    kind: Mapped[str] = mapped_column(String(16))
    name: Mapped[str] = mapped_column(String(128))  # unique in the run, such as seg-1.2.3.dcm
    source_sop_uid: Mapped[str | None] = mapped_column(UID)
    sop_uid: Mapped[str | None] = mapped_column(UID)
    sop_class_uid: Mapped[str | None] = mapped_column(UID)
    sha256: Mapped[str] = mapped_column(String(64))
    size_bytes: Mapped[int] = mapped_column(BigInteger)

    run: Mapped[Run] = relationship(back_populates="artifacts")


class Peer(Base):
    """Another system: a destination of results (DICOM Storage SCP or STOW-RS service), or one to fetch studies from."""

    __tablename__ = "peers"
    __table_args__ = (
        CheckConstraint("kind IN ('DICOM', 'STOW')", name="kind"),
        CheckConstraint(
            "(kind = 'DICOM' AND ae_title IS NOT NULL AND host IS NOT NULL AND port BETWEEN 1 AND 65535)"
            " OR (kind = 'STOW' AND url IS NOT NULL)",
            name="address",
        ),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    name: Mapped[str] = mapped_column(String(64), unique=True)
    kind: Mapped[str] = mapped_column(String(8))
    ae_title: Mapped[str | None] = mapped_column(String(16))
    host: Mapped[str | None] = mapped_column(String(255))
    port: Mapped[int | None]
    url: Mapped[str | None] = mapped_column(Text)
    tls: Mapped[bool] = mapped_column(default=False, server_default=false())  # of a DICOM peer
    pin_sha256: Mapped[str | None] = mapped_column(String(64))  # of its certificate (`node.tls`)
    receives: Mapped[bool] = mapped_column(default=True, server_default=true())  # results go to it
    results: Mapped[list[Any] | None]  # kinds that it gets (`results.KINDS`); None: the usual ones
    commits: Mapped[bool] = mapped_column(default=False, server_default=false())  # asked to commit
    queried: Mapped[bool] = mapped_column(
        default=False, server_default=false()
    )  # studies are fetched
    enabled: Mapped[bool] = mapped_column(default=True)
    created_at: Mapped[datetime]


class Delivery(Base):
    """The sending of one run's results to one peer."""

    __tablename__ = "deliveries"
    __table_args__ = (
        one_of("state", DeliveryState),
        CheckConstraint("attempt >= 0", name="attempt"),
        CheckConstraint("(state = 'SENDING') = (lease_until IS NOT NULL)", name="lease"),
        CheckConstraint("(state = 'SENT') = (sent_at IS NOT NULL)", name="sent_at"),
        CheckConstraint("state <> 'FAILED' OR error IS NOT NULL", name="error"),
        UniqueConstraint("run_id", "peer_id"),
        Index("ix_deliveries_state", "state"),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    run_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("runs.id"))
    peer_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("peers.id"))
    state: Mapped[str] = mapped_column(String(16), default=DeliveryState.PENDING.value)
    attempt: Mapped[int] = mapped_column(default=0)
    not_before: Mapped[datetime]
    deadline_at: Mapped[datetime]  # dead letter after this
    dispatched_at: Mapped[datetime | None]
    lease_until: Mapped[datetime | None]
    worker: Mapped[str | None] = mapped_column(String(128))
    error: Mapped[str | None] = mapped_column(Text)
    error_code: Mapped[str | None] = mapped_column(String(64))
    created_at: Mapped[datetime]
    sent_at: Mapped[datetime | None]

    run: Mapped[Run] = relationship(back_populates="deliveries")
    peer: Mapped[Peer] = relationship()
    instances: Mapped[list[DeliveryInstance]] = relationship(back_populates="delivery")


class DeliveryInstance(Base):
    """What the peer last said of one object."""

    __tablename__ = "delivery_instances"

    delivery_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("deliveries.id"), primary_key=True)
    artifact_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("artifacts.id"), primary_key=True)
    accepted: Mapped[bool]
    status: Mapped[str] = mapped_column(String(64))  # "0x0000", "HTTP 409", ...
    at: Mapped[datetime]

    delivery: Mapped[Delivery] = relationship(back_populates="instances")


class Outbox(Base):
    """A Celery message to be sent: written with the data, removed once the broker has it."""

    __tablename__ = "outbox"
    __table_args__ = (UniqueConstraint("task", "subject_id"),)

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    task: Mapped[str] = mapped_column(String(64))
    queue: Mapped[str] = mapped_column(String(32))
    subject_id: Mapped[uuid.UUID]
    created_at: Mapped[datetime]


class TimelineEvent(Base):
    """One line of a study's history, for people."""

    __tablename__ = "timeline"
    __table_args__ = (Index("ix_timeline_study_id", "study_id"),)

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    study_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("studies.id"))
    at: Mapped[datetime]
    kind: Mapped[str] = mapped_column(String(32))
    message: Mapped[str] = mapped_column(Text)
