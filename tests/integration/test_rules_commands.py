"""`tomonode rules`: faults of a file, and what would become of studies in files."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import pytest

from dicom_io.phantom import PhantomView, write_study
from node.cli import boundary
from node.model_version import UNTRAINED
from tests.support.command import environment
from tests.support.ruled_node import RULES, RuledNode, ruled_node
from tests.unit.workers.breasts import breast
from workers.cli import TRUSTED, app

_SLICES = (3, 640, 400)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[RuledNode]:
    """A node with rules."""
    with ruled_node(tmp_path) as made:
        yield made


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
    node: RuledNode, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
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
    node: RuledNode,
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
    node: RuledNode, file_of_two_views: Path, tomonode: Callable[..., tuple[int, str, str]]
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
    node: RuledNode,
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
