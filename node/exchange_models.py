"""The tables of exchange with other systems: what can be found here, storage commitments, and studies to fetch.

The catalogue is derived: every row can be made again from the blobs (`node.catalogue.rebuild`). It says nothing of
patients; what does lies in `studies` alone.
"""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ForeignKey,
    Index,
    String,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column, relationship

from node.lifecycle import CommitmentState, PullState
from node.models import UID, Base, Peer, one_of


class CatalogueRow(Base):
    """One object that may be given out: a received one, or one that a run made which answers for its study.

    Dates are YYYYMMDD, times HH, HHMM, HHMMSS or HHMMSS.ffffff, as the object has them. A value that the object does
    not have, or that cannot be one, is NULL.
    """

    __tablename__ = "catalogue"
    __table_args__ = (
        CheckConstraint("(instance_id IS NULL) <> (artifact_id IS NULL)", name="one_source"),
        CheckConstraint("size_bytes > 0", name="size_bytes"),
        CheckConstraint("length(sha256) = 64", name="sha256"),
        Index("ix_catalogue_study_id", "study_id", "series_uid"),
        Index("ix_catalogue_series_uid", "series_uid"),
    )

    sop_uid: Mapped[str] = mapped_column(UID, primary_key=True)
    study_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("studies.id"))
    instance_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("instances.id"), unique=True)
    artifact_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("artifacts.id"), unique=True)
    series_uid: Mapped[str] = mapped_column(UID)
    sop_class_uid: Mapped[str] = mapped_column(UID)
    transfer_syntax_uid: Mapped[str] = mapped_column(UID)
    sha256: Mapped[str] = mapped_column(String(64))  # of the bytes, in the blob store
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    modality: Mapped[str | None] = mapped_column(String(16))
    series_number: Mapped[int | None]
    series_description: Mapped[str | None] = mapped_column(String(64))
    series_date: Mapped[str | None] = mapped_column(String(8))
    series_time: Mapped[str | None] = mapped_column(String(16))
    body_part: Mapped[str | None] = mapped_column(String(16))
    laterality: Mapped[str | None] = mapped_column(String(2))
    instance_number: Mapped[int | None]
    rows: Mapped[int | None]
    columns: Mapped[int | None]
    frames: Mapped[int | None]
    attributes: Mapped[dict[str, Any]]  # what else a query returns: DICOM JSON (PS3.18 F.2)


class Commitment(Base):
    """One storage commitment transaction (DICOM PS3.4 annex J): asked of us (IN), or by us (OUT)."""

    __tablename__ = "commitments"
    __table_args__ = (
        one_of("state", CommitmentState),
        CheckConstraint("direction IN ('IN', 'OUT')", name="direction"),
        CheckConstraint("(direction = 'OUT') = (delivery_id IS NOT NULL)", name="delivery"),
        CheckConstraint("attempt >= 0", name="attempt"),
        CheckConstraint("(state = 'SENDING') = (lease_until IS NOT NULL)", name="lease"),
        CheckConstraint("state <> 'FAILED' OR error IS NOT NULL", name="error"),
        UniqueConstraint("direction", "transaction_uid", "ae_title"),
        Index("ix_commitments_state", "state"),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    direction: Mapped[str] = mapped_column(String(3))
    transaction_uid: Mapped[str] = mapped_column(UID)
    ae_title: Mapped[str] = mapped_column(String(16))  # of the other side
    peer_id: Mapped[uuid.UUID | None] = mapped_column(
        ForeignKey("peers.id")
    )  # where it can be called
    delivery_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("deliveries.id"))
    state: Mapped[str] = mapped_column(String(16), default=CommitmentState.PENDING.value)
    attempt: Mapped[int] = mapped_column(default=0)
    not_before: Mapped[datetime]
    deadline_at: Mapped[datetime]
    dispatched_at: Mapped[datetime | None]
    lease_until: Mapped[datetime | None]
    error: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime]
    answered_at: Mapped[datetime | None]

    items: Mapped[list[CommitmentItem]] = relationship(
        back_populates="commitment", order_by="CommitmentItem.number"
    )
    peer: Mapped[Peer | None] = relationship()


class CommitmentItem(Base):
    """One object of a transaction; `failure` is the Failure Reason (PS3.3 C.14.1.1), NULL where there is none (yet)."""

    __tablename__ = "commitment_items"

    commitment_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("commitments.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)  # from 0, in the order asked
    sop_uid: Mapped[str] = mapped_column(UID)
    sop_class_uid: Mapped[str] = mapped_column(UID)
    committed: Mapped[bool | None]
    failure: Mapped[int | None]

    commitment: Mapped[Commitment] = relationship(back_populates="items")


class Pull(Base):
    """A study to be fetched from a peer by C-MOVE (PS3.4 annex C)."""

    __tablename__ = "pulls"
    __table_args__ = (
        one_of("state", PullState),
        CheckConstraint("why IN ('operator', 'prior', 'missing')", name="why"),
        CheckConstraint("attempt >= 0", name="attempt"),
        CheckConstraint("(state = 'RUNNING') = (lease_until IS NOT NULL)", name="lease"),
        CheckConstraint("state <> 'FAILED' OR error IS NOT NULL", name="error"),
        Index("ix_pulls_state", "state"),
        # one live pull of a study from a peer
        Index(
            "uq_pulls_live",
            "peer_id",
            "study_uid",
            unique=True,
            sqlite_where=text("state IN ('PENDING', 'RUNNING')"),
            postgresql_where=text("state IN ('PENDING', 'RUNNING')"),
        ),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    peer_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("peers.id"))
    study_uid: Mapped[str] = mapped_column(UID)
    why: Mapped[str] = mapped_column(String(16))
    for_study_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("studies.id"))  # of a prior
    state: Mapped[str] = mapped_column(String(16), default=PullState.PENDING.value)
    attempt: Mapped[int] = mapped_column(default=0)
    max_attempts: Mapped[int] = mapped_column(default=3)
    not_before: Mapped[datetime]
    dispatched_at: Mapped[datetime | None]
    lease_until: Mapped[datetime | None]
    worker: Mapped[str | None] = mapped_column(String(128))
    expected: Mapped[int | None]  # objects that the peer says it has of the study
    arrived: Mapped[int | None]  # of them, how many the peer says it sent
    error: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]

    peer: Mapped[Peer] = relationship()
