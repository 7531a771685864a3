"""The registry on real databases: states, one active version, every change signed; and runs in shadow."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest
from sqlalchemy import func, select, update
from sqlalchemy.exc import IntegrityError

from node import model_history, registry
from node.db import Database, now
from node.errors import ConfigError, Conflict, InvalidLabel, NotFound
from node.learning_models import ModelDecision, ModelVersion
from node.lifecycle import ModelState
from node.promotion import Signed, Terms
from tests.support.versions import evaluate, freeze, register

ANN = Signed("ann")
FORCED = Signed("ann", reason="first of all", override=True)
TERMS = Terms()


def made(db: Database, *names: str) -> None:
    with db.transaction() as session:
        for name in names:
            register(session, name)


def promoted(db: Database, name: str, signed: Signed = FORCED) -> None:
    with db.transaction() as session:
        registry.promote(session, name, signed, TERMS, now(session))


def state(db: Database, name: str) -> str:
    with db.reading() as session:
        return registry.find(session, name).state


def history(db: Database) -> list[tuple[str, str | None, str]]:
    with db.reading() as session:
        names = {row.id: row.version for row in registry.versions(session)}
        found = model_history.decisions(session)
        return [(names[d.version_id], d.event, d.to_state) for d in found]


def test_the_same_weights_are_one_version(db: Database) -> None:
    with db.transaction() as session:
        first = register(session, "a-1", sha256="a" * 64)
        again = register(session, "a-2", sha256="a" * 64)
        assert (first.id, again.version) == (again.id, "a-1")
        with pytest.raises(Conflict, match="with other weights"):
            register(session, "a-1", sha256="b" * 64)
    assert history(db) == [("a-1", "REGISTER", "CANDIDATE")]


@pytest.mark.parametrize("name", ["", " a", "a\n<b>", "a" * 129])
def test_a_name_that_is_no_line_is_refused(db: Database, name: str) -> None:
    with pytest.raises((ConfigError, InvalidLabel), match="name"), db.transaction() as session:
        register(session, name)
    assert history(db) == []


def test_names_of_people_fit_the_database(db: Database) -> None:
    """PostgreSQL refuses what is too long with an error that nobody understands."""
    made(db, "a")
    long = Signed("ann" * 50, reason="first of all", override=True)
    with pytest.raises(InvalidLabel, match="--by has 150 characters"), db.transaction() as session:
        registry.promote(session, "a", long, TERMS, now(session))
    assert state(db, "a") == "CANDIDATE"


def test_a_promotion_needs_a_comparison_with_what_is_active(db: Database) -> None:
    made(db, "old", "new")
    with pytest.raises(Conflict, match="no evaluation"):
        promoted(db, "old", ANN)
    with db.transaction() as session:
        dataset = freeze(session, "d1")
        evaluate(session, registry.find(session, "old"), None, dataset)
    promoted(db, "old", ANN)
    with db.transaction() as session:
        new, old = registry.find(session, "new"), registry.find(session, "old")
        evaluate(session, new, old, dataset, difference_low=-0.3)
    with pytest.raises(Conflict, match="may be worse"):
        promoted(db, "new", ANN)
    assert state(db, "old") == "ACTIVE"
    with db.transaction() as session:
        measured = evaluate(session, new, old, dataset, minutes=1)
    promoted(db, "new", ANN)
    assert (state(db, "old"), state(db, "new")) == ("RETIRED", "ACTIVE")
    with db.reading() as session:
        decision = model_history.decisions(session, new.id)[-1]
        assert (decision.event, decision.from_state, decision.by) == ("PROMOTE", "CANDIDATE", "ann")
        assert (decision.evaluation_id, decision.overridden) == (measured.id, False)


def test_an_evaluation_under_an_older_rule_does_not_count(db: Database) -> None:
    made(db, "old", "new")
    promoted(db, "old")
    with db.transaction() as session:
        at = now(session)
        old, new = registry.find(session, "old"), registry.find(session, "new")
        evaluate(session, new, old, freeze(session, "d1", at=at))
        freeze(session, "flat", at=at + timedelta(hours=2), kind="2d", window_days=30)
        freeze(session, "d2", at=at + timedelta(hours=1), since="2026-06-01")
    promoted(db, "new", ANN)
    made(db, "newer")
    with db.transaction() as session:
        new, newer = registry.find(session, "new"), registry.find(session, "newer")
        evaluate(session, newer, new, freeze(session, "d3", at=at))
        freeze(session, "d4", at=at + timedelta(hours=3), window_days=730)
    with pytest.raises(Conflict, match="another rule"):
        promoted(db, "newer", ANN)


def test_two_people_where_configured_and_both_recorded(db: Database) -> None:
    made(db, "a")
    two = Terms(two_person=True)
    for signed in (FORCED, Signed("ann", "Ann", "why", True)):
        with pytest.raises(Conflict, match="TWO_PERSON"), db.transaction() as session:
            registry.promote(session, "a", signed, two, now(session))
    with db.transaction() as session:
        signed = Signed("ann", "bob", "pilot", True)
        registry.promote(session, "a", signed, two, now(session))
    with db.reading() as session:
        decision = model_history.decisions(session)[-1]
        found = (decision.by, decision.approved_by, decision.reason, decision.overridden)
    assert found == ("ann", "bob", "pilot", True)


def test_rollback_goes_back_one_by_one(db: Database) -> None:
    made(db, "a", "b", "c")
    for name in ("a", "b", "c"):
        promoted(db, name)
    found = []
    for _ in range(3):
        with db.transaction() as session:
            row = registry.rollback(session, Signed("bob", reason="worse"), now(session))
            found.append(row.version if row else None)
            assert registry.answering(session, "configured") == (found[-1] or "configured")
    assert found == ["b", "a", None]
    with pytest.raises(Conflict, match="nothing to roll back"), db.transaction() as session:
        registry.rollback(session, ANN, now(session))
    promoted(db, "b")
    promoted(db, "c")
    with db.transaction() as session:
        row = registry.rollback(session, ANN, now(session))
        assert row is not None
        assert row.version == "b"
    back = [(name, event) for name, event, _ in history(db) if event in ("ROLLBACK", "RESTORE")]
    assert back == [
        ("c", "ROLLBACK"), ("b", "RESTORE"), ("b", "ROLLBACK"), ("a", "RESTORE"), ("a", "ROLLBACK"),
        ("c", "ROLLBACK"), ("b", "RESTORE"),
    ]  # fmt: skip


def test_states_follow_the_table(db: Database) -> None:
    made(db, "a", "b")
    steps = [
        (registry.shadow, "SHADOW"),
        (registry.withdraw, "CANDIDATE"),
        (registry.shadow, "SHADOW"),
        (registry.retire, "RETIRED"),
        (registry.shadow, "SHADOW"),
    ]
    for change, wanted in steps:
        with db.transaction() as session:
            assert change(session, "a", ANN, now(session)).state == wanted
    for change in (registry.shadow, registry.retire, registry.withdraw):
        name = "b" if change is registry.withdraw else "a"
        if change is registry.retire:
            promoted(db, "a")  # what answers is replaced, not put away
        with pytest.raises(Conflict), db.transaction() as session:
            change(session, name, ANN, now(session))
    with pytest.raises(NotFound), db.transaction() as session:
        registry.shadow(session, "nobody", ANN, now(session))
    with pytest.raises(Conflict, match="active already"):
        promoted(db, "a")
    with db.reading() as session:
        count = session.execute(select(func.count()).select_from(ModelDecision)).scalar_one()
    assert count == 2 + len(steps) + 1


def test_the_database_itself_allows_one_active_version(db: Database) -> None:
    made(db, "a", "b")
    promoted(db, "a")
    with pytest.raises(IntegrityError), db.transaction() as session:
        session.execute(update(ModelVersion).values(state=ModelState.ACTIVE.value))


def test_of_two_promotions_at_once_one_is_done(db: Database) -> None:
    made(db, "a", "b")
    barrier, outcomes = threading.Barrier(2), []

    def run(name: str) -> None:
        barrier.wait()
        try:
            promoted(db, name)
        except Conflict as error:
            outcomes.append(str(error))
        else:
            outcomes.append("done")

    threads = [threading.Thread(target=run, args=(name,)) for name in ("a", "b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    # One after the other both may succeed; at the same moment the second is told so.
    assert outcomes.count("done") >= 1
    with db.reading() as session:
        query = select(func.count()).where(ModelVersion.state == ModelState.ACTIVE)
        assert session.execute(query).scalar_one() == 1
