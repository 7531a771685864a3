"""`tomonode dataset`: what the commands print, and that every mistake is one line and an exit code."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path

import pytest

from node import schema
from node.cli import boundary
from node.db import Database
from tests.conftest import make_settings
from tests.support.cohort import SINCE, UNTIL, Cohort
from workers.cli import TRUSTED, app


@pytest.fixture
def local(tmp_path: Path) -> Iterator[Cohort]:
    """A node on SQLite."""
    settings = make_settings(tmp_path / "node")
    schema.upgrade(settings.db_url)
    made = Cohort(Database(settings.db_url), settings, tmp_path / "made")
    yield made
    made.db.dispose()


@pytest.fixture
def command(
    local: Cohort, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Run `tomonode dataset ...` on the local node: exit code, standard output, standard error."""
    monkeypatch.setenv("TOMONODE_HOME", str(local.settings.home))

    def run(*arguments: str) -> tuple[int, str, str]:
        code = boundary.run(app, ["dataset", *arguments], trusted=TRUSTED)
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def test_the_commands(local: Cohort, command: Callable[..., tuple[int, str, str]]) -> None:
    assert "no data sets yet" in command("list")[1]
    uids = local.ten()
    open_ = local.exam("SECRET-X", date(2020, 5, 1), closed=False)
    dates = ("--since", str(SINCE), "--until", str(UNTIL))

    code, said, _ = command("freeze", "year", *dates, "--by", "mary", "--json")
    frozen = json.loads(said)
    assert (code, frozen["new"], frozen["created_by"]) == (0, True, "mary")
    assert frozen["counts"]["excluded"] == {"receiving": 1}
    assert "it was frozen before" in command("freeze", "year", *dates)[1]
    assert [row["name"] for row in json.loads(command("list", "--json")[1])] == ["year"]
    shown = json.loads(command("show", "year", "--excluded", "--json")[1])
    assert shown["content_hash"] == frozen["content_hash"]
    assert [(one["study_uid"], one["code"]) for one in shown["excluded"]] == [(open_, "receiving")]
    tables = (
        command("show", "year", "--excluded")[1] + command("list")[1] + command("why", uids[0])[1]
    )
    assert open_ in tables
    assert "SECRET" not in tables
    assert {one["code"] for one in json.loads(command("why", uids[0], "--json")[1])} == {"in"}
    assert (
        json.loads(command("why", open_, "--dataset", "year", "--json")[1])[0]["code"]
        == "receiving"
    )


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ("show nothing", 1, ("nothing", "dataset list")),
        ("why 1.2.3", 1, ("1.2.3", "study list")),
        ("freeze x --since 2020-01-01 --until 2019-01-01", 2, ("--until 2019-01-01", "in order")),
        ("freeze x --since 2020-13-01 --until 2020-01-01", 2, ("2020-13-01",)),
        (f"freeze x --since 2020-01-01 --until 2020-01-02 --by {'x' * 200}", 1, ("by has 200",)),
        ("freeze a/b --since 2020-01-01 --until 2020-01-02", 2, ("a/b",)),
        ("freeze x --since 2020-01-01 --until 2020-01-02", 1, ("0 patients", "at least 5")),
        ("freeze x --since 2020-01-01 --until 2020-01-02 --kind 4d", 2, ("4d",)),
        ("export nothing out", 1, ("nothing",)),
    ],
)
def test_a_mistake_is_one_line(
    arguments: str, code: int, words: tuple[str, ...], command: Callable[..., tuple[int, str, str]]
) -> None:
    given, _, said = command(*arguments.split())

    assert given == code, said
    assert said.count("\n") == 1
    for word in words:
        assert word in said
