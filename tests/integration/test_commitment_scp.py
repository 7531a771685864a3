"""Storage commitment that others ask of us, over real associations: kept, decided once, told where they can hear it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from pynetdicom.sop_class import StorageCommitmentPushModel as PushModel
from pynetdicom.sop_class import StorageCommitmentPushModelInstance as WellKnown
from sqlalchemy import select, update

from node import commitment_claims, commitments, relay, vouching
from node.commitments import Reference
from node.config import Settings
from node.db import Database, now
from node.exchange_models import Commitment
from node.listener import Listener
from node.models import Instance, Peer
from tests.conftest import make_settings
from tests.support.commit_peer import AE_TITLE, CommitPeer, Report, Script, commit_peer
from tests.support.listening import running, send
from tests.support.objects import BREAST_TOMOSYNTHESIS, write_object
from tests.support.services import wait_until
from workers.exchange import ExchangeWorker

ABSENT = Reference(BREAST_TOMOSYNTHESIS, "1.2.3.4.5")


class Node:
    """A listener with stored objects, and the worker that answers."""

    def __init__(self, listener: Listener, folder: Path) -> None:
        self.listener, self.settings, self.db = listener, listener.settings, listener.db
        self.worker = ExchangeWorker(self.settings, "delivery-1")
        self.objects = []
        for number in range(3):
            path = folder / f"{number}.dcm"
            dataset = write_object(path)
            assert send(self.settings, listener.port, path) == ["0x0000"]
            self.objects.append(Reference(str(dataset.SOPClassUID), str(dataset.SOPInstanceUID)))

    def row(self, transaction: str) -> Commitment:
        """The commitment of a transaction, with its items."""
        with self.db.reading() as session:
            query = select(Commitment).where(Commitment.transaction_uid == transaction)
            found = session.execute(query).scalar_one()
            assert found.items
            return found

    def work(self, transaction: str) -> str:
        """Have the worker take it, once the thread of the association that asked has given it up."""
        ends: list[str] = []

        def settled() -> bool:
            self.make_due(transaction)
            ends.append(self.worker.settle(self.row(transaction).id))
            return ends[-1] != ""

        wait_until(settled, 20, "the worker's turn")
        return ends[-1]

    def make_due(self, transaction: str, **values: object) -> None:
        """As if its time had come."""
        with self.db.transaction() as session:
            at = now(session)
            session.execute(
                update(Commitment)
                .where(Commitment.transaction_uid == transaction)
                .values(**{"not_before": at, **values})
            )

    def add_peer(self, port: int, name: str = "archive") -> None:
        """Whom the node may call back."""
        with self.db.transaction() as session:
            known = session.execute(select(Peer).where(Peer.name == name)).scalar_one_or_none()
            if known is None:
                known = Peer(name=name, kind="DICOM", created_at=now(session))
                session.add(known)
            known.ae_title, known.host, known.port = AE_TITLE, "127.0.0.1", port
            known.enabled = True

    def remove_peers(self) -> None:
        """Nobody may be called back."""
        with self.db.transaction() as session:
            session.execute(update(Peer).values(enabled=False))


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    folder = tmp_path_factory.mktemp("node")
    settings: Settings = make_settings(folder / "home", lease_s=30.0)
    with running(settings) as listener:
        yield Node(listener, folder)


@pytest.fixture
def peer(node: Node) -> Iterator[CommitPeer]:
    node.remove_peers()
    with commit_peer() as made:
        yield made


def test_the_answer_comes_on_the_association_that_asked(node: Node, peer: CommitPeer) -> None:
    wrong_class = Reference("1.2.840.10008.5.1.4.1.1.2", node.objects[0].sop_uid)
    with peer.association(node.listener.port) as association:
        transaction, status = peer.ask(association, [*node.objects[1:], ABSENT, wrong_class])
        assert status == 0x0000
        [report] = peer.wait_reports(1)
        wait_until(lambda: node.row(transaction).state == "DONE", 20, "DONE")
        # the association goes on as before
        again, status = peer.ask(association, node.objects)
        assert status == 0x0000
        whole = peer.wait_reports(2)[1]

    told = {node.objects[1].sop_uid: None, node.objects[2].sop_uid: None}
    told |= {ABSENT.sop_uid: 0x0112, wrong_class.sop_uid: 0x0119}
    assert report == Report(2, transaction, told, False)
    assert whole == Report(1, again, {one.sop_uid: None for one in node.objects}, False)
    assert [item.failure for item in node.row(transaction).items] == [None, None, 0x0112, 0x0119]


def test_who_has_left_is_called_with_the_role_of_the_scp(node: Node, peer: CommitPeer) -> None:
    node.add_peer(peer.port)
    transaction = left_after_asking(node, peer, node.objects)

    assert node.work(transaction) == "done"

    told = {one.sop_uid: None for one in node.objects}
    assert peer.reports == [Report(1, transaction, told, True)]
    assert node.row(transaction).state == "DONE"
    assert node.worker.settle(node.row(transaction).id) == ""


def left_after_asking(node: Node, peer: CommitPeer, references: list[Reference]) -> str:
    """Ask, and release without waiting for a report."""
    with peer.association(node.listener.port) as association:
        transaction, status = peer.ask(association, references)
        assert status == 0x0000
    return transaction


def test_the_same_transaction_gets_the_same_answer(
    node: Node, peer: CommitPeer, tmp_path: Path
) -> None:
    late = write_object(tmp_path / "late.dcm")
    wanted = [node.objects[0], Reference(str(late.SOPClassUID), str(late.SOPInstanceUID))]
    with peer.association(node.listener.port) as association:
        transaction, _ = peer.ask(association, wanted)
        peer.wait_reports(1)
        wait_until(lambda: node.row(transaction).state == "DONE", 20, "DONE")
        assert send(node.settings, node.listener.port, tmp_path / "late.dcm") == ["0x0000"]

        assert peer.ask(association, wanted, transaction) == (transaction, 0x0000)
        assert peer.wait_reports(2)[1] == peer.reports[0]
        assert peer.ask(association, node.objects, transaction) == (transaction, 0x0115)
        anew, _ = peer.ask(association, wanted)
        assert peer.wait_reports(3)[2].event_type == 1

    with node.db.reading() as session:
        same = select(Commitment).where(Commitment.transaction_uid.in_([transaction, anew]))
        assert len(session.execute(same).scalars().all()) == 2


def test_nobody_to_call_is_said_and_mended_by_adding_the_peer(node: Node, peer: CommitPeer) -> None:
    transaction = left_after_asking(node, peer, node.objects)

    assert node.work(transaction) == "FAILED"
    error = node.row(transaction).error
    assert error is not None
    assert f"`tomonode peer add NAME {AE_TITLE} HOST PORT --no-results`" in error

    node.add_peer(peer.port)
    with node.db.transaction() as session:
        commitments.retry(session, node.row(transaction).id, node.settings, now(session))
    assert node.worker.settle(node.row(transaction).id) == "done"
    assert peer.reports[0].transaction_uid == transaction


def test_a_process_killed_after_its_decision_loses_nothing(node: Node, peer: CommitPeer) -> None:
    node.add_peer(peer.port)
    with node.db.transaction() as session:
        wanted = [node.objects[0], ABSENT]
        first = commitments.asked_of_us(session, generate_uid(), AE_TITLE, wanted, node.settings)
    held = commitment_claims.claim(node.db, first, node.settings, early=True)
    assert held is not None
    decided = vouching.of_claim(node.db, node.listener.store, held)
    assert decided is not None
    # here it was killed; meanwhile the object is lost, and what was decided stands
    node.make_due(held.transaction_uid, lease_until=now_minus(node.db))
    with node.db.transaction() as session:
        commitments.reap(session, now(session))
    assert commitment_claims.answered(node.db, held) is False  # too late, should it wake up

    assert node.worker.settle(first) == "done"
    [report] = peer.reports
    assert report.objects == {one.reference.sop_uid: one.failure for one in decided}


def now_minus(db: Database) -> object:
    """A time that has passed, by the database's clock."""
    with db.reading() as session:
        return now(session).replace(year=2020)


