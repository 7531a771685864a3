"""Runs in shadow beside runs that answer, and old studies under a new model: on real databases."""

from __future__ import annotations

import uuid
from datetime import date, timedelta

import pytest
from sqlalchemy import func, select, update

from node import registry, relay, reruns, runs, studies, views
from node.config import Settings
from node.db import Database, now
from node.lifecycle import RunState
from node.model_version import UNTRAINED
from node.models import Delivery, Run, Study
from node.promotion import Signed, Terms
from tests.support.factory import Factory
from tests.support.versions import register

ANN = Signed("ann")
FORCED = Signed("ann", reason="first of all", override=True)


@pytest.fixture
def factory(db: Database, any_settings: Settings) -> Factory:
    return Factory(db, any_settings)


def made(db: Database, *names: str) -> None:
    with db.transaction() as session:
        for name in names:
            register(session, name)


def promoted(db: Database, name: str) -> None:
    with db.transaction() as session:
        registry.promote(session, name, FORCED, Terms(), now(session))


def shadowed(factory: Factory, *names: str) -> None:
    made(factory.db, *names)
    with factory.db.transaction() as session:
        for name in names:
            registry.shadow(session, name, ANN, now(session))


def all_runs(factory: Factory, study_uid: str) -> dict[str, Run]:
    with factory.db.reading() as session:
        found = studies.find(session, study_uid).runs
        return {run.model_version: run for run in found if run.state != RunState.SUPERSEDED}


def test_a_shadow_run_is_kept_and_never_delivered(factory: Factory) -> None:
    factory.peer()
    shadowed(factory, "trial")
    study_uid = factory.receive()
    factory.close(study_uid)
    found = all_runs(factory, study_uid)
    assert {name: run.shadow for name, run in found.items()} == {UNTRAINED: False, "trial": True}
    trial, normal = found["trial"].id, found[UNTRAINED].id
    assert runs.claim(factory.db, trial, "w", factory.settings) is None, "another run waits"
    factory.succeed(normal, {"L-CC": 0.2})
    factory.succeed(trial, {"L-CC": 0.9})
    assert len(factory.deliveries_of(normal)) == 1
    assert factory.deliveries_of(trial) == []
    with factory.db.reading() as session:
        page = views.study_page(session, study_uid, factory.settings, now(session))
    assert [run.id for run in page.runs] == [normal]
    assert [run.id for run in page.shadow_runs] == [trial]
    assert page.row.run_id == normal
    assert page.row.status == "delivering"
    assert max(score.malignant for score in page.row.scores) == pytest.approx(0.2)
    assert {image.malignant for image in page.shadow_runs[0].images} == {0.9, 0.05}
    assert any("in shadow" in event.message for event in page.timeline)


def test_a_failed_shadow_run_is_nobodys_problem(factory: Factory) -> None:
    shadowed(factory, "trial")
    study_uid = factory.receive()
    factory.close(study_uid)
    found = all_runs(factory, study_uid)
    factory.succeed(found[UNTRAINED].id)
    factory.fail(found["trial"].id, "weights are gone")
    with factory.db.transaction() as session:
        page = views.study_page(session, study_uid, factory.settings, now(session))
        assert page.row.status == "done"
        assert page.shadow_runs[0].state == "FAILED"
        # nor does a retry take it for the newest run, or name it as what is replaced
        study = studies.find(session, study_uid)
        fresh = reruns.retry(session, study, factory.settings, UNTRAINED, now(session))
        assert session.get_one(Run, fresh).predecessor_id == found[UNTRAINED].id


def test_shadow_runs_are_sent_one_at_a_time_and_last(factory: Factory) -> None:
    shadowed(factory, "trial-a", "trial-b")
    first, second = factory.receive(), factory.receive()
    factory.close(first)
    factory.close(second)
    sent: list[uuid.UUID] = []

    def send(task: str, queue: str, subject_id: uuid.UUID) -> None:
        sent.append(subject_id)

    def tick() -> list[uuid.UUID]:
        sent.clear()
        relay.tick(factory.db, factory.settings, UNTRAINED, send)
        return list(sent)

    normal = {all_runs(factory, uid)[UNTRAINED].id for uid in (first, second)}
    assert set(tick()) == normal
    assert tick() == []
    for run_id in normal:
        factory.succeed(run_id)
    trials = {
        run.id for uid in (first, second) for run in all_runs(factory, uid).values() if run.shadow
    }
    seen: set[uuid.UUID] = set()
    for _ in range(4):
        (one,) = tick()
        assert tick() == [], "one is on its way"
        factory.succeed(one)
        seen.add(one)
    assert seen == trials


