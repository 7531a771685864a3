"""services and results

Revision: 0005, after 0004

More kinds of results, chosen for each peer; storage commitments; studies fetched from peers; slices of a volume that
came one an object.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_KINDS = (
    "SEG",
    "SEG_JPEG2000",
    "SEG_FRACTIONAL",
    "SEG_LABELMAP",
    "PMAP",
    "KEY_IMAGE",
    "SR",
    "CAD_SR",
    "KEY_OBJECTS",
    "OVERLAY",
)
_KINDS_BEFORE = ("SEG", "SR", "OVERLAY")

_COLUMNS: tuple[tuple[str, str, Any], ...] = (
    ("instances", "volume_uid", sa.String(length=64)),
    ("instances", "kept_aside", sa.Text()),
    ("runs", "route", sa.JSON()),
    ("image_results", "notes", sa.JSON()),
    ("peers", "results", sa.JSON()),
)

_FLAGS = (
    ("studies", "pulled", sa.false()),
    ("peers", "receives", sa.true()),
    ("peers", "commits", sa.false()),
    ("peers", "queried", sa.false()),
)


def upgrade() -> None:
    """Apply."""
    for table, name, kind in _COLUMNS:
        op.add_column(table, sa.Column(name, kind, nullable=True))
    for table, name, default in _FLAGS:
        op.add_column(table, sa.Column(name, sa.Boolean(), server_default=default, nullable=False))
    _kinds(_KINDS)
    _twins("uq_artifacts_sop_uid", "uq_artifacts_sop_uid_kind", ["sop_uid", "kind"])
    _commitments()
    _pulls()


def _kinds(kinds: tuple[str, ...]) -> None:
    listed = ", ".join(f"'{kind}'" for kind in kinds)
    with op.batch_alter_table("artifacts", schema=None) as batch_op:
        batch_op.drop_constraint(op.f("ck_artifacts_kind"), type_="check")
        batch_op.create_check_constraint(op.f("ck_artifacts_kind"), f"kind IN ({listed})")


def _twins(before: str, after: str, columns: list[str]) -> None:
    """Whether an object may be kept in a second form, of another kind."""
    with op.batch_alter_table("artifacts", schema=None) as batch_op:
        batch_op.drop_constraint(op.f(before), type_="unique")
        batch_op.create_unique_constraint(op.f(after), columns)


def _commitments() -> None:
    op.create_table(
        "commitments",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("direction", sa.String(length=3), nullable=False),
        sa.Column("transaction_uid", sa.String(length=64), nullable=False),
        sa.Column("ae_title", sa.String(length=16), nullable=False),
        sa.Column("peer_id", sa.Uuid(), nullable=True),
        sa.Column("delivery_id", sa.Uuid(), nullable=True),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("not_before", sa.DateTime(timezone=True), nullable=False),
        sa.Column("deadline_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("dispatched_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("answered_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "state IN ('PENDING', 'SENDING', 'DONE', 'FAILED')", name=op.f("ck_commitments_state")
        ),
        sa.CheckConstraint("direction IN ('IN', 'OUT')", name=op.f("ck_commitments_direction")),
        sa.CheckConstraint(
            "(direction = 'OUT') = (delivery_id IS NOT NULL)", name=op.f("ck_commitments_delivery")
        ),
        sa.CheckConstraint("attempt >= 0", name=op.f("ck_commitments_attempt")),
        sa.CheckConstraint(
            "(state = 'SENDING') = (lease_until IS NOT NULL)", name=op.f("ck_commitments_lease")
        ),
        sa.CheckConstraint(
            "state <> 'FAILED' OR error IS NOT NULL", name=op.f("ck_commitments_error")
        ),
        sa.ForeignKeyConstraint(
            ["peer_id"], ["peers.id"], name=op.f("fk_commitments_peer_id_peers")
        ),
        sa.ForeignKeyConstraint(
            ["delivery_id"], ["deliveries.id"], name=op.f("fk_commitments_delivery_id_deliveries")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_commitments")),
        sa.UniqueConstraint(
            "direction",
            "transaction_uid",
            "ae_title",
            name=op.f("uq_commitments_direction_transaction_uid_ae_title"),
        ),
    )
    op.create_index("ix_commitments_state", "commitments", ["state"])
    op.create_table(
        "commitment_items",
        sa.Column("commitment_id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("sop_uid", sa.String(length=64), nullable=False),
        sa.Column("sop_class_uid", sa.String(length=64), nullable=False),
        sa.Column("committed", sa.Boolean(), nullable=True),
        sa.Column("failure", sa.Integer(), nullable=True),
        sa.ForeignKeyConstraint(
            ["commitment_id"],
            ["commitments.id"],
            name=op.f("fk_commitment_items_commitment_id_commitments"),
        ),
        sa.PrimaryKeyConstraint("commitment_id", "number", name=op.f("pk_commitment_items")),
    )


def _pulls() -> None:
    op.create_table(
        "pulls",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("peer_id", sa.Uuid(), nullable=False),
        sa.Column("study_uid", sa.String(length=64), nullable=False),
        sa.Column("why", sa.String(length=16), nullable=False),
        sa.Column("for_study_id", sa.Uuid(), nullable=True),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("max_attempts", sa.Integer(), nullable=False),
        sa.Column("not_before", sa.DateTime(timezone=True), nullable=False),
        sa.Column("dispatched_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("worker", sa.String(length=128), nullable=True),
        sa.Column("expected", sa.Integer(), nullable=True),
        sa.Column("arrived", sa.Integer(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "state IN ('PENDING', 'RUNNING', 'DONE', 'FAILED', 'CANCELLED')",
            name=op.f("ck_pulls_state"),
        ),
        sa.CheckConstraint("why IN ('operator', 'prior', 'missing')", name=op.f("ck_pulls_why")),
        sa.CheckConstraint("attempt >= 0", name=op.f("ck_pulls_attempt")),
        sa.CheckConstraint(
            "(state = 'RUNNING') = (lease_until IS NOT NULL)", name=op.f("ck_pulls_lease")
        ),
        sa.CheckConstraint("state <> 'FAILED' OR error IS NOT NULL", name=op.f("ck_pulls_error")),
        sa.ForeignKeyConstraint(["peer_id"], ["peers.id"], name=op.f("fk_pulls_peer_id_peers")),
        sa.ForeignKeyConstraint(
            ["for_study_id"], ["studies.id"], name=op.f("fk_pulls_for_study_id_studies")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_pulls")),
    )
    op.create_index("ix_pulls_state", "pulls", ["state"])
    live = sa.text("state IN ('PENDING', 'RUNNING')")
    op.create_index(
        "uq_pulls_live",
        "pulls",
        ["peer_id", "study_uid"],
        unique=True,
        sqlite_where=live,
        postgresql_where=live,
    )


def downgrade() -> None:
    """Undo. Objects of the newer kinds stay in the blob store; their rows go, and so do those that name them."""
    op.drop_table("pulls")
    op.drop_table("commitment_items")
    op.drop_table("commitments")
    newer = f"kind NOT IN ({', '.join(repr(kind) for kind in _KINDS_BEFORE)})"
    for table in ("catalogue", "delivery_instances"):
        op.execute(
            f"DELETE FROM {table} WHERE artifact_id IN (SELECT id FROM artifacts WHERE {newer})"
        )
    op.execute(f"DELETE FROM artifacts WHERE {newer}")
    _kinds(_KINDS_BEFORE)
    _twins("uq_artifacts_sop_uid_kind", "uq_artifacts_sop_uid", ["sop_uid"])
    for table, name, _ in reversed(_FLAGS):
        op.drop_column(table, name)
    for table, name, _ in reversed(_COLUMNS):
        op.drop_column(table, name)
