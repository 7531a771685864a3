"""Storage commitment that we ask of peers after a delivery: answered where and as a peer likes, shown to people."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pydicom.uid import generate_uid
from sqlalchemy import select, update

from node import commitment_claims, commitments, doctor, peers, views, vouching
from node.blobs import BlobStore
from node.commitments import Reference
from node.config import Settings
from node.db import Database, now
from node.dimse.commitment_data import event_information
from node.exchange_models import Commitment
from node.listener import Listener
from node.models import Delivery, Peer
from node.views import StudyPage
from node.views.exchange import commitment_views
from tests.conftest import make_settings
from tests.support.commit_peer import AE_TITLE, Script, commit_peer
from tests.support.factory import Factory
from tests.support.listening import running
from tests.support.pacs import pacs
from tests.support.services import wait_until
from workers.exchange import ExchangeWorker


class Node:
    """A listener, a worker, and studies with results."""

    def __init__(self, listener: Listener) -> None:
        self.listener, self.settings, self.db = listener, listener.settings, listener.db
        self.worker = ExchangeWorker(self.settings, "delivery-1")
        self.factory = Factory(self.db, self.settings)

    def deliver(self, port: int) -> tuple[str, Commitment]:
        """A study whose results a committing peer took; the study, and what is to be asked."""
        with self.db.transaction() as session:
            for known in peers.listed(session):
                peers.remove(session, known.name)
            made = peers.dicom_peer(f"archive-{port}", AE_TITLE, "127.0.0.1", port, now(session))
            made.commits = True
            if session.execute(select(Peer).where(Peer.name == made.name)).first() is None:
                session.add(made)
        study, run_id = self.factory.queued()
        self.factory.succeed(run_id, {"R-CC": 0.9})
        [delivery] = self.factory.deliveries_of(run_id)
        self.factory.send(delivery)
        return study, self.row(delivery_id=delivery)

    def row(self, **where: object) -> Commitment:
        """A commitment, with its items."""
        with self.db.reading() as session:
            found = session.execute(select(Commitment).filter_by(**where)).scalar_one()
            assert found.items
            return found

    def page(self, study: str) -> StudyPage:
        """What the study's page shows."""
        with self.db.reading() as session:
            return views.study_page(session, study, self.settings, now(session))


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    settings = make_settings(tmp_path_factory.mktemp("node"), lease_s=30.0)
    with running(settings) as listener:
        yield Node(listener)


@pytest.mark.parametrize("reports", ["same", "new"])
def test_every_object_is_committed(node: Node, reports: str) -> None:
    with commit_peer(Script(reports=reports, node_port=node.listener.port)) as peer:
        study, asked = node.deliver(peer.port)
        assert (asked.state, asked.direction) == ("PENDING", "OUT")

        assert node.worker.settle(asked.id) == "done"
        wait_until(lambda: node.row(id=asked.id).state == "DONE", 20, "the report")

    assert peer.asked == [(asked.transaction_uid, tuple(i.sop_uid for i in asked.items))]
    page = node.page(study)
    [shown] = page.commitments
    assert (shown.state, shown.well, shown.missing, shown.objects) == ("DONE", True, (), 2)
    assert (page.timeline[-1].kind, page.timeline[-1].message) == (
        "committed",
        f"archive-{peer.port} has 2 objects",
    )


def test_an_object_that_the_peer_does_not_keep_is_shown_and_asked_for_again(node: Node) -> None:
    with commit_peer() as peer:
        study, asked = node.deliver(peer.port)
        lost = asked.items[0].sop_uid
        peer.script = Script(failures={lost: 0x0112})
        assert node.worker.settle(asked.id) == "done"
        page = node.page(study)
        [shown] = page.commitments
        assert (shown.well, shown.missing) == (False, (f"{lost}: 0x0112, no such object",))
        assert page.timeline[-1].kind == "not committed"
        assert f"does not have 1 of 2 objects ({lost}: 0x0112" in page.timeline[-1].message
        check = next(c for c in doctor.examine(node.settings) if c.name == "commitments")
        assert not check.ok
        assert "tomonode commitment list" in check.mend

        peer.script = Script()
        with node.db.transaction() as session:
            commitments.retry(session, asked.id, node.settings, now(session))
        assert node.worker.settle(asked.id) == "done"
        [shown] = node.page(study).commitments
        assert shown.well
        assert peer.asked[1][0] != peer.asked[0][0]  # under a new transaction
        check = next(c for c in doctor.examine(node.settings) if c.name == "commitments")
        assert check.ok


