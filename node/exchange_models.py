"""The tables of exchange with other systems: what can be found here, and fetched.

The catalogue is derived: every row can be made again from the blobs (`node.catalogue.rebuild`). It says nothing of
patients; what does lies in `studies` alone.
"""

from __future__ import annotations

import uuid
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from node.models import UID, Base


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
