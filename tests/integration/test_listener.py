"""What the listener keeps, what it answers, and whom it lets in."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pydicom.uid import ImplicitVRLittleEndian, generate_uid
from pynetdicom.association import Association
from sqlalchemy import event, select

from dicom_io.syntaxes import STORAGE_CLASSES, TRANSFER_SYNTAXES
from node import listener, schema, scu
from node.blobs import sha256_of
from node.config import Settings
from node.db import Database
from node.errors import ConfigError, PeerRefused, PeerUnavailable
from node.ingest import ANSWERS
from node.listener import Listener
from node.models import Activity, Instance, Quarantined, Study
from node.studies import Recorded
from tests.conftest import make_settings
from tests.support.listening import SplitSend, associated
from tests.support.objects import data_set_bytes, replace_data_set, write_large, write_object
from tests.support.services import wait_until


@contextmanager
def running(settings: Settings) -> Iterator[Listener]:
    schema.upgrade(settings.db_url)
    started = listener.start(settings)
    try:
        yield started
    finally:
        started.stop(limit_s=5)


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


def send(node: Listener, *files: Path, calling: str = "SENDER") -> list[str]:
    """Statuses of the files, in order."""
    settings = make_settings(node.settings.home, ae_title=calling)
    title = node.settings.ae_title
    results = scu.send_files("127.0.0.1", node.port, title, files, settings)
    return [r.status or r.reason for r in results]


def comment_of(association: Association, path: Path) -> tuple[int, str]:
    status = association.send_c_store(path)
    return status.Status, str(status.get("ErrorComment", ""))


def spooled(node: Listener) -> list[Path]:
    return list(node.store.spool.iterdir())


def blobs(node: Listener) -> list[Path]:
    return [p for p in node.store.root.glob("??/??/*") if p.is_file()]


def rows(node: Listener, model: type) -> list:  # type: ignore[type-arg]
    with node.db.reading() as session:
        return list(session.execute(select(model)).scalars())


def assert_nothing_left(node: Listener) -> None:
    assert spooled(node) == []
    assert blobs(node) == []
    assert rows(node, Study) == []
    assert rows(node, Instance) == []


def test_an_object_is_kept_with_what_its_header_says(node: Listener, tmp_path: Path) -> None:
    path = tmp_path / "one.dcm"
    dataset = write_object(path, NumberOfFrames=3)
    assert send(node, path) == ["0x0000"]
    [instance] = rows(node, Instance)
    assert instance.sop_uid == dataset.SOPInstanceUID
    assert instance.is_image
    assert instance.frames == 3
    assert instance.calling_ae == "SENDER"
    [blob] = blobs(node)
    assert blob == node.store.path(instance.sha256)
    assert sha256_of(blob) == instance.sha256
    assert blob.stat().st_size == instance.size_bytes
    [study] = rows(node, Study)
    assert (study.study_uid, study.patient_id) == (dataset.StudyInstanceUID, "SECRET-ID")
    assert spooled(node) == []


@pytest.mark.parametrize("syntax", TRANSFER_SYNTAXES)
def test_the_bytes_are_untouched(embedded: Listener, tmp_path: Path, syntax: str) -> None:
    path = tmp_path / "one.dcm"
    write_object(path, syntax)
    assert send(embedded, path) == ["0x0000"]
    [blob] = blobs(embedded)
    stored = blob.read_bytes()
    assert stored[:132] == bytes(128) + b"DICM"
    assert data_set_bytes(stored) == data_set_bytes(path.read_bytes())
    [instance] = rows(embedded, Instance)
    assert instance.transfer_syntax_uid == syntax


def test_every_storage_class_is_taken(embedded: Listener, tmp_path: Path) -> None:
    files = []
    for number, uid in enumerate(STORAGE_CLASSES):
        files.append(tmp_path / f"{number}.dcm")
        write_object(files[-1], SOPClassUID=uid)
    assert set(send(embedded, *files)) == {"0x0000"}
    images = {i.sop_class_uid for i in rows(embedded, Instance) if i.is_image}
    assert images == {"1.2.840.10008.5.1.4.1.1.13.1.3", "1.2.840.10008.5.1.4.1.1.1.2"}


def test_same_object_again_is_success_and_nothing_new(node: Listener, tmp_path: Path) -> None:
    path = tmp_path / "one.dcm"
    write_object(path)
    assert send(node, path) == ["0x0000"]
    assert send(node, path, calling="ANOTHER") == ["0x0000"]
    assert len(rows(node, Instance)) == len(blobs(node)) == 1
    assert rows(node, Quarantined) == []


def test_same_uid_with_other_bytes_keeps_the_first(node: Listener, tmp_path: Path) -> None:
    first, second = tmp_path / "first.dcm", tmp_path / "second.dcm"
    dataset = write_object(first)
    write_object(
        second,
        SOPInstanceUID=dataset.SOPInstanceUID,
        StudyInstanceUID=dataset.StudyInstanceUID,
        InstanceNumber=7,
    )
    assert send(node, first) == ["0x0000"]
    kept = rows(node, Instance)[0].sha256
    with associated(node.port, second) as association:
        for _ in range(2):
            assert comment_of(association, second) == (
                0x0111,
                "UID known with other bytes: first kept, this one quarantined",
            )
    assert [i.sha256 for i in rows(node, Instance)] == [kept]
    [aside] = rows(node, Quarantined)
    assert aside.sop_uid == dataset.SOPInstanceUID
    assert data_set_bytes(node.store.path(aside.sha256).read_bytes()) == data_set_bytes(
        second.read_bytes()
    )
    assert send(node, first) == ["0x0000"]


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
    assert send(embedded, path) == ["0xA900"]
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
        assert scu.echo(_destination(node), settings) > 0
        assert_nothing_left(node)


def _destination(node: Listener) -> scu.Destination:
    title = node.settings.ae_title
    return scu.Destination("node", "DICOM", title, "127.0.0.1", node.port, None)


def test_a_sender_cut_off_in_the_middle_leaves_nothing(node: Listener, tmp_path: Path) -> None:
    path = tmp_path / "large.dcm"
    write_large(path, 2**20)
    with associated(node.port, path) as association:
        SplitSend(association, path).some(20)
        wait_until(lambda: any(p.stat().st_size > 2**17 for p in spooled(node)), 10, "bytes")
        association.dul.socket.close()
    wait_until(lambda: not spooled(node), 10, "the spool to be cleared")
    assert_nothing_left(node)
    wait_until(lambda: not rows(node, Activity), 10, "the activity to be removed")
    assert send(node, path) == ["0x0000"]


def test_an_object_in_flight_is_activity(node: Listener, tmp_path: Path) -> None:
    path = tmp_path / "large.dcm"
    dataset = write_large(path, 2**20)

    def seen() -> list[tuple[str, bool]]:
        return [(row.study_uid, row.in_flight) for row in rows(node, Activity)]

    with associated(node.port, path) as association:
        sending = SplitSend(association, path)
        sending.some(20)
        wait_until(lambda: seen() == [(dataset.StudyInstanceUID, True)], 10, "activity")
        first = rows(node, Activity)[0].seen_at
        wait_until(lambda: rows(node, Activity)[0].seen_at > first, 10, "fresh activity")
        sending.rest()
        assert sending.status() == 0
        wait_until(lambda: seen() == [(dataset.StudyInstanceUID, False)], 10, "rest")
        association.release()
    wait_until(lambda: not rows(node, Activity), 10, "the activity to be removed")


@pytest.mark.parametrize("syntax", TRANSFER_SYNTAXES)
def test_the_study_is_known_from_the_first_bytes(tmp_path: Path, syntax: str) -> None:
    from node.activity import peek_study_uid

    path = tmp_path / "one.dcm"
    dataset = write_object(path, syntax)
    content = data_set_bytes(path.read_bytes())
    known = [peek_study_uid(content[:n], syntax) for n in range(len(content) + 1)]
    assert set(known) == {None, dataset.StudyInstanceUID}
    assert known[-1] == dataset.StudyInstanceUID


def test_orphans_are_swept_but_no_object_in_flight(settings: Settings, tmp_path: Path) -> None:
    path = tmp_path / "large.dcm"
    write_large(path, 2**20)
    node_settings = make_settings(settings.home, orphan_age_s=2.0)
    with running(node_settings) as node, associated(node.port, path) as association:
        sending = SplitSend(association, path)
        sending.some(5)
        wait_until(lambda: len(spooled(node)) == 1, 10, "the object in flight")
        [in_flight] = spooled(node)
        orphan = node.store.spool / "in-orphan.dcm"
        orphan.write_bytes(b"left by a killed listener")
        os.utime(orphan, (0, 0))
        wait_until(lambda: not orphan.exists(), 15, "the orphan to be swept")
        threading.Event().wait(2.5)  # longer than the age of an orphan
        assert in_flight.exists()
        sending.rest()
        assert sending.status() == 0


def test_orphans_are_swept_at_the_start(settings: Settings) -> None:
    settings.spool.mkdir(parents=True)
    orphan = settings.spool / "in-orphan.dcm"
    orphan.write_bytes(b"left by a killed listener")
    os.utime(orphan, (0, 0))
    with running(settings):
        assert not orphan.exists()


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


def test_a_sender_at_another_address_is_rejected(settings: Settings) -> None:
    strict = make_settings(settings.home, allowed_addresses=["10.0.0.0/8", "::2/128"])
    with running(strict) as node, pytest.raises(PeerRefused, match="rejected the association"):
        scu.echo(_destination(node), settings)


def test_addresses_and_titles_on_the_lists_are_let_in(settings: Settings) -> None:
    strict = make_settings(
        settings.home, allowed_addresses=["127.0.0.1"], allowed_ae_titles=["SENDER", "OTHER"]
    )
    with running(strict) as node:
        assert scu.echo(_destination(node), make_settings(settings.home, ae_title="SENDER")) > 0
        stranger = make_settings(settings.home, ae_title="STRANGER")
        with pytest.raises(PeerRefused, match="Calling AE title not recognised"):
            scu.echo(_destination(node), stranger)


def test_the_called_title_must_be_ours_unless_switched_off(settings: Settings) -> None:
    with running(settings) as node:
        wrong = scu.Destination("node", "DICOM", "WRONG", "127.0.0.1", node.port, None)
        with pytest.raises(PeerRefused, match="Called AE title not recognised"):
            scu.echo(wrong, settings)
    with running(make_settings(settings.home, check_called_ae=False)) as node:
        wrong = scu.Destination("node", "DICOM", "WRONG", "127.0.0.1", node.port, None)
        assert scu.echo(wrong, settings) > 0


def test_one_association_too_many_is_rejected_for_now(settings: Settings) -> None:
    with running(make_settings(settings.home, max_associations=1)) as node:
        with associated(node.port) as first:
            assert first.is_established
            with pytest.raises(PeerUnavailable, match="Local limit exceeded"):
                scu.echo(_destination(node), settings)
        wait_until(lambda: not node.associations.all(), 10, "the first to end")
        assert scu.echo(_destination(node), settings) > 0


def test_a_silent_association_is_ended(settings: Settings) -> None:
    with (
        running(make_settings(settings.home, network_timeout_s=0.5)) as node,
        associated(node.port) as association,
    ):
        wait_until(lambda: not association.is_established, 10, "the association to be ended")


def test_a_sender_that_stalls_within_a_fragment_is_cut_off(
    settings: Settings, tmp_path: Path
) -> None:
    path = tmp_path / "large.dcm"
    write_large(path, 2**20)
    with running(make_settings(settings.home, network_timeout_s=1.0)) as node:
        with associated(node.port, path) as association:
            SplitSend(association, path).some(5)
            wait_until(lambda: len(spooled(node)) == 1, 10, "the object in flight")
            association.dul.socket.socket.sendall(b"\x04\x00\x00\x00\x40\x00\x00\x00")
            wait_until(lambda: not node.associations.all(), 15, "the association to be ended")
        assert_nothing_left(node)


@pytest.mark.parametrize(
    "nonsense", [b"GET / HTTP/1.1\r\n\r\n", b"\x01\x00\xff\xff\xff\xff" + b"A" * 100, b"\x04", b""]
)
def test_nonsense_on_the_port_harms_nobody(settings: Settings, nonsense: bytes) -> None:
    with running(make_settings(settings.home, acse_timeout_s=1.0)) as node:
        with socket.create_connection(("127.0.0.1", node.port)) as connection:
            connection.sendall(nonsense)
        assert scu.echo(_destination(node), settings) > 0
        wait_until(lambda: not node.associations.all(), 15, "both to end")


def test_a_transfer_syntax_nobody_knows_is_not_negotiated(
    embedded: Listener, tmp_path: Path
) -> None:
    path = tmp_path / "one.dcm"
    write_object(path)
    strange = path.read_bytes().replace(b"1.2.840.10008.1.2.1\0", b"1.2.3.4.5.6.7.8.9.10")
    path.write_bytes(strange)
    [reason] = send(embedded, path)
    assert "none of the SOP classes and transfer syntaxes" in reason


def test_the_senders_first_choice_is_taken(embedded: Listener, tmp_path: Path) -> None:
    from pynetdicom import AE

    for syntaxes in (TRANSFER_SYNTAXES, tuple(reversed(TRANSFER_SYNTAXES))):
        entity = AE("SENDER")
        entity.add_requested_context("1.2.840.10008.5.1.4.1.1.13.1.3", list(syntaxes))
        association = entity.associate("127.0.0.1", embedded.port, ae_title="TOMONODE")
        assert association.accepted_contexts[0].transfer_syntax == [syntaxes[0]]
        association.release()
    assert ImplicitVRLittleEndian in TRANSFER_SYNTAXES


def test_what_is_in_flight_is_finished_before_the_end(settings: Settings, tmp_path: Path) -> None:
    path, late = tmp_path / "large.dcm", tmp_path / "late.dcm"
    write_large(path, 2**20)
    write_object(late)
    schema.upgrade(settings.db_url)
    node = listener.start(settings)
    with associated(node.port, path) as idle, associated(node.port, path, late) as association:
        sending = SplitSend(association, path)
        sending.some(20)
        wait_until(lambda: len(spooled(node)) == 1, 10, "the object in flight")
        stopping = threading.Thread(target=node.stop)
        stopping.start()
        wait_until(lambda: not _connects(node.port), 10, "the port to be closed")
        sending.rest()
        assert sending.status() == 0
        stopping.join(10)
        assert not stopping.is_alive()
        wait_until(lambda: not idle.is_established, 10, "the idle association to be ended")
    with Database(settings.db_url).reading() as session:
        assert session.execute(select(Instance.sop_uid)).scalars().all()


def _connects(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_an_object_that_never_ends_does_not_hold_up_the_end(
    settings: Settings, tmp_path: Path
) -> None:
    path = tmp_path / "large.dcm"
    write_large(path, 2**20)
    schema.upgrade(settings.db_url)
    node = listener.start(settings)
    with associated(node.port, path) as association:
        SplitSend(association, path).some(5)
        wait_until(lambda: len(spooled(node)) == 1, 10, "the object in flight")
        stopping = threading.Thread(target=node.stop, args=[0.5])
        stopping.start()
        stopping.join(10)
        assert not stopping.is_alive()
        assert spooled(node) == []


def test_a_port_that_is_taken_is_said_so(settings: Settings) -> None:
    with running(settings) as node:
        again = make_settings(settings.home, listen_port=node.port)
        with pytest.raises(ConfigError, match=f"cannot listen on 127.0.0.1:{node.port}"):
            listener.start(again)


def test_an_allowed_address_that_is_none_is_said_so(settings: Settings) -> None:
    with pytest.raises(ConfigError, match="TOMONODE_ALLOWED_ADDRESSES"):
        listener.start(make_settings(settings.home, allowed_addresses=["nowhere"]))


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
