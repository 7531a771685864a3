"""The command line as real processes: what it prints, and that every failure is one line and an exit code."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicom_io.header import read_header
from node import listener, schema
from node.cli import boundary
from node.config import Settings
from tests.conftest import make_settings
from tests.support.command import assert_one_line, environment, tomonode
from workers.cli import TRUSTED, app

COMMANDS = (
    "up", "listen", "relay", "web", "worker", "send", "doctor", "predict", "phantom", "demo", "db upgrade",
    "study list", "study show", "study retry", "study complete", "delivery list", "delivery retry",
    "peer list", "peer add", "peer set", "peer remove", "peer echo",
    "pull from", "pull list", "pull cancel", "commitment list", "commitment retry", "catalogue rebuild",
    "label import", "label list", "label imports", "label show", "label set", "label assess", "label box",
    "label unbox", "blob copy",
    "train launch", "train list", "train show", "train pause", "train resume", "train cancel", "train retry",
    "train schedule", "train wait", "drift", "rules check", "rules test", "conformance",
)  # fmt: skip

ABSENT = "1.2.3.4"


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """A home without a database."""
    return environment(tmp_path / "home")


@pytest.fixture
def ready(env: dict[str, str]) -> dict[str, str]:
    """A home with a migrated, empty database."""
    schema.upgrade(make_settings(Path(env["TOMONODE_HOME"])).db_url)
    return env


@pytest.fixture
def receiver(ready: dict[str, str]) -> Iterator[listener.Listener]:
    """A listener on this home's database."""
    settings: Settings = make_settings(Path(ready["TOMONODE_HOME"]))
    running = listener.start(settings)
    yield running
    running.stop(1)


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small phantom study of two views."""
    out = tmp_path_factory.mktemp("phantom")
    done = tomonode(
        "phantom", out, "--views", "L-CC,R-MLO", "--slices", "3", "--size", "256x192",
        "--breast", "R", "--syntax", "jpegls", env=environment(out),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return out


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_says_what_a_command_is_for(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    code = boundary.run(app, [*command.split(), "--help"])

    said = " ".join(capsys.readouterr().out.split())
    assert code == 0
    assert f"Usage: tomonode {command}".strip() in said
    if not command:
        assert "Research use only, not for clinical use" in said


def test_version_is_said(env: dict[str, str]) -> None:
    assert tomonode("--version", env=env).stdout.startswith("tomonode ")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ("nonsense", 2, ("nonsense", "--help")),
        ("peer", 2, ("--help",)),
        ("worker --queue kitchen", 2, ("kitchen", "--help")),
        ("send 127.0.0.1 70000 .", 2, ("port", "65535")),
        ("send 127.0.0.1 104 not-here.dcm", 2, ("not-here.dcm",)),
        ("predict not-here.dcm --out x", 2, ("not-here.dcm",)),
        (f"study show {ABSENT}", 1, (ABSENT, "study list")),
        (f"study retry {ABSENT}", 1, (ABSENT, "study list")),
        (f"study complete {ABSENT}", 1, (ABSENT, "study list")),
        ("delivery retry 1", 1, ("'1'", "delivery list")),
        ("delivery retry 00000000-0000-0000-0000-000000000000", 1, ("delivery list",)),
        ("peer echo nobody", 1, ("nobody", "peer list")),
        ("peer remove nobody", 1, ("nobody", "peer list")),
        ("peer add pacs ABCDEFGHIJKLMNOPQ localhost 104", 2, ("ABCDEFGHIJKLMNOPQ", "16")),
        ("peer add pacs A\\B localhost 104", 2, ("backslash",)),
        ("peer add pacs PACS localhost 0", 2, ("port 0",)),
        ("peer add pacs PACS", 2, ("--url",)),
        ("peer add pacs --url ftp://somewhere", 2, ("ftp://somewhere",)),
        ("phantom x --size 12", 2, ("'12'", "ROWSxCOLUMNS")),
        ("phantom x --views L-XX", 1, ("L-XX",)),
    ],
)
def test_a_mistake_is_one_line(
    arguments: str,
    code: int,
    words: tuple[str, ...],
    ready: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in ready.keys() - os.environ.keys():
        monkeypatch.setenv(name, ready[name])

    given = boundary.run(app, arguments.split(), trusted=TRUSTED)

    said = capsys.readouterr().err
    assert given == code, said
    assert said.startswith("tomonode: ")
    assert said.count("\n") == 1
    for word in words:
        assert word in said


def test_the_database_is_made_and_a_mistake_ends_the_process(env: dict[str, str]) -> None:
    made = tomonode("db", "upgrade", env=env)
    again = tomonode("db", "upgrade", env=env)

    assert (made.returncode, again.returncode) == (0, 0), made.stderr
    assert made.stdout == again.stdout
    assert_one_line(tomonode("study", "show", ABSENT, env=env), 1, ABSENT)
    assert_one_line(tomonode("nonsense", env=env), 2, "nonsense")


@pytest.mark.parametrize(
    "arguments",
    [
        "study list",
        "delivery list",
        "peer list",
        "listen",
        "relay",
        "web",
        "worker --queue delivery",
    ],
)
def test_a_home_without_database_is_one_line(arguments: str, env: dict[str, str]) -> None:
    assert_one_line(tomonode(*arguments.split(), env=env), 1, "db upgrade")
    assert not Path(env["TOMONODE_HOME"]).exists()


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("LISTEN_PORT", "seven", ("TOMONODE_LISTEN_PORT", "seven")),
        ("AE_TITLE", "MUCH TOO LONG A TITLE", ("TOMONODE_AE_TITLE",)),
        ("DATABASE_URL", "no url", ("TOMONODE_DATABASE_URL",)),
        ("WEIGHTS", "nowhere.safetensors", ("nowhere.safetensors",)),
    ],
)
def test_a_wrong_setting_is_one_line(
    name: str, value: str, words: tuple[str, ...], tmp_path: Path
) -> None:
    env = environment(tmp_path / "home", **{name: value})

    assert_one_line(tomonode("up", env=env), 2, *words)


def test_a_setting_with_a_secret_is_not_repeated(tmp_path: Path) -> None:
    env = environment(tmp_path, DATABASE_URL="postgresql://me:secret@127.0.0.1:1/nothing")

    done = tomonode("study", "list", env=env)

    assert_one_line(done, 1, "database")
    assert "secret" not in done.stderr


@pytest.mark.parametrize("command", ["study list", "delivery list", "peer list"])
def test_empty_lists_are_json_and_a_sentence(command: str, ready: dict[str, str]) -> None:
    assert json.loads(tomonode(*command.split(), "--json", env=ready).stdout) == []
    assert tomonode(*command.split(), env=ready).stdout.startswith("no ")


def test_doctor_on_a_fresh_home_says_what_is_missing_and_how_to_mend_it(
    env: dict[str, str],
) -> None:
    done = tomonode("doctor", "--json", env=env)

    report = json.loads(done.stdout)
    wrong = {check["name"]: check for check in report["checks"] if not check["ok"]}
    assert done.returncode == 1
    assert not report["ok"]
    assert wrong.keys() >= {"database", "broker"}
    assert all(check["mend"] for check in wrong.values())
    assert "tomonode up" in wrong["database"]["mend"]
    assert not Path(env["TOMONODE_HOME"]).exists()


def test_peers_are_added_asked_listed_and_removed(
    ready: dict[str, str], receiver: listener.Listener
) -> None:
    port = str(receiver.port)
    added = tomonode("peer", "add", "me", "TOMONODE", "127.0.0.1", port, env=ready)
    again = tomonode("peer", "add", "me", "TOMONODE", "127.0.0.1", port, env=ready)
    other = tomonode("peer", "add", "me", "OTHER", "127.0.0.1", port, env=ready)
    listed = json.loads(tomonode("peer", "list", "--json", env=ready).stdout)
    echoed = tomonode("peer", "echo", "me", env=ready)
    tomonode("peer", "add", "web", "--url", "http://127.0.0.1:1/dicom-web/", env=ready)
    silent = tomonode("peer", "echo", "web", env=ready)
    removed = tomonode("peer", "remove", "me", env=ready)
    left = json.loads(tomonode("peer", "list", "--json", env=ready).stdout)

    assert (added.returncode, again.returncode) == (0, 0)
    assert_one_line(other, 1, "'me'", "remove it first")
    assert [(p["name"], p["ae_title"], p["port"]) for p in listed] == [
        ("me", "TOMONODE", receiver.port)
    ]
    assert echoed.returncode == 0, echoed.stderr
    assert_one_line(silent, 1, "127.0.0.1:1/dicom-web/studies")
    assert removed.returncode == 0
    assert [peer["name"] for peer in left] == ["web"]


def test_files_are_sent_listed_and_shown(
    ready: dict[str, str], receiver: listener.Listener, phantom: Path
) -> None:
    sent = tomonode("send", "127.0.0.1", str(receiver.port), phantom, "--json", env=ready)
    uid = read_header(phantom / "L-CC.dcm").study_instance_uid
    listed = json.loads(tomonode("study", "list", "--json", env=ready).stdout)
    table = tomonode("study", "list", env=ready).stdout
    closed = tomonode("study", "complete", uid, "--json", env=ready)
    page = json.loads(tomonode("study", "show", uid, "--json", env=ready).stdout)
    shown = tomonode("study", "show", uid, env=ready)
    too_early = tomonode("study", "retry", uid, env=ready)

    assert [(Path(r["path"]).name, r["accepted"]) for r in json.loads(sent.stdout)] == [
        ("L-CC.dcm", True),
        ("R-MLO.dcm", True),
    ]
    assert [(row["study_uid"], row["status"]) for row in listed] == [(uid, "receiving")]
    assert uid in table
    assert closed.returncode == 0, closed.stderr
    assert json.loads(closed.stdout) == {"study_uid": uid, "closed": True}
    assert page["row"]["status"] == "queued"
    assert not {"patient_id", "accession_number"} & page.keys()
    assert "queued" in shown.stdout
    assert_one_line(too_early, 1, "QUEUED")


def test_what_is_no_dicom_file_fails_alone(
    ready: dict[str, str], receiver: listener.Listener, phantom: Path, tmp_path: Path
) -> None:
    (tmp_path / "note.txt").write_text("not an image")

    done = tomonode(
        "send", "127.0.0.1", str(receiver.port), tmp_path / "note.txt", phantom / "L-CC.dcm", env=ready
    )  # fmt: skip

    assert done.returncode == 1
    assert "1 of 2 files accepted" in done.stdout
    assert "note.txt" in done.stdout


def test_sending_to_nobody_is_one_line(ready: dict[str, str], phantom: Path) -> None:
    done = tomonode("send", "127.0.0.1", "1", phantom / "L-CC.dcm", env=ready)

    assert_one_line(done, 1, "127.0.0.1:1")


def test_a_phantom_is_the_same_for_the_same_seed_and_holds_its_truth(
    phantom: Path, tmp_path: Path
) -> None:
    tomonode(
        "phantom", tmp_path, "--views", "L-CC,R-MLO", "--slices", "3", "--size", "256x192",
        "--breast", "R", "--syntax", "jpegls", env=environment(tmp_path),
    )  # fmt: skip

    truth = json.loads((phantom / "truth.json").read_text())
    for entry in truth["files"]:
        assert (phantom / entry["file"]).read_bytes() == (tmp_path / entry["file"]).read_bytes()
        header = read_header(phantom / entry["file"])
        assert header.sop_instance_uid == entry["sop_instance_uid"]
        labels = [lesion["label"] for lesion in entry["lesions"]]
        assert labels == (["malignant"] if entry["laterality"] == "R" else [])
