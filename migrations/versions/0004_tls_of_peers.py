"""tls of peers

Revision: 0004, after 0003
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.add_column(
        "peers", sa.Column("tls", sa.Boolean(), server_default=sa.false(), nullable=False)
    )
    op.add_column("peers", sa.Column("pin_sha256", sa.String(length=64), nullable=True))


def downgrade() -> None:
    """Undo."""
    op.drop_column("peers", "pin_sha256")
    op.drop_column("peers", "tls")
