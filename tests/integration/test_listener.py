"""What the listener keeps, and what it answers."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom.uid import generate_uid
from pynetdicom.association import Association
from sqlalchemy import event

from dicom_io.syntaxes import STORAGE_CLASSES, TRANSFER_SYNTAXES
from node.arrivals import Recorded
from node.blobs import sha256_of
from node.config import Settings
from node.ingest import ANSWERS
from node.listener import Listener
from node.models import Instance, Quarantined, Study
from tests.conftest import make_settings
from tests.support.listening import (
    associated,
    blobs,
    left_behind,
    rows,
    running,
    send,
    spooled,
    stored,
)
from tests.support.objects import data_set_bytes, replace_data_set, write_object


@pytest.fixture
def node(any_settings: Settings) -> Iterator[Listener]:
    """A running listener on each database engine."""
    with running(any_settings) as started:
        yield started


@pytest.fixture
def embedded(settings: Settings) -> Iterator[Listener]:
    """A running listener on SQLite."""
    with running(settings) as started:
        yield started


def assert_nothing_left(node: Listener) -> None:
    assert spooled(node.settings) == []
    assert blobs(node.settings) == []
    assert rows(node.settings, Study) == []


def comment_of(association: Association, path: Path) -> tuple[int, str]:
    status = association.send_c_store(path)
    return status.Status, str(status.get("ErrorComment", ""))


def test_an_object_is_kept_with_what_its_header_says(node: Listener, tmp_path: Path) -> None:
    path = tmp_path / "one.dcm"
    dataset = write_object(path, NumberOfFrames=3)
    assert send(node.settings, node.port, path) == ["0x0000"]
    [instance] = rows(node.settings, Instance)
    assert instance.sop_uid == dataset.SOPInstanceUID
    assert instance.is_image
    assert instance.frames == 3
    assert instance.calling_ae == "SENDER"
    [blob] = blobs(node.settings)
    assert blob == node.store.path(instance.sha256)
    assert sha256_of(blob) == instance.sha256
    assert blob.stat().st_size == instance.size_bytes
    [study] = rows(node.settings, Study)
    assert (study.study_uid, study.patient_id) == (dataset.StudyInstanceUID, "SECRET-ID")
    assert spooled(node.settings) == []


@pytest.mark.parametrize("syntax", TRANSFER_SYNTAXES)
def test_the_bytes_are_untouched(embedded: Listener, tmp_path: Path, syntax: str) -> None:
    path = tmp_path / "one.dcm"
    write_object(path, syntax)
    assert send(embedded.settings, embedded.port, path) == ["0x0000"]
    [blob] = blobs(embedded.settings)
    stored = blob.read_bytes()
    assert stored[:132] == bytes(128) + b"DICM"
    assert data_set_bytes(stored) == data_set_bytes(path.read_bytes())
    [instance] = rows(embedded.settings, Instance)
    assert instance.transfer_syntax_uid == syntax


def test_every_storage_class_is_taken(embedded: Listener, tmp_path: Path) -> None:
    files = []
    for number, uid in enumerate(STORAGE_CLASSES):
        files.append(tmp_path / f"{number}.dcm")
        write_object(files[-1], SOPClassUID=uid)
    assert set(send(embedded.settings, embedded.port, *files)) == {"0x0000"}
    images = {i.sop_class_uid for i in rows(embedded.settings, Instance) if i.is_image}
    assert images == {"1.2.840.10008.5.1.4.1.1.13.1.3", "1.2.840.10008.5.1.4.1.1.1.2"}


def test_same_object_again_is_success_and_nothing_new(node: Listener, tmp_path: Path) -> None:
    path = tmp_path / "one.dcm"
    write_object(path)
    assert send(node.settings, node.port, path) == ["0x0000"]
    assert send(node.settings, node.port, path, calling="ANOTHER") == ["0x0000"]
    assert len(rows(node.settings, Instance)) == len(blobs(node.settings)) == 1
    assert rows(node.settings, Quarantined) == []


def test_same_uid_with_other_bytes_keeps_the_first(node: Listener, tmp_path: Path) -> None:
    first, second = tmp_path / "first.dcm", tmp_path / "second.dcm"
    dataset = write_object(first)
    write_object(
        second,
        SOPInstanceUID=dataset.SOPInstanceUID,
        StudyInstanceUID=dataset.StudyInstanceUID,
        InstanceNumber=7,
    )
    assert send(node.settings, node.port, first) == ["0x0000"]
    kept = rows(node.settings, Instance)[0].sha256
    with associated(node.port, second) as association:
        for _ in range(2):
            assert comment_of(association, second) == (
                0x0111,
                "UID known with other bytes: first kept, this one quarantined",
            )
    assert [i.sha256 for i in rows(node.settings, Instance)] == [kept]
    [aside] = rows(node.settings, Quarantined)
    assert aside.sop_uid == dataset.SOPInstanceUID
    assert data_set_bytes(node.store.path(aside.sha256).read_bytes()) == data_set_bytes(
        second.read_bytes()
    )
    assert send(node.settings, node.port, first) == ["0x0000"]


@pytest.mark.parametrize(
    "damage", ["garbage", "empty", "cut in the pixels", "cut in the header", "no study"]
)
def test_an_unreadable_data_set_leaves_nothing(
    embedded: Listener, tmp_path: Path, damage: str
) -> None:
    path = tmp_path / "bad.dcm"
    write_object(path, **({"StudyInstanceUID": ""} if damage == "no study" else {}))
    whole = data_set_bytes(path.read_bytes())
    content = {
        "garbage": b"\xff\xfe" * 500,
        "empty": b"\0\0",
        "cut in the pixels": whole[:-100],
        "cut in the header": whole[:111],
        "no study": whole,
    }[damage]
    replace_data_set(path, content)
    with associated(embedded.port, path) as association:
        status, comment = comment_of(association, path)
        assert status == 0xC000
        assert 0 < len(comment) <= 64
    assert_nothing_left(embedded)


@pytest.mark.parametrize("keyword", ["SOPInstanceUID", "SOPClassUID"])
def test_request_and_data_set_must_agree(embedded: Listener, tmp_path: Path, keyword: str) -> None:
    path, other = tmp_path / "one.dcm", tmp_path / "other.dcm"
    same = write_object(path)
    uids = {"SOPInstanceUID": same.SOPInstanceUID, "StudyInstanceUID": same.StudyInstanceUID}
    values = {"SOPInstanceUID": generate_uid(), "SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}
    write_object(other, **{**uids, keyword: values[keyword]})
    replace_data_set(path, data_set_bytes(other.read_bytes()))
    assert send(embedded.settings, embedded.port, path) == ["0xA900"]
    assert_nothing_left(embedded)


def test_an_unreadable_object_does_not_end_the_association(
    embedded: Listener, tmp_path: Path
) -> None:
    good, bad = tmp_path / "good.dcm", tmp_path / "bad.dcm"
    write_object(good)
    write_object(bad)
    replace_data_set(bad, b"nonsense")
    with associated(embedded.port, good) as association:
        assert [comment_of(association, p)[0] for p in (bad, good, bad)] == [0xC000, 0, 0xC000]


def test_the_disk_reserve_is_kept(settings: Settings, tmp_path: Path) -> None:
    path = tmp_path / "one.dcm"
    write_object(path)
    greedy = make_settings(settings.home, disk_reserve_mb=2**30)
    with running(greedy) as node:
        with associated(node.port, path) as association:
            assert comment_of(association, path) == (
                0xA700,
                "out of resources: disk at its reserve, try again later",
            )
        assert send(settings, node.port, path) == ["0xA700"]
        assert_nothing_left(node)


def test_the_order_is_sync_link_sync_commit_answer(
    embedded: Listener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "one.dcm"
    write_object(path)
    steps: list[str] = []
    fsync, link = os.fsync, os.link

    def note_fsync(handle: int) -> None:
        target = Path(f"/proc/self/fd/{handle}").readlink()
        if target.is_relative_to(embedded.store.root):
            steps.append("fsync file" if target.parent == embedded.store.spool else "fsync folder")
        fsync(handle)

    def note_link(source: Path, target: Path) -> None:
        steps.append("link")
        link(source, target)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "link", note_link)
    event.listen(embedded.db.engine, "commit", lambda _connection: steps.append("commit"))
    with associated(embedded.port, path) as association:
        assert association.send_c_store(path).Status == 0
        steps.append("answer")
    start = steps.index("link")
    assert steps.index("fsync file") < start
    assert steps[start : start + 4] == ["link", "fsync folder", "commit", "answer"]


def test_every_outcome_has_an_answer_of_the_standard() -> None:
    assert {answer.status for answer in ANSWERS.values()} == {
        0x0000,
        0x0110,
        0x0111,
        0xA700,
        0xA900,
        0xC000,
    }
    assert set(Recorded) <= set(ANSWERS)
    assert all(len(answer.comment) <= 64 for answer in ANSWERS.values())


def test_many_senders_of_one_study_at_once(node: Listener, tmp_path: Path) -> None:
    study = generate_uid()
    files = [tmp_path / f"{number}.dcm" for number in range(24)]
    uids = {write_object(file, StudyInstanceUID=study).SOPInstanceUID for file in files}
    said: list[str] = []

    def sender(own: list[Path]) -> None:
        said.extend(send(node.settings, node.port, *own))

    # Each object comes from two senders, in other orders.
    shares = [files[:12], files[12:], files[11::-1], files[:11:-1]]
    threads = [threading.Thread(target=sender, args=[share]) for share in shares]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert said == ["0x0000"] * 48
    assert set(stored(node.settings)) == uids
    assert left_behind(node.settings) == []
