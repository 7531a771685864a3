"""`tomonode train`: launched once, listed, shown, paused, refused with one line. All in this process, for its speed."""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import uuid
from collections.abc import Callable, Iterator

import pytest

from node import registry, schema, trainings
from node.cli import boundary
from node.config import Settings
from node.db import Database, now
from node.learning_models import DatasetItem
from node.registry import Facts
from node.trainings import Holder
from tests.conftest import make_settings
from tests.support import learning, versions
from tests.support.command import assert_one_line, environment
from tests.unit.gmic.training import TINY
from workers.cli import TRUSTED, app

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return make_settings(tmp_path_factory.mktemp("train") / "home")


@pytest.fixture
def tomonode(settings: Settings, db: Database, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run a command: its exit code, standard output and error."""
    for name, value in environment(settings.home).items():
        monkeypatch.setenv(name, value)

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = boundary.run(app, arguments, TRUSTED)
        return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())

    return run


@pytest.fixture(scope="module")
def db(settings: Settings) -> Iterator[Database]:
    """Data sets, one of them of one class, and a base."""
    settings.home.mkdir(parents=True)
    schema.upgrade(settings.db_url)
    db = Database(settings.db_url)
    learning.dataset(db, settings)
    learning.dataset(db, settings, "negative", {"train": 1, "valid": 1})
    _ungraded(db)
    learning.base_version(db, settings)
    _ensemble(db)
    yield db
    db.dispose()


def _ungraded(db: Database) -> None:
    """A data set of both classes in which no breast has a BI-RADS category."""
    items = [
        DatasetItem(
            sop_uid=f"1.2.{split}.{place}", sop_class_uid="1", sha256="0" * 64, study_uid=f"1.2.{place}",
            patient=f"{split}-{place}", laterality="L", view="CC", split=split, benign=bool(place),
            malignant=bool(place), strata={},
        )
        for split in ("train", "valid")
        for place in (0, 1)
    ]  # fmt: skip
    with db.transaction() as session:
        versions.freeze(session, "ungraded", items)


def _ensemble(db: Database) -> None:
    """A version of two models, as the registry describes one."""
    members = [TINY.to_dict(), TINY.to_dict()]
    facts = Facts(
        "pair-1", "e" * 64, 1, {"algorithm": "3D-GMIC", "members": members}, {}, {}, True, "For tests.", "-", "1"
    )  # fmt: skip
    with db.transaction() as session:
        registry.register(session, facts, "tests", now(session))


def test_a_training_is_launched_once_and_can_be_watched_and_given_up(
    db: Database, settings: Settings, tomonode: Command
) -> None:
    launch = ("train", "launch", "--dataset", "tiny", "--base", "tiny-1", "--set", "epochs=2")
    first = json.loads(tomonode(*launch, "--by", "ann", "--json").stdout)
    assert first["state"] == "QUEUED"
    assert first["new"] is True
    again = tomonode(*launch)
    assert again.returncode == 0
    assert again.stdout == f"training {first['id']} here already, QUEUED\n"

    run_id = uuid.UUID(first["id"])
    held = trainings.claim(db, run_id, Holder("training-1@host", "host"), settings)
    assert held is not None
    assert held.requested_by == "ann"
    assert held.config["training"]["epochs"] == 2
    assert trainings.record_epoch(db, held, "fit", {"epoch": 1, "metric": 0.75}, 2.5)
    folder = settings.training_root / "runs" / str(run_id)
    folder.mkdir(parents=True)
    (folder / "log.txt").write_text("first\nlast\n")

    shown = tomonode("train", "show", first["id"]).stdout
    assert "attempt 1 of 5 on training-1@host" in shown
    assert "0.750" in shown
    assert "last" in shown
    assert "Research use only" in shown
    page = json.loads(tomonode("train", "show", first["id"], "--json").stdout)
    assert page["row"]["best"] == 0.75
    assert page["epochs"][0]["metrics"] == {"epoch": 1, "metric": 0.75}
    (row,) = json.loads(tomonode("train", "list", "--json").stdout)
    assert (row["id"], row["state"], row["base_version"]) == (first["id"], "RUNNING", "tiny-1")
    assert first["id"] in tomonode("train", "list").stdout

    waited = tomonode("train", "wait", first["id"], "--timeout", "0.1", "--json")
    assert waited.returncode == 3
    assert json.loads(waited.stdout) == {"id": first["id"], "state": "RUNNING", "error": None}

    paused = tomonode("train", "pause", first["id"]).stdout
    assert "RUNNING; pauses after the batch it is in" in paused
    assert trainings.release(db, held, 1.0) == "PAUSED"
    resumed = json.loads(tomonode("train", "resume", first["id"], "--json").stdout)
    assert resumed == {"id": first["id"], "state": "QUEUED"}
    assert "is CANCELLED" in tomonode("train", "cancel", first["id"]).stdout
    refused = tomonode("train", "retry", first["id"])
    assert_one_line(refused, 1, "is CANCELLED; only a failed one can be retried")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--dataset", "absent"], 1, "no data set 'absent'"),
        (["--dataset", "tiny"], 2, "give --base"),
        (["--dataset", "tiny", "--base", "absent-1"], 1, "no model 'absent-1'"),
        (
            ["--dataset", "tiny", "--base", "pair-1"],
            2,
            "is of another architecture (3D-GMIC with 2",
        ),
        (
            ["--dataset", "tiny", "--base", "tiny-1", "--set", "model.stem_channels=16"],
            2,
            "tiny-1 is of another architecture",
        ),
        (["--dataset", "tiny", "--recipe", "magic"], 2, "no recipe is called 'magic'"),
        (["--dataset", "tiny", "--base", "tiny-1", "--set", "epochs=x"], 2, "epochs is 'x'"),
        (
            ["--dataset", "negative", "--recipe", "from-scratch"],
            1,
            "all images of its train split have malignant = 0",
        ),
        (
            ["--dataset", "ungraded", "--recipe", "birads-pretrain"],
            1,
            "no image of its train split has a BI-RADS category",
        ),
    ],
)
def test_what_cannot_be_launched_is_one_line(
    tomonode: Command, arguments: list[str], code: int, words: str
) -> None:
    assert_one_line(tomonode("train", "launch", *arguments), code, words)


def test_an_unknown_training_is_one_line(tomonode: Command) -> None:
    for command in ("show", "pause", "resume", "cancel", "retry"):
        assert_one_line(tomonode("train", command, "x"), 1, "no training 'x'")


def test_the_schedule_says_with_its_exit_code_whether_a_training_is_due(tomonode: Command) -> None:
    done = tomonode("train", "schedule", "--exams", "1")
    assert done.returncode == 3
    assert done.stdout.startswith("not due: 0 of 1 newly labelled exams")
    said = json.loads(tomonode("train", "schedule", "--exams", "1", "--json").stdout)
    assert (said["due"], said["newly_labelled"], said["wanted"]) == (False, 0, 1)
