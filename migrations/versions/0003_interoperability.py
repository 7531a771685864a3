"""interoperability

Revision: 0003, after 0002

Objects that were received before have no row in the catalogue yet, since what it holds stands in their headers:
`tomonode catalogue rebuild` lists them, and fills the new columns of their studies.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_OF_STUDIES = (
    ("patient_name", sa.String(length=256)),
    ("patient_name_folded", sa.Text()),
    ("patient_birth_date", sa.String(length=8)),
    ("patient_sex", sa.String(length=16)),
    ("study_time", sa.String(length=16)),
    ("study_id", sa.String(length=64)),
    ("study_description", sa.String(length=64)),
    ("referring_physician", sa.String(length=256)),
    ("referring_physician_folded", sa.Text()),
)


def upgrade() -> None:
    """Apply."""
    for name, kind in _OF_STUDIES:
        op.add_column("studies", sa.Column(name, kind, nullable=True))
    op.create_table(
        "catalogue",
        sa.Column("sop_uid", sa.String(length=64), nullable=False),
        sa.Column("study_id", sa.Uuid(), nullable=False),
        sa.Column("instance_id", sa.Uuid(), nullable=True),
        sa.Column("artifact_id", sa.Uuid(), nullable=True),
        sa.Column("series_uid", sa.String(length=64), nullable=False),
        sa.Column("sop_class_uid", sa.String(length=64), nullable=False),
        sa.Column("transfer_syntax_uid", sa.String(length=64), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("modality", sa.String(length=16), nullable=True),
        sa.Column("series_number", sa.Integer(), nullable=True),
        sa.Column("series_description", sa.String(length=64), nullable=True),
        sa.Column("series_date", sa.String(length=8), nullable=True),
        sa.Column("series_time", sa.String(length=16), nullable=True),
        sa.Column("body_part", sa.String(length=16), nullable=True),
        sa.Column("laterality", sa.String(length=2), nullable=True),
        sa.Column("instance_number", sa.Integer(), nullable=True),
        sa.Column("rows", sa.Integer(), nullable=True),
        sa.Column("columns", sa.Integer(), nullable=True),
        sa.Column("frames", sa.Integer(), nullable=True),
        sa.Column("attributes", sa.JSON(), nullable=False),
        sa.CheckConstraint(
            "(instance_id IS NULL) <> (artifact_id IS NULL)", name=op.f("ck_catalogue_one_source")
        ),
        sa.CheckConstraint("size_bytes > 0", name=op.f("ck_catalogue_size_bytes")),
        sa.CheckConstraint("length(sha256) = 64", name=op.f("ck_catalogue_sha256")),
        sa.ForeignKeyConstraint(
            ["study_id"], ["studies.id"], name=op.f("fk_catalogue_study_id_studies")
        ),
        sa.ForeignKeyConstraint(
            ["instance_id"], ["instances.id"], name=op.f("fk_catalogue_instance_id_instances")
        ),
        sa.ForeignKeyConstraint(
            ["artifact_id"], ["artifacts.id"], name=op.f("fk_catalogue_artifact_id_artifacts")
        ),
        sa.PrimaryKeyConstraint("sop_uid", name=op.f("pk_catalogue")),
        sa.UniqueConstraint("instance_id", name=op.f("uq_catalogue_instance_id")),
        sa.UniqueConstraint("artifact_id", name=op.f("uq_catalogue_artifact_id")),
    )
    op.create_index("ix_catalogue_study_id", "catalogue", ["study_id", "series_uid"])
    op.create_index("ix_catalogue_series_uid", "catalogue", ["series_uid"])


def downgrade() -> None:
    """Undo; no table is made anew, so that rows which refer to studies stay as they are."""
    op.drop_table("catalogue")
    for name, _ in reversed(_OF_STUDIES):
        op.drop_column("studies", name)
