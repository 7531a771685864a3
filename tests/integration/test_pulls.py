"""Studies fetched from a PACS: by C-FIND and C-MOVE over real associations, verified in the database."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from sqlalchemy import select, update

from node import doctor, peers, priors, pulls, reruns, studies, views
from node.config import Settings
from node.db import Database, now
from node.deliveries import destination_of
from node.errors import Conflict
from node.exchange_models import Pull
from node.listener import Listener
from node.models import Peer, Study
from node.views import StudyPage
from tests.conftest import make_settings
from tests.support.factory import Factory
from tests.support.listening import running, send
from tests.support.objects import write_object
from tests.support.query_peer import AE_TITLE, QueryPeer, Script, query_peer
from tests.support.services import wait_until
from workers.exchange import ExchangeWorker

MODEL = "untrained"


class Node:
    """A listener, and the worker that fetches."""

    def __init__(self, listener: Listener) -> None:
        self.listener, self.settings, self.db = listener, listener.settings, listener.db
        self.worker = ExchangeWorker(self.settings, "delivery-1")

    def script(self, **values: object) -> Script:
        """A PACS that knows us."""
        return Script(destinations={"TOMONODE": self.listener.port}, **values)  # type: ignore[arg-type]

    def order(self, peer: QueryPeer, study_uid: str, why: str = pulls.OPERATOR) -> Pull:
        """Have a study fetched from this PACS."""
        with self.db.transaction() as session:
            source = self.source(session, peer.port)
            pull_id, _ = pulls.order(session, source, study_uid, why, self.settings)
        return self.row(pull_id)

    def source(self, session: object, port: int) -> Peer:
        """The PACS as a peer."""
        name = f"pacs-{port}"
        found = session.execute(select(Peer).where(Peer.name == name)).scalar_one_or_none()  # type: ignore[attr-defined]
        if found is None:
            found = peers.dicom_peer(name, AE_TITLE, "127.0.0.1", port, now(session))  # type: ignore[arg-type]
            found.queried, found.receives = True, False
            session.add(found)  # type: ignore[attr-defined]
            session.flush()  # type: ignore[attr-defined]
        return found

    def row(self, pull_id: object) -> Pull:
        """A pull."""
        with self.db.reading() as session:
            return session.execute(select(Pull).where(Pull.id == pull_id)).scalar_one()

    def fetch(self, pull: Pull) -> str:
        """The worker's turn."""
        with self.db.transaction() as session:
            at = now(session)
            session.execute(update(Pull).where(Pull.id == pull.id).values(not_before=at))
        return self.worker.fetch(pull.id)

    def page(self, study_uid: str) -> StudyPage:
        """What the study's page shows."""
        with self.db.reading() as session:
            return views.study_page(session, study_uid, self.settings, now(session))

    def close(self, study_uid: str) -> None:
        """As the relay does once it is quiet."""
        with self.db.transaction() as session:
            study = studies.find(session, study_uid)
            studies.close(session, study.id, "quiet", self.settings, MODEL, now(session))


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    settings = make_settings(tmp_path_factory.mktemp("node"), lease_s=3.0)
    with running(settings) as listener:
        yield Node(listener)


def a_study(folder: Path, count: int = 3, **attributes: object) -> tuple[str, list[Path]]:
    """A study of several objects in two series."""
    study_uid = str(attributes.pop("StudyInstanceUID", generate_uid()))
    series = [generate_uid(), generate_uid()]
    paths = [folder / f"{study_uid[-12:]}-{number}.dcm" for number in range(count)]
    for number, path in enumerate(paths):
        write_object(
            path,
            StudyInstanceUID=study_uid,
            SeriesInstanceUID=series[number % 2],
            **attributes,
        )
    return study_uid, paths


