"""learning

Revision: 0002, after 0001
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_FROZEN = "a frozen data set is never changed"
_FROZEN_TABLES = ("datasets", "dataset_items", "dataset_exclusions")


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "datasets",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("rule", sa.JSON(), nullable=False),
        sa.Column("content_hash", sa.String(length=64), nullable=False),
        sa.Column("counts", sa.JSON(), nullable=False),
        sa.Column("created_by", sa.String(length=128), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("length(content_hash) = 64", name=op.f("ck_datasets_content_hash")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_datasets")),
        sa.UniqueConstraint("name", name=op.f("uq_datasets_name")),
    )
    op.create_table(
        "label_imports",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("source", sa.String(length=128), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("author", sa.String(length=128), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("counts", sa.JSON(), nullable=False),
        sa.CheckConstraint("length(sha256) = 64", name=op.f("ck_label_imports_sha256")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_label_imports")),
    )
    op.create_table(
        "assessments",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("study_id", sa.Uuid(), nullable=False),
        sa.Column("laterality", sa.String(length=1), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("category", sa.Integer(), nullable=False),
        sa.Column("source", sa.String(length=128), nullable=False),
        sa.Column("author", sa.String(length=128), nullable=False),
        sa.Column("import_id", sa.Uuid(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("laterality IN ('L', 'R')", name=op.f("ck_assessments_laterality")),
        sa.CheckConstraint("category BETWEEN 0 AND 6", name=op.f("ck_assessments_category")),
        sa.CheckConstraint("revision >= 1", name=op.f("ck_assessments_revision")),
        sa.ForeignKeyConstraint(
            ["import_id"], ["label_imports.id"], name=op.f("fk_assessments_import_id_label_imports")
        ),
        sa.ForeignKeyConstraint(
            ["study_id"], ["studies.id"], name=op.f("fk_assessments_study_id_studies")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_assessments")),
        sa.UniqueConstraint(
            "study_id",
            "laterality",
            "revision",
            name=op.f("uq_assessments_study_id_laterality_revision"),
        ),
    )
    op.create_table(
        "dataset_exclusions",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("dataset_id", sa.Uuid(), nullable=False),
        sa.Column("study_uid", sa.String(length=64), nullable=False),
        sa.Column("sop_uid", sa.String(length=64), nullable=True),
        sa.Column("code", sa.String(length=32), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["dataset_id"], ["datasets.id"], name=op.f("fk_dataset_exclusions_dataset_id_datasets")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_dataset_exclusions")),
    )
    with op.batch_alter_table("dataset_exclusions", schema=None) as batch_op:
        batch_op.create_index("ix_dataset_exclusions_dataset_id", ["dataset_id"], unique=False)

    op.create_table(
        "dataset_items",
        sa.Column("dataset_id", sa.Uuid(), nullable=False),
        sa.Column("sop_uid", sa.String(length=64), nullable=False),
        sa.Column("sop_class_uid", sa.String(length=64), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("study_uid", sa.String(length=64), nullable=False),
        sa.Column("patient", sa.String(length=64), nullable=False),
        sa.Column("laterality", sa.String(length=1), nullable=False),
        sa.Column("view", sa.String(length=16), nullable=True),
        sa.Column("split", sa.String(length=8), nullable=False),
        sa.Column("benign", sa.Boolean(), nullable=False),
        sa.Column("malignant", sa.Boolean(), nullable=False),
        sa.Column("birads", sa.Integer(), nullable=True),
        sa.Column("pathology_revision", sa.Integer(), nullable=True),
        sa.Column("assessment_revision", sa.Integer(), nullable=True),
        sa.Column("strata", sa.JSON(), nullable=False),
        sa.CheckConstraint("laterality IN ('L', 'R')", name=op.f("ck_dataset_items_laterality")),
        sa.CheckConstraint(
            "split IN ('train', 'valid', 'test')", name=op.f("ck_dataset_items_split")
        ),
        sa.CheckConstraint("birads BETWEEN 0 AND 6", name=op.f("ck_dataset_items_birads")),
        sa.CheckConstraint("length(sha256) = 64", name=op.f("ck_dataset_items_sha256")),
        sa.ForeignKeyConstraint(
            ["dataset_id"], ["datasets.id"], name=op.f("fk_dataset_items_dataset_id_datasets")
        ),
        sa.PrimaryKeyConstraint("dataset_id", "sop_uid", name=op.f("pk_dataset_items")),
    )
    op.create_table(
        "pathology",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("study_id", sa.Uuid(), nullable=False),
        sa.Column("laterality", sa.String(length=1), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("benign", sa.Boolean(), nullable=False),
        sa.Column("malignant", sa.Boolean(), nullable=False),
        sa.Column("found_on", sa.Date(), nullable=False),
        sa.Column("source", sa.String(length=128), nullable=False),
        sa.Column("author", sa.String(length=128), nullable=False),
        sa.Column("note", sa.Text(), nullable=True),
        sa.Column("import_id", sa.Uuid(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("laterality IN ('L', 'R')", name=op.f("ck_pathology_laterality")),
        sa.CheckConstraint("revision >= 1", name=op.f("ck_pathology_revision")),
        sa.ForeignKeyConstraint(
            ["import_id"], ["label_imports.id"], name=op.f("fk_pathology_import_id_label_imports")
        ),
        sa.ForeignKeyConstraint(
            ["study_id"], ["studies.id"], name=op.f("fk_pathology_study_id_studies")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_pathology")),
        sa.UniqueConstraint(
            "study_id",
            "laterality",
            "revision",
            name=op.f("uq_pathology_study_id_laterality_revision"),
        ),
    )
    op.create_table(
        "training_runs",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("dataset_id", sa.Uuid(), nullable=False),
        sa.Column("base_version", sa.String(length=128), nullable=True),
        sa.Column("recipe", sa.String(length=64), nullable=False),
        sa.Column("config", sa.JSON(), nullable=False),
        sa.Column("seed", sa.Integer(), nullable=False),
        sa.Column("request_hash", sa.String(length=64), nullable=False),
        sa.Column("code_version", sa.String(length=64), nullable=False),
        sa.Column("requested_by", sa.String(length=128), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("wanted", sa.String(length=16), nullable=True),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("max_attempts", sa.Integer(), nullable=False),
        sa.Column("not_before", sa.DateTime(timezone=True), nullable=False),
        sa.Column("dispatched_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("time_limit_s", sa.Double(), nullable=False),
        sa.Column("used_s", sa.Double(), nullable=False),
        sa.Column("disk_limit_mb", sa.Integer(), nullable=False),
        sa.Column("worker", sa.String(length=128), nullable=True),
        sa.Column("host", sa.String(length=255), nullable=True),
        sa.Column("epoch", sa.Integer(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("error_code", sa.String(length=64), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(state = 'RUNNING') = (lease_until IS NOT NULL)", name=op.f("ck_training_runs_lease")
        ),
        sa.CheckConstraint(
            "state <> 'FAILED' OR error IS NOT NULL", name=op.f("ck_training_runs_error")
        ),
        sa.CheckConstraint(
            "state IN ('QUEUED', 'RUNNING', 'PAUSED', 'SUCCEEDED', 'FAILED', 'CANCELLED')",
            name=op.f("ck_training_runs_state"),
        ),
        sa.CheckConstraint("attempt >= 0", name=op.f("ck_training_runs_attempt")),
        sa.ForeignKeyConstraint(
            ["dataset_id"], ["datasets.id"], name=op.f("fk_training_runs_dataset_id_datasets")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_training_runs")),
    )
    with op.batch_alter_table("training_runs", schema=None) as batch_op:
        batch_op.create_index("ix_training_runs_state", ["state"], unique=False)
        batch_op.create_index(
            "uq_training_runs_live",
            ["request_hash"],
            unique=True,
            sqlite_where=sa.text("state IN ('QUEUED', 'RUNNING', 'PAUSED')"),
            postgresql_where=sa.text("state IN ('QUEUED', 'RUNNING', 'PAUSED')"),
        )

    op.create_table(
        "annotations",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("instance_id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("label", sa.String(length=16), nullable=False),
        sa.Column("frame", sa.Integer(), nullable=False),
        sa.Column("row", sa.Integer(), nullable=False),
        sa.Column("col", sa.Integer(), nullable=False),
        sa.Column("height", sa.Integer(), nullable=False),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("mask", sa.LargeBinary(), nullable=True),
        sa.Column("drawn_in", sa.String(length=80), nullable=True),
        sa.Column("withdrawn", sa.Boolean(), nullable=False),
        sa.Column("source", sa.String(length=128), nullable=False),
        sa.Column("author", sa.String(length=128), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("label IN ('benign', 'malignant')", name=op.f("ck_annotations_label")),
        sa.CheckConstraint(
            "frame >= 0 AND row >= 0 AND col >= 0", name=op.f("ck_annotations_place")
        ),
        sa.CheckConstraint("height > 0 AND width > 0", name=op.f("ck_annotations_size")),
        sa.CheckConstraint("(mask IS NULL) = (drawn_in IS NULL)", name=op.f("ck_annotations_mask")),
        sa.CheckConstraint("revision >= 1", name=op.f("ck_annotations_revision")),
        sa.ForeignKeyConstraint(
            ["instance_id"], ["instances.id"], name=op.f("fk_annotations_instance_id_instances")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_annotations")),
        sa.UniqueConstraint(
            "instance_id",
            "number",
            "revision",
            name=op.f("uq_annotations_instance_id_number_revision"),
        ),
    )
    op.create_table(
        "model_versions",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("version", sa.String(length=128), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("architecture", sa.JSON(), nullable=False),
        sa.Column("preprocessing", sa.JSON(), nullable=False),
        sa.Column("operating_points", sa.JSON(), nullable=False),
        sa.Column("trained", sa.Boolean(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("licence", sa.String(length=128), nullable=False),
        sa.Column("dataset_id", sa.Uuid(), nullable=True),
        sa.Column("dataset_hash", sa.String(length=64), nullable=True),
        sa.Column("training_run_id", sa.Uuid(), nullable=True),
        sa.Column("metrics", sa.JSON(), nullable=False),
        sa.Column("code_version", sa.String(length=64), nullable=False),
        sa.Column("created_by", sa.String(length=128), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "state IN ('CANDIDATE', 'SHADOW', 'ACTIVE', 'RETIRED')",
            name=op.f("ck_model_versions_state"),
        ),
        sa.CheckConstraint("length(sha256) = 64", name=op.f("ck_model_versions_sha256")),
        sa.ForeignKeyConstraint(
            ["dataset_id"], ["datasets.id"], name=op.f("fk_model_versions_dataset_id_datasets")
        ),
        sa.ForeignKeyConstraint(
            ["training_run_id"],
            ["training_runs.id"],
            name=op.f("fk_model_versions_training_run_id_training_runs"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_model_versions")),
        sa.UniqueConstraint("version", name=op.f("uq_model_versions_version")),
    )
    with op.batch_alter_table("model_versions", schema=None) as batch_op:
        batch_op.create_index(
            "uq_model_versions_active",
            ["state"],
            unique=True,
            sqlite_where=sa.text("state = 'ACTIVE'"),
            postgresql_where=sa.text("state = 'ACTIVE'"),
        )

    op.create_table(
        "training_epochs",
        sa.Column("training_run_id", sa.Uuid(), nullable=False),
        sa.Column("stage", sa.String(length=64), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("metrics", sa.JSON(), nullable=False),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["training_run_id"],
            ["training_runs.id"],
            name=op.f("fk_training_epochs_training_run_id_training_runs"),
        ),
        sa.PrimaryKeyConstraint(
            "training_run_id", "stage", "epoch", name=op.f("pk_training_epochs")
        ),
    )
    op.create_table(
        "evaluations",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("version_id", sa.Uuid(), nullable=False),
        sa.Column("against_id", sa.Uuid(), nullable=True),
        sa.Column("dataset_id", sa.Uuid(), nullable=False),
        sa.Column("summary", sa.JSON(), nullable=False),
        sa.Column("report_sha256", sa.String(length=64), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("length(report_sha256) = 64", name=op.f("ck_evaluations_report_sha256")),
        sa.ForeignKeyConstraint(
            ["against_id"],
            ["model_versions.id"],
            name=op.f("fk_evaluations_against_id_model_versions"),
        ),
        sa.ForeignKeyConstraint(
            ["dataset_id"], ["datasets.id"], name=op.f("fk_evaluations_dataset_id_datasets")
        ),
        sa.ForeignKeyConstraint(
            ["version_id"],
            ["model_versions.id"],
            name=op.f("fk_evaluations_version_id_model_versions"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_evaluations")),
    )
    with op.batch_alter_table("evaluations", schema=None) as batch_op:
        batch_op.create_index("ix_evaluations_version_id", ["version_id"], unique=False)

    op.create_table(
        "model_decisions",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("version_id", sa.Uuid(), nullable=False),
        sa.Column("event", sa.String(length=16), nullable=False),
        sa.Column("from_state", sa.String(length=16), nullable=True),
        sa.Column("to_state", sa.String(length=16), nullable=False),
        sa.Column("by", sa.String(length=128), nullable=False),
        sa.Column("approved_by", sa.String(length=128), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("overridden", sa.Boolean(), nullable=False),
        sa.Column("evaluation_id", sa.Uuid(), nullable=True),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["evaluation_id"],
            ["evaluations.id"],
            name=op.f("fk_model_decisions_evaluation_id_evaluations"),
        ),
        sa.ForeignKeyConstraint(
            ["version_id"],
            ["model_versions.id"],
            name=op.f("fk_model_decisions_version_id_model_versions"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_model_decisions")),
    )
    with op.batch_alter_table("model_decisions", schema=None) as batch_op:
        batch_op.create_index("ix_model_decisions_version_id", ["version_id"], unique=False)

    with op.batch_alter_table("runs", schema=None) as batch_op:
        batch_op.add_column(
            sa.Column("shadow", sa.Boolean(), server_default=sa.false(), nullable=False)
        )
    _remake_live_index(["study_id", "generation", "model_version", "shadow"])
    _freeze_datasets()


def _remake_live_index(columns: list[str]) -> None:
    live = sa.text("state <> 'SUPERSEDED'")
    op.drop_index("uq_runs_live", table_name="runs")
    op.create_index(
        "uq_runs_live", "runs", columns, unique=True, sqlite_where=live, postgresql_where=live
    )


def _remove_shadow_runs() -> None:
    shadow = "(SELECT id FROM runs WHERE shadow)"
    for table in ("image_results", "artifacts"):
        op.execute(f"DELETE FROM {table} WHERE run_id IN {shadow}")
    op.execute("DELETE FROM runs WHERE shadow")


def _freeze_datasets() -> None:
    """Rows of data sets are written once: the database itself refuses to change or remove them."""
    if op.get_bind().dialect.name == "postgresql":
        op.execute(
            f"CREATE FUNCTION tomonode_frozen() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            f" RAISE EXCEPTION '{_FROZEN}' USING ERRCODE = 'integrity_constraint_violation'; END $$"
        )
        for table in _FROZEN_TABLES:
            op.execute(
                f"CREATE TRIGGER {table}_frozen BEFORE UPDATE OR DELETE OR TRUNCATE ON {table}"
                " FOR EACH STATEMENT EXECUTE FUNCTION tomonode_frozen()"
            )
        return
    for table in _FROZEN_TABLES:
        for change in ("update", "delete"):
            op.execute(
                f"CREATE TRIGGER {table}_no_{change} BEFORE {change.upper()} ON {table}"
                f" BEGIN SELECT RAISE(ABORT, '{_FROZEN}'); END"
            )


def downgrade() -> None:
    """Undo; triggers go with their tables."""
    # What was read in shadow has no place in the older schema, nor has anything that hangs on it.
    _remove_shadow_runs()
    _remake_live_index(["study_id", "generation", "model_version"])
    with op.batch_alter_table("runs", schema=None) as batch_op:
        batch_op.drop_column("shadow")

    with op.batch_alter_table("model_decisions", schema=None) as batch_op:
        batch_op.drop_index("ix_model_decisions_version_id")

    op.drop_table("model_decisions")
    with op.batch_alter_table("evaluations", schema=None) as batch_op:
        batch_op.drop_index("ix_evaluations_version_id")

    op.drop_table("evaluations")
    op.drop_table("training_epochs")
    with op.batch_alter_table("model_versions", schema=None) as batch_op:
        batch_op.drop_index(
            "uq_model_versions_active",
            sqlite_where=sa.text("state = 'ACTIVE'"),
            postgresql_where=sa.text("state = 'ACTIVE'"),
        )

    op.drop_table("model_versions")
    op.drop_table("annotations")
    with op.batch_alter_table("training_runs", schema=None) as batch_op:
        batch_op.drop_index(
            "uq_training_runs_live",
            sqlite_where=sa.text("state IN ('QUEUED', 'RUNNING', 'PAUSED')"),
            postgresql_where=sa.text("state IN ('QUEUED', 'RUNNING', 'PAUSED')"),
        )
        batch_op.drop_index("ix_training_runs_state")

    op.drop_table("training_runs")
    op.drop_table("pathology")
    op.drop_table("dataset_items")
    with op.batch_alter_table("dataset_exclusions", schema=None) as batch_op:
        batch_op.drop_index("ix_dataset_exclusions_dataset_id")

    op.drop_table("dataset_exclusions")
    op.drop_table("assessments")
    op.drop_table("label_imports")
    op.drop_table("datasets")
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP FUNCTION tomonode_frozen()")
