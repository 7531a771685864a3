"""`tomonode label` on a study that came over a real association: as real processes, then within this one."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from node.cli import boundary
from node.cli.app import app
from tests.conftest import make_settings
from tests.support.command import environment, tomonode
from tests.support.listening import running, send
from tests.support.objects import write_object

HEAD = (
    "Study UID;Accession Number;Patient ID;Study Date;Laterality;Benign;Malignant;Found on;BI-RADS"
)


Command = Callable[..., tuple[int, str, str]]


@dataclass(frozen=True)
class Home:
    """A node's home with one received study of two breasts."""

    env: dict[str, str]
    folder: Path
    study_uid: str
    sop_uid: str

    def file(self, *rows: str, name: str = "labels.csv") -> Path:
        """A file as a spreadsheet on Windows writes it."""
        path = self.folder / name
        path.write_bytes("\r\n".join([HEAD, *rows, ""]).encode("cp1252"))
        return path


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """One node for all tests of this file, which go on from each other's labels in their order."""
    folder = tmp_path_factory.mktemp("labels")
    settings = make_settings(folder / "home")
    shared = {"ViewPosition": "CC", "NumberOfFrames": 3, "AccessionNumber": "ACC-1"}
    left = write_object(folder / "l.dcm", ImageLaterality="L", **shared)
    write_object(
        folder / "r.dcm", ImageLaterality="R", StudyInstanceUID=left.StudyInstanceUID, **shared
    )
    with running(settings) as node:
        assert send(settings, node.port, folder / "l.dcm", folder / "r.dcm") == ["0x0000"] * 2
    return Home(environment(settings.home), folder, left.StudyInstanceUID, left.SOPInstanceUID)


@pytest.fixture
def command(
    home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """Run `tomonode label` in this process; exit code, output, errors."""
    for name, value in home.env.items():
        monkeypatch.setenv(name, value)

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        code = boundary.run(app, ["label", *map(str, arguments)])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def test_a_file_is_tried_imported_and_imported_again(home: Home, command: Command) -> None:
    file = home.file(
        f"{home.study_uid};;;;L;0;1;2026-03-20;4B",
        ";ACC-1;;;R;1;0;20260320;",
        ";;SECRET-ID;2026-03-05;R;;;;2",
    )
    dry = tomonode("label", "import", file, "--dry-run", env=home.env)
    assert dry.returncode == 0, dry.stderr
    assert "dry run, nothing written: 3 matched" in dry.stdout
    assert json.loads(command("list", "--json")[1]) == []
    done = tomonode("label", "import", file, "--by", "anna", env=home.env)
    assert done.returncode == 0, done.stderr
    assert "UTF-8, columns divided by semicolon" in done.stdout
    for secret in ("ACC-1", "SECRET-ID", "Secret"):
        assert secret not in done.stdout + done.stderr
    again = json.loads(command("import", file, "--json")[1])
    assert (again["import_id"], again["counts"]["unchanged"]) == (None, 3)
    rows = json.loads(command("list", "--json")[1])
    assert {(row["laterality"], row["finding"], row["category"], row["author"]) for row in rows} == {
        ("L", "malignant", 4, "anna"), ("R", "benign", 2, "anna"),
    }  # fmt: skip
    imports = json.loads(command("imports", "--json")[1])
    assert [one["source"] for one in imports] == ["labels.csv"]


def test_rows_that_need_a_person_fail_the_command_and_name_nobody(
    home: Home, command: Command
) -> None:
    unmatched = ";SECRET-7;;;L;0;1;2026-03-20;"
    file = home.file(unmatched, f"{home.study_uid};;;;Müller;0;1;2026-03-20;", name="bad.csv")
    code, said, _ = command("import", file)
    assert code == 1
    assert "Windows-1252" in said
    assert "1 unmatched, 1 invalid" in said
    assert "send the study and import the file again" in said
    assert "SECRET-7" not in said
    assert "Müller" not in said
    only = home.file(unmatched, name="only.csv")
    assert command("import", only)[0] == 1
    assert command("import", only, "--allow-unmatched")[0] == 0


def test_by_hand(home: Home, command: Command) -> None:
    for arguments, words in (
        (("set", home.study_uid, "L", "both", "2026-03-21", "--note", "second reading"), "revision 2"),
        (("set", home.study_uid, "L", "both", "2026-03-21"), "nothing written"),
        (("assess", home.study_uid, "left", "5", "--by", "ben"), "revision 2"),
        (("box", home.sop_uid, "malignant", "1", "2", "3", "4", "5"), "box 1: revision 1"),
        (("box", home.sop_uid, "malignant", "1", "2", "3", "4", "6", "--number", "1"), "revision 2"),
        (("box", home.sop_uid, "benign", "0", "0", "0", "16", "16"), "box 2: revision 1"),
        (("unbox", home.sop_uid, "2"), "withdrawn 2: revision 2"),
        (("unbox", home.sop_uid, "2", "--json"), '"written": false'),
        (("assess", home.study_uid, "left", "5", "--json"), '"label": "L: BI-RADS 5"'),
    ):  # fmt: skip
        code, said, errors = command(*arguments)
        assert (code, errors) == (0, "")
        assert words in said
    shown = json.loads(command("show", home.study_uid, "--json")[1])
    right, left = shown["breasts"]
    assert (right["counts_as"], left["counts_as"]) == ("benign", "both")
    assert [one["finding"] for one in left["pathology"]] == ["both", "malignant"]
    assert [one["category"] for one in left["assessments"]] == [5, 4]
    assert [(one["number"], one["revision"], one["withdrawn"]) for one in shown["boxes"]] == [
        (1, 1, False), (1, 2, False), (2, 1, False), (2, 2, True),
    ]  # fmt: skip
    assert "L: both (pathology, revision 2)" in command("show", home.study_uid)[1]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("set", "{study}", "L", "cancer", "2026-03-20"), 1, "give one of malignant, benign"),
        (("set", "{study}", "L", "benign", "2026-02-30"), 1, "which is no day"),
        (("set", "9.9", "L", "benign", "2026-03-20"), 1, "no study '9.9'"),
        (("assess", "{study}", "R", "7"), 1, "give 0 to 6"),
        (("box", "{sop}", "malignant", "1", "10", "0", "7", "5"), 1, "the image has 16 x 16"),
        (("box", "9.9", "malignant", "1", "10", "0", "7", "5"), 1, "no image '9.9'"),
        (("unbox", "{sop}", "9"), 1, "no box 9"),
        (("import", "{folder}/absent.csv"), 1, "No such file"),
        (("import", "{folder}/l.dcm"), 1, "zero bytes"),
        (("import", "{folder}/labels.csv", "--encoding", "klingon"), 2, "is not known"),
        (("import", "{folder}/labels.csv", "--by", ""), 1, "author has 0 characters"),
    ],
)
def test_a_failure_is_one_line(
    home: Home, command: Command, arguments: tuple[str, ...], code: int, words: str
) -> None:
    home.file()
    filled = [
        word.format(study=home.study_uid, sop=home.sop_uid, folder=home.folder)
        for word in arguments
    ]
    answered, said, errors = command(*filled)
    assert (answered, said) == (code, "")
    [line] = errors.splitlines()
    assert line.startswith("tomonode: ")
    assert words in line
