"""Trainings in the database: launch, claim, fence, pause, cancel, retry, leases and messages, on both engines."""

from __future__ import annotations

import threading
import uuid
from datetime import timedelta

import pytest
from sqlalchemy import func, select, update

from gmic.train.pretrain_step import birads_group
from node import relay, trainings
from node.config import Settings
from node.datasets.content import content_hash
from node.db import Database, now
from node.errors import Conflict, NotFound
from node.learning_models import Dataset, DatasetItem, Pathology, TrainingEpoch, TrainingRun
from node.lifecycle import RunState
from node.models import Outbox, Run, Study
from node.runs import Failure
from node.trainings import Holder, Request
from tests.support import versions
from tests.support.factory import Factory

HOLDER = Holder("training-1@host", "host")
LOST = Failure("ProcessLost", "a process died", True)
FULL = Failure("ENOSPC", "no space left", True, outage=True)
WRONG = Failure("DataError", "all images alike", False)


@pytest.fixture
def dataset_id(db: Database) -> uuid.UUID:
    """A data set with one image a split."""
    found = uuid.uuid4()
    items = [
        DatasetItem(
            dataset_id=found, sop_uid=f"1.2.{number}", sop_class_uid="1", sha256=f"{number}" * 64,
            study_uid="1.2", patient=f"p{number}", laterality="L", split=split, benign=False,
            malignant=number == 1, strata={},
        )
        for number, split in enumerate(("valid", "train", "test"))
    ]  # fmt: skip
    with db.transaction() as session:
        session.add(
            Dataset(
                id=found, name="d", rule={}, content_hash=content_hash({}, items, []), counts={},
                created_by="t", created_at=now(session),
            )
        )  # fmt: skip
        session.flush()
        session.add_all(items)
    return found


def wanted(dataset_id: uuid.UUID, **changes: object) -> Request:
    values: dict[str, object] = {
        "dataset_id": dataset_id, "recipe": "from-scratch", "config": {"epochs": 3}, "seed": 0,
        "base_version": None, "code_version": "1", **changes,
    }  # fmt: skip
    return Request(**values)  # type: ignore[arg-type]


def launch(db: Database, settings: Settings, request: Request) -> tuple[uuid.UUID, bool]:
    with db.transaction() as session:
        run, fresh = trainings.request(session, request, settings, "ann", now(session))
        return run.id, fresh


def test_a_data_set_that_is_not_what_was_frozen_is_not_trained_on(
    db: Database, any_settings: Settings, dataset_id: uuid.UUID
) -> None:
    with db.transaction() as session:
        versions.tamper(session, "d")
    with pytest.raises(Conflict, match="data set 'd' is not what was frozen"):
        launch(db, any_settings, wanted(dataset_id))


def row(db: Database, run_id: uuid.UUID) -> TrainingRun:
    with db.reading() as session:
        return session.get_one(TrainingRun, run_id)


def claim(db: Database, run_id: uuid.UUID, settings: Settings) -> trainings.Claim:
    held = trainings.claim(db, run_id, HOLDER, settings)
    assert held is not None
    return held


@pytest.fixture
def run_id(db: Database, any_settings: Settings, dataset_id: uuid.UUID) -> uuid.UUID:
    """A queued training."""
    return launch(db, any_settings, wanted(dataset_id))[0]


def test_two_launches_of_the_same_training_are_one(
    db: Database, any_settings: Settings, dataset_id: uuid.UUID
) -> None:
    first, fresh = launch(db, any_settings, wanted(dataset_id))
    assert fresh
    assert launch(db, any_settings, wanted(dataset_id)) == (first, False)
    other, fresh = launch(db, any_settings, wanted(dataset_id, seed=1))
    assert fresh
    assert other != first
    with db.reading() as session:
        posted = session.execute(select(Outbox.subject_id).where(Outbox.queue == "training"))
        assert set(posted.scalars()) == {first, other}
    held = claim(db, first, any_settings)
    assert launch(db, any_settings, wanted(dataset_id)) == (first, False)
    assert trainings.succeed(db, held, 1.0)
    assert launch(db, any_settings, wanted(dataset_id)) == (first, False)


