"""The training worker in this process, on phantoms and a tiny model: what ends a training early, and how it goes on."""

from __future__ import annotations

import os
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from sqlalchemy import delete, update

from gmic.train.data import FolderSet
from node import registry, schema, trainings
from node.config import Settings
from node.db import Database, now
from node.errors import Conflict
from node.learning_models import TrainingRun
from node.lifecycle import RunState
from node.models import Run
from node.trainings import Holder
from tests.conftest import make_settings
from tests.support import learning, versions
from tests.support.factory import Factory
from tests.support.services import wait_until
from tests.unit.gmic.training import TINY
from workers.comparison import evaluate_version
from workers.train import TrainingWorker
from workers.train_watch import Watch

LONG = (*learning.QUICK, "epochs=200", "checkpoint_every=1000")
_seeds = iter(range(100, 1000))


@dataclass
class Bench:
    """A node without a broker, and its training worker."""

    settings: Settings
    db: Database
    dataset_id: uuid.UUID  # without a test split: an evaluation takes seconds
    tested_id: uuid.UUID

    def launch(self, *changes: str, **more: object) -> uuid.UUID:
        """A training of its own: each has another saliency constant, which a fine-tuning does not read."""
        changes = changes or learning.QUICK
        made = (*changes, f"omega=0.{next(_seeds)}")
        return learning.launch(self.db, self.settings, self.dataset_id, made, **more)  # type: ignore[arg-type]

    def work(self, run_id: uuid.UUID, **changed: object) -> str:
        """What the worker makes of a message."""
        settings = self.settings.model_copy(update=changed)
        return TrainingWorker(settings, "training-1@host").handle(run_id)

    def row(self, run_id: uuid.UUID) -> TrainingRun:
        """The training as it is."""
        return learning.training(self.db, run_id)

    def folder(self, run_id: uuid.UUID) -> Path:
        """Where it keeps its files."""
        return self.settings.training_root / "runs" / str(run_id)

    def due(self, run_id: uuid.UUID) -> None:
        """Do not wait for the back-off."""
        with self.db.transaction() as session:
            values = {"not_before": now(session)}
            session.execute(update(TrainingRun).where(TrainingRun.id == run_id).values(values))


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """One data set and one base model for all tests."""
    settings = make_settings(tmp_path_factory.mktemp("bench"), threads=2, lease_s=2.0)
    schema.upgrade(settings.db_url)
    db = Database(settings.db_url)
    tested_id = learning.dataset(db, settings)
    splits = {name: learning.SPLITS[name] for name in ("train", "valid")}
    dataset_id = learning.dataset(db, settings, "untested", splits)
    learning.base_version(db, settings)
    threads = torch.get_num_threads()
    yield Bench(settings, db, dataset_id, tested_id)
    torch.set_num_threads(threads)
    db.dispose()


def meanwhile(
    bench: Bench, run_id: uuid.UUID, epoch: int, act: Callable[[], None]
) -> threading.Thread:
    """Act once the training runs and has ended so many epochs, be it before."""

    def there() -> bool:
        row = bench.row(run_id)
        return row.state == "RUNNING" and (row.epoch or 0) >= epoch

    def wait() -> None:
        wait_until(there, 60, f"epoch {epoch}")
        act()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def ask(bench: Bench, run_id: uuid.UUID, wish: Callable[..., str]) -> None:
    with bench.db.transaction() as session:
        wish(session, run_id, now(session))


def test_a_training_makes_an_evaluated_candidate_and_keeps_nothing_it_does_not_need(
    bench: Bench,
) -> None:
    run_id = learning.launch(bench.db, bench.settings, bench.tested_id)
    assert bench.work(run_id) == "done"
    made, row = learning.made(bench.db, run_id), bench.row(run_id)
    assert (row.state, row.error, row.epoch) == ("SUCCEEDED", None, 3)
    assert made.state == "CANDIDATE"
    assert made.trained
    assert made.dataset_id == bench.tested_id
    assert made.licence == "for tests"  # the base's
    assert made.metrics["metric"] == max(
        e.metrics["metric"] for e in learning.epochs(bench.db, run_id)
    )
    with bench.db.reading() as session:
        base = registry.find(session, learning.BASE)
        assert made.operating_points["segment"] == base.operating_points["segment"] != 0.5
        (evaluation,) = registry.evaluations(session, made.id)
        assert evaluation.dataset_id == bench.tested_id
        assert registry.active(session) is None
    assert [path.name for path in bench.folder(run_id).iterdir()] == ["log.txt"]
    assert list((bench.settings.training_root / "images").glob("*/*.npy"))
    assert bench.work(run_id) == ""


