"""What each peer gets: said by people, refined by the routing rules, honoured by runs and deliveries."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from node import deliveries, destinations, peers, reruns, results, runs, schema, studies, views
from node.cli import boundary
from node.config import Settings
from node.db import Database, now
from node.errors import ConfigError, Conflict
from node.models import Delivery, Peer, Run, Study, TimelineEvent
from node.peer_parts import Part
from tests.conftest import make_settings
from tests.support.command import environment
from tests.support.factory import SEG, SR, Factory
from workers.cli import TRUSTED, app

STUDY = "1.2.3"
CAD = "1.2.840.10008.5.1.4.1.1.88.50"
KEY = "1.2.840.10008.5.1.4.1.1.88.59"
CLASSES = {"SEG": SEG, "SEG_JPEG2000": SEG, "SR": SR, "CAD_SR": CAD, "KEY_OBJECTS": KEY}


@pytest.fixture
def db(settings: Settings) -> Iterator[Database]:
    """A migrated database; SQLite alone, for nothing here depends on the engine."""
    schema.upgrade(settings.db_url)
    database = Database(settings.db_url)
    yield database
    database.dispose()


def add(db: Database, name: str, part: Part) -> None:
    with db.transaction() as session:
        peers.add(session, peers.dicom_peer(name, "PACS", "h", 104, now(session)), part)


def change(db: Database, name: str, part: Part) -> int:
    with db.transaction() as session:
        return peers.change(session, name, part)


def queued(db: Database, settings: Settings, route: dict[str, Any] | None = None) -> Run:
    """A closed study's run, with what the rules said of it."""
    made = Factory(db, settings)
    if not made_already(db):
        made.arrive(STUDY)
        with db.transaction() as session:
            studies.force_complete(session, STUDY, settings, "m", now(session))
    else:
        with db.transaction() as session:
            study = studies.find(session, STUDY)
            reruns.retry(session, study, settings, "m", now(session))
    with db.transaction() as session:
        (run,) = session.execute(select(Run).where(Run.state == "QUEUED")).scalars()
        session.execute(update(Run).where(Run.id == run.id).values(route=route))
        return run


def made_already(db: Database) -> bool:
    with db.reading() as session:
        return session.execute(select(Study.id)).first() is not None


def done(
    db: Database, settings: Settings, run: Run, kinds: Sequence[str]
) -> tuple[runs.Claim, dict[str, list[str]]]:
    """The run as a worker makes it, one object of each kind; and the kinds that each peer is to be sent, in order."""
    held = runs.claim(db, run.id, "w", settings)
    assert held is not None
    files = [Factory(db, settings)._dicom(k, f"{k.lower()}.dcm", CLASSES[k]) for k in kinds]
    assert runs.succeed(db, held, runs.Outcome({"name": "m"}, [], files), settings)
    by_uid = {file.sop_uid: file.kind for file in files}
    with db.reading() as session:
        rows = session.execute(
            select(Delivery.id, Peer.name).join(Peer).where(Delivery.run_id == run.id)
        ).all()
    sent = {}
    for delivery_id, name in rows:
        claim = deliveries.claim(db, delivery_id, "d", settings)
        assert claim is not None
        sent[name] = [by_uid[parcel.sop_uid] for parcel in claim.parcels]
        answers = [deliveries.Answer(one.artifact_id, True, "0x0000") for one in claim.parcels]
        assert deliveries.finish(db, claim, answers, settings)
    return held, sent


def test_a_run_makes_what_its_destinations_want_and_each_gets_its_own(
    db: Database, settings: Settings
) -> None:
    add(db, "viewer", Part())
    add(db, "mammography", Part(("CAD_SR",)))
    add(db, "archive", Part((), queried=True))
    held, sent = done(db, settings, queued(db, settings), ("CAD_SR", "SR", "SEG"))
    assert held.kinds == ("SEG", "SR", "CAD_SR")
    assert sent == {"viewer": ["SEG", "SR"], "mammography": ["CAD_SR"]}
    with db.reading() as session:
        page = views.study_page(session, STUDY, settings, now(session))
    (run,) = page.runs
    assert [file.kind for file in run.artifacts] == ["SEG", "SR", "CAD_SR"]
    shown = {one.peer: [item.kind for item in one.objects] for one in run.deliveries}
    assert shown == sent


