"""dcmtk around the node: dcmsend with strange files, echoscu, storescp as the destination of `tomonode send`."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info

from node import schema
from node.config import Settings
from tests.support import dcmtk
from tests.support.dcmtk import storescp
from tests.support.listening import ListenerProcess, listening, spooled, stored
from tests.support.loopback import loopback
from tests.support.objects import data_set_bytes, write_large, write_object
from tests.support.shared import shared_path

pytestmark = pytest.mark.system


@pytest.fixture
def node(settings: Settings) -> Iterator[ListenerProcess]:
    schema.upgrade(settings.db_url)
    with listening(settings) as running:
        yield running


def test_echoscu(node: ListenerProcess) -> None:
    called = dcmtk.run("echoscu", "-aec", "TOMONODE", "127.0.0.1", str(node.port))
    mistaken = dcmtk.run("echoscu", "-aec", "SOMEBODY", "127.0.0.1", str(node.port))

    assert called.returncode == 0, called.stdout
    assert mistaken.returncode != 0
    assert "Called AE Title Not Recognized" in mistaken.stdout


def dicom_files(folder: Path) -> dict[Path, str]:
    """Every file with file meta information, and its SOP Instance UID (which that group may tell wrongly)."""
    found = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        try:
            found[path] = str(dcmread(path, stop_before_pixels=True).SOPInstanceUID)
        except InvalidDicomError:
            continue
    return found


def test_every_file_is_stored_or_refused_and_its_neighbours_are_kept(
    node: ListenerProcess, tmp_path: Path
) -> None:
    files = dicom_files(shared_path("data"))
    assert len(files) > 40
    known: set[str] = set()
    for number, (path, uid) in enumerate(files.items()):
        before, after = tmp_path / f"{number}-1.dcm", tmp_path / f"{number}-2.dcm"
        good = {str(write_object(one).SOPInstanceUID) for one in (before, after)}
        status = dcmsend(node.port, before, path, after)[path.name]
        kept = stored(node.settings)  # also checks that every blob is whole
        assert good <= kept.keys(), f"neighbours of {path.name}"
        if uid in known:  # the same image in another transfer syntax
            assert status == "0x0111", path.name
            continue
        assert (uid in kept) == (status == "0x0000"), f"{path.name} answered {status}"
        known |= kept.keys() & {uid}
    assert len(known) > 30
    assert spooled(node.settings) == []
    assert node.process.poll() is None


_REPORTED = re.compile(
    r"^Filename +: (?P<file>.+)\n(?:.+\n)*?DIMSE Status +: (?P<status>0x\w{4})", re.MULTILINE
)


def dcmsend(port: int, *files: Path) -> dict[str, str]:
    """Send files over one association, each in its own transfer syntax: the status of each by file name.

    A file that the sender does not put on the wire has what dcmtk says.
    """
    report = files[0].with_suffix(".report")
    options = ("-aec", "TOMONODE", "-nh", "-dn", "-nuc", "+crf", report)
    done = dcmtk.run("dcmsend", *options, "127.0.0.1", str(port), *files, timeout_s=60)
    said = {file.name: f"not sent: {done.stdout[-300:]}" for file in files}
    for entry in _REPORTED.finditer(report.read_text(errors="replace")):
        said[Path(entry["file"]).name] = entry["status"]
    return said


def test_storescp_gets_what_tomonode_sends(tmp_path: Path) -> None:
    dcmtk.program("storescp")
    folder = tmp_path / "files"
    folder.mkdir()
    sent = {
        str(write_object(folder / f"{n}.dcm").SOPInstanceUID): folder / f"{n}.dcm" for n in range(3)
    }
    large = folder / "large.dcm"
    sent[str(write_large(large, 40 * 2**20).SOPInstanceUID)] = large
    with loopback() as network, storescp(network, tmp_path / "received", ["+B", "-uf"]) as peer:
        done = subprocess.run(
            [
                *(*network.command, sys.executable, "-m", "workers.cli", "send", "--called"),
                *(dcmtk.AE_TITLE, "127.0.0.1", str(peer.port), str(folder)),
            ],
            env={**os.environ, "TOMONODE_HOME": str(tmp_path / "home")},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        received = list(peer.folder.iterdir())

    assert len(received) == len(sent)
    for file in received:
        uid = str(read_file_meta_info(file).MediaStorageSOPInstanceUID)
        assert data_set_bytes(file.read_bytes()) == data_set_bytes(sent[uid].read_bytes())
