"""Routing rules in a node: what a closing study becomes, a file that breaks while the node runs, the commands, and two
real destinations."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
from pydicom import dcmread, dcmwrite
from sqlalchemy import select

from dicom_io.phantom import PhantomView, write_study
from node import doctor, peers, relay, reruns, schema, studies, supervisor
from node.cli import boundary
from node.config import Settings
from node.db import Database, now
from node.errors import ConfigError, Conflict
from node.lifecycle import StudyState
from node.model_version import UNTRAINED
from node.models import Run, TimelineEvent
from node.rules import apply
from node.views import study as study_view
from tests.conftest import make_settings
from tests.support import listening
from tests.support.command import environment
from tests.support.factory import Factory, earlier
from tests.support.objects import write_object
from tests.support.pacs import Pacs, pacs
from tests.support.services import wait_until
from tests.support.worker_node import worker_node
from tests.unit.workers.breasts import breast
from workers.cli import TRUSTED, app

RULES = """
[[rule]]
name = "test patients"
when = { calling_ae = "TEST*" }
then = { model = "none" }

[[rule]]
name = "left"
when = { views = ["L-CC"] }
then = { destinations = ["pacs"], results = { pacs = ["SR", "CAD_SR"] } }
"""


@dataclass(frozen=True)
class Node:
    """A database with rules, and the file that holds them."""

    factory: Factory
    file: Path

    @property
    def settings(self) -> Settings:
        """Of the node."""
        return self.factory.settings

    def write(self, text: str) -> None:
        """Save the file anew."""
        self.file.write_text(text)

    def close(self, study_uid: str) -> None:
        """The study is complete."""
        with self.factory.db.transaction() as session:
            studies.force_complete(session, study_uid, self.settings, UNTRAINED, now(session))

    def run(self, study_uid: str) -> Run | None:
        """Its newest run."""
        run_id = self.factory.newest_run(study_uid)
        with self.factory.db.reading() as session:
            return None if run_id is None else session.get_one(Run, run_id)

    def history(self, study_uid: str) -> list[str]:
        """Its lines."""
        with self.factory.db.reading() as session:
            study = studies.find(session, study_uid)
            query = select(TimelineEvent).where(TimelineEvent.study_id == study.id)
            rows = session.execute(query.order_by(TimelineEvent.id)).scalars()
            return [f"{row.kind}: {row.message}" for row in rows]

    def rule_names(self) -> list[str]:
        """Of the rules in force."""
        with self.factory.db.reading() as session:
            return [rule.name for rule in apply.in_force(session, self.settings)]


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    """A node with two peers and the rules above."""
    file = tmp_path / "rules.toml"
    file.write_text(RULES)
    settings = make_settings(tmp_path / "home", rules=file)
    schema.upgrade(settings.db_url)
    db = Database(settings.db_url)
    made = Node(Factory(db, settings), file)
    for name in ("pacs", "archive"):
        made.factory.peer(name)
    yield made
    db.dispose()


def test_a_study_without_a_rule_is_read_and_sent_as_ever(node: Node) -> None:
    uid = node.factory.receive(["R-CC"])
    node.close(uid)

    run = node.run(uid)
    assert run is not None
    assert (run.model_version, run.route) == (UNTRAINED, None)


def test_the_answer_of_a_rule_is_kept_with_the_run_and_an_edit_changes_nothing(node: Node) -> None:
    uid = node.factory.receive(["L-CC"])
    node.close(uid)
    node.write(RULES.replace('["pacs"]', '["archive"]').replace("pacs =", "archive ="))

    run = node.run(uid)
    assert run is not None
    assert run.route == {
        "rule": "left",
        "destinations": ["pacs"],
        "results": {"pacs": ["SR", "CAD_SR"]},
    }
    assert f"routed: routing rule 'left': model {UNTRAINED}, to pacs" in node.history(uid)
    node.factory.succeed(run.id)
    [delivery] = node.factory.deliveries_of(run.id)
    assert delivery
    # asked for again, it is judged anew
    with node.factory.db.transaction() as session:
        found = studies.find(session, uid)
        again = reruns.retry(session, found, node.settings, UNTRAINED, now(session))
        route = session.get_one(Run, again).route
    assert route is not None
    assert route["destinations"] == ["archive"]


def test_no_model_closes_a_study_and_another_rule_has_it_read_after_all(node: Node) -> None:
    uid = node.factory.receive(["L-CC", "R-CC"], calling_ae="TEST1")
    node.close(uid)

    assert node.run(uid) is None
    assert "not read: routing rule 'test patients' asks for no model" in node.history(uid)
    with node.factory.db.transaction() as session:
        found = studies.find(session, uid)
        assert found.state == StudyState.COMPLETE
        shown = study_view.study_page(session, uid, node.settings, now(session))
        assert shown.row.status == "not read"
        with pytest.raises(Conflict, match="'test patients' asks for no model"):
            reruns.retry(session, found, node.settings, UNTRAINED, now(session))
    node.write("")
    with node.factory.db.transaction() as session:
        found = studies.find(session, uid)
        reruns.retry(session, found, node.settings, UNTRAINED, now(session))
    assert node.run(uid) is not None


def test_a_generation_that_is_not_read_replaces_the_results_of_the_one_before(node: Node) -> None:
    uid = node.factory.receive(["L-CC"])
    node.close(uid)
    node.factory.arrive(uid, "R-CC", calling_ae="TEST1")
    node.close(uid)

    run = node.run(uid)
    assert run is not None
    assert (run.generation, run.state) == (1, "SUPERSEDED")
    with node.factory.db.transaction() as session:
        shown = study_view.study_page(session, uid, node.settings, now(session))
        assert shown.row.status == "not read"
        found = studies.find(session, uid)
        with pytest.raises(Conflict, match="test patients"):
            reruns.retry(session, found, node.settings, UNTRAINED, now(session))


def test_a_file_that_breaks_while_the_node_runs_keeps_the_last_good_rules(node: Node) -> None:
    assert node.rule_names() == ["test patients", "left"]
    node.write(RULES + "[[rule]")

    uid = node.factory.receive(["L-CC"], calling_ae="TEST1")
    node.close(uid)

    assert node.run(uid) is None
    assert node.rule_names() == ["test patients", "left"]
    check = _doctor(node.settings)
    assert not check.ok
    assert "not valid TOML" in check.found
    assert "tomonode rules check" in check.mend
    node.file.unlink()
    assert node.rule_names() == ["test patients", "left"]
    node.write("# no more rules\n")
    assert node.rule_names() == []
    assert _doctor(node.settings).ok


def test_what_a_new_version_of_the_file_names_must_exist(node: Node) -> None:
    assert len(node.rule_names()) == 2
    node.write(RULES.replace('["pacs"]', '["pasc"]'))
    assert node.rule_names() == ["test patients", "left"]

    # a peer that goes later breaks no rule; the doctor says so
    node.write(RULES)
    assert _doctor(node.settings).ok
    with node.factory.db.transaction() as session:
        peers.remove(session, "pacs")
    assert node.rule_names() == ["test patients", "left"]
    assert "'pacs'" in _doctor(node.settings).found


def test_the_node_does_not_start_with_a_broken_file_and_goes_on_with_the_last_good_one(
    node: Node, capfd: pytest.CaptureFixture[str]
) -> None:
    node.write("[[rule]")
    with pytest.raises(ConfigError, match="not valid TOML"):
        supervisor.Supervisor(node.settings, lambda _line: None).run()
    with node.factory.db.reading() as session, pytest.raises(ConfigError, match="not valid TOML"):
        apply.in_force(session, node.settings)

    node.write(RULES)
    apply.require_good(node.settings)
    node.write("[[rule]")
    uid = node.factory.receive(["L-CC"], at=earlier(30))
    relay.tick(node.factory.db, node.settings, UNTRAINED, lambda *_message: None)
    run = node.run(uid)
    assert run is not None
    assert run.route is not None


def test_headers_are_asked_as_they_are_stored(node: Node, tmp_path: Path) -> None:
    content = _object(tmp_path, StationName="Tomo-7", InstitutionName="Stätte")
    node.write(
        '[[rule]]\nname = "header"\n'
        'when = { StationName = "TOMO-*", InstitutionName = "st?tte", BitsStored = 10, '
        '"(0019,1001)" = "yes", TransferSyntaxUID = "1.2.840.10008.1.2.1" }\n'
        'then = { destinations = "none" }\n'
    )
    sha256 = node.factory.store.write(content)
    uid = node.factory.receive(["R-CC"], sha256=sha256)
    other = node.factory.receive(["R-CC"])  # bytes that are no data set: no values, and no crash
    node.close(uid)
    node.close(other)

    run, unread = node.run(uid), node.run(other)
    assert run is not None
    assert unread is not None
    assert (run.route, unread.route) == (
        {"rule": "header", "destinations": [], "results": {}},
        None,
    )


def _object(tmp_path: Path, **values: object) -> bytes:
    path = tmp_path / "one.dcm"
    write_object(path, SpecificCharacterSet="ISO_IR 192", **values)
    dataset = dcmread(path)
    dataset.private_block(0x0019, "MAKER", create=True).add_new(0x01, "LO", "yes")
    dcmwrite(path, dataset)
    return path.read_bytes()


def _doctor(settings: Settings) -> doctor.Check:
    return next(check for check in doctor.examine(settings) if check.name == "rules")


@pytest.fixture
def file_of_two_views(tmp_path: Path) -> Path:
    """Objects of a study, in a folder beside something else."""
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "README").write_text("no DICOM file")
    sides: tuple[Literal["L"], Literal["R"]] = ("L", "R")
    views = [PhantomView(side, "CC", breast(side, _SLICES, 5), (0.1, 0.1)) for side in sides]
    write_study(folder, views, seed=5)
    return folder


@pytest.fixture
def tomonode(
    node: Node, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Runs a command on the node: exit code, standard output, standard error."""
    for name, value in environment(node.settings.home, RULES=str(node.file)).items():
        if name.startswith("TOMONODE_"):
            monkeypatch.setenv(name, value)

    def run(*arguments: object) -> tuple[int, str, str]:
        code = boundary.run(app, [str(one) for one in arguments], trusted=TRUSTED)
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def test_the_commands_say_what_would_become_of_files(
    node: Node,
    file_of_two_views: Path,
    tmp_path: Path,
    tomonode: Callable[..., tuple[int, str, str]],
) -> None:
    assert tomonode("rules", "check") == (0, f"{node.file}: 2 rules, 0 faults\n", "")
    code, told, _ = tomonode("rules", "test", file_of_two_views, "--from", "ROOM1", "--json")
    [study] = json.loads(told)["studies"]
    assert code == 0
    assert (study["objects"], study["images"], study["views"]) == (2, 2, ["L-CC", "R-CC"])
    assert (study["rule"], study["model"], study["version"]) == ("left", "active", UNTRAINED)
    assert study["destinations"] == {"pacs": ["SR", "CAD_SR"]}
    assert study["passed_over"] == [{"rule": "test patients", "why": "calling_ae is ROOM1"}]

    _, for_people, _ = tomonode("rules", "test", file_of_two_views, "--from", "TEST7")
    assert "test patients" in for_people
    assert "none: the rule says so" in for_people
    everything = tmp_path / "none.toml"
    everything.write_text("")
    _, unruled, _ = tomonode("rules", "test", file_of_two_views, "--rules", everything)
    assert "none matches" in unruled
    assert "archive: SEG, SR; pacs: SEG, SR" in unruled
    _, fetched, _ = tomonode("rules", "test", file_of_two_views, "--rules", everything, "--pulled")
    assert "none: the study was fetched from a peer" in fetched


