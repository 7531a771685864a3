"""Sending by C-STORE to a real peer that takes, refuses, aborts, hangs or is not there."""

from __future__ import annotations

import socket
import uuid
from pathlib import Path

import pytest
from pydicom.uid import generate_uid

from dicom_io.syntaxes import (
    BREAST_TOMOSYNTHESIS,
    COMPREHENSIVE_3D_SR,
    EXPLICIT_LITTLE,
    TRANSFER_SYNTAXES,
)
from node import scu
from node.config import Settings
from node.deliveries import Destination, Parcel
from node.errors import PeerRefused, PeerUnavailable, UnreadableObject
from tests.conftest import make_settings
from tests.support.objects import data_set_bytes, write_object
from tests.support.pacs import AE_TITLE, Script, pacs

Parcels = list[tuple[Parcel, Path]]


def make_parcels(folder: Path, count: int, syntax: str = EXPLICIT_LITTLE) -> Parcels:
    made = []
    for number in range(count):
        path = folder / f"{generate_uid()}.dcm"
        dataset = write_object(path, syntax, InstanceNumber=number)
        parcel = Parcel(uuid.uuid4(), dataset.SOPInstanceUID, dataset.SOPClassUID, "ab" * 32)
        made.append((parcel, path))
    return made


@pytest.fixture
def sender(tmp_path: Path) -> Settings:
    """Settings of who sends."""
    return make_settings(tmp_path, ae_title="SENDER")


@pytest.fixture
def hasty(sender: Settings) -> Settings:
    """The same, waiting a few seconds for a peer: enough for one that answers on a busy machine."""
    waits = dict.fromkeys(("acse_timeout_s", "dimse_timeout_s", "network_timeout_s"), 4.0)
    return sender.model_copy(update=waits)


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def test_each_object_gets_its_answer_over_one_association(sender: Settings, tmp_path: Path) -> None:
    parcels = make_parcels(tmp_path, 3)
    with pacs(Script(statuses={2: 0xB000, 3: 0xA700})) as peer:
        answers = scu.store(peer.destination(), parcels, sender)
        assert [(a.accepted, a.status) for a in answers] == [
            (True, "0x0000"),
            (True, "0xB000"),
            (False, "0xA700"),
        ]
        assert [a.artifact_id for a in answers] == [p.artifact_id for p, _ in parcels]
        assert peer.associations == 1
        assert peer.stored[0].calling_ae == "SENDER"


@pytest.mark.parametrize("syntax", TRANSFER_SYNTAXES)
def test_nothing_is_transcoded_for_a_peer_that_takes_what_is_stored(
    sender: Settings, tmp_path: Path, syntax: str
) -> None:
    [(parcel, path)] = make_parcels(tmp_path, 1, syntax)
    with pacs() as peer:
        scu.store(peer.destination(), [(parcel, path)], sender)
        [stored] = peer.stored
    assert stored.transfer_syntax_uid == syntax
    assert stored.content == data_set_bytes(path.read_bytes())


def test_a_class_the_peer_does_not_take_is_its_answer(sender: Settings, tmp_path: Path) -> None:
    wanted = make_parcels(tmp_path, 1)
    path = tmp_path / "report.dcm"
    report = write_object(path, SOPClassUID=COMPREHENSIVE_3D_SR)
    unwanted = [(Parcel(uuid.uuid4(), report.SOPInstanceUID, report.SOPClassUID, "ab" * 32), path)]
    with pacs(Script(classes=(BREAST_TOMOSYNTHESIS,))) as peer:
        answers = scu.store(peer.destination(), [*unwanted, *wanted], sender)
        assert [(a.accepted, a.status) for a in answers] == [(False, "0x0122"), (True, "0x0000")]
        with pytest.raises(PeerRefused, match="none of the SOP classes"):
            scu.store(peer.destination(), unwanted, sender)


@pytest.mark.parametrize(
    ("reject", "error"),
    [
        ((1, 1, 3), PeerRefused),
        ((1, 1, 7), PeerRefused),
        ((2, 3, 1), PeerUnavailable),
        ((2, 3, 2), PeerUnavailable),
    ],
)
def test_a_rejection_is_permanent_or_not_as_the_peer_says(
    sender: Settings, tmp_path: Path, reject: tuple[int, int, int], error: type[Exception]
) -> None:
    with (
        pacs(Script(reject=reject)) as peer,
        pytest.raises(error, match="rejected the association"),
    ):
        scu.store(peer.destination(), make_parcels(tmp_path, 1), sender)