def test_rules_choose_destinations_and_kinds_and_what_they_miss_is_said(
    db: Database, settings: Settings
) -> None:
    add(db, "a", Part())
    add(db, "b", Part())
    route = {
        "rule": "diagnostic",
        "destinations": ["b", "gone"],
        "results": {"b": ["KEY_OBJECTS", "SEG"], "a": ["CAD_SR"]},
    }
    held, sent = done(db, settings, queued(db, settings, route), ("SEG", "SR", "KEY_OBJECTS"))
    assert held.kinds == ("SEG", "SR", "KEY_OBJECTS")
    assert sent == {"b": ["SEG", "KEY_OBJECTS"]}
    with db.reading() as session:
        said = session.execute(select(TimelineEvent.message)).scalars().all()
    assert any("no peer gone takes results" in line for line in said)
    everybody = {"rule": "all", "destinations": None, "results": {"a": ["CAD_SR"]}}
    _, sent = done(db, settings, queued(db, settings, everybody), ("SEG", "SR", "CAD_SR"))
    assert sent == {"a": ["CAD_SR"], "b": ["SEG", "SR"]}


def test_each_document_names_the_nearest_earlier_one_of_its_kind(
    db: Database, settings: Settings
) -> None:
    add(db, "all", Part(("SEG", "SR", "CAD_SR", "KEY_OBJECTS")))
    first, _ = done(db, settings, queued(db, settings), ("SR", "CAD_SR"))
    second, _ = done(db, settings, queued(db, settings), ("SR",))
    third, _ = done(db, settings, queued(db, settings), ("SR",))
    assert first.predecessors == {}
    assert set(second.predecessors) == {"SR", "CAD_SR"}
    assert third.predecessors["CAD_SR"] == second.predecessors["CAD_SR"]
    assert third.predecessors["SR"] != second.predecessors["SR"]


def test_a_kind_gained_later_is_sent_by_a_retry_of_what_was_sent(
    db: Database, settings: Settings
) -> None:
    add(db, "viewer", Part())
    add(db, "mammography", Part(("CAD_SR",)))
    done(db, settings, queued(db, settings), ("SEG", "SR", "CAD_SR"))
    with db.reading() as session:
        query = select(Delivery.id).join(Peer).where(Peer.name == "viewer")
        delivery_id = session.execute(query).scalar_one()

    def retry() -> None:
        with db.transaction() as session:
            deliveries.retry(session, delivery_id, settings, now(session))

    with pytest.raises(Conflict, match="has all that the run made"):
        retry()
    change(db, "viewer", Part(()))
    with pytest.raises(Conflict, match="takes no results"):
        retry()
    change(db, "viewer", Part(("SR", "CAD_SR")))
    retry()
    held = deliveries.claim(db, delivery_id, "d", settings)
    assert held is not None
    assert [one.sop_class_uid for one in held.parcels] == [CAD]


def test_a_peer_that_takes_no_results_any_more_is_sent_nothing_that_waits(
    db: Database, settings: Settings
) -> None:
    add(db, "viewer", Part())
    run = queued(db, settings)
    held = runs.claim(db, run.id, "w", settings)
    assert held is not None
    assert runs.succeed(db, held, runs.Outcome({}, [], []), settings)
    assert change(db, "viewer", Part(())) == 1
    with db.reading() as session:
        assert session.execute(select(Delivery.state)).scalar_one() == "CANCELLED"