def test_a_fault_is_said_and_is_exit_code_1(
    node: Node, file_of_two_views: Path, tomonode: Callable[..., tuple[int, str, str]]
) -> None:
    garbage = file_of_two_views / "garbage.dcm"
    garbage.write_bytes(bytes(128) + b"DICM" + b"nonsense")
    code, told, wrong = tomonode("rules", "test", file_of_two_views)
    assert (code, wrong.count("\n")) == (1, 1)
    assert "garbage.dcm" in wrong
    assert "rule" in told  # the good files are told of all the same

    node.write(RULES.replace("SR", "ZR"))
    for command in (["check"], ["check", node.file], ["test", file_of_two_views]):
        code, _, wrong = tomonode("rules", *command)
        assert (code, wrong.count("\n")) == (1, 1)
        assert "rule 2 'left'" in wrong
    listed = json.loads(tomonode("rules", "check", "--json")[1])
    assert (len(listed["faults"]), listed["names_looked_up"]) == (1, True)


def test_without_a_database_the_file_alone_is_checked(
    node: Node,
    tomonode: Callable[..., tuple[int, str, str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TOMONODE_HOME", str(tmp_path / "nowhere"))

    code, _, said = tomonode("rules", "check")

    assert (code, "not looked up" in said) == (0, True)
    monkeypatch.delenv("TOMONODE_RULES")
    code, _, said = tomonode("rules", "check")
    assert (code, "TOMONODE_RULES" in said) == (2, True)


_SLICES = (3, 640, 400)
_CAD_SR, _SR = "1.2.840.10008.5.1.4.1.1.88.50", "1.2.840.10008.5.1.4.1.1.88.34"
_SEG = "1.2.840.10008.5.1.4.1.1.66.4"
_ROUTES = """
[[rule]]
name = "test patients"
when = { PatientID = "TEST*" }
then = { model = "none" }

[[rule]]
name = "mammography workstation"
when = { calling_ae = "ROOM1", BodyPartExamined = "breast" }
then = { destinations = ["workstation"], results = { workstation = ["SR", "CAD_SR"] } }
"""


def test_studies_from_the_network_go_where_their_rules_say(tmp_path: Path) -> None:
    file = tmp_path / "rules.toml"
    file.write_text("")
    settings = make_settings(tmp_path / "home", segment_threshold=0.001, rules=file)
    with (
        worker_node(settings) as node,
        listening.running(settings) as listener,
        pacs() as archive,
        pacs() as workstation,
    ):
        workers = [node.start("inference"), node.start("delivery")]
        node.add_peer("archive", archive.port)
        node.add_peer("workstation", workstation.port)
        file.write_text(_ROUTES)  # read while the node runs
        ruled, test, usual = (_phantom(tmp_path / name, name) for name in ("P1", "TEST1", "P2"))
        for worker in workers:
            worker.wait_ready()
        for (_, files), calling in ((ruled, "ROOM1"), (test, "ROOM1"), (usual, "ROOM2")):
            assert listening.send(settings, listener.port, *files, calling=calling) == ["0x0000"]
        sent = (ruled[0], test[0], usual[0])
        wait_until(
            lambda: {_state(node.db, uid) for uid in sent} == {StudyState.COMPLETE}, 30, "the end"
        )
        node.wait_delivery(ruled[0], "workstation", "SENT")
        node.wait_delivery(usual[0], "archive", "SENT")
        node.wait_delivery(usual[0], "workstation", "SENT")

        assert set(node.deliveries(node.run(ruled[0]))) == {"workstation"}
        assert _classes(workstation, ruled[0]) == {_SR, _CAD_SR}
        assert _classes(archive, ruled[0]) == set()
        assert _classes(archive, usual[0]) == _classes(workstation, usual[0]) == {_SEG, _SR}
        with node.db.reading() as session:
            assert studies.newest_run_id(session, studies.find(session, test[0]).id) is None


def _phantom(folder: Path, patient_id: str) -> tuple[str, list[Path]]:
    """A study of one view of a patient: its UID and file."""
    seed = sum(patient_id.encode())
    view = PhantomView("L", "CC", breast("L", _SLICES, seed), (0.1, 0.1))
    study = write_study(folder, [view], seed=seed)
    for path in study.files:
        dataset = dcmread(path)
        dataset.PatientID, dataset.BodyPartExamined = patient_id, "BREAST"
        dcmwrite(path, dataset)
    return study.study_instance_uid, list(study.files)


def _classes(peer: Pacs, study_uid: str) -> set[str]:
    """The SOP classes of what a peer has of a study."""
    return {one.sop_class_uid for one in peer.stored if study_uid.encode() in one.content}


def _state(db: Database, study_uid: str) -> str:
    with db.reading() as session:
        return studies.find(session, study_uid).state