def test_launches_at_the_same_moment_are_one(
    db: Database, any_settings: Settings, dataset_id: uuid.UUID
) -> None:
    found: list[tuple[uuid.UUID, bool]] = []
    barrier = threading.Barrier(4)

    def go() -> None:
        barrier.wait()
        found.append(launch(db, any_settings, wanted(dataset_id)))

    threads = [threading.Thread(target=go) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({run for run, _ in found}) == 1
    assert sorted(fresh for _, fresh in found) == [False, False, False, True]


def test_after_a_failure_the_same_request_is_a_new_training(
    db: Database, any_settings: Settings, dataset_id: uuid.UUID, run_id: uuid.UUID
) -> None:
    held = claim(db, run_id, any_settings)
    assert trainings.fail(db, held, WRONG, 2.0, any_settings) == "FAILED"
    again, fresh = launch(db, any_settings, wanted(dataset_id))
    assert fresh
    assert again != run_id
    with db.transaction() as session, pytest.raises(Conflict, match="launched anew"):
        trainings.retry(session, run_id, any_settings, now(session))


def test_a_claim_tells_all_that_is_needed_and_nothing_of_the_test_split(
    db: Database, any_settings: Settings, run_id: uuid.UUID
) -> None:
    held = claim(db, run_id, any_settings)
    assert [(i.sop_uid, i.split) for i in held.images] == [("1.2.0", "valid"), ("1.2.1", "train")]
    assert (held.dataset_name, held.base, held.attempt) == ("d", None, 1)
    assert trainings.claim(db, run_id, HOLDER, any_settings) is None


def test_a_worker_with_too_few_devices_leaves_it_and_says_so(
    db: Database, any_settings: Settings, dataset_id: uuid.UUID
) -> None:
    run_id, _ = launch(db, any_settings, wanted(dataset_id, config={"processes": 4}))
    assert trainings.claim(db, run_id, Holder("small", "host", 1), any_settings) is None
    assert row(db, run_id).error == "needs 4 GPUs; worker small has 1"
    assert trainings.claim(db, run_id, Holder("large", "host", 4), any_settings) is not None
    assert row(db, run_id).error is None


def test_a_late_worker_changes_nothing(
    db: Database, any_settings: Settings, run_id: uuid.UUID
) -> None:
    late = claim(db, run_id, any_settings)
    expire(db, run_id)
    with db.transaction() as session:
        assert trainings.reap(session, now(session)) == 1
    held = claim(db, run_id, any_settings)
    assert held.attempt == late.attempt + 1
    assert not trainings.heartbeat(db, late, 5.0, any_settings)
    assert not trainings.standing(db, late, (), any_settings).ours
    assert not trainings.record_epoch(db, late, "fit", {"epoch": 1, "metric": 0.5}, 1.0)
    assert not trainings.succeed(db, late, 5.0)
    assert trainings.fail(db, late, WRONG, 5.0, any_settings) is None
    assert trainings.release(db, late, 5.0) is None
    assert row(db, run_id).state == "RUNNING"
    assert trainings.heartbeat(db, held, 7.0, any_settings)
    assert row(db, run_id).used_s == 7.0


def expire(db: Database, run_id: uuid.UUID) -> None:
    with db.transaction() as session:
        before = now(session) - timedelta(seconds=1)
        session.execute(
            update(TrainingRun).where(TrainingRun.id == run_id).values(lease_until=before)
        )


def test_lost_workers_use_up_attempts_and_wishes_come_first(
    db: Database, any_settings: Settings, run_id: uuid.UUID
) -> None:
    settings = any_settings
    for attempt in range(1, settings.training_attempts + 1):
        assert claim(db, run_id, settings).attempt == attempt
        expire(db, run_id)
        with db.transaction() as session:
            trainings.reap(session, now(session))
    assert row(db, run_id).state == "FAILED"
    assert row(db, run_id).error_code == "WorkerLost"
    with db.transaction() as session:
        trainings.retry(session, run_id, settings, now(session))
    claim(db, run_id, settings)
    with db.transaction() as session:
        assert trainings.pause(session, run_id, now(session)) == "RUNNING"
    expire(db, run_id)
    with db.transaction() as session:
        trainings.reap(session, now(session))
    assert row(db, run_id).state == "PAUSED"
    assert row(db, run_id).wanted is None


def test_outages_and_pauses_use_up_no_attempt(
    db: Database, any_settings: Settings, run_id: uuid.UUID
) -> None:
    settings = any_settings
    for _ in range(settings.training_attempts + 2):
        held = claim_now(db, run_id, settings)
        assert trainings.fail(db, held, FULL, 1.0, settings) == "QUEUED"
    for _ in range(settings.training_attempts + 2):
        held = claim_now(db, run_id, settings)
        with db.transaction() as session:
            trainings.pause(session, run_id, now(session))
        assert trainings.standing(db, held, (), settings).wanted == "pause"
        assert trainings.release(db, held, 2.0) == "PAUSED"
        with db.transaction() as session:
            trainings.resume(session, run_id, now(session))
    left = row(db, run_id).max_attempts - row(db, run_id).attempt
    assert left == settings.training_attempts
    for expected in ["QUEUED"] * (left - 1) + ["FAILED"]:
        held = claim_now(db, run_id, settings)
        assert trainings.fail(db, held, LOST, 1.0, settings) == expected


def claim_now(db: Database, run_id: uuid.UUID, settings: Settings) -> trainings.Claim:
    """Claim without waiting for the back-off."""
    with db.transaction() as session:
        session.execute(
            update(TrainingRun).where(TrainingRun.id == run_id).values(not_before=now(session))
        )
    return claim(db, run_id, settings)


def test_what_an_operator_may_do_in_each_state(
    db: Database, any_settings: Settings, run_id: uuid.UUID
) -> None:
    def do(change: object) -> str:
        assert callable(change)
        with db.transaction() as session:
            return str(change(session, run_id, now(session)))

    with pytest.raises(Conflict, match="only a paused one"):
        do(trainings.resume)
    assert do(trainings.pause) == do(trainings.pause) == "PAUSED"
    assert do(trainings.resume) == "QUEUED"
    held = claim(db, run_id, any_settings)
    assert do(trainings.pause) == "RUNNING"
    assert do(trainings.resume) == "RUNNING"
    assert row(db, run_id).wanted is None
    assert do(trainings.cancel) == "RUNNING"
    with pytest.raises(Conflict, match="about to be cancelled; nothing to pause"):
        do(trainings.pause)
    assert trainings.fail(db, held, LOST, 1.0, any_settings) == "CANCELLED"
    for change in (trainings.pause, trainings.cancel, trainings.resume):
        with pytest.raises(Conflict, match="CANCELLED"):
            do(change)
    with db.reading() as session, pytest.raises(NotFound, match="no training 'x'"):
        trainings.find(session, "x")


def test_a_training_that_succeeded_although_a_pause_was_asked_has_succeeded(
    db: Database, any_settings: Settings, run_id: uuid.UUID
) -> None:
    held = claim(db, run_id, any_settings)
    with db.transaction() as session:
        trainings.pause(session, run_id, now(session))
    assert trainings.succeed(db, held, 3.0, note="not evaluated")
    found = row(db, run_id)
    assert (found.state, found.wanted, found.error, found.used_s) == (
        "SUCCEEDED", None, "not evaluated", 3.0,
    )  # fmt: skip


def test_an_epoch_done_again_replaces_its_row(
    db: Database, any_settings: Settings, run_id: uuid.UUID
) -> None:
    held = claim(db, run_id, any_settings)
    for metric in (0.5, 0.6):
        assert trainings.record_epoch(db, held, "fit", {"epoch": 1, "metric": metric}, 1.0)
    assert trainings.record_epoch(db, held, "fit", {"epoch": 2, "metric": 0.7}, 1.0)
    assert trainings.epochs_done(db, run_id) == {"fit": 2}
    with db.reading() as session:
        first = session.get_one(TrainingEpoch, (run_id, "fit", 1))
        assert first.metrics["metric"] == 0.6
    assert row(db, run_id).epoch == 2


def test_the_relay_sends_what_is_due_a_few_at_a_time_and_again_when_nobody_took_it(
    db: Database, any_settings: Settings, dataset_id: uuid.UUID
) -> None:
    ids = [launch(db, any_settings, wanted(dataset_id, seed=seed))[0] for seed in range(6)]
    sent: list[uuid.UUID] = []

    def send(task: str, queue: str, subject_id: uuid.UUID) -> None:
        assert (task, queue) == ("tomonode.train", "training")
        sent.append(subject_id)

    relay.tick(db, any_settings, "m", send)
    assert set(sent) == set(ids)
    sent.clear()
    relay.tick(db, any_settings, "m", send)
    assert sent == []
    with db.transaction() as session:
        session.execute(update(TrainingRun).values(dispatched_at=None))
    relay.tick(db, any_settings, "m", send)
    assert sent == ids[:4]


@pytest.mark.parametrize(
    ("worker", "state", "ago_s", "waits"),
    [
        ("inference-1@host/cpu", "RUNNING", 0, True),
        ("inference-1@host/GPU-1", "RUNNING", 0, False),
        ("inference-1@other/cpu", "RUNNING", 0, False),
        (None, "QUEUED", 0, True),
        (None, "QUEUED", 3600, False),  # nobody took it: no worker of ours will
        (None, "QUEUED", -3600, False),  # not due
        ("inference-1@host/cpu", "SUCCEEDED", 0, False),
    ],
)
def test_a_training_knows_whether_inference_waits_for_its_device(
    db: Database, any_settings: Settings, run_id: uuid.UUID,
    worker: str | None, state: str, ago_s: float, waits: bool,
) -> None:  # fmt: skip
    _, inference = Factory(db, any_settings).queued()
    with db.transaction() as session:
        at = now(session)
        lease = at + timedelta(seconds=60) if state == RunState.RUNNING else None
        values = {"not_before": at - timedelta(seconds=ago_s), "lease_until": lease}
        session.execute(
            update(Run).where(Run.id == inference).values(state=state, worker=worker, **values)
        )
    held = claim(db, run_id, any_settings)
    device = "@host/cpu"
    assert trainings.standing(db, held, (device,), any_settings).inference_waits is waits
    assert not trainings.standing(db, held, (), any_settings).inference_waits


def test_newly_labelled_exams_count_once_and_from_the_last_launch(
    db: Database, any_settings: Settings, dataset_id: uuid.UUID
) -> None:
    factory = Factory(db, any_settings)
    studies = [factory.receive(("L-CC",)) for _ in range(3)]

    def label(study_uid: str, revision: int) -> None:
        with db.transaction() as session:
            at = now(session)
            study = session.execute(select(Study).where(Study.study_uid == study_uid)).scalar_one()
            session.add(
                Pathology(
                    study_id=study.id, laterality="L", revision=revision, benign=False, malignant=True,
                    found_on=at.date(), source="t", author="t", created_at=at,
                )
            )  # fmt: skip

    def count() -> int:
        with db.reading() as session:
            return trainings.newly_labelled(session)[0]

    label(studies[0], 1)
    label(studies[1], 1)
    label(studies[1], 2)
    assert count() == 2
    launch(db, any_settings, wanted(dataset_id))
    assert count() == 0
    label(studies[0], 2)  # a correction is no new exam
    label(studies[2], 1)
    assert count() == 1


def test_a_data_set_of_one_class_is_known_before_the_launch(
    db: Database, dataset_id: uuid.UUID
) -> None:
    with db.reading() as session:
        why = trainings.unlearnable(session, dataset_id, ("malignant",))
        assert why == "all images of its train split have malignant = 1"
        assert session.execute(select(func.count()).select_from(DatasetItem)).scalar_one() == 3


@pytest.mark.parametrize(
    ("categories", "words"),
    [
        ((None, None), "no image of its train split has a BI-RADS category of 0 to 5"),
        ((6, 6), "no image of its train split has a BI-RADS category of 0 to 5"),
        ((0, 5), "the BI-RADS categories of its train split (0, 5) are of one group"),
        ((1, 5), None),
    ],
)
def test_a_data_set_without_birads_groups_is_known_before_the_launch(
    db: Database, categories: tuple[int | None, int | None], words: str | None
) -> None:
    with db.transaction() as session:
        items = [
            DatasetItem(
                sop_uid=f"1.2.{split}.{place}", sop_class_uid="1", sha256=f"{place}" * 64, study_uid="1.2",
                patient=f"{split}-{place}", laterality="L", view="CC", split=split, benign=False,
                malignant=bool(place), birads=category, strata={},
            )
            for split in ("train", "valid")
            for place, category in enumerate(categories)
        ]  # fmt: skip
        found = versions.freeze(session, "groups", items)
    with db.reading() as session:
        assert trainings.unlearnable(session, found.id, ("malignant",)) is None
        why = trainings.unlearnable(session, found.id, ("malignant",), birads_group)
        assert why == words
