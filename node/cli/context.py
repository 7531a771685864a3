"""What every command begins with: settings, and a database that has the schema of this program."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from node import schema
from node.config import Settings, load_settings
from node.db import Database, parse_url
from node.errors import Conflict

_UPGRADE = "run `tomonode db upgrade` (`tomonode up` does it by itself)"


@contextmanager
def database(settings: Settings | None = None) -> Iterator[Database]:
    """The node's database, closed afterwards.

    Raises:
        ConfigError: its URL cannot be used.
        Conflict: it has no schema yet, or that of another version of this program.
        DatabaseUnavailable: no connection.
    """
    db = open_database(settings or load_settings())
    try:
        require_schema(db)
        yield db
    finally:
        db.dispose()


def open_database(settings: Settings) -> Database:
    """The database as it is; an embedded one that is not there yet is not made.

    Raises:
        ConfigError: its URL cannot be used.
        Conflict: it is not there.
    """
    url = parse_url(settings.db_url)
    file = url.database if url.get_backend_name() == "sqlite" else None
    if file and file != ":memory:" and not Path(file).exists():
        raise Conflict(f"database {file} is not there yet; {_UPGRADE}")
    return Database(settings.db_url)


def require_schema(db: Database) -> None:
    """Raises Conflict unless the database has the schema this program was written for."""
    revision, head = schema.current(db), schema.head()
    if revision != head:
        found = f"schema {revision}" if revision else "no schema"
        raise Conflict(f"database has {found}, this program needs {head}; {_UPGRADE}")
