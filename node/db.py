"""The database: engines, transactions, time, and the one function that changes a state.

SQLite (WAL, fully synchronous: what was acknowledged survives a power cut) and PostgreSQL
share every line above this file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, CursorResult, Engine, create_engine, event, text, update
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, InterfaceError, OperationalError
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from node.errors import ConfigError, DatabaseUnavailable
from node.exchange_models import Commitment, Pull
from node.learning_models import ModelVersion, TrainingRun
from node.lifecycle import Event, sources_and_target
from node.models import Delivery, Run, Study

_BUSY_MS = 20_000


class Database:
    """An engine and its transactions. Make one a process; safe to share between threads."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.engine = make_engine(url)

    @property
    def is_sqlite(self) -> bool:
        """Whether this is the embedded default."""
        return self.engine.dialect.name == "sqlite"

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """A writing transaction: commits at the end, rolls back on any error.

        Raises:
            DatabaseUnavailable: no connection, locked for too long, or no room.
        """
        yield from self._session(writing=True)

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A reading transaction; what it changes is rolled back.

        Raises:
            DatabaseUnavailable: no connection.
        """
        yield from self._session(writing=False)

    def _session(self, writing: bool) -> Iterator[Session]:
        engine = self.engine.execution_options(tomonode_writing=writing)
        try:
            with Session(engine, expire_on_commit=False) as session:
                yield session
                if writing:
                    session.commit()
        except (OperationalError, InterfaceError) as error:
            reason = str(error.orig).strip().splitlines()[0] if error.orig else type(error).__name__
            raise DatabaseUnavailable(
                f"database does not answer ({reason}); see `tomonode doctor`"
            ) from error

    def dispose(self) -> None:
        """Close pooled connections."""
        self.engine.dispose()


def parse_url(url: str) -> URL:
    """A database URL as a value.

    Raises:
        ConfigError: it is none, or of an engine we do not know; the URL is not repeated, it may hold a password.
    """
    try:
        parsed = make_url(url)
    except ArgumentError:
        parsed = None
    if parsed is None or parsed.drivername not in ("sqlite", "postgresql+psycopg"):
        raise ConfigError(
            "setting TOMONODE_DATABASE_URL cannot be used; give sqlite:///FILE or postgresql://USER@HOST/NAME"
        )
    return parsed


def make_engine(url: str) -> Engine:
    """An engine with the project's settings for SQLite or PostgreSQL."""
    if url.startswith("sqlite"):
        # A connection for each transaction: SQLite opens in microseconds, and a file replaced under us is noticed.
        engine = create_engine(url, poolclass=NullPool, connect_args={"timeout": _BUSY_MS / 1000})
        event.listen(engine, "connect", _set_up_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    # A connection that the server closed is replaced; a statement that hangs ends with an error, not a stuck process.
    options = f"-c statement_timeout={_BUSY_MS * 3} -c lock_timeout={_BUSY_MS} -c timezone=UTC"
    return create_engine(
        url, pool_pre_ping=True, connect_args={"connect_timeout": 5, "options": options}
    )


def _set_up_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # we send BEGIN ourselves, below
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.execute(f"PRAGMA busy_timeout={_BUSY_MS}")
    cursor.close()


def _begin_sqlite(connection: Any) -> None:
    # A writer takes the write lock at once: upgrading a read lock later would fail with SQLITE_BUSY.
    writing = connection.get_execution_options().get("tomonode_writing", True)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")


def now(session: Session) -> datetime:
    """The database's clock, UTC; one clock for leases, whatever host asks. PostgreSQL's now() would stand still
    for the whole transaction, so `clock_timestamp()` is asked."""
    if session.get_bind().dialect.name == "sqlite":
        return datetime.now(UTC)
    value: datetime = session.execute(text("SELECT clock_timestamp()")).scalar_one()
    return value.astimezone(UTC)


Machine = (
    type[Study]
    | type[Run]
    | type[Delivery]
    | type[TrainingRun]
    | type[ModelVersion]
    | type[Commitment]
    | type[Pull]
)


def transition(
    session: Session,
    model: Machine,
    what: Event,
    where: Sequence[ColumnElement[bool]],
    /,
    **values: object,
) -> int:
    """Apply one event of a state machine to the matching rows, in one conditional UPDATE.

    Args:
        session: of a writing transaction.
        model: a table with states, such as Study or Run.
        what: the event; its table says from which states, and to which.
        where: which rows (id, attempt, ...).
        **values: other columns to set with it.

    Returns:
        How many rows changed: 0 says that somebody else was first.
    """
    sources, target = sources_and_target(what)
    statement = (
        update(model)
        .where(model.state.in_(sources), *where)
        .values(state=target, **values)
        .execution_options(synchronize_session=False)
    )
    result = session.execute(statement)
    assert isinstance(result, CursorResult)
    session.expire_all()
    return result.rowcount
