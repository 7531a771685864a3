"""Alembic's environment: the URL comes from the caller or the settings; one migrator at a time."""

from __future__ import annotations

from typing import Literal

from alembic import context
from sqlalchemy import Connection, text
from sqlalchemy.exc import IntegrityError

from node.config import load_settings
from node.db import make_engine
from node.models import Base, UtcDateTime  # node.db has imported every other table

# Any number, the same for every migrator of this project.
_LOCK = 7_301_204


def _render(_kind: str, item: object, _context: object) -> str | Literal[False]:
    # a migration outlives the code: it names SQLAlchemy's types, not ours
    return "sa.DateTime(timezone=True)" if isinstance(item, UtcDateTime) else False


def _foreign_keys(connection: Connection, *, on: bool) -> None:
    """Whether SQLite looks after references; not to be changed within a transaction."""
    connection.commit()
    driver = connection.connection.driver_connection
    assert driver is not None
    driver.execute(f"PRAGMA foreign_keys={'ON' if on else 'OFF'}")


def run(connection: Connection) -> None:
    """Migrate on this connection; a second migrator waits, then finds nothing to do."""
    if connection.dialect.name == "postgresql":
        connection.execute(text(f"SELECT pg_advisory_lock({_LOCK})"))
        connection.commit()
    sqlite = connection.dialect.name == "sqlite"
    if sqlite:
        # a table that is made anew, as SQLite wants it for other constraints, is dropped in between
        _foreign_keys(connection, on=False)
    try:
        context.configure(
            connection=connection,
            target_metadata=Base.metadata,
            render_as_batch=sqlite,
            compare_type=True,
            render_item=_render,
        )
        with context.begin_transaction():
            context.run_migrations()
            if sqlite and (broken := connection.execute(text("PRAGMA foreign_key_check")).all()):
                raise IntegrityError(f"rows refer to nothing: {broken[:5]}", None, ValueError())
    finally:
        if sqlite:
            _foreign_keys(connection, on=True)
        if connection.dialect.name == "postgresql":
            connection.execute(text(f"SELECT pg_advisory_unlock({_LOCK})"))
            connection.commit()


url = context.config.get_main_option("sqlalchemy.url") or load_settings().db_url
engine = make_engine(url)
with engine.connect() as opened:
    run(opened)
engine.dispose()