def test_a_new_generation_supersedes_what_was_read_in_shadow(factory: Factory) -> None:
    shadowed(factory, "trial")
    study_uid = factory.receive(["L-CC"])
    factory.close(study_uid)
    before = all_runs(factory, study_uid)
    factory.succeed(before[UNTRAINED].id)
    factory.arrive(study_uid, "R-CC")
    factory.close(study_uid)
    after = all_runs(factory, study_uid)
    assert {run.generation for run in after.values()} == {2}
    assert after["trial"].predecessor_id is None
    assert after[UNTRAINED].predecessor_id == before[UNTRAINED].id


def test_out_of_the_shadow_nothing_more_is_begun(factory: Factory) -> None:
    shadowed(factory, "trial")
    study_uid = factory.receive()
    factory.close(study_uid)
    with factory.db.transaction() as session:
        registry.withdraw(session, "trial", ANN, now(session))
    assert set(all_runs(factory, study_uid)) == {UNTRAINED}
    later = factory.receive()
    factory.close(later)
    assert set(all_runs(factory, later)) == {UNTRAINED}


def test_what_read_in_shadow_may_answer_later(factory: Factory) -> None:
    shadowed(factory, "trial")
    study_uid = factory.receive()
    factory.close(study_uid)
    found = all_runs(factory, study_uid)
    factory.succeed(found[UNTRAINED].id)
    factory.succeed(found["trial"].id)
    promoted(factory.db, "trial")
    with factory.db.transaction() as session:
        study = studies.find(session, study_uid)
        fresh = reruns.retry(session, study, factory.settings, "trial", now(session))
    factory.succeed(fresh)
    with factory.db.reading() as session:
        page = views.study_page(session, study_uid, factory.settings, now(session))
        delivered = session.execute(select(func.count()).select_from(Delivery)).scalar_one()
    assert (page.row.run_id, page.row.model_version) == (fresh, "trial")
    assert [run.id for run in page.shadow_runs] == [found["trial"].id]
    assert delivered == 0


def test_a_new_active_version_reads_the_next_study_and_no_old_one(factory: Factory) -> None:
    old = factory.receive()
    factory.close(old)
    factory.succeed(all_runs(factory, old)[UNTRAINED].id)
    made(factory.db, "new")
    promoted(factory.db, "new")
    fresh = factory.receive()
    with factory.db.transaction() as session:
        session.execute(update(Study).values(last_activity_at=now(session) - timedelta(hours=1)))
    relay.tick(factory.db, factory.settings, UNTRAINED, lambda *_: None)
    assert set(all_runs(factory, fresh)) == {"new"}
    assert set(all_runs(factory, old)) == {UNTRAINED}


def test_an_administrator_may_have_old_studies_read_again(factory: Factory) -> None:
    inside = factory.receive(study_date="20260301")
    outside = factory.receive(study_date="20260401")
    waiting = factory.receive(study_date="20260302")
    for uid in (inside, outside, waiting):
        factory.close(uid)
    for uid in (inside, outside):
        factory.succeed(all_runs(factory, uid)[UNTRAINED].id)
    made(factory.db, "new")
    promoted(factory.db, "new")
    first, last = date(2026, 3, 1), date(2026, 3, 31)
    with factory.db.reading() as session:
        found = reruns.older(session, first, last, "new")
    assert [(one.study_uid, one.model_version) for one in found] == [(inside, UNTRAINED)]
    assert reruns.rerun(factory.db, inside, factory.settings, "new")
    assert not reruns.rerun(factory.db, inside, factory.settings, "new"), "it waits already"
    assert set(all_runs(factory, inside)) == {"new"}
    assert set(all_runs(factory, outside)) == {UNTRAINED}
