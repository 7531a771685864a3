"""Commitments and pulls through the relay, Redis and a real worker process that is killed at a bad moment."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select

from node import commitments, peers, pulls
from node.commitments import Reference
from node.config import Settings
from node.db import now
from node.exchange_models import Commitment, CommitmentItem, Pull
from tests.conftest import make_settings
from tests.support.commit_peer import AE_TITLE, Script, commit_peer
from tests.support.listening import running, send
from tests.support.node_process import free_port
from tests.support.objects import write_object
from tests.support.query_peer import Script as PacsScript
from tests.support.query_peer import query_peer
from tests.support.services import wait_until
from tests.support.worker_node import WorkerNode, worker_node


@pytest.fixture
def node(tmp_path: Path) -> Iterator[WorkerNode]:
    settings: Settings = make_settings(tmp_path / "home", listen_port=free_port())
    with worker_node(settings) as made:
        yield made


def test_a_killed_worker_leaves_nothing_undone(node: WorkerNode, tmp_path: Path) -> None:
    path = tmp_path / "object.dcm"
    kept = write_object(path)
    fetched = write_object(tmp_path / "fetched.dcm")
    reference = Reference(str(kept.SOPClassUID), str(kept.SOPInstanceUID))
    pacs_script = PacsScript(destinations={"TOMONODE": node.settings.listen_port})
    with (
        running(node.settings) as listener,
        commit_peer(Script(hangs=True)) as peer,
        query_peer([tmp_path / "fetched.dcm"], pacs_script) as pacs,
    ):
        assert send(node.settings, listener.port, path) == ["0x0000"]
        with node.db.transaction() as session:
            at = now(session)
            archive = peers.dicom_peer("archive", AE_TITLE, "127.0.0.1", peer.port, at)
            source = peers.dicom_peer("pacs", "PACS", "127.0.0.1", pacs.port, at)
            source.queried = True
            session.add_all([archive, source])
            session.flush()
            commitments.asked_of_us(session, "1.2.3", AE_TITLE, [reference], node.settings)
            pulls.order(
                session, source, str(fetched.StudyInstanceUID), pulls.OPERATOR, node.settings
            )

        def done(table: type[Commitment] | type[Pull]) -> bool:
            with node.db.reading() as session:
                return session.execute(select(table.state)).scalar_one() == "DONE"

        worker = node.start("delivery")
        wait_until(lambda: done(Pull), 60, "the pull")
        wait_until(lambda: len(peer.reports) == 1, 60, "the report")
        with node.db.reading() as session:
            assert session.execute(select(CommitmentItem.committed)).scalar_one() is True
        worker.kill()  # it was told, and nobody knows whether it heard
        peer.script = Script()

        node.start("delivery")
        wait_until(lambda: done(Commitment), 60, "the same answer once more")
        assert peer.reports[0] == peer.reports[-1]
        assert peer.reports[0].objects == {reference.sop_uid: None}
