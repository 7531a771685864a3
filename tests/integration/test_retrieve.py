"""C-GET and C-MOVE from a running node: what arrives, what is told, and what becomes of peers that misbehave."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pynetdicom.events import Event

from dicom_io.phantom import PhantomView, write_study
from dicom_io.syntaxes import (
    BREAST_TOMOSYNTHESIS,
    EXPLICIT_LITTLE,
    IMPLICIT_LITTLE,
    JPEG2000_LOSSLESS,
    SEGMENTATION,
)
from node import peers
from node.blobs import BlobStore
from node.config import Settings
from node.db import Database, now
from node.listener import Listener
from tests.conftest import make_settings
from tests.support.breast_objects import encode, volume, with_frames
from tests.support.listening import listening, running, send, spooled
from tests.support.node_process import free_port
from tests.support.objects import data_set_bytes, write_large, write_object
from tests.support.pacs import AE_TITLE, Script, pacs
from tests.support.query import GET, MOVE, Receiver, Told, asking, find, get, identifier, move, told
from tests.support.services import wait_until

VIEWS = [("L", "CC"), ("L", "MLO"), ("R", "CC"), ("R", "MLO")]
SHAPE = (12, 60, 40)
BOTH = {BREAST_TOMOSYNTHESIS: (EXPLICIT_LITTLE, JPEG2000_LOSSLESS)}


@dataclass(frozen=True)
class Node:
    """A node with a study of four views, two of them JPEG 2000; `sent` are their data sets by UID."""

    listener: Listener
    settings: Settings
    sent: dict[str, bytes]
    pixels: dict[str, bytes]  # uncompressed
    headers: list[Dataset]

    @property
    def port(self) -> int:
        return self.listener.port

    @property
    def study(self) -> Dataset:
        return identifier("STUDY", StudyInstanceUID=self.headers[0].StudyInstanceUID)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    folder = tmp_path_factory.mktemp("retrieve")
    volumes = [volume(side, SHAPE, seed) for seed, (side, _) in enumerate(VIEWS)]
    views = [
        PhantomView(side, view, volume_DHW, (0.1, 0.1))  # type: ignore[arg-type]
        for (side, view), volume_DHW in zip(VIEWS, volumes, strict=True)
    ]
    files = write_study(folder / "views", views, seed=4).files
    for path, volume_DHW in list(zip(files, volumes, strict=True))[1::2]:
        frames = [encode(frame, JPEG2000_LOSSLESS) for frame in volume_DHW]
        with_frames(path, frames, JPEG2000_LOSSLESS)
    headers = [dcmread(path, stop_before_pixels=True) for path in files]
    uids = [str(header.SOPInstanceUID) for header in headers]
    settings = make_settings(folder / "node")
    with running(settings) as listener:
        assert set(send(settings, listener.port, *files)) == {"0x0000"}
        yield Node(
            listener,
            settings,
            {u: data_set_bytes(f.read_bytes()) for u, f in zip(uids, files, strict=True)},
            {u: v.tobytes() for u, v in zip(uids, volumes, strict=True)},
            headers,
        )


@pytest.fixture
def destination(node: Node) -> Iterator[int]:
    """The port of a peer with the AE title PACS that moves may go to; nobody listens there yet."""
    db, port = Database(node.settings.db_url), free_port()
    with db.transaction() as session:
        peers.add(session, peers.dicom_peer("pacs", AE_TITLE, "127.0.0.1", port, now(session)))
    try:
        yield port
    finally:
        with db.transaction() as session:
            peers.remove(session, "pacs")
        db.dispose()


# --- C-GET ---


def test_a_study_comes_as_it_is_stored(node: Node) -> None:
    answer, came = get(node.port, node.study, Receiver(BOTH))
    assert (answer.status, answer.counts) == (0x0000, (None, 4, 0, 0))
    assert answer.statuses == [0xFF00] * 3 + [0x0000]
    assert {uid: content for uid, (_, content) in came.items()} == node.sent
    assert {syntax for syntax, _ in came.values()} == {EXPLICIT_LITTLE, JPEG2000_LOSSLESS}


@pytest.mark.parametrize("syntax", [IMPLICIT_LITTLE, EXPLICIT_LITTLE])
def test_a_receiver_that_takes_one_syntax_gets_that_one(node: Node, syntax: str) -> None:
    answer, came = get(node.port, node.study, Receiver({BREAST_TOMOSYNTHESIS: (syntax,)}))
    assert (answer.status, answer.counts) == (0x0000, (None, 4, 0, 0))
    for uid, (got, content) in came.items():
        assert got == syntax
        assert dcmread(BytesIO(content), force=True).PixelData == node.pixels[uid]
    assert set(came) == set(node.sent)
    assert spooled(node.settings) == []


def test_any_view_fits_a_context_that_names_several_syntaxes(node: Node) -> None:
    offered = {BREAST_TOMOSYNTHESIS: (JPEG2000_LOSSLESS, EXPLICIT_LITTLE, IMPLICIT_LITTLE)}
    answer, came = get(node.port, node.study, Receiver(offered, together=True))
    assert (answer.status, answer.counts) == (0x0000, (None, 4, 0, 0))
    assert {syntax for syntax, _ in came.values()} == {EXPLICIT_LITTLE}


def test_series_and_objects_by_their_uids(node: Node) -> None:
    study_uid = node.headers[0].StudyInstanceUID
    series = [header.SeriesInstanceUID for header in node.headers]
    asked = identifier("SERIES", StudyInstanceUID=study_uid, SeriesInstanceUID=series[:2])
    answer, came = get(node.port, asked, Receiver(BOTH))
    assert answer.counts == (None, 2, 0, 0)
    assert set(came) == {header.SOPInstanceUID for header in node.headers[:2]}
    one = node.headers[3]
    asked = identifier("IMAGE", StudyInstanceUID=study_uid, SeriesInstanceUID=series[3])
    asked.SOPInstanceUID = one.SOPInstanceUID
    answer, came = get(node.port, asked, Receiver(BOTH))
    assert (answer.counts, set(came)) == ((None, 1, 0, 0), {one.SOPInstanceUID})


@pytest.mark.parametrize(
    ("asked", "comment"),
    [
        (identifier("STUDY"), "level STUDY needs at least one StudyInstanceUID"),
        (identifier("STUDY", StudyInstanceUID="*"), "level STUDY needs at least one"),
        (identifier("SERIES", SeriesInstanceUID="1.2"), "level SERIES needs one StudyInstanceUID"),
        (identifier("PATIENT", PatientID="1"), "Level must be one of"),
    ],
)
def test_nothing_is_given_where_the_identifier_does_not_say_what(
    node: Node, asked: Dataset, comment: str
) -> None:
    answer, came = get(node.port, asked, Receiver(BOTH))
    assert (answer.statuses, came) == ([0xA900], {})
    assert comment in answer.comment


def test_a_study_that_is_not_here_is_no_failure(node: Node) -> None:
    answer, _ = get(node.port, identifier("STUDY", StudyInstanceUID="1.2.3"), Receiver(BOTH))
    assert (answer.statuses, answer.counts) == ([0x0000], (None, 0, 0, 0))


def test_refusals_and_remarks_are_counted_and_refused_objects_named(node: Node) -> None:
    receiver = Receiver(BOTH, statuses={2: 0xA700, 3: 0xB000})
    answer, came = get(node.port, node.study, receiver)
    assert (answer.status, answer.counts) == (0xB000, (None, 2, 1, 1))
    assert set(answer.failed) == set(node.sent) - set(came)


def test_an_object_that_the_receiver_has_no_class_for_is_a_failure(node: Node) -> None:
    answer, came = get(node.port, node.study, Receiver({SEGMENTATION: (EXPLICIT_LITTLE,)}))
    assert (answer.status, answer.counts, came) == (0xA702, (None, 0, 4, 0), {})
    assert set(answer.failed) == set(node.sent)


def test_a_get_without_a_role_says_what_is_missing(node: Node) -> None:
    with asking(node.port, [(GET, EXPLICIT_LITTLE)]) as association:
        answer = told(association.send_c_get(node.study, GET))
    assert (answer.status, answer.counts) == (0xA702, (None, 0, 4, 0))
    assert answer.comment == "no storage class was proposed with the role of its SCP"


def test_a_cancelled_get_stops_and_tells_what_is_left(node: Node) -> None:
    def cancel(event: Event, number: int) -> None:
        if number == 2:
            event.assoc.send_c_cancel(1, 1)

    answer, came = get(node.port, node.study, Receiver(BOTH, before=cancel))
    assert (answer.status, answer.counts, len(came)) == (0xFE00, (2, 2, 0, 0), 2)


def test_a_receiver_that_goes_away_leaves_a_node_that_answers(node: Node) -> None:
    def leave(event: Event, number: int) -> None:
        if number == 2:
            event.assoc.dimse_timeout = 0.5  # this side's own wait for an answer that cannot come
            event.assoc.abort()

    answer, came = get(node.port, node.study, Receiver(BOTH, before=leave))
    assert answer.statuses in ([0xFF00, -1], [-1])
    wait_until(lambda: all(o.ended for o in node.listener.associations.all()), 20, "its end")
    assert spooled(node.settings) == []
    again, came = get(node.port, node.study, Receiver(BOTH))
    assert (again.status, len(came)) == (0x0000, 4)


def test_objects_come_in_while_others_go_out(node: Node, tmp_path: Path) -> None:
    for number in range(20):
        write_object(tmp_path / f"{number}.dcm", StudyInstanceUID="1.2.77")
    said: list[str] = []
    sender = threading.Thread(
        target=lambda: said.extend(send(node.settings, node.port, *sorted(tmp_path.iterdir())))
    )
    sender.start()
    answers = [get(node.port, node.study, Receiver(BOTH)) for _ in range(3)]
    sender.join()
    assert said == ["0x0000"] * 20
    for answer, came in answers:
        assert answer.status == 0x0000
        assert {uid: content for uid, (_, content) in came.items()} == node.sent
    asked = identifier("STUDY", StudyInstanceUID="1.2.77", NumberOfStudyRelatedInstances=None)
    [study] = find(node.port, asked).identifiers
    assert study.NumberOfStudyRelatedInstances == 20


# --- C-MOVE ---


def moved(node: Node, destination: int, script: Script | None = None) -> tuple[Told, list[str]]:
    """Move the study to a peer of this script; what was told, and what the peer has in order."""
    with pacs(script, port=destination) as peer:
        answer = move(node.port, node.study, AE_TITLE)
        for one in peer.stored:
            assert one.content == node.sent[one.sop_uid] or one.transfer_syntax_uid in (
                IMPLICIT_LITTLE,
                EXPLICIT_LITTLE,
            )
        return answer, [one.sop_uid for one in peer.stored]


def test_a_study_is_moved_as_it_is_stored(node: Node, destination: int) -> None:
    with pacs(port=destination) as peer:
        answer = move(node.port, node.study, AE_TITLE)
        assert (answer.status, answer.counts) == (0x0000, (None, 4, 0, 0))
        assert answer.statuses == [0xFF00] * 3 + [0x0000]
        assert {one.sop_uid: one.content for one in peer.stored} == node.sent
        assert {one.mover for one in peer.stored} == {"WORKSTATION"}
        assert peer.associations == 1


def test_a_peer_that_takes_implicit_alone_gets_that(node: Node, destination: int) -> None:
    with pacs(Script(syntaxes=(IMPLICIT_LITTLE,)), port=destination) as peer:
        answer = move(node.port, node.study, AE_TITLE)
        assert (answer.status, answer.counts) == (0x0000, (None, 4, 0, 0))
        for one in peer.stored:
            assert one.transfer_syntax_uid == IMPLICIT_LITTLE
            pixels = dcmread(BytesIO(one.content), force=True).PixelData
            np.testing.assert_array_equal(
                np.frombuffer(pixels, "<u2"), np.frombuffer(node.pixels[one.sop_uid], "<u2")
            )


def test_a_destination_is_a_peer_and_not_this_node(node: Node) -> None:
    for title, comment in (
        ("NOBODY", "move destination is no peer of this node"),
        ("TOMONODE", "move destination is this node itself"),
    ):
        answer = move(node.port, node.study, title)
        assert (answer.statuses, answer.comment) == ([0xA801], comment)


def test_an_unreachable_peer_fails_every_object(node: Node, destination: int) -> None:
    answer = move(node.port, node.study, AE_TITLE)
    assert (answer.statuses, answer.counts) == ([0xA702], (None, 0, 4, 0))
    assert answer.comment == "association with PACS failed; see the node's log"
    assert set(answer.failed) == set(node.sent)


def test_a_peer_that_rejects_us_fails_every_object(node: Node, destination: int) -> None:
    answer, _ = moved(node, destination, Script(reject=(1, 1, 3)))
    assert (answer.statuses, answer.counts) == ([0xA702], (None, 0, 4, 0))


def test_a_peer_that_aborts_in_the_middle_is_counted_right(node: Node, destination: int) -> None:
    answer, have = moved(node, destination, Script(abort_on=3))
    assert (answer.status, answer.counts) == (0xB000, (None, 2, 2, 0))
    assert set(answer.failed) == set(node.sent) - set(have)
    assert len(have) == 2


def test_refusals_of_a_peer_are_counted(node: Node, destination: int) -> None:
    answer, have = moved(node, destination, Script(statuses={1: 0xB007, 4: 0xC000}))
    assert (answer.status, answer.counts) == (0xB000, (None, 2, 1, 1))
    assert set(answer.failed) == set(node.sent) - set(have)


def test_a_cancelled_move_stops(node: Node, destination: int) -> None:
    with (
        pacs(Script(hang_on=2), port=destination) as peer,
        asking(node.port, [(MOVE, EXPLICIT_LITTLE)]) as association,
    ):
        responses = association.send_c_move(node.study, AE_TITLE, MOVE, msg_id=5)
        first = next(responses)
        association.send_c_cancel(5, 1)
        [theirs] = [
            o.association
            for o in node.listener.associations.all()
            if o.association.requestor.port == association.dul.socket.socket.getsockname()[1]
        ]
        wait_until(lambda: bool(theirs.dimse.cancel_req), 20, "C-CANCEL")
        peer.let_go()
        answer = told(responses)
    assert first[0].Status == 0xFF00
    assert (answer.status, answer.counts) == (0xFE00, (2, 2, 0, 0))


def test_an_object_whose_file_is_gone_fails_alone(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.dcm" for number in range(3)]
    headers = [write_object(path, StudyInstanceUID="1.2.88") for path in paths]
    settings = make_settings(tmp_path / "node")
    with running(settings) as listener:
        assert send(settings, listener.port, *paths) == ["0x0000"] * 3
        asked = identifier("STUDY", StudyInstanceUID="1.2.88")
        store = BlobStore.of(settings)
        [gone] = [
            path
            for path in settings.blob_root.glob("??/??/*")
            if path.is_file() and str(headers[1].SOPInstanceUID).encode() in path.read_bytes()
        ]
        store.path(gone.name).unlink()
        answer, came = get(listener.port, asked, Receiver(BOTH))
    assert (answer.status, answer.counts) == (0xB000, (None, 2, 1, 0))
    assert answer.failed == [headers[1].SOPInstanceUID]
    assert len(came) == 2


def test_memory_does_not_grow_with_an_object(tmp_path: Path) -> None:
    size = 96 * 2**20
    small, large = tmp_path / "small.dcm", tmp_path / "large.dcm"
    write_object(small, StudyInstanceUID="1.2.9")
    header = write_large(large, size)
    settings = make_settings(tmp_path / "node")
    with running(settings):
        pass  # the database
    with listening(settings) as process:
        assert send(settings, process.port, small, large) == ["0x0000"] * 2
        study = identifier("STUDY", StudyInstanceUID="1.2.9")
        get(process.port, study, Receiver(BOTH))
        before = process.peak_rss_bytes
        study.StudyInstanceUID = header.StudyInstanceUID
        answer, came = get(process.port, study, Receiver(BOTH))
        grown = process.peak_rss_bytes - before
    assert answer.counts == (None, 1, 0, 0)
    assert len(came[str(header.SOPInstanceUID)][1]) > size
    assert grown < 32 * 2**20