def test_a_study_is_fetched_and_not_read(node: Node, tmp_path: Path) -> None:
    study_uid, files = a_study(tmp_path)
    with query_peer(files, node.script()) as pacs:
        pull = node.order(pacs, study_uid)
        assert node.fetch(pull) == "done"

    done = node.row(pull.id)
    assert (done.state, done.expected, done.arrived, done.error) == ("DONE", 3, 3, None)
    assert pacs.moves == [("STUDY", study_uid, "")]
    node.close(study_uid)
    page = node.page(study_uid)
    assert (page.row.status, page.runs, page.state) == ("not read", (), "COMPLETE")
    assert page.row.why == (
        "no model was run: fetched by us, not sent to be read; `tomonode study retry` runs one"
    )
    assert [one.kind for one in page.timeline] == ["fetched", "complete", "not read"]
    [shown] = page.pulls
    assert (shown.peer, shown.why, shown.waits) == (f"pacs-{pacs.port}", "operator", "")

    with node.db.transaction() as session:
        study = studies.find(session, study_uid)
        reruns.retry(session, study, node.settings, MODEL, now(session))
    assert node.page(study_uid).row.status == "queued"


def test_what_a_peer_did_not_send_is_asked_for_series_by_series(node: Node, tmp_path: Path) -> None:
    study_uid, files = a_study(tmp_path)
    with query_peer(files, node.script(kept_back=1, withholds=1)) as pacs:
        pull = node.order(pacs, study_uid)
        assert node.fetch(pull) == "PENDING"
        half = node.row(pull.id)
        assert (half.expected, half.arrived) == (3, 2)
        assert half.error is not None
        assert half.error.startswith(f"1 of 3 objects of pacs-{pacs.port} are not here")
        assert node.fetch(pull) == "done"
        series = str(pacs.objects[0].SeriesInstanceUID)
    assert pacs.moves[1:] == [("SERIES", study_uid, series)]


def test_what_is_here_is_not_sent_again_and_a_received_study_stays_one(
    node: Node, tmp_path: Path
) -> None:
    study_uid, files = a_study(tmp_path)
    assert send(node.settings, node.listener.port, *files) == ["0x0000"] * 3
    with query_peer(files, node.script()) as pacs:
        assert node.fetch(node.order(pacs, study_uid)) == "done"
    assert pacs.moves == []
    node.close(study_uid)
    assert node.page(study_uid).row.status == "queued"


def test_a_fetched_study_that_is_sent_as_well_is_read(node: Node, tmp_path: Path) -> None:
    study_uid, files = a_study(tmp_path, 2)
    with query_peer(files[:1], node.script()) as pacs:
        assert node.fetch(node.order(pacs, study_uid)) == "done"
    node.close(study_uid)
    assert node.page(study_uid).row.status == "not read"

    assert send(node.settings, node.listener.port, files[1], calling="MODALITY") == ["0x0000"]
    node.close(study_uid)
    page = node.page(study_uid)
    assert page.row.status == "queued"
    assert ("sent to us", "by MODALITY, after we fetched it") in [
        (one.kind, one.message.strip()) for one in page.timeline
    ]


@pytest.mark.parametrize(
    ("script", "state", "words"),
    [
        ({}, "FAILED", "does not know us as a move destination: there, add AE title 'TOMONODE'"),
        ({"find_status": 0xA700}, "PENDING", "refused the query with status 0xA700"),
        ({"find_status": 0x0122}, "FAILED", "refused the query with status 0x0122"),
    ],
)
def test_a_refusal_is_one_clear_line(
    node: Node, tmp_path: Path, script: dict[str, int], state: str, words: str
) -> None:
    study_uid, files = a_study(tmp_path, 1)
    with query_peer(files, Script(**script)) as pacs:  # type: ignore[arg-type]
        pull = node.order(pacs, study_uid)
        assert node.fetch(pull) == state
    error = node.row(pull.id).error
    assert error is not None
    assert words in error
    with node.db.transaction() as session:
        if state == "FAILED":
            check = next(c for c in doctor.examine(node.settings) if c.name == "pulls")
            assert not check.ok
        pulls.cancel(session, pull.id, now(session))
    assert node.row(pull.id).state == "CANCELLED"


