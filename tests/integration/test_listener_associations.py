"""Whom the listener lets in, what it does with associations that stall, break off or are in the way of its end."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from pynetdicom import AE

from dicom_io.syntaxes import TRANSFER_SYNTAXES
from node import listener, schema, scu
from node.activity import peek_study_uid
from node.config import Settings
from node.deliveries import Destination
from node.errors import ConfigError, PeerRefused, PeerUnavailable
from node.listener import Listener
from node.models import Activity, Study
from tests.conftest import make_settings
from tests.support.listening import (
    SplitSend,
    associated,
    blobs,
    connects,
    rows,
    running,
    send,
    spooled,
    stored,
)
from tests.support.objects import data_set_bytes, write_large, write_object
from tests.support.services import wait_until


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


def destination(node: Listener) -> Destination:
    title = node.settings.ae_title
    return Destination("node", "DICOM", title, "127.0.0.1", node.port, None)


def test_a_sender_cut_off_in_the_middle_leaves_nothing(node: Listener, tmp_path: Path) -> None:
    path = tmp_path / "large.dcm"
    write_large(path, 2**20)
    with associated(node.port, path) as association:
        SplitSend(association, path).some(20)
        wait_until(
            lambda: any(p.stat().st_size > 2**17 for p in spooled(node.settings)), 10, "bytes"
        )
        association.dul.socket.close()
    wait_until(lambda: not spooled(node.settings), 10, "the spool to be cleared")
    assert_nothing_left(node)
    wait_until(lambda: not rows(node.settings, Activity), 10, "the activity to be removed")
    assert send(node.settings, node.port, path) == ["0x0000"]


def test_an_object_in_flight_is_activity(node: Listener, tmp_path: Path) -> None:
    path = tmp_path / "large.dcm"
    dataset = write_large(path, 2**20)

    def seen() -> list[tuple[str, bool]]:
        return [(row.study_uid, row.in_flight) for row in rows(node.settings, Activity)]

    with associated(node.port, path) as association:
        sending = SplitSend(association, path)
        sending.some(20)
        wait_until(lambda: seen() == [(dataset.StudyInstanceUID, True)], 10, "activity")
        first = rows(node.settings, Activity)[0].seen_at
        wait_until(lambda: rows(node.settings, Activity)[0].seen_at > first, 10, "fresh activity")
        sending.rest()
        assert sending.status() == 0
        wait_until(lambda: seen() == [(dataset.StudyInstanceUID, False)], 10, "rest")
        association.release()
    wait_until(lambda: not rows(node.settings, Activity), 10, "the activity to be removed")


@pytest.mark.parametrize("syntax", TRANSFER_SYNTAXES)
def test_the_study_is_known_from_the_first_bytes(tmp_path: Path, syntax: str) -> None:
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
        wait_until(lambda: len(spooled(node.settings)) == 1, 10, "the object in flight")
        [in_flight] = spooled(node.settings)
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


def test_a_sender_at_another_address_is_rejected(settings: Settings) -> None:
    strict = make_settings(settings.home, allowed_addresses=["10.0.0.0/8", "::2/128"])
    with running(strict) as node, pytest.raises(PeerRefused, match="rejected the association"):
        scu.echo(destination(node), settings)


def test_addresses_and_titles_on_the_lists_are_let_in(settings: Settings) -> None:
    strict = make_settings(
        settings.home, allowed_addresses=["127.0.0.1"], allowed_ae_titles=["SENDER", "OTHER"]
    )
    with running(strict) as node:
        assert scu.echo(destination(node), make_settings(settings.home, ae_title="SENDER")) > 0
        stranger = make_settings(settings.home, ae_title="STRANGER")
        with pytest.raises(PeerRefused, match="Calling AE title not recognised"):
            scu.echo(destination(node), stranger)


def test_the_called_title_must_be_ours_unless_switched_off(settings: Settings) -> None:
    with running(settings) as node:
        wrong = Destination("node", "DICOM", "WRONG", "127.0.0.1", node.port, None)
        with pytest.raises(PeerRefused, match="Called AE title not recognised"):
            scu.echo(wrong, settings)
    with running(make_settings(settings.home, check_called_ae=False)) as node:
        wrong = Destination("node", "DICOM", "WRONG", "127.0.0.1", node.port, None)
        assert scu.echo(wrong, settings) > 0


def test_one_association_too_many_is_rejected_for_now(settings: Settings) -> None:
    with running(make_settings(settings.home, max_associations=1)) as node:
        with associated(node.port) as first:
            assert first.is_established
            with pytest.raises(PeerUnavailable, match="Local limit exceeded"):
                scu.echo(destination(node), settings)
        wait_until(lambda: not node.associations.all(), 10, "the first to end")
        assert scu.echo(destination(node), settings) > 0


def test_a_silent_association_is_ended(settings: Settings) -> None:
    with (
        running(make_settings(settings.home, network_timeout_s=0.5)) as node,
        associated(node.port) as association,
    ):
        wait_until(lambda: not association.is_established, 10, "the association to be ended")
        wait_until(lambda: not node.associations.all(), 10, "its entry to go")
        assert association.is_aborted


def test_a_sender_that_stalls_within_a_fragment_is_cut_off(
    settings: Settings, tmp_path: Path
) -> None:
    path = tmp_path / "large.dcm"
    write_large(path, 2**20)
    with running(make_settings(settings.home, network_timeout_s=1.0)) as node:
        with associated(node.port, path) as association:
            SplitSend(association, path).some(5)
            wait_until(lambda: len(spooled(node.settings)) == 1, 10, "the object in flight")
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
        assert scu.echo(destination(node), settings) > 0
        wait_until(lambda: not node.associations.all(), 15, "both to end")


def test_a_transfer_syntax_nobody_knows_is_not_negotiated(
    embedded: Listener, tmp_path: Path
) -> None:
    path = tmp_path / "one.dcm"
    write_object(path)
    strange = path.read_bytes().replace(b"1.2.840.10008.1.2.1\0", b"1.2.3.4.5.6.7.8.9.10")
    path.write_bytes(strange)
    [reason] = send(embedded.settings, embedded.port, path)
    assert "none of the SOP classes and transfer syntaxes" in reason


def test_the_senders_first_choice_is_taken(embedded: Listener, tmp_path: Path) -> None:
    for syntaxes in (TRANSFER_SYNTAXES, tuple(reversed(TRANSFER_SYNTAXES))):
        entity = AE("SENDER")
        entity.add_requested_context("1.2.840.10008.5.1.4.1.1.13.1.3", list(syntaxes))
        association = entity.associate("127.0.0.1", embedded.port, ae_title="TOMONODE")
        assert association.accepted_contexts[0].transfer_syntax == [syntaxes[0]]
        association.release()


def test_what_is_in_flight_is_finished_before_the_end(settings: Settings, tmp_path: Path) -> None:
    path, late = tmp_path / "large.dcm", tmp_path / "late.dcm"
    write_large(path, 2**20)
    write_object(late)
    schema.upgrade(settings.db_url)
    node = listener.start(settings)
    with associated(node.port, path) as idle, associated(node.port, path, late) as association:
        sending = SplitSend(association, path)
        sending.some(20)
        wait_until(lambda: len(spooled(node.settings)) == 1, 10, "the object in flight")
        stopping = threading.Thread(target=node.stop)
        stopping.start()
        wait_until(lambda: not connects(node.port), 10, "the port to be closed")
        sending.rest()
        assert sending.status() == 0
        stopping.join(10)
        assert not stopping.is_alive()
        wait_until(lambda: not idle.is_established, 10, "the idle association to be ended")
    assert len(stored(settings)) == 1


def test_an_object_that_never_ends_does_not_hold_up_the_end(
    settings: Settings, tmp_path: Path
) -> None:
    path = tmp_path / "large.dcm"
    write_large(path, 2**20)
    schema.upgrade(settings.db_url)
    node = listener.start(settings)
    with associated(node.port, path) as association:
        SplitSend(association, path).some(5)
        wait_until(lambda: len(spooled(node.settings)) == 1, 10, "the object in flight")
        stopping = threading.Thread(target=node.stop, args=[0.5])
        stopping.start()
        stopping.join(10)
        assert not stopping.is_alive()
        assert spooled(node.settings) == []


def test_a_port_that_is_taken_is_said_so(settings: Settings) -> None:
    with running(settings) as node:
        again = make_settings(settings.home, listen_port=node.port)
        with pytest.raises(ConfigError, match=f"cannot listen on 127.0.0.1:{node.port}"):
            listener.start(again)


def test_an_allowed_address_that_is_none_is_said_so(settings: Settings) -> None:
    with pytest.raises(ConfigError, match="TOMONODE_ALLOWED_ADDRESSES"):
        listener.start(make_settings(settings.home, allowed_addresses=["nowhere"]))
