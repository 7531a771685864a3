"""`tomonode pull` and `tomonode commitment`, and what the pages show of both: one clear line for every mistake."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import update

from node import commitments, peers, pulls, schema
from node.cli import boundary
from node.commitments import Reference
from node.config import Settings
from node.db import Database, now
from node.exchange_models import Commitment
from node.models import Peer
from tests.conftest import make_settings
from tests.support.factory import SCREENING, Factory
from tests.support.objects import write_object
from tests.support.query_peer import query_peer
from tests.support.web import served
from workers.cli import TRUSTED, app

Run = Callable[[str], tuple[int, str, str]]


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    made = make_settings(tmp_path_factory.mktemp("home"))
    schema.upgrade(made.db_url)
    return made


@pytest.fixture(scope="module")
def db(settings: Settings) -> Iterator[Database]:
    made = Database(settings.db_url)
    with made.transaction() as session:
        at = now(session)
        pacs = peers.dicom_peer("pacs", "PACS", "127.0.0.1", 1, at)
        pacs.queried = pacs.commits = True
        session.add_all([pacs, peers.dicom_peer("station", "STATION", "127.0.0.1", 104, at)])
    yield made
    made.dispose()


@pytest.fixture
def run(
    db: Database,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Run:
    """A command in this process: exit code, standard output, standard error."""
    monkeypatch.setenv("TOMONODE_HOME", str(settings.home))

    def command(line: str) -> tuple[int, str, str]:
        code = boundary.run(app, line.split(), trusted=TRUSTED)
        said = capsys.readouterr()
        return code, said.out, said.err

    return command


def test_a_study_is_asked_for_listed_and_cancelled(run: Run) -> None:
    code, out, _ = run("pull pacs --study 1.2.3 --json")
    [ordered] = json.loads(out)
    assert (code, ordered["study_uid"], ordered["new"]) == (0, "1.2.3", True)
    code, out, _ = run("pull from pacs --study 1.2.3")
    assert (code, out) == (0, f"pull {ordered['pull']} is under way already: 1.2.3\n")
    _, out, _ = run("pull list --json")
    [shown] = json.loads(out)
    assert (shown["peer"], shown["state"], shown["waits"]) == (
        "pacs", "PENDING", "waits for the delivery worker",
    )  # fmt: skip
    assert run(f"pull cancel {ordered['pull']}")[0] == 0
    code, _, err = run(f"pull cancel {ordered['pull']}")
    assert (code, err) == (1, f"tomonode: pull {ordered['pull']} is CANCELLED; nothing to cancel\n")
    assert "cancelled by an operator" in run("pull list --state CANCELLED")[1]


def test_mistakes_are_one_line(run: Run, db: Database, settings: Settings) -> None:
    whole = Factory(db, settings).receive(SCREENING)
    for line, words in (
        ("pull pacs", "give one of --study, --priors and --missing"),
        ("pull pacs --study 1.2 --priors 1.2", "give one of --study, --priors and --missing"),
        ("pull nobody --study 1.2", "no peer 'nobody'; `tomonode peer list`"),
        ("pull station --study 1.2", "`tomonode peer set station --query`"),
        ("pull pacs --study one", "Study Instance UID 'one' cannot be one"),
        ("pull pacs --priors 9.9.9", "no study '9.9.9'"),
        (f"pull pacs --missing {whole}", "has all expected views"),
        ("pull cancel abc", "no pull 'abc'; `tomonode pull list`"),
        (f"pull cancel {uuid.uuid4()}", "`tomonode pull list`"),
        ("pull list --state LOST", "state 'LOST' is none of PENDING, RUNNING"),
        ("commitment list --state LOST", "state 'LOST' is none of PENDING, SENDING"),
        ("commitment retry abc", "no commitment 'abc'; `tomonode commitment list`"),
        (f"pull pacs --priors {whole}", "no association with PACS at 127.0.0.1:1"),
    ):
        code, out, err = run(line)
        assert (code in (1, 2), out, err.count("\n")) == (True, "", 1), (line, err)
        assert words in err, line


def test_priors_are_asked_for_at_once(
    run: Run, db: Database, settings: Settings, tmp_path: Path
) -> None:
    current = Factory(db, settings).receive(["R-CC"], study_date="20260304", patient_id="SECRET-ID")
    paths = [tmp_path / f"{year}.dcm" for year in (2022, 2024, 2025)]
    made = [write_object(path, StudyDate=f"{path.stem}0601") for path in paths]
    with query_peer(paths) as pacs:
        with db.transaction() as session:
            session.execute(update(Peer).where(Peer.name == "pacs").values(port=pacs.port))
        code, out, _ = run(f"pull pacs --priors {current} --most 2")
        assert code == 0
        assert [line.split()[-1] for line in out.splitlines()] == [
            str(made[2].StudyInstanceUID),
            str(made[1].StudyInstanceUID),
        ]
        _, out, _ = run(f"pull pacs --priors {current} --years 1 --most 2")
        assert out.count("is under way already") == 1
    assert "SECRET" not in out


def test_commitments_and_pulls_are_on_the_study_page(
    run: Run, db: Database, settings: Settings
) -> None:
    factory = Factory(db, settings)
    study, run_id = factory.queued()
    factory.succeed(run_id, {"R-CC": 0.9})
    for delivery in factory.deliveries_of(run_id):
        factory.send(delivery)
    with db.transaction() as session:
        [asked] = session.query(Commitment).filter_by(direction="OUT").all()
        lost, kept = asked.items[0], asked.items[1:]
        commitments.answered_by_peer(
            session,
            asked.transaction_uid,
            [Reference(one.sop_class_uid, one.sop_uid) for one in kept],
            {Reference(lost.sop_class_uid, lost.sop_uid): 0x0112},
            now(session),
        )
        pulls.order(session, peers.find(session, "pacs"), study, pulls.MISSING, settings)
        said = f"{lost.sop_uid}: 0x0112, no such object"
        asked_id = asked.id
    with served(settings) as client:
        page = client.get(f"/studies/{study}").text
    assert said in page
    assert f"{len(kept)} of {len(kept) + 1}" in page
    assert "Fetched from peers" in page
    _, out, _ = run(f"study show {study}")
    assert said in " ".join(out.split())
    assert "storage commitments" in out
    _, out, _ = run("commitment list")
    assert said in " ".join(out.split())
    assert run(f"commitment retry {asked_id}")[0] == 0
    code, _, err = run(f"commitment retry {asked_id}")
    assert (code, "is PENDING; nothing to retry" in err) == (1, True)
