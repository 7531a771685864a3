"""The read models against the functions they must agree with, and how many questions they ask."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import event

from node import lifecycle, studies, views
from node.config import Settings
from node.db import Database, now
from node.errors import ConfigError, NotFound
from node.lifecycle import DeliveryState, RunState, StudyState
from node.models import Study
from node.views.words import size, span
from node.views.worklist import STATUSES, count_by_status
from tests.support.factory import Factory, earlier


@pytest.fixture
def factory(db: Database, any_settings: Settings) -> Factory:
    return Factory(db, any_settings)


def rows(factory: Factory, **wanted: object) -> tuple[views.StudyRow, ...]:
    with factory.db.reading() as session:
        chosen = views.Filter(**wanted)  # type: ignore[arg-type]
        return views.work_list(session, chosen, factory.settings, now(session)).rows


def make_one_of_each(factory: Factory) -> dict[str, str]:
    """A study in every status, by status."""
    made = {"receiving": factory.receive(["R-CC"])}
    made["excluded"] = factory.receive(["R-CC"], is_image=False)
    with factory.db.transaction() as session:
        study = studies.find(session, made["excluded"])
        studies.close(session, study.id, "quiet", factory.settings, "m", now(session))
    made["not read"] = factory.receive(["R-CC"])
    with factory.db.transaction() as session:
        study = studies.find(session, made["not read"])
        study.pulled = True
        studies.close(session, study.id, "quiet", factory.settings, "m", now(session))
    made["queued"], _ = factory.queued()
    made["running"], run_id = factory.queued()
    factory.claim(run_id)
    made["failed"], run_id = factory.queued()
    factory.fail(run_id, "broken")
    made["done"], run_id = factory.queued()
    factory.succeed(run_id)
    factory.peer("ONE")
    factory.peer("TWO")
    for status in ("delivering", "delivery failed", "delivered"):
        made[status], run_id = factory.queued()
        factory.succeed(run_id)
        first, second = factory.deliveries_of(run_id)
        if status != "delivering":
            factory.send(first)
        else:
            factory.refuse(first, "no")
        if status == "delivered":
            factory.send(second)
        elif status == "delivery failed":
            factory.refuse(second, "no")
    return made


def test_every_status_is_found_by_its_word(factory: Factory) -> None:
    made = make_one_of_each(factory)
    assert set(made) == set(STATUSES)
    for status, study_uid in made.items():
        assert [(row.status, row.study_uid) for row in rows(factory, status=status)] == [
            (status, study_uid)
        ]
    assert {row.study_uid for row in rows(factory)} == set(made.values())
    with factory.db.reading() as session:
        assert count_by_status(session) == dict.fromkeys(STATUSES, 1)


def test_the_words_are_all_that_lifecycle_can_say() -> None:
    said = {
        lifecycle.status(study, run, [one, other])
        for study in StudyState
        for run in (None, *RunState)
        for one in DeliveryState
        for other in DeliveryState
    }
    assert said == set(STATUSES)


def test_a_study_waits_for_what_the_relay_waits_for(factory: Factory) -> None:
    waiting = factory.receive(["R-CC", "L-CC", "R-MLO"], at=earlier(0.001))
    quiet = factory.receive(["R-CC"], at=earlier(5))
    full = factory.receive(at=earlier(0.01))
    settings = factory.settings.model_copy(update={"quiet_s": 50.0, "views_quiet_s": 40.0})
    with factory.db.reading() as session:
        at = now(session)
        found = views.work_list(session, views.Filter(), settings, at).rows
        said = {row.study_uid: row.why for row in found}
        for uid in (waiting, full):
            verdict = studies.verdict(session, studies.find(session, uid), settings, at)
            assert verdict.waiting
            assert said[uid] == verdict.waiting
    assert "ready to close (quiet)" in said[quiet]


def test_the_number_of_questions_does_not_grow(factory: Factory) -> None:
    make_one_of_each(factory)
    with counted(factory.db) as few:
        rows(factory)
    make_one_of_each(factory)
    for _ in range(5):
        factory.receive(["R-CC"])
    with counted(factory.db) as many:
        assert len(rows(factory)) == 25
    assert few == many


@contextmanager
def counted(db: Database) -> Iterator[list[str]]:
    """The shapes of the statements that are executed in the block (lists in them have no length)."""
    asked: list[str] = []

    def note(_c: object, _cursor: object, statement: str, *_: object) -> None:
        asked.append(statement.partition(" FROM ")[2].partition(" IN (")[0])

    event.listen(db.engine, "before_cursor_execute", note)
    try:
        yield asked
    finally:
        event.remove(db.engine, "before_cursor_execute", note)


def test_overview_counts_and_complains(factory: Factory) -> None:
    make_one_of_each(factory)
    with factory.db.reading() as session:
        at = now(session)
        seen = views.overview(session, factory.settings, at)
        later = views.overview(session, factory.settings, at + (at - earlier(2)))
    assert seen.studies == len(STATUSES)
    assert seen.queue == 2
    # `delivery failed` has one, `delivering` another beside the one that is still open
    assert seen.dead_letters == 2
    assert seen.problems == ()
    assert "Redis or the relay is down" in later.problems[0]
    reserve = factory.settings.model_copy(update={"disk_reserve_mb": 2**40})
    with factory.db.reading() as session:
        (problem,) = views.overview(session, reserve, now(session)).problems
    assert problem.startswith("disk: ")


def test_patient_attributes_are_in_the_study_page_alone(factory: Factory) -> None:
    study_uid, run_id = factory.queued(patient_id="PID-1", accession_number="ACC-1")
    factory.peer()
    factory.succeed(run_id)
    with factory.db.reading() as session:
        at = now(session)
        page = views.study_page(session, study_uid, factory.settings, at)
        sent = views.delivery_list(session, factory.settings, at)
    assert (page.patient_id, page.accession_number) == ("PID-1", "ACC-1")
    assert "PID-1" not in repr(page.row) + repr(page.runs) + repr(page.timeline) + repr(sent)


def test_what_cannot_be_asked_is_refused(factory: Factory) -> None:
    for wrong in ({"status": "lost"}, {"limit": 0}, {"limit": 10**6}, {"offset": -1}):
        with pytest.raises(ConfigError):
            views.Filter(**wrong)  # type: ignore[arg-type]
    with factory.db.reading() as session:
        at = now(session)
        with pytest.raises(NotFound):
            views.study_page(session, "1.2.3", factory.settings, at)
        with pytest.raises(ConfigError):
            views.delivery_list(session, factory.settings, at, state="LOST")


def test_deliveries_by_state(factory: Factory) -> None:
    make_one_of_each(factory)
    with factory.db.reading() as session:
        at = now(session)
        everything = views.delivery_list(session, factory.settings, at)
        failed = views.delivery_list(session, factory.settings, at, state="FAILED", limit=1)
    assert everything.total == len(everything.rows) == 6
    assert everything.by_state == {
        "PENDING": 1, "SENDING": 0, "SENT": 3, "FAILED": 2, "CANCELLED": 0,
    }  # fmt: skip
    assert failed.total == 2
    (row,) = failed.rows
    assert row.state == "FAILED"
    assert [item.status for item in row.objects] == ["0x0000"]


def test_views_need_no_session_afterwards(factory: Factory) -> None:
    made = make_one_of_each(factory)
    with factory.db.reading() as session:
        page = views.study_page(session, made["delivered"], factory.settings, now(session))
        assert session.get(Study, page.row.id) is not None
    assert page.runs[0].deliveries[0].objects[0].kind == "SR"
    assert hash(page.row.study_uid)


def test_spans_and_sizes_in_words() -> None:
    spans = {-5: "0 s", 0: "0 s", 59.9: "59 s", 60: "1 min", 3599: "59 min", 3600: "1 h"}
    assert {seconds: span(seconds) for seconds in spans} == spans
    assert span(86400 * 3.5) == "3 d"
    assert [size(n) for n in (0, 1023, 1024, 3 * 2**20 // 2, 700 * 2**30)] == [
        "0 B",
        "1023 B",
        "1.0 kB",
        "1.5 MB",
        "700 GB",
    ]
