"""storescu of dcmtk as sender."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from node import schema
from node.blobs import BlobStore
from node.config import Settings
from node.models import Instance
from tests.conftest import make_settings
from tests.support.listening import (
    listening,
    rows,
    spooled,
    stored,
)
from tests.support.objects import data_set_bytes, write_large, write_object
from tests.support.services import wait_until


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A folder that is emptied at once, because pytest keeps what lies in its own for a while."""
    folder = tmp_path / "home"
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


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
    assert [row.transfer_syntax_uid for row in rows(settings, Instance)] == [syntax]


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
        wait_until(lambda: not spooled(settings), 20, "the spool to be cleared")
        assert node.process.poll() is None
    assert stored(settings) == {}


def spooled_bytes(settings: Settings) -> int:
    total = 0
    for path in settings.spool.iterdir():
        with suppress(FileNotFoundError):
            total += path.stat().st_size
    return total
