"""Migrations, constraints, claims, fencing, outbox, generations: on real SQLite and real PostgreSQL."""

from __future__ import annotations

import threading
import uuid
from datetime import timedelta

import pytest
from alembic import command
from sqlalchemy import func, select, update
from sqlalchemy.exc import IntegrityError

from node import arrivals, deliveries, outbox, relay, reruns, runs, schema, studies
from node.config import Settings
from node.db import Database, now
from node.errors import BrokerUnavailable, Conflict
from node.lifecycle import DeliveryState, RunState, StudyState
from node.models import Delivery, Instance, Outbox, Peer, Quarantined, Run, Study

MODEL = "test-model"
UNAVAILABLE = runs.Failure("PeerUnavailable", "no answer", True)


def arrival(
    study: str = "1.2.3", sop: str = "1.2.3.4", sha: str = "a", **changes: object
) -> arrivals.Arrival:
    values: dict[str, object] = {
        "study_uid": study, "series_uid": f"{study}.9", "sop_uid": sop,
        "sop_class_uid": "1.2.840.10008.5.1.4.1.1.13.1.3", "transfer_syntax_uid": "1.2.840.10008.1.2.1",
        "is_image": True, "sha256": sha * 64, "size_bytes": 3_000_000_000, "laterality": "L", "view": "CC",
        "frames": 3, "patient_id": "P1", "accession_number": None, "study_date": "20260101", "calling_ae": "MOD",
        **changes,
    }  # fmt: skip
    return arrivals.Arrival(**values)  # type: ignore[arg-type]


def receive(db: Database, item: arrivals.Arrival) -> arrivals.Recorded:
    with db.transaction() as session:
        return arrivals.record(session, item, now(session))


def close(db: Database, settings: Settings, study: str = "1.2.3") -> None:
    with db.transaction() as session:
        studies.force_complete(session, study, settings, MODEL, now(session))


def only_run(db: Database) -> Run:
    with db.reading() as session:
        return session.execute(select(Run).where(Run.state != RunState.SUPERSEDED)).scalar_one()


def outcome(sop: str = "1.2.3.4", name: str = "sr.dcm", uid: str = "2.25.1") -> runs.Outcome:
    return runs.Outcome(
        model={"name": MODEL, "trained": False},
        images=[runs.ImageOutcome(sop, "L", "CC", 3, 0.2, 0.7, 1, [{"label": "malignant"}])],
        artifacts=[
            runs.ArtifactFile("SR", name, "b" * 64, 10, None, uid, "1.2.840.10008.5.1.4.1.1.88.34")
        ],
        stage_seconds={"inference": 1.5},
    )


def test_migrations_lead_from_nothing_to_the_models(any_settings: Settings) -> None:
    schema.upgrade(any_settings.db_url)
    command.check(schema._config(any_settings.db_url))
    db = Database(any_settings.db_url)
    assert schema.current(db) == schema.head()
    schema.upgrade(any_settings.db_url)
    command.downgrade(schema._config(any_settings.db_url), "base")
    assert schema.current(db) is None
    db.dispose()


@pytest.mark.parametrize(
    ("model", "values"),
    [
        (Study, {"state": "WRONG"}),
        (Study, {"generation": 0}),
        (Study, {"excluded_reason": "but not excluded"}),
        (Run, {"state": "RUNNING"}),  # without a lease
        (Run, {"state": "FAILED"}),  # without a reason
        (Run, {"attempt": -1}),
        (Instance, {"sha256": "short"}),
        (Instance, {"size_bytes": 0}),
    ],
)
def test_invariants_are_constraints(
    db: Database, settings: Settings, model: type, values: dict[str, object]
) -> None:
    receive(db, arrival())
    close(db, settings)
    with pytest.raises(IntegrityError), db.transaction() as session:
        session.execute(update(model).values(**values))


def test_one_live_run_for_a_generation(db: Database, settings: Settings) -> None:
    receive(db, arrival())
    close(db, settings)
    run = only_run(db)
    with pytest.raises(IntegrityError), db.transaction() as session:
        studies.queue_run(session, run.study_id, run.generation, settings, MODEL, now(session))


def test_same_uid_same_bytes_and_other_bytes(db: Database) -> None:
    assert receive(db, arrival(sha="a")) is arrivals.Recorded.NEW
    assert receive(db, arrival(sha="a")) is arrivals.Recorded.DUPLICATE
    assert receive(db, arrival(sha="c")) is arrivals.Recorded.CONFLICT
    assert receive(db, arrival(sha="c")) is arrivals.Recorded.CONFLICT
    with db.reading() as session:
        assert session.execute(select(Instance.sha256)).scalars().all() == ["a" * 64]
        assert session.execute(select(Quarantined.sha256)).scalars().all() == ["c" * 64]