def test_a_name_that_other_weights_took_does_not_end_a_training(bench: Bench) -> None:
    """As when the same request ended on another device before, with other bytes."""
    run_id = bench.launch()
    name = f"fine-tune-{bench.row(run_id).request_hash[:8]}-1"
    with bench.db.transaction() as session:
        base = registry.find(session, learning.BASE)
        facts = {f.name: getattr(base, f.name) for f in fields(registry.Facts)}
        taken = registry.Facts(**{**facts, "version": name, "sha256": "0" * 64})
        registry.register(session, taken, "tests", now(session))
    assert bench.work(run_id) == "done"
    made = learning.made(bench.db, run_id)
    assert made.version == f"fine-tune-{bench.row(run_id).request_hash[:8]}-{run_id.hex[:8]}"


def test_images_are_windows_that_a_training_reads_and_are_made_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = bench.launch(*LONG)
    thread = meanwhile(bench, run_id, 1, lambda: ask(bench, run_id, trainings.pause))
    assert bench.work(run_id) == "done"
    thread.join()
    data = bench.folder(run_id) / "data"
    images = FolderSet(data, "train", TINY.window_shape)
    assert len(images.examples) == learning.SPLITS["train"]
    assert {e.labels for e in images.examples} == {(0, 0), (0, 1), (1, 0)}
    volume = images.volume(0)
    assert volume.dtype == np.float32
    assert volume.shape == (3, *TINY.window_shape)
    assert abs(float(volume.mean())) < 0.01
    assert images.problems() == []
    file = next(data.glob("*.npy"))
    assert file.stat().st_nlink == 2  # the cache's and the training's
    ask(bench, run_id, trainings.cancel)
    assert bench.work(uuid.uuid4()) == ""  # the next message sweeps what nobody held
    assert [path.name for path in bench.folder(run_id).iterdir()] == ["log.txt"]


def test_a_pause_is_kept_after_the_batch_and_costs_no_work(bench: Bench) -> None:
    run_id = bench.launch(*LONG, "epochs=8")
    undisturbed = bench.launch(*LONG, "epochs=8")
    for epoch in (1, 3):
        thread = meanwhile(bench, run_id, epoch, lambda: ask(bench, run_id, trainings.pause))
        assert bench.work(run_id) == "done"
        thread.join()
        row = bench.row(run_id)
        assert (row.state, row.wanted, row.lease_until) == ("PAUSED", None, None)
        assert row.epoch is not None
        assert epoch <= row.epoch < 8
        ask(bench, run_id, trainings.resume)
    assert bench.work(run_id) == "done"
    assert bench.row(run_id).state == "SUCCEEDED"
    assert bench.row(run_id).max_attempts == bench.settings.training_attempts + 2
    assert bench.work(undisturbed) == "done"
    figures = [[e.metrics for e in learning.epochs(bench.db, one)] for one in (run_id, undisturbed)]
    assert figures[0] == figures[1]
    assert len(figures[0]) == 8


def test_a_worker_told_to_stop_gives_the_training_back_at_a_checkpoint(bench: Bench) -> None:
    run_id = bench.launch(*LONG)
    worker = TrainingWorker(bench.settings, "training-1@host")
    thread = meanwhile(bench, run_id, 2, worker.stop)
    assert worker.handle(run_id) == "done"
    thread.join()
    assert (bench.row(run_id).state, bench.row(run_id).error) == ("QUEUED", None)
    assert (bench.folder(run_id) / "out" / "fit" / "checkpoint").exists()
    ask(bench, run_id, trainings.cancel)


def test_a_cancelled_training_leaves_nothing_but_its_log(bench: Bench) -> None:
    run_id = bench.launch(*LONG)
    thread = meanwhile(bench, run_id, 1, lambda: ask(bench, run_id, trainings.cancel))
    assert bench.work(run_id) == "done"
    thread.join()
    assert bench.row(run_id).state == "CANCELLED"
    assert bench.row(run_id).finished_at is not None
    assert [path.name for path in bench.folder(run_id).iterdir()] == ["log.txt"]