def test_an_object_and_its_twin_are_kept_and_one_of_them_is_found(
    db: Database, settings: Settings
) -> None:
    add(db, "a", Part(("SEG_JPEG2000",)))
    run = queued(db, settings)
    held = runs.claim(db, run.id, "w", settings)
    assert held is not None
    assert held.kinds == ("SEG", "SEG_JPEG2000", "SR")
    seg = Factory(db, settings)._dicom("SEG", "seg.dcm", SEG)
    twin = runs.ArtifactFile(
        "SEG_JPEG2000", "seg-jpeg2000.dcm", "e" * 64, 5, None, seg.sop_uid, SEG
    )
    assert runs.succeed(db, held, runs.Outcome({}, [], [seg, twin]), settings)
    with db.reading() as session:
        delivery = session.execute(select(Delivery.id)).scalar_one()
    claim = deliveries.claim(db, delivery, "d", settings)
    assert claim is not None
    assert [one.sha256 for one in claim.parcels] == ["e" * 64]


def test_kinds_are_checked_and_put_in_order() -> None:
    assert results.chosen([" sr", "SEG", "SR", ""]) == ("SEG", "SR")
    for words, said in (
        (["SEG", "PDF"], "'PDF'"),
        ([" "], "no kind"),
        (["SEG", "SEG_JPEG2000"], "two forms"),
    ):
        with pytest.raises(ConfigError, match=said):
            results.chosen(words)
    assert results.not_sent_along(("KEY_OBJECTS", "SEG_JPEG2000")) == ("KEY_IMAGE",)


@pytest.fixture
def tomonode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Any:
    """The command on a new database: exit code, what it printed, what it complained of."""
    env = environment(tmp_path / "home")
    schema.upgrade(make_settings(Path(env["TOMONODE_HOME"])).db_url)
    for name in env.keys() - os.environ.keys():
        monkeypatch.setenv(name, env[name])

    def run(line: str) -> tuple[int, str, str]:
        code = boundary.run(app, line.split(), trusted=TRUSTED)
        return (code, *capsys.readouterr())

    return run


def test_peers_are_told_what_they_get_and_are_for(tomonode: Any) -> None:
    code, said, _ = tomonode("peer add cad CAD h 104 --results key_objects,seg --commit")
    assert (code, said.count("\n")) == (0, 2)
    assert "note: its documents refer to KEY_IMAGE, which it does not get" in said
    assert tomonode("peer add old OLD h 104 --no-results --query")[0] == 0
    assert tomonode("peer add cad CAD h 104")[:2] == (0, "here already cad: CAD at h:104\n")
    assert tomonode("peer set cad --results SEG,SR,CAD_SR --no-commit")[1] == (
        "cad gets SEG, SR, CAD_SR\n"
    )
    listed = {one["name"]: one for one in json.loads(tomonode("peer list --json")[1])}
    parts = ("results", "receives", "queried", "commits")
    assert [listed["cad"][part] for part in parts] == [["SEG", "SR", "CAD_SR"], True, False, False]
    assert [listed["old"][part] for part in parts] == [[], False, True, False]
    assert "SEG, SR, CAD_SR" in tomonode("peer list")[1]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("peer add b B h 104 --results SEG,PDF", ("'PDF'", *results.KINDS)),
        ("peer add b B h 104 --results SEG --no-results", ("exclude each other",)),
        ("peer add web --url http://h/dicom-web --query", ("--query", "STOW-RS")),
        ("peer add a A h 104 --results SR", ("'a'", "peer set")),
        ("peer set a", ("'a'", "--results")),
        ("peer set nobody --no-results", ("'nobody'", "peer list")),
    ],
)
def test_a_mistake_about_a_peer_is_one_line(
    tomonode: Any, line: str, said: tuple[str, ...]
) -> None:
    assert tomonode("peer add a A h 104")[0] == 0
    code, _, complaint = tomonode(line)
    assert code != 0
    assert complaint.count("\n") == 1
    for word in said:
        assert word in complaint


def test_what_a_peer_gets_without_a_rule_is_its_own(db: Database, settings: Settings) -> None:
    add(db, "a", Part(("KEY_OBJECTS", "SEG")))
    with db.reading() as session:
        (peer,), absent = destinations.of_run(session, None)
        assert absent == []
        assert destinations.kinds_of(peer, None) == ("SEG", "KEY_OBJECTS")
        assert destinations.kinds_of(peer, {"results": {"other": ["SR"]}}) == ("SEG", "KEY_OBJECTS")