def test_unknown_studies_and_absent_peers(node: Node, tmp_path: Path) -> None:
    _, files = a_study(tmp_path, 1)
    with query_peer(files, node.script()) as pacs:
        unknown = node.order(pacs, "1.2.3")
        gone = node.order(pacs, "1.2.4")
        assert node.fetch(unknown) == "FAILED"
    assert node.row(unknown.id).error == f"pacs-{pacs.port} has no study 1.2.3"
    assert [node.fetch(gone) for _ in range(3)] == ["PENDING", "PENDING", "FAILED"]
    assert node.fetch(gone) == ""


def test_a_cancelled_pull_stops_the_peer(node: Node, tmp_path: Path) -> None:
    study_uid, files = a_study(tmp_path)
    with query_peer(files, node.script(hangs=True)) as pacs:
        pull = node.order(pacs, study_uid)
        worker = threading.Thread(target=node.fetch, args=(pull,))
        worker.start()
        wait_until(lambda: pacs.moves, 20, "the move")
        with node.db.transaction() as session:
            pulls.cancel(session, pull.id, now(session))
        worker.join(60)
        assert not worker.is_alive()
        wait_until(pacs.cancelled.is_set, 20, "C-CANCEL")
    assert node.row(pull.id).state == "CANCELLED"


def test_the_lease_of_a_long_pull_is_kept_and_a_killed_workers_ends(
    node: Node, tmp_path: Path
) -> None:
    study_uid, files = a_study(tmp_path)
    with query_peer(files, node.script(hangs=True)) as pacs:
        pull = node.order(pacs, study_uid)
        worker = threading.Thread(target=node.fetch, args=(pull,))
        worker.start()
        wait_until(lambda: pacs.moves, 20, "the move")
        first = node.row(pull.id).lease_until
        assert first is not None
        wait_until(lambda: (node.row(pull.id).lease_until or first) > first, 20, "a beat")
        wait_until(lambda: node.row(pull.id).arrived == 1, 20, "how far it is")
        # another host believes it dead
        with node.db.transaction() as session:
            past = now(session).replace(year=2020)
            session.execute(update(Pull).where(Pull.id == pull.id).values(lease_until=past))
            assert pulls.reap(session, now(session)) == 1
        worker.join(60)
        assert node.row(pull.id).state == "PENDING"
        pacs.script = node.script()
        assert node.fetch(pull) == "done"


def test_a_peer_that_ends_in_the_middle_is_asked_for_the_rest(node: Node, tmp_path: Path) -> None:
    study_uid, files = a_study(tmp_path)
    with query_peer(files, node.script(aborts=True)) as pacs:
        pull = node.order(pacs, study_uid)
        assert node.fetch(pull) == "PENDING"
        error = node.row(pull.id).error
        assert error is not None
        assert "ended the association" in error
        pacs.script = node.script()
        assert node.fetch(pull) == "done"
    assert [level for level, *_ in pacs.moves[1:]] == ["SERIES"] * 2


def test_a_study_whose_pull_was_cancelled_or_vain_is_read_when_it_is_sent(
    node: Node, tmp_path: Path
) -> None:
    study_uid, files = a_study(tmp_path, 2)
    with query_peer([], node.script()) as pacs:
        assert node.fetch(node.order(pacs, study_uid)) == "FAILED"
        cancelled = node.order(pacs, study_uid)
        with node.db.transaction() as session:
            pulls.cancel(session, cancelled.id, now(session))
    assert send(node.settings, node.listener.port, *files, calling=AE_TITLE) == ["0x0000"] * 2
    node.close(study_uid)
    assert node.page(study_uid).row.status == "queued"


def test_a_removed_peer_is_asked_for_nothing(node: Node, tmp_path: Path) -> None:
    study_uid, files = a_study(tmp_path, 1)
    with query_peer(files, node.script()) as pacs:
        pull = node.order(pacs, study_uid)
        with node.db.transaction() as session:
            peers.remove(session, f"pacs-{pacs.port}")
        assert node.fetch(pull) == "FAILED"
    assert node.row(pull.id).error == f"pacs-{pacs.port} is no peer to fetch from any more"


