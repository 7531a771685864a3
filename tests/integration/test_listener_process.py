"""The listener as a process: killed, stopped, out of disk, out of database, and how much memory it takes."""

from __future__ import annotations

import json
import os
import random
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from sqlalchemy import select

from node import schema, scu
from node.blobs import BlobStore, sha256_of
from node.config import Settings
from node.db import Database
from node.models import Instance, Study
from tests.conftest import make_settings
from tests.support.databases import Postgres, postgres
from tests.support.listening import SplitSend, associated, listening
from tests.support.objects import data_set_bytes, write_large, write_object
from tests.support.services import wait_until

MEMORY_LIMIT = 100 * 2**20


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A folder that is emptied at once, because pytest keeps what lies in its own for a while."""
    folder = tmp_path / "home"
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def own_postgres() -> Iterator[Postgres]:
    """A PostgreSQL that this test alone may stop."""
    with postgres() as server:
        yield server


def send(settings: Settings, port: int, *files: Path) -> list[str]:
    results = scu.send_files("127.0.0.1", port, "TOMONODE", files, settings)
    return [r.status or r.reason for r in results]


def stored(settings: Settings) -> dict[str, str]:
    """SOP Instance UID -> digest of every row; each blob is there and whole."""
    db, store = Database(settings.db_url), BlobStore(settings.blob_root, settings.spool)
    with db.reading() as session:
        rows = session.execute(select(Instance.sop_uid, Instance.sha256)).all()
    db.dispose()
    for row in rows:
        digest = row.sha256
        assert sha256_of(store.path(digest)) == digest
    return {row.sop_uid: row.sha256 for row in rows}


def left_behind(settings: Settings) -> list[Path]:
    """Files in the spool, and blobs without a row."""
    known = set(stored(settings).values())
    blobs = [p for p in settings.blob_root.glob("??/??/*") if p.is_file()]
    return [*settings.spool.iterdir(), *(p for p in blobs if p.name not in known)]


def small_files(folder: Path, count: int) -> dict[str, Path]:
    folder.mkdir()
    files = {}
    for number in range(count):
        path = folder / f"{number}.dcm"
        files[str(write_object(path).SOPInstanceUID)] = path
    return files


def test_killed_at_any_moment_nothing_acknowledged_is_lost(
    any_settings: Settings, tmp_path: Path
) -> None:
    schema.upgrade(any_settings.db_url)
    chance = random.Random(20260304)
    files = small_files(tmp_path / "files", 120)
    left = list(files.items())
    acknowledged: set[str] = set()
    for _ in range(5):
        with listening(any_settings) as node:
            timer = threading.Timer(chance.uniform(0.05, 0.6), node.kill)
            timer.start()
            batch, left = left[:24], left[24:]
            statuses = send(any_settings, node.port, *(path for _, path in batch))
            timer.join()
        acknowledged |= {
            uid for (uid, _), status in zip(batch, statuses, strict=True) if status == "0x0000"
        }
        assert acknowledged <= set(stored(any_settings))
    with listening(any_settings) as node:
        assert set(send(any_settings, node.port, *files.values())) == {"0x0000"}
    assert set(stored(any_settings)) == set(files)


def test_killed_in_the_middle_of_an_object(settings: Settings, tmp_path: Path) -> None:
    schema.upgrade(settings.db_url)
    path = tmp_path / "large.dcm"
    dataset = write_large(path, 2**20)
    with listening(settings) as node, associated(node.port, path) as association:
        SplitSend(association, path).some(20)
        wait_until(lambda: list(settings.spool.iterdir()), 10, "the object in flight")
        node.kill()
    assert stored(settings) == {}
    patient = make_settings(settings.home, orphan_age_s=0.1)
    with listening(patient) as node:
        assert list(settings.spool.iterdir()) == []
        assert send(settings, node.port, path) == ["0x0000"]
    assert list(stored(settings)) == [dataset.SOPInstanceUID]


def test_sigterm_finishes_the_object_in_flight(settings: Settings, tmp_path: Path) -> None:
    schema.upgrade(settings.db_url)
    path = tmp_path / "large.dcm"
    dataset = write_large(path, 2**20)
    with listening(settings) as node, associated(node.port, path) as association:
        sending = SplitSend(association, path)
        sending.some(20)
        wait_until(lambda: list(settings.spool.iterdir()), 10, "the object in flight")
        codes: list[int] = []
        stopping = threading.Thread(target=lambda: codes.append(node.terminate()))
        stopping.start()
        wait_until(lambda: not _connects(node.port), 10, "the port to be closed")
        sending.rest()
        assert sending.status() == 0
        stopping.join()
    assert codes == [0]
    assert list(stored(settings)) == [dataset.SOPInstanceUID]
    assert left_behind(settings) == []


def _connects(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_logs_name_no_patient(settings: Settings, tmp_path: Path) -> None:
    schema.upgrade(settings.db_url)
    good, bad, twin = (tmp_path / f"{name}.dcm" for name in ("good", "bad", "twin"))
    dataset = write_object(good)
    write_object(bad, StudyInstanceUID="")
    write_object(twin, SOPInstanceUID=dataset.SOPInstanceUID, InstanceNumber=9)
    with listening(settings) as node:
        assert send(settings, node.port, good, bad, twin) == ["0x0000", "0xC000", "0x0111"]
        assert node.terminate() == 0
        lines = node.log.read_text().splitlines()
    events = [json.loads(line)["event"] for line in lines if line.startswith("{")]
    assert events.count("object stored") == 2
    assert events.count("object refused") == 1
    for secret in ("Secret", "SECRET-ID", "19600101", "ACC1"):
        assert not [line for line in lines if secret in line]


# --- memory ---


_SEND = """
import resource, sys
from pathlib import Path
from node import scu
from node.config import load_settings
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
[result] = scu.send_files("127.0.0.1", int(sys.argv[1]), "TOMONODE", [Path(sys.argv[2])], load_settings())
print(result.status, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def send_apart(port: int, *files: Path) -> list[tuple[str, int]]:
    """Send each file from a process of its own, all at once: status, and bytes of memory it took to send."""
    senders = [
        subprocess.Popen(
            [sys.executable, "-c", _SEND, str(port), str(file)], stdout=subprocess.PIPE, text=True
        )
        for file in files
    ]
    said = [sender.communicate(timeout=300)[0].split() for sender in senders]
    return [(status, int(kilobytes) * 1024) for status, kilobytes in said]


@pytest.mark.parametrize(("senders", "megabytes"), [(1, 1024), (4, 256)])
def test_memory_does_not_grow_with_the_objects(
    home: Path, tmp_path: Path, senders: int, megabytes: int
) -> None:
    settings = make_settings(home)
    schema.upgrade(settings.db_url)
    files = [tmp_path / f"{number}.dcm" for number in range(senders)]
    uids = {str(write_large(file, megabytes * 2**20).SOPInstanceUID) for file in files}
    small = tmp_path / "small.dcm"
    uids.add(str(write_object(small).SOPInstanceUID))
    with listening(settings) as node:
        assert send(settings, node.port, small) == ["0x0000"]
        idle = node.peak_rss_bytes
        results = send_apart(node.port, *files)
        assert node.peak_rss_bytes - idle <= MEMORY_LIMIT
    assert [status for status, _ in results] == ["0x0000"] * senders
    assert max(grown for _, grown in results) <= MEMORY_LIMIT
    assert set(stored(settings)) == uids


# --- no room ---


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


# --- no database ---


def test_a_sqlite_file_that_cannot_be_opened(settings: Settings, tmp_path: Path) -> None:
    schema.upgrade(settings.db_url)
    database, aside = settings.home / "node.sqlite", settings.home / "aside"
    path = tmp_path / "one.dcm"
    write_object(path)
    with listening(settings) as node:
        database.rename(aside)
        database.mkdir()
        assert send(settings, node.port, path, path) == ["0xA700", "0xA700"]
        assert list(settings.spool.iterdir()) == []
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
        before = sorted(settings.blob_root.glob("??/??/*"))
        own_postgres.stop()
        assert send(settings, node.port, second, first) == ["0xA700", "0xA700"]
        assert sorted(settings.blob_root.glob("??/??/*")) == before
        assert list(settings.spool.iterdir()) == []
        assert node.terminate() == 0


# --- dcmtk as sender ---


def storescu(port: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    program = shutil.which("storescu")
    if program is None:
        pytest.skip("storescu is not installed; apt-get install dcmtk")
    command = [program, "-aec", "TOMONODE", "127.0.0.1", str(port), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.system
def test_storescu_sends_a_large_object(home: Path, tmp_path: Path) -> None:
    settings = make_settings(home)
    schema.upgrade(settings.db_url)
    path = tmp_path / "large.dcm"
    uid = str(write_large(path, 300 * 2**20).SOPInstanceUID)
    with listening(settings) as node:
        assert storescu(node.port, "-R", str(path)).returncode == 0
        [(known, digest)] = stored(settings).items()
    assert known == uid
    blob = BlobStore(settings.blob_root, settings.spool).path(digest)
    assert data_set_bytes(blob.read_bytes()) == data_set_bytes(path.read_bytes())


@pytest.mark.system
@pytest.mark.parametrize(
    ("option", "syntax"),
    [
        ("-xr", "1.2.840.10008.1.2.5"),
        ("-xv", "1.2.840.10008.1.2.4.90"),
        ("-xs", "1.2.840.10008.1.2.4.70"),
        ("-xb", "1.2.840.10008.1.2.2"),
        ("-xd", "1.2.840.10008.1.2.1.99"),
    ],
)
def test_storescu_proposes_a_compressed_syntax(
    settings: Settings, tmp_path: Path, option: str, syntax: str
) -> None:
    schema.upgrade(settings.db_url)
    path = tmp_path / "one.dcm"
    write_object(path, syntax, SOPClassUID="1.2.840.10008.5.1.4.1.1.1.2")
    with listening(settings) as node:
        assert storescu(node.port, option, str(path)).returncode == 0
    db = Database(settings.db_url)
    with db.reading() as session:
        assert session.execute(select(Instance.transfer_syntax_uid)).scalars().all() == [syntax]
        assert len(session.execute(select(Study)).scalars().all()) == 1
    db.dispose()


@pytest.mark.system
def test_storescu_killed_in_the_middle(home: Path, tmp_path: Path) -> None:
    settings = make_settings(home)
    schema.upgrade(settings.db_url)
    path = tmp_path / "large.dcm"
    write_large(path, 300 * 2**20)
    program = shutil.which("storescu")
    if program is None:
        pytest.skip("storescu is not installed; apt-get install dcmtk")
    with listening(settings) as node:
        command = [program, "-R", "-aec", "TOMONODE", "127.0.0.1", str(node.port), str(path)]
        sender = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until(lambda: spooled_bytes(settings) > 2**20, 20, "bytes", step_s=0.001)
        sender.kill()
        sender.wait()
        wait_until(lambda: not list(settings.spool.iterdir()), 20, "the spool to be cleared")
        assert node.process.poll() is None
    assert stored(settings) == {}


def spooled_bytes(settings: Settings) -> int:
    total = 0
    for path in settings.spool.iterdir():
        with suppress(FileNotFoundError):
            total += path.stat().st_size
    return total