def test_an_answer_may_take_until_the_deadline_and_no_longer(node: Node) -> None:
    with commit_peer(Script(reports="never")) as peer:
        study, asked = node.deliver(peer.port)
        quick = node.settings.model_copy(update={"lease_s": 0.5})
        assert ExchangeWorker(quick, "delivery-2").settle(asked.id) == "done"
        [shown] = node.page(study).commitments
        assert shown.why.startswith(f"{AE_TITLE} was asked; its answer may take ")
        assert node.worker.settle(asked.id) == ""  # asked once

        with node.db.transaction() as session:
            past = now(session).replace(year=2020)
            session.execute(
                update(Commitment).where(Commitment.id == asked.id).values(deadline_at=past)
            )
        with node.db.transaction() as session:
            commitments.reap(session, now(session))
        page = node.page(study)
        assert page.commitments[0].state == "FAILED"
        assert page.timeline[-1].message == (
            f"{AE_TITLE} took the request and gave no answer until the deadline"
        )

        # what comes too late is answered, and changes nothing
        kind, information = event_information(asked.transaction_uid, [])
        peer.script = Script(node_port=node.listener.port)
        assert peer.report_anew(information, kind) == 0x0000
        assert node.row(id=asked.id).state == "FAILED"


def test_a_report_that_nobody_asked_for_is_refused(node: Node) -> None:
    with commit_peer(Script(node_port=node.listener.port)) as peer:
        kind, information = event_information(generate_uid(), [])
        assert peer.report_anew(information, kind) == 0x0115
        information.TransactionUID = "no uid"
        assert peer.report_anew(information, kind) == 0x0115
        assert peer.report_anew(information, 3) == 0x0113


@pytest.mark.parametrize(("status", "state"), [(0x0213, "PENDING"), (0x0124, "FAILED")])
def test_a_refused_request_is_tried_again_or_given_up(node: Node, status: int, state: str) -> None:
    with commit_peer(Script(action_statuses=[status, 0])) as peer:
        study, asked = node.deliver(peer.port)
        assert node.worker.settle(asked.id) == state
        [shown] = node.page(study).commitments
        assert f"0x{status:04X}" in shown.why


def test_a_peer_without_the_service_is_said(node: Node, db_pacs: int) -> None:
    _, asked = node.deliver(db_pacs)
    assert node.worker.settle(asked.id) == "FAILED"
    error = node.row(id=asked.id).error
    assert error is not None
    assert "takes none of the SOP classes" in error


@pytest.fixture
def db_pacs() -> Iterator[int]:
    with pacs() as peer:
        peer._entity.require_called_aet = False
        yield peer.port


def test_peers_that_do_not_commit_are_not_asked(node: Node) -> None:
    node.deliver(1)
    with node.db.transaction() as session:
        session.execute(update(Peer).values(commits=False))
    study, run_id = node.factory.queued()
    node.factory.succeed(run_id)
    [delivery] = node.factory.deliveries_of(run_id)
    node.factory.send(delivery)
    with node.db.reading() as session:
        assert session.execute(select(Delivery.state).where(Delivery.id == delivery)).scalar_one()
        shown = commitment_views(session, now(session), Commitment.delivery_id == delivery)
    assert shown == ()
    assert node.page(study).commitments == ()


def test_the_statements_run_on_both_engines(db: Database, any_settings: Settings) -> None:
    references = [Reference("1.2.840.10008.5.1.4.1.1.13.1.3", f"1.2.{n}") for n in range(3)]
    with db.transaction() as session:
        made = commitments.asked_of_us(session, "1.2.3", "SOMEBODY", references, any_settings)
        again = commitments.asked_of_us(session, "1.2.3", "SOMEBODY", references, any_settings)
        other = commitments.asked_of_us(session, "1.2.3", "ANOTHER", references, any_settings)
    assert made == again != other
    held = commitment_claims.claim(db, made, any_settings, early=True)
    assert held is not None
    assert commitment_claims.claim(db, made, any_settings, early=True) is None
    assert commitment_claims.heartbeat(db, made, held.attempt, any_settings)
    store = BlobStore.of(any_settings)
    decided = vouching.of_claim(db, store, held)
    assert decided is not None
    assert [one.failure for one in decided] == [0x0112] * 3
    commitment_claims.put_back(db, held)
    held = commitment_claims.claim(db, made, any_settings)
    assert held is not None
    assert held.decided == decided
    assert commitment_claims.answered(db, held)
    with db.transaction() as session:
        assert commitments.dispatch_due(session, any_settings, now(session)) == 0
        session.execute(update(Commitment).values(not_before=now(session)))
        assert commitments.dispatch_due(session, any_settings, now(session)) == 1