def test_who_may_be_asked(node: Node) -> None:
    with node.db.transaction() as session:
        at = now(session)
        pacs = peers.dicom_peer("closed", "PACS", "127.0.0.1", 104, at)
        web = peers.stow_peer("web", "http://127.0.0.1/dicom-web", at)
        with pytest.raises(Conflict, match=r"`tomonode peer set closed --query`"):
            pulls.require_source(pacs)
        with pytest.raises(Conflict, match=r"C-MOVE, from an AE title"):
            pulls.require_source(web)


def test_a_study_on_its_way_is_not_ordered_twice(node: Node, tmp_path: Path) -> None:
    study_uid, files = a_study(tmp_path, 1)
    with query_peer(files, node.script()) as pacs:
        first, second = node.order(pacs, study_uid), node.order(pacs, study_uid)
        assert first.id == second.id
        assert node.fetch(first) == "done"
        assert node.order(pacs, study_uid).id != first.id


def found(study_uid: str, day: str, **values: object) -> Dataset:
    """An answer at study level."""
    answer = Dataset()
    answer.QueryRetrieveLevel = "STUDY"
    answer.StudyInstanceUID, answer.StudyDate = study_uid, day
    answer.PatientID = "SECRET-ID"
    for keyword, value in values.items():
        setattr(answer, keyword, value)
    return answer


def test_priors_are_this_patients_earlier_mammograms_the_newest_first(
    node: Node, tmp_path: Path
) -> None:
    current, files = a_study(tmp_path, 1, StudyDate="20260304")
    assert send(node.settings, node.listener.port, *files) == ["0x0000"]
    answers = [
        found("1.1", "20250101", ModalitiesInStudy=["MG", "SR"], PatientBirthDate="19600101"),
        found("1.2", "20240101", ModalitiesInStudy="CT"),
        found("1.3", "20230101"),
        found("1.4", "20220101", PatientID="ANOTHER"),
        found("1.5", "20210101", PatientBirthDate="19700101"),
        found("1.6", "20200101", ModalitiesInStudy="MG"),
        found("1.7", "20270101"),
        found("1.8", "19990101"),
        found(current, "20260304"),
    ]
    with query_peer(files, node.script(also_found=answers)) as pacs:
        with node.db.transaction() as session:
            source = destination_of(node.source(session, pacs.port))
            study = session.execute(select(Study).where(Study.study_uid == current)).scalar_one()
            wanted = priors.wanted_of(study, years=10)
        assert wanted.dates == "20160304-20260303"
        said = priors.ask(source, wanted, node.settings)
    chosen = [one.study_uid for one in priors.choose(said, wanted, {"1.9"}, most=5)]
    assert chosen == ["1.1", "1.3", "1.6"]
    assert [o.study_uid for o in priors.choose(said, wanted, {"1.1"}, most=1)] == ["1.3"]
    assert "SECRET" not in repr(said)


def test_the_statements_run_on_both_engines(db: Database, any_settings: Settings) -> None:
    with db.transaction() as session:
        peer = peers.dicom_peer("pacs", "PACS", "127.0.0.1", 104, now(session))
        peer.queried = True
        session.add(peer)
        session.flush()
        pull_id, new = pulls.order(session, peer, "1.2.3", pulls.OPERATOR, any_settings)
        assert new
    held = pulls.claim(db, pull_id, "w", any_settings)
    assert held is not None
    factory = Factory(db, any_settings)
    factory.arrive("1.2.3")
    assert held.allowed
    assert pulls.heartbeat(db, pull_id, held.attempt, any_settings)
    assert pulls.note(db, held, 2, 1)
    assert pulls.finish(db, held, 2)
    assert not pulls.heartbeat(db, pull_id, held.attempt, any_settings)
    with db.transaction() as session:
        assert studies.find(session, "1.2.3").pulled
        assert pulls.reap(session, now(session)) == 0
        assert pulls.dispatch_due(session, any_settings, now(session)) == 0
        assert session.execute(select(Pull.id).where(pulls.given_up())).first() is None
    factory.arrive("1.2.3", "L-CC", calling_ae="PACS")
    with db.reading() as session:
        assert studies.find(session, "1.2.3").pulled
    factory.arrive("1.2.3", "L-MLO", calling_ae="MODALITY")
    with db.reading() as session:
        assert not studies.find(session, "1.2.3").pulled