def test_bytes_that_are_gone_are_not_vouched_for(node: Node, tmp_path: Path) -> None:
    path = tmp_path / "lost.dcm"
    lost = write_object(path)
    send(node.settings, node.listener.port, path)
    reference = Reference(str(lost.SOPClassUID), str(lost.SOPInstanceUID))
    with node.db.reading() as session:
        query = select(Instance.sha256).where(Instance.sop_uid == reference.sop_uid)
        blob = node.listener.store.path(session.execute(query).scalar_one())

    def said() -> int | None:
        return vouching.decide(node.db, node.listener.store, [reference])[0].failure

    whole = blob.read_bytes()
    assert said() is None
    blob.unlink()
    assert said() == 0x0112
    blob.write_bytes(whole[:-1])
    assert said() == 0x0112
    blob.write_bytes(whole)
    assert said() is None


@pytest.mark.parametrize(("status", "state"), [(0x0110, "PENDING"), (0x0112, "FAILED")])
def test_a_refused_report_is_tried_again_or_given_up(node: Node, status: int, state: str) -> None:
    with commit_peer(Script(report_statuses=[status, 0x0000])) as peer:
        node.add_peer(peer.port)
        transaction = left_after_asking(node, peer, node.objects[:1])
        assert node.work(transaction) == state
        error = node.row(transaction).error
        assert error is not None
        assert f"0x{status:04X}" in error
        if state == "PENDING":
            assert node.work(transaction) == "done"