def test_a_full_disk_in_the_middle_of_an_epoch_is_waited_for(bench: Bench) -> None:
    run_id = bench.launch(*learning.QUICK, "epochs=200")
    partial = bench.folder(run_id) / "out" / "fit" / ".checkpoint.partial"

    def fill() -> None:
        """From now on a write to a checkpoint finds no space left on the device."""
        end = time.monotonic() + 30
        while time.monotonic() < end and not partial.is_symlink():
            if not partial.exists():
                spare = partial.with_name("full")
                spare.unlink(missing_ok=True)
                spare.symlink_to("/dev/full")
                spare.replace(partial)

    thread = meanwhile(bench, run_id, 2, fill)
    assert bench.work(run_id) == "QUEUED"
    thread.join()
    row = bench.row(run_id)
    assert row.error_code == "ENOSPC"
    assert row.error is not None
    assert "No space left on device" in row.error
    assert row.max_attempts - row.attempt == bench.settings.training_attempts  # none is used up
    assert not partial.is_symlink()
    bench.due(run_id)
    before = row.epoch or 0
    thread = meanwhile(bench, run_id, before + 1, lambda: ask(bench, run_id, trainings.cancel))
    assert bench.work(run_id) == "done"  # goes on, from its checkpoint
    thread.join()
    numbers = [e.epoch for e in learning.epochs(bench.db, run_id)]
    assert numbers == list(range(1, len(numbers) + 1))


def test_nothing_is_claimed_below_the_disk_reserve(bench: Bench) -> None:
    run_id = bench.launch()
    assert bench.work(run_id, disk_reserve_mb=10**9) == ""
    assert (bench.row(run_id).state, bench.row(run_id).attempt) == ("QUEUED", 0)


def test_a_training_over_its_time_fails_and_a_retry_goes_on(bench: Bench) -> None:
    run_id = bench.launch(*LONG)
    limit(bench, run_id, time_limit_s=0.5)
    assert bench.work(run_id) == "FAILED"
    row = bench.row(run_id)
    assert row.error_code == "OverLimit"
    assert "of computing used, the limit is 0 s" in (row.error or "")
    assert row.used_s > 0.5
    with bench.db.transaction() as session:
        trainings.retry(session, run_id, bench.settings, now(session))
    assert bench.row(run_id).time_limit_s > bench.settings.training_limit_s
    ask(bench, run_id, trainings.cancel)


def test_a_training_over_its_room_fails(bench: Bench) -> None:
    run_id = bench.launch()
    limit(bench, run_id, disk_limit_mb=0)
    assert bench.work(run_id) == "FAILED"
    assert "take more than 0 MB; raise TOMONODE_TRAINING_DISK_MB" in (bench.row(run_id).error or "")


def limit(bench: Bench, run_id: uuid.UUID, **values: float) -> None:
    with bench.db.transaction() as session:
        session.execute(update(TrainingRun).where(TrainingRun.id == run_id).values(**values))


def test_the_cache_keeps_its_limit_and_the_training_its_images(bench: Bench) -> None:
    run_id = bench.launch()
    assert bench.work(run_id, training_cache_mb=0) == "done"
    row = bench.row(run_id)
    assert row.state == "SUCCEEDED"
    assert (row.error or "").startswith("not evaluated: the test split")
    assert not list((bench.settings.training_root / "images").glob("*/*.npy"))


def test_a_data_set_changed_after_the_launch_is_neither_trained_on_nor_measured_on(
    bench: Bench,
) -> None:
    dataset_id = learning.dataset(bench.db, bench.settings, "changed", {"train": 4, "valid": 4})
    run_id = learning.launch(bench.db, bench.settings, dataset_id)
    with bench.db.transaction() as session:
        versions.tamper(session, "changed")
    assert bench.work(run_id) == "FAILED"
    assert "data set 'changed' is not what was frozen" in (bench.row(run_id).error or "")
    with pytest.raises(Conflict, match="data set 'changed' is not what was frozen"):
        evaluate_version(bench.db, bench.settings, learning.BASE, "changed")


