"""A peer that takes little endian alone gets compressed objects in it, and the record says so."""

from __future__ import annotations

import subprocess
import sys
import uuid
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from sqlalchemy import select

from dicom_io.syntaxes import (
    COMPREHENSIVE_3D_SR,
    DEFLATED,
    EXPLICIT_BIG,
    EXPLICIT_LITTLE,
    IMPLICIT_LITTLE,
    JPEG2000_LOSSLESS,
    JPEG_LS_LOSSLESS,
)
from node import peers, runs, schema, scu
from node.config import Settings
from node.db import Database, now
from node.deliveries import Parcel
from node.errors import DiskFull
from node.models import Artifact, DeliveryInstance
from node.runs import ArtifactFile, Outcome
from tests.conftest import make_settings
from tests.support import dcmtk
from tests.support.breast_objects import (
    edited,
    encode,
    view_file,
    volume,
    with_frames,
    with_syntax,
)
from tests.support.factory import Factory
from tests.support.loopback import loopback
from tests.support.objects import data_set_bytes, write_object
from tests.support.pacs import Script, Stored, pacs
from workers.deliver import DeliveryWorker, may_pass

COMPRESSED = (JPEG2000_LOSSLESS, JPEG_LS_LOSSLESS, "1.2.840.10008.1.2.5")


@pytest.fixture
def sender(tmp_path: Path) -> Settings:
    """Settings of who sends."""
    return make_settings(tmp_path, ae_title="SENDER")


def stored_object(folder: Path, syntax: str) -> Path:
    path = view_file(folder)
    if syntax in COMPRESSED:
        return with_frames(path, [encode(frame, syntax) for frame in volume()], syntax)
    return with_syntax(path, syntax) if syntax != EXPLICIT_LITTLE else path


def parcel_of(path: Path) -> tuple[Parcel, Path]:
    dataset = dcmread(path, stop_before_pixels=True)
    return Parcel(uuid.uuid4(), dataset.SOPInstanceUID, dataset.SOPClassUID, "ab" * 32), path


def as_dataset(stored: Stored) -> Dataset:
    implicit = stored.transfer_syntax_uid == IMPLICIT_LITTLE
    found: Dataset = dcmread(BytesIO(stored.content), force=True)
    assert found.is_implicit_VR is implicit
    return found


@pytest.mark.parametrize("syntax", [*COMPRESSED, DEFLATED, EXPLICIT_BIG])
@pytest.mark.parametrize(
    ("taken", "got", "name"),
    [
        ((EXPLICIT_LITTLE,), EXPLICIT_LITTLE, "explicit little endian"),
        ((IMPLICIT_LITTLE,), IMPLICIT_LITTLE, "implicit little endian"),
    ],
)
def test_little_endian_for_a_peer_that_knows_nothing_else(
    sender: Settings, tmp_path: Path, syntax: str, taken: tuple[str, ...], got: str, name: str
) -> None:
    path = stored_object(tmp_path, syntax)
    with pacs(Script(syntaxes=taken)) as peer:
        [answer] = scu.store(peer.destination(), [parcel_of(path)], sender)
        [stored] = peer.stored
    assert (answer.accepted, answer.status) == (True, f"0x0000 (as {name})")
    assert len(answer.status) <= 64  # the column of the record
    assert stored.transfer_syntax_uid == got
    assert stored.sop_uid == dcmread(path, stop_before_pixels=True).SOPInstanceUID
    np.testing.assert_array_equal(
        np.frombuffer(as_dataset(stored).PixelData, "<u2"), volume().reshape(-1)
    )
    assert list(sender.spool.iterdir()) == []


def test_explicit_where_the_peer_takes_both_and_the_stored_form_where_it_takes_that(
    sender: Settings, tmp_path: Path
) -> None:
    first = stored_object(tmp_path / "a", JPEG2000_LOSSLESS)
    second = stored_object(tmp_path / "b", JPEG_LS_LOSSLESS)
    third = stored_object(tmp_path / "c", EXPLICIT_LITTLE)
    parcels = [parcel_of(path) for path in (first, second, third)]
    with pacs(Script(syntaxes=(EXPLICIT_LITTLE, IMPLICIT_LITTLE, JPEG_LS_LOSSLESS))) as peer:
        answers = scu.store(peer.destination(), parcels, sender)
        assert peer.associations == 1
    assert [a.status for a in answers] == ["0x0000 (as explicit little endian)", "0x0000", "0x0000"]
    assert [one.content for one in peer.stored[1:]] == [
        data_set_bytes(path.read_bytes()) for path in (second, third)
    ]


def test_a_refusal_of_the_transcoded_object_is_the_peers_answer(
    sender: Settings, tmp_path: Path
) -> None:
    path = stored_object(tmp_path, JPEG2000_LOSSLESS)
    script = Script(syntaxes=(IMPLICIT_LITTLE,), statuses={1: 0xA700})
    with pacs(script) as peer:
        [answer] = scu.store(peer.destination(), [parcel_of(path)], sender)
    assert (answer.accepted, answer.status) == (False, "0xA700 (as implicit little endian)")
    assert may_pass(answer.status)


