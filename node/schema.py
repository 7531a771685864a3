"""Migrations from inside the program: upgrade to head, and say which revision a database has."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.exc import InterfaceError, OperationalError

import migrations
from node.db import Database, parse_url
from node.errors import DatabaseUnavailable


def _config(url: str) -> Config:
    config = Config()
    config.set_main_option(
        "script_location", str(Path(migrations.__file__).parent).replace("%", "%%")
    )
    config.set_main_option("sqlalchemy.url", url.replace("%", "%%"))
    return config


def upgrade(url: str) -> None:
    """Bring a database, empty or older, to the newest schema. Creates the folder of a SQLite file.

    Raises:
        ConfigError: the URL cannot be used.
        DatabaseUnavailable: no connection.
    """
    parsed = parse_url(url)
    if parsed.drivername.startswith("sqlite") and parsed.database:
        Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
    try:
        command.upgrade(_config(url), "head")
    except (OperationalError, InterfaceError) as error:
        shown = parsed.render_as_string(hide_password=True)
        raise DatabaseUnavailable(f"cannot migrate {shown}: {error.orig}") from error


def head() -> str:
    """The newest revision this code knows."""
    revision = ScriptDirectory.from_config(_config("sqlite://")).get_current_head()
    assert revision is not None
    return revision


def current(db: Database) -> str | None:
    """The revision of a database; None for an empty one."""
    with db.reading() as session:
        return MigrationContext.configure(session.connection()).get_current_revision()