def test_an_image_that_can_no_longer_be_read_is_named(bench: Bench) -> None:
    held = trainings.claim(bench.db, bench.launch(), Holder("t", "h"), bench.settings)
    assert held is not None
    first = held.images[0]
    for kept in (bench.settings.training_root / "images").glob(f"*/{first.sha256}-*"):
        kept.unlink()
    blob = bench.settings.blob_root / first.sha256[:2] / first.sha256[2:4] / first.sha256
    content = blob.read_bytes()
    blob.unlink()
    blob.write_bytes(content[:5000])
    try:
        run_id = bench.launch()
        assert bench.work(run_id) == "FAILED"
        error = bench.row(run_id).error or ""
        assert f"image {first.sop_uid} of the data set cannot be read" in error
    finally:
        blob.write_bytes(content)


@pytest.mark.parametrize(
    ("recipe", "changes", "stages"),
    [
        ("birads-pretrain", ("epochs=2", "pretraining.epochs=2"), {"pretrain": 2, "fit": 2}),
        ("search", ("epochs=1", "trials=3"), {"trial-000": 1, "trial-001": 1, "trial-002": 1}),
    ],
)
def test_recipes_of_several_stages(
    bench: Bench, recipe: str, changes: tuple[str, ...], stages: dict[str, int]
) -> None:
    model = [f"model.{k}={v}" for k, v in TINY.to_dict().items()]
    more = ("ranges.num_patches=[2]", "ranges.top_t_fraction=[0.1, 0.2]")
    run_id = bench.launch(*changes, *model, *more, name=recipe, base=None)
    assert bench.work(run_id) == "done", bench.row(run_id).error
    assert trainings.epochs_done(bench.db, run_id) == stages
    assert learning.made(bench.db, run_id).trained


def test_inference_goes_before_training(bench: Bench) -> None:
    run_id = bench.launch(*LONG)
    held = trainings.claim(bench.db, run_id, Holder("training-1@host", "host"), bench.settings)
    assert held is not None
    watch = Watch(
        bench.db, held, bench.settings, ("@host/cpu",), threading.Event(), bench.settings.home
    )
    watch.between()
    _, inference = Factory(bench.db, bench.settings).queued()
    passed = threading.Event()
    used_s = watch.clock.used_s()

    def step() -> None:
        watch.between()
        passed.set()

    thread = threading.Thread(target=step)
    thread.start()
    assert not passed.wait(0.6)
    with bench.db.transaction() as session:
        values = {"state": RunState.SUPERSEDED}
        session.execute(update(Run).where(Run.id == inference).values(values))
    assert passed.wait(60)
    thread.join()
    assert watch.clock.used_s() - used_s < 0.5  # waiting is no computing
    with bench.db.transaction() as session:
        session.execute(delete(TrainingRun).where(TrainingRun.id == run_id))


def test_two_processes_over_gloo_end_with_a_candidate_also_after_one_of_them_died(
    bench: Bench,
) -> None:
    run_id = bench.launch(*learning.QUICK, "epochs=6", processes=2)

    def kill() -> None:
        """kill -9 of one of the two."""
        found = [
            child
            for child in psutil.Process().children(recursive=True)
            if "workers.train_child" in child.cmdline()
            and "torch.distributed.run" not in child.cmdline()
        ]
        os.kill(found[0].pid, signal.SIGKILL)

    thread = meanwhile(bench, run_id, 1, kill)
    assert bench.work(run_id) == "QUEUED"
    thread.join()
    assert bench.row(run_id).error_code == "ProcessLost"
    assert "one of 2 processes died" in (bench.row(run_id).error or "")
    assert not [
        c
        for c in psutil.Process().children(recursive=True)
        if "train_child" in " ".join(c.cmdline())
    ]
    bench.due(run_id)
    thread = meanwhile(bench, run_id, 2, lambda: ask(bench, run_id, trainings.pause))
    assert bench.work(run_id) == "done"
    thread.join()
    assert bench.row(run_id).state == "PAUSED"
    ask(bench, run_id, trainings.resume)
    assert bench.work(run_id) == "done"
    assert bench.row(run_id).state == "SUCCEEDED"
    assert trainings.epochs_done(bench.db, run_id) == {"fit": 6}