def test_what_cannot_be_transcoded_is_refused_and_its_neighbours_arrive(
    sender: Settings, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.dcm"
    write_object(broken, JPEG2000_LOSSLESS)  # its frame is no code stream
    good = stored_object(tmp_path, JPEG2000_LOSSLESS)
    with pacs(Script(syntaxes=(EXPLICIT_LITTLE,))) as peer:
        answers = scu.store(peer.destination(), [parcel_of(broken), parcel_of(good)], sender)
    assert [a.accepted for a in answers] == [False, True]
    assert answers[0].status.startswith("0x0122 (")
    assert not may_pass(answers[0].status)
    assert len(answers[0].status) <= 64
    assert list(sender.spool.iterdir()) == []


def test_no_room_is_a_matter_of_time(sender: Settings, tmp_path: Path) -> None:
    path = stored_object(tmp_path, JPEG2000_LOSSLESS)
    full = sender.model_copy(update={"disk_reserve_mb": 10**9})
    with pacs(Script(syntaxes=(EXPLICIT_LITTLE,))) as peer:
        with pytest.raises(DiskFull, match="TOMONODE_DISK_RESERVE_MB"):
            scu.store(peer.destination(), [parcel_of(path)], full)
        assert peer.stored == []


def test_more_contexts_than_one_association_can_propose(sender: Settings, tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.dcm" for number in range(70)]
    for number, path in enumerate(paths):
        write_object(
            path, SOPClassUID=f"1.2.3.{number}" if number % 69 else "1.2.840.10008.5.1.4.1.1.7"
        )
    with pacs() as peer:
        answers = scu.store(peer.destination(), [parcel_of(path) for path in paths], sender)
        assert peer.associations == 2
    assert [n for n, a in enumerate(answers) if a.accepted] == [0, 69]
    assert {a.status for a in answers if not a.accepted} == {"0x0122"}


def test_the_record_of_a_delivery_says_in_what_form_each_object_went(settings: Settings) -> None:
    """Through the worker: a SEG that the peer takes transcoded, an SR that it takes as it is."""
    schema.upgrade(settings.db_url)
    db = Database(settings.db_url)
    factory = Factory(db, settings)
    folder = settings.home / "made"
    seg, sr = stored_object(folder, JPEG2000_LOSSLESS), folder / "sr.dcm"
    report = write_object(sr, SOPClassUID=COMPREHENSIVE_3D_SR)
    edited(sr, lambda dataset: delattr(dataset, "PixelData"))
    files = []
    for kind, path in (("SEG", seg), ("SR", sr)):
        made, content = dcmread(path), path.read_bytes()
        sha256 = factory.store.write(content)
        uids = (made.SOPInstanceUID, made.SOPClassUID)
        files.append(ArtifactFile(kind, path.name, sha256, len(content), None, *uids))
    with pacs(Script(syntaxes=(EXPLICIT_LITTLE,))) as peer:
        with db.transaction() as session:
            at = now(session)
            peers.add(session, peers.dicom_peer("pacs", "PACS", "127.0.0.1", peer.port, at))
        _, run_id = factory.queued()
        outcome = Outcome({"name": "3D-GMIC", "version": "1"}, [], files, {})
        assert runs.succeed(db, factory.claim(run_id), outcome, settings)
        [delivery_id] = factory.deliveries_of(run_id)
        assert DeliveryWorker(settings, "delivery-1").deliver(delivery_id) == "done"
        assert len(peer.stored) == 2
    with db.reading() as session:
        kept = session.execute(select(DeliveryInstance)).scalars().all()
        known = {one.sop_uid: str(one.id) for one in session.execute(select(Artifact)).scalars()}
    db.dispose()
    said = {str(one.artifact_id): (one.accepted, one.status) for one in kept}
    assert said == {
        known[dcmread(seg).SOPInstanceUID]: (True, "0x0000 (as explicit little endian)"),
        known[report.SOPInstanceUID]: (True, "0x0000"),
    }


@pytest.mark.system
def test_storescp_that_knows_little_endian_alone(sender: Settings, tmp_path: Path) -> None:
    path = stored_object(tmp_path, JPEG2000_LOSSLESS)
    uid = str(generate_uid())
    edited(path, lambda dataset: setattr(dataset, "SOPInstanceUID", uid))
    with loopback() as network, dcmtk.storescp(network, tmp_path / "pacs", ["+xe"]) as peer:
        code = _SEND.format(
            port=peer.port, title=dcmtk.AE_TITLE, path=str(path), home=str(tmp_path)
        )
        sent = subprocess.run(
            [*network.command, sys.executable, "-c", code], capture_output=True, text=True
        )
        assert sent.stdout.strip() == "0x0000 (as explicit little endian)", sent.stderr
        [file] = peer.folder.iterdir()
        made = dcmread(file)
    assert made.file_meta.TransferSyntaxUID == EXPLICIT_LITTLE
    assert made.PixelData == volume().astype("<u2").tobytes()


_SEND = """
import uuid
from pathlib import Path
from node import scu
from node.deliveries import Destination, Parcel
from tests.conftest import make_settings
path = Path({path!r})
file = scu.outgoing(path)
parcel = Parcel(uuid.uuid4(), file.sop_uid, file.sop_class_uid, "ab" * 32)
peer = Destination("pacs", "DICOM", {title!r}, "127.0.0.1", {port}, None)
[answer] = scu.store(peer, [(parcel, path)], make_settings(Path({home!r}), ae_title="SENDER"))
print(answer.status)
"""