def test_twelve_workers_race_and_every_run_has_one_winner(db: Database, settings: Settings) -> None:
    for number in range(20):
        receive(db, arrival(study=f"1.5.{number}", sop=f"1.5.{number}.1"))
        close(db, settings, f"1.5.{number}")
    with db.reading() as session:
        ids = session.execute(select(Run.id)).scalars().all()
    won: list[uuid.UUID] = []
    lock = threading.Lock()

    def race(name: str) -> None:
        for run_id in ids:
            if runs.claim(db, run_id, name, settings) is not None:
                with lock:
                    won.append(run_id)

    threads = [threading.Thread(target=race, args=(f"w{i}",)) for i in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(won) == sorted(ids)


def test_a_zombie_changes_nothing(db: Database, settings: Settings) -> None:
    receive(db, arrival())
    close(db, settings)
    zombie = runs.claim(db, only_run(db).id, "zombie", settings)
    assert zombie is not None
    with (
        db.transaction() as session
    ):  # its lease ends, the relay takes the run back, another worker claims it
        assert runs.reap(session, now(session) + timedelta(seconds=settings.lease_s + 1)) == 1
    with db.transaction() as session:
        session.execute(update(Run).values(not_before=now(session)))
    second = runs.claim(db, zombie.run_id, "second", settings)
    assert second is not None
    assert second.attempt == 2
    assert not runs.heartbeat(db, zombie.run_id, zombie.attempt, settings)
    assert not runs.succeed(db, zombie, outcome(), settings)
    assert runs.fail(db, zombie, runs.Failure("X", "late", True), settings) is None
    assert runs.succeed(db, second, outcome(), settings)
    assert only_run(db).state == RunState.SUCCEEDED


def test_attempts_are_bounded_and_the_reason_is_kept(db: Database, settings: Settings) -> None:
    receive(db, arrival())
    close(db, settings)
    for attempt in range(1, settings.max_attempts + 1):
        with db.transaction() as session:
            session.execute(update(Run).values(not_before=now(session)))
        held = runs.claim(db, only_run(db).id, "w", settings)
        assert held is not None
        assert held.attempt == attempt
        runs.fail(db, held, runs.Failure("Boom", "it broke", True), settings)
    run = only_run(db)
    assert (run.state, run.error, run.error_code) == (RunState.FAILED, "it broke", "Boom")


def test_an_outage_of_the_node_uses_up_no_attempt(db: Database, settings: Settings) -> None:
    receive(db, arrival())
    close(db, settings)
    for _ in range(settings.max_attempts + 2):
        with db.transaction() as session:
            session.execute(update(Run).values(not_before=now(session)))
        held = runs.claim(db, only_run(db).id, "w", settings)
        assert held is not None
        assert (
            runs.fail(db, held, runs.Failure("DiskFull", "no room", True, outage=True), settings)
            == "QUEUED"
        )


def test_success_writes_deliveries_and_messages_in_one_go(db: Database, settings: Settings) -> None:
    with db.transaction() as session:
        at = now(session)
        for name, enabled in (("a", True), ("b", True), ("off", False)):
            session.add(
                Peer(
                    name=name, kind="STOW", url="http://127.0.0.1:1", enabled=enabled, created_at=at
                )
            )
    receive(db, arrival())
    close(db, settings)
    held = runs.claim(db, only_run(db).id, "w", settings)
    assert held is not None
    assert runs.succeed(db, held, outcome(), settings)
    with db.reading() as session:
        assert session.execute(select(func.count()).select_from(Delivery)).scalar_one() == 2
        kinds = session.execute(select(Outbox.task)).scalars().all()
        assert sorted(kinds) == ["tomonode.deliver", "tomonode.deliver", "tomonode.infer"]


def test_partial_delivery_sends_only_the_rest_again(db: Database, settings: Settings) -> None:
    with db.transaction() as session:
        session.add(Peer(name="a", kind="STOW", url="http://127.0.0.1:1", created_at=now(session)))
    receive(db, arrival())
    close(db, settings)
    held = runs.claim(db, only_run(db).id, "w", settings)
    assert held is not None
    found = outcome()
    second = runs.ArtifactFile(
        "SEG", "seg.dcm", "d" * 64, 10, "1.2.3.4", "2.25.2", "1.2.840.10008.5.1.4.1.1.66.4"
    )
    runs.succeed(
        db, held, runs.Outcome(found.model, found.images, [*found.artifacts, second]), settings
    )
    with db.reading() as session:
        delivery_id = session.execute(select(Delivery.id)).scalar_one()
    parcel = deliveries.claim(db, delivery_id, "d", settings)
    assert parcel is not None
    assert [p.sop_uid for p in parcel.parcels] == ["2.25.2", "2.25.1"], (
        "SEG goes before the SR that refers to it"
    )
    answers = [
        deliveries.Answer(parcel.parcels[0].artifact_id, True, "0x0000"),
        deliveries.Answer(parcel.parcels[1].artifact_id, False, "0xA700"),
    ]
    assert deliveries.fail(db, parcel, answers, UNAVAILABLE, settings) == "PENDING"
    with db.transaction() as session:
        session.execute(update(Delivery).values(not_before=now(session)))
    again = deliveries.claim(db, delivery_id, "d", settings)
    assert again is not None
    assert [p.sop_uid for p in again.parcels] == ["2.25.1"]
    assert deliveries.finish(
        db, again, [deliveries.Answer(again.parcels[0].artifact_id, True, "0x0000")], settings
    )
    with db.reading() as session:
        assert session.get_one(Delivery, delivery_id).state == DeliveryState.SENT


def test_a_dead_letter_after_the_deadline_and_an_operators_retry(
    db: Database, settings: Settings
) -> None:
    with db.transaction() as session:
        session.add(Peer(name="a", kind="STOW", url="http://127.0.0.1:1", created_at=now(session)))
    receive(db, arrival())
    close(db, settings)
    held = runs.claim(db, only_run(db).id, "w", settings)
    assert held is not None
    runs.succeed(db, held, outcome(), settings)
    with db.transaction() as session:
        delivery_id = session.execute(select(Delivery.id)).scalar_one()
        session.execute(update(Delivery).values(deadline_at=now(session)))
        with pytest.raises(Conflict):
            deliveries.retry(session, delivery_id, settings, now(session))
    parcel = deliveries.claim(db, delivery_id, "d", settings)
    assert parcel is not None
    assert deliveries.fail(db, parcel, [], UNAVAILABLE, settings) == "FAILED"
    with db.transaction() as session:
        deliveries.retry(session, delivery_id, settings, now(session))
    assert deliveries.claim(db, delivery_id, "d", settings) is not None


def test_a_late_image_makes_a_generation_that_supersedes(db: Database, settings: Settings) -> None:
    receive(db, arrival())
    close(db, settings)
    first = runs.claim(db, only_run(db).id, "w", settings)
    assert first is not None
    assert runs.succeed(db, first, outcome(), settings)
    report = arrival(sop="1.2.3.5", sha="e", is_image=False)
    receive(db, report)
    with db.reading() as session:
        assert session.execute(select(Study.state)).scalar_one() == StudyState.COMPLETE, (
            "a report reopens nothing"
        )
    receive(db, arrival(sop="1.2.3.6", sha="f", view="MLO"))
    with db.reading() as session:
        study = session.execute(select(Study)).scalar_one()
        assert (study.state, study.generation) == (StudyState.RECEIVING, 2)
    close(db, settings)
    second = runs.claim(db, only_run(db).id, "w", settings)
    assert second is not None
    assert second.generation == 2
    assert [i.sop_uid for i in second.inputs] == ["1.2.3.4", "1.2.3.6"]
    assert {kind: one.sop_uid for kind, one in second.predecessors.items()} == {"SR": "2.25.1"}


def test_a_study_without_images_is_excluded_with_a_reason(db: Database, settings: Settings) -> None:
    receive(db, arrival(is_image=False))
    close(db, settings)
    with db.reading() as session:
        study = session.execute(select(Study)).scalar_one()
        assert study.state == StudyState.EXCLUDED
        assert "model reads" in (study.excluded_reason or "")
        assert session.execute(select(func.count()).select_from(Run)).scalar_one() == 0


def test_a_dead_broker_loses_nothing(db: Database, any_settings: Settings) -> None:
    receive(db, arrival())
    close(db, any_settings)
    sent: list[uuid.UUID] = []

    def dead(task: str, queue: str, subject_id: uuid.UUID) -> None:
        raise BrokerUnavailable("no")

    def alive(task: str, queue: str, subject_id: uuid.UUID) -> None:
        sent.append(subject_id)

    with pytest.raises(BrokerUnavailable):
        relay.tick(db, any_settings, MODEL, dead)
    assert relay.tick(db, any_settings, MODEL, alive) == 1
    assert sent == [only_run(db).id]
    # the broker lost it: after a while it is written again
    with db.transaction() as session:
        session.execute(
            update(Run).values(
                dispatched_at=now(session) - timedelta(seconds=any_settings.redispatch_s + 1)
            )
        )
    assert relay.tick(db, any_settings, MODEL, alive) == 1


def test_a_message_waits_once(db: Database) -> None:
    subject = uuid.uuid4()
    for _ in range(2):
        with db.transaction() as session:
            outbox.post(session, outbox.INFER, subject, now(session))
    with db.reading() as session:
        assert outbox.depth(session) == 1


def test_operator_retry_replaces_a_finished_run(db: Database, settings: Settings) -> None:
    receive(db, arrival())
    close(db, settings)
    first = only_run(db)
    with pytest.raises(Conflict), db.transaction() as session:
        reruns.retry(session, studies.find(session, "1.2.3"), settings, MODEL, now(session))
    held = runs.claim(db, first.id, "w", settings)
    assert held is not None
    runs.succeed(db, held, outcome(), settings)
    with db.transaction() as session:
        reruns.retry(session, studies.find(session, "1.2.3"), settings, MODEL, now(session))
    fresh = only_run(db)
    assert fresh.id != first.id
    assert fresh.predecessor_id == first.id
