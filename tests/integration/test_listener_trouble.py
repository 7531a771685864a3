"""The listener without room on its disk, and without its database."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from node import schema
from node.config import Settings
from tests.conftest import make_settings
from tests.support.databases import Postgres, postgres
from tests.support.listening import (
    blobs,
    left_behind,
    listening,
    send,
    spooled,
    stored,
)
from tests.support.objects import write_large, write_object


@pytest.fixture
def own_postgres() -> Iterator[Postgres]:
    """A PostgreSQL that this test alone may stop."""
    with postgres() as server:
        yield server


def small_files(folder: Path, count: int) -> dict[str, Path]:
    folder.mkdir()
    files = {}
    for number in range(count):
        path = folder / f"{number}.dcm"
        files[str(write_object(path).SOPInstanceUID)] = path
    return files


@contextmanager
def small_disk(path: Path, megabytes: int) -> Iterator[None]:
    """A file system of a few megabytes at `path`; skips where the test may not mount one."""
    path.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(path)]
    mount = shutil.which("mount")
    if os.geteuid() != 0 or mount is None:
        pytest.skip("a full disk needs a tmpfs, and mounting one needs root")
    if subprocess.run(command, capture_output=True).returncode != 0:
        pytest.skip("a full disk needs a tmpfs, which may not be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


def test_a_full_disk_is_answered_and_the_association_goes_on(tmp_path: Path) -> None:
    home = tmp_path / "home"
    large, small = tmp_path / "large.dcm", tmp_path / "small.dcm"
    write_large(large, 40 * 2**20)
    uid = str(write_object(small).SOPInstanceUID)
    with small_disk(home, 24):
        settings = make_settings(home, database_url=f"sqlite:///{tmp_path / 'node.sqlite'}")
        schema.upgrade(settings.db_url)
        with listening(settings) as node:
            assert send(settings, node.port, large, small, large) == ["0xA700", "0x0000", "0xA700"]
            assert node.terminate() == 0
        assert list(stored(settings)) == [uid]
        assert left_behind(settings) == []


def test_a_disk_that_fills_up_under_spool_and_database(tmp_path: Path) -> None:
    home = tmp_path / "home"
    files = small_files(tmp_path / "files", 12)
    with small_disk(home, 16):
        settings = make_settings(home)
        schema.upgrade(settings.db_url)
        filler = home / "filler"
        with listening(settings) as node:
            acknowledged = set()
            for number, (uid, path) in enumerate(files.items()):
                fill(filler, leave_bytes=16384 * number)
                [status] = send(settings, node.port, path)
                assert status in ("0x0000", "0xA700")
                acknowledged |= {uid} if status == "0x0000" else set()
                filler.unlink()
                assert set(stored(settings)) == acknowledged
                assert left_behind(settings) == []
            assert 0 < len(acknowledged) < len(files)
            assert set(send(settings, node.port, *files.values())) == {"0x0000"}
        assert set(stored(settings)) == set(files)


def fill(path: Path, leave_bytes: int) -> None:
    """Write until the disk is full, then give some bytes back."""
    with path.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(4096)):
            pass
    os.truncate(path, max(0, path.stat().st_size - leave_bytes))


def test_a_sqlite_file_that_cannot_be_opened(settings: Settings, tmp_path: Path) -> None:
    schema.upgrade(settings.db_url)
    database, aside = settings.home / "node.sqlite", settings.home / "aside"
    path = tmp_path / "one.dcm"
    write_object(path)
    with listening(settings) as node:
        database.rename(aside)
        database.mkdir()
        assert send(settings, node.port, path, path) == ["0xA700", "0xA700"]
        assert spooled(settings) == []
        database.rmdir()
        aside.rename(database)
        assert left_behind(settings) == []
        assert send(settings, node.port, path) == ["0x0000"]


def test_a_sqlite_file_that_is_locked_for_too_long(settings: Settings, tmp_path: Path) -> None:
    schema.upgrade(settings.db_url)
    path = tmp_path / "one.dcm"
    write_object(path)
    with listening(settings) as node:
        holder = sqlite3.connect(settings.home / "node.sqlite", isolation_level=None)
        holder.execute("BEGIN EXCLUSIVE")
        assert send(settings, node.port, path) == ["0xA700"]
        holder.execute("ROLLBACK")
        holder.close()
        assert left_behind(settings) == []
        assert send(settings, node.port, path) == ["0x0000"]


def test_postgresql_that_is_stopped(own_postgres: Postgres, tmp_path: Path) -> None:
    settings = make_settings(tmp_path / "home", database_url=own_postgres.new_database())
    schema.upgrade(settings.db_url)
    first, second = tmp_path / "first.dcm", tmp_path / "second.dcm"
    write_object(first)
    write_object(second)
    with listening(settings) as node:
        assert send(settings, node.port, first) == ["0x0000"]
        before = blobs(settings)
        own_postgres.stop()
        assert send(settings, node.port, second, first) == ["0xA700", "0xA700"]
        assert blobs(settings) == before
        assert spooled(settings) == []
        assert node.terminate() == 0