def test_a_wrong_called_title_is_refused(sender: Settings, tmp_path: Path) -> None:
    with pacs() as peer:
        wrong = Destination("pacs", "DICOM", "OTHER", "127.0.0.1", peer.port, None)
        with pytest.raises(PeerRefused, match="Called AE title not recognised"):
            scu.store(wrong, make_parcels(tmp_path, 1), sender)


@pytest.mark.parametrize("host", ["127.0.0.1", "no-such-host.invalid"])
def test_a_peer_that_is_not_there_is_unavailable(
    sender: Settings, tmp_path: Path, host: str
) -> None:
    gone = Destination("pacs", "DICOM", AE_TITLE, host, closed_port(), None)
    with pytest.raises(PeerUnavailable):
        scu.store(gone, make_parcels(tmp_path, 1), sender)
    with pytest.raises(PeerUnavailable):
        scu.echo(gone, sender)


@pytest.mark.parametrize("trouble", ["abort_on", "hang_on"])
def test_what_was_answered_before_the_end_counts(
    hasty: Settings, tmp_path: Path, trouble: str
) -> None:
    parcels = make_parcels(tmp_path, 3)
    with pacs(Script(**{trouble: 2})) as peer:  # type: ignore[arg-type]
        answers = scu.store(peer.destination(), parcels, hasty)
        assert [(a.artifact_id, a.accepted) for a in answers] == [(parcels[0][0].artifact_id, True)]
    with pacs(Script(**{trouble: 1})) as peer, pytest.raises(PeerUnavailable):  # type: ignore[arg-type]
        scu.store(peer.destination(), parcels, hasty)


def test_a_peer_that_accepts_connections_and_says_nothing_is_unavailable(
    hasty: Settings, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        where = Destination("pacs", "DICOM", AE_TITLE, "127.0.0.1", silent.getsockname()[1], None)
        with pytest.raises(PeerUnavailable):
            scu.store(where, make_parcels(tmp_path, 1), hasty)


def test_echo(sender: Settings) -> None:
    with pacs() as peer:
        assert scu.echo(peer.destination(), sender) > 0
    with pacs(Script(reject=(1, 1, 3))) as peer, pytest.raises(PeerRefused):
        scu.echo(peer.destination(), sender)


def test_a_blob_that_is_no_dicom_file(sender: Settings, tmp_path: Path) -> None:
    (parcel, path) = make_parcels(tmp_path, 1)[0]
    path.write_bytes(b"nonsense")
    with pacs() as peer, pytest.raises(UnreadableObject, match="no DICOM file"):
        scu.store(peer.destination(), [(parcel, path)], sender)


def test_send_files_reports_each_and_goes_on(sender: Settings, tmp_path: Path) -> None:
    good = [path for _, path in make_parcels(tmp_path, 4)]
    bad = tmp_path / "bad.dcm"
    bad.write_text("no DICOM")
    seen: list[Path] = []
    with pacs(Script(abort_on=2, statuses={3: 0xC000})) as peer:
        results = scu.send_files(
            "127.0.0.1",
            peer.port,
            AE_TITLE,
            [good[0], bad, *good[1:], tmp_path / "missing.dcm"],
            sender,
            lambda result: seen.append(result.path),
        )
        assert len(peer.stored) == 2
        assert peer.associations == 2
    assert {r.path for r in results if r.accepted} == {good[0], good[3]}
    assert {r.path: r.status for r in results}[good[2]] == "0xC000"
    assert all(r.reason and "\n" not in r.reason for r in results if not r.accepted)
    assert seen == [r.path for r in results]


def test_send_files_to_nobody_fails_every_file_at_once(sender: Settings, tmp_path: Path) -> None:
    files = [path for _, path in make_parcels(tmp_path, 3)]
    results = scu.send_files("127.0.0.1", closed_port(), AE_TITLE, files, sender)
    assert [(r.path, r.accepted) for r in results] == [(path, False) for path in files]


def test_more_kinds_of_objects_than_one_association_can_carry(
    sender: Settings, tmp_path: Path
) -> None:
    files = []
    for number in range(130):
        path = tmp_path / f"{number}.dcm"
        write_object(path, SOPClassUID=f"1.2.3.{number}" if number else "1.2.840.10008.5.1.4.1.1.7")
        files.append(path)
    with pacs() as peer:
        results = scu.send_files("127.0.0.1", peer.port, AE_TITLE, files, sender)
    assert len(results) == 130
    assert [r.path for r in results if r.accepted] == files[:1]