def test_a_peer_that_is_away_is_tried_until_the_deadline(node: Node, peer: CommitPeer) -> None:
    node.add_peer(1)
    transaction = left_after_asking(node, peer, node.objects)
    assert node.work(transaction) == "PENDING"
    node.make_due(transaction, deadline_at=now_minus(node.db))
    with node.db.transaction() as session:
        commitments.reap(session, now(session))
    row = node.row(transaction)
    assert row.state == "FAILED"
    assert row.error is not None
    assert "is it running" in row.error


def test_the_relay_sends_what_the_association_could_not_hear(node: Node, peer: CommitPeer) -> None:
    transaction = left_after_asking(node, peer, node.objects)
    wait_until(lambda: node.row(transaction).attempt == 1, 20, "the thread")
    wait_until(lambda: node.row(transaction).state == "PENDING", 20, "the thread's end")
    sent: list[object] = []
    relay.tick(
        node.db, node.settings, "m", lambda task, queue, subject: sent.append((task, subject))
    )
    assert ("tomonode.commit", node.row(transaction).id) in sent


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"action": 2}, 0x0123),
        ({"instance": "1.2.3"}, 0x0112),
        ({"TransactionUID": None}, 0x0115),
        ({"TransactionUID": "1" * 65}, 0x0115),
        ({"TransactionUID": "no uid"}, 0x0115),
        ({"ReferencedSOPSequence": []}, 0x0115),
        ({"ReferencedSOPSequence": [Dataset()]}, 0x0115),
    ],
)
def test_a_malformed_request_gets_its_status(
    node: Node, peer: CommitPeer, change: dict[str, object], status: int
) -> None:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = BREAST_TOMOSYNTHESIS, "1.2"
    asked = Dataset()
    values: dict[str, object] = {"TransactionUID": generate_uid(), "ReferencedSOPSequence": [item]}
    for keyword, value in (values | change).items():
        if keyword in values and value is not None:
            setattr(asked, keyword, value)
    with peer.association(node.listener.port) as association:
        answer, _ = association.send_n_action(
            asked, change.get("action", 1), PushModel, change.get("instance", WellKnown)
        )
        assert answer.Status == status
        # and the association is none the worse
        assert peer.ask(association, node.objects)[1] == 0x0000
    assert not [one for one in peer.reports if one.transaction_uid == values["TransactionUID"]]
