"""Routing rules in a node: what a closing study becomes, and a file that breaks while the node runs."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from pydicom import dcmread, dcmwrite

from node import doctor, peers, relay, reruns, studies, supervisor
from node.config import Settings
from node.db import now
from node.errors import ConfigError, Conflict
from node.lifecycle import StudyState
from node.model_version import UNTRAINED
from node.models import Run
from node.rules import apply
from node.views import study as study_view
from tests.support.factory import earlier
from tests.support.objects import write_object
from tests.support.ruled_node import RULES, RuledNode, ruled_node


@pytest.fixture
def node(tmp_path: Path) -> Iterator[RuledNode]:
    """A node with rules."""
    with ruled_node(tmp_path) as made:
        yield made


def test_a_study_without_a_rule_is_read_and_sent_as_ever(node: RuledNode) -> None:
    uid = node.factory.receive(["R-CC"])
    node.close(uid)

    run = node.run(uid)
    assert run is not None
    assert (run.model_version, run.route) == (UNTRAINED, None)


def test_the_answer_of_a_rule_is_kept_with_the_run_and_an_edit_changes_nothing(
    node: RuledNode,
) -> None:
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


def test_no_model_closes_a_study_and_another_rule_has_it_read_after_all(node: RuledNode) -> None:
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


def test_a_generation_that_is_not_read_replaces_the_results_of_the_one_before(
    node: RuledNode,
) -> None:
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


def test_a_file_that_breaks_while_the_node_runs_keeps_the_last_good_rules(node: RuledNode) -> None:
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


def test_a_fault_is_logged_once_and_a_mended_file_is_in_force(
    node: RuledNode,
) -> None:
    assert len(node.rule_names()) == 2
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    try:
        with structlog.testing.capture_logs() as logged:
            for text in ("[[rule]", "[[rule]", "", "[[rule]]\n"):
                node.write(text)
                relay.tick(node.factory.db, node.settings, UNTRAINED, lambda *_message: None)
                relay.tick(node.factory.db, node.settings, UNTRAINED, lambda *_message: None)
    finally:
        structlog.configure(**before)
    faults = [one["error"] for one in logged if "rules" in one["event"]]
    assert len(faults) == 2
    assert "not valid TOML" in faults[0]
    assert "no `then`" in faults[1]
    assert node.rule_names() == []  # the empty file was good


def test_what_a_new_version_of_the_file_names_must_exist(node: RuledNode) -> None:
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
    node: RuledNode, capfd: pytest.CaptureFixture[str]
) -> None:
    node.write("[[rule]")
    nowhere = node.settings.model_copy(update={"home": node.settings.home / "new"})
    assert "not valid TOML" in _doctor(nowhere).found  # before there is a database
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


def test_headers_are_asked_as_they_are_stored(node: RuledNode, tmp_path: Path) -> None:
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
