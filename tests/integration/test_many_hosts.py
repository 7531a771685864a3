"""Three hosts with a home of their own, one database and one shared blob store: one receives, one reads, one sends."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from sqlalchemy import select

from dicom_io.phantom import PhantomView, write_study
from node import registry, schema, studies
from node.blobs import BlobStore
from node.config import Settings
from node.datasets import store
from node.db import Database, now
from node.model_version import model_version
from node.models import Artifact, Delivery, Instance, Peer, Run
from node.promotion import Signed, Terms
from node.trainings import Image
from tests.conftest import make_settings
from tests.support import learning
from tests.support.databases import Postgres
from tests.support.listening import running, send
from tests.support.pacs import pacs
from tests.support.services import wait_until
from tests.unit.workers.breasts import breast
from workers.deliver import DeliveryWorker
from workers.infer import InferenceWorker
from workers.train_images import Form, ImageCache

_SHAPE = (2, 640, 400)


@dataclass
class Hosts:
    """The settings of each host, the folder that they share, and the database."""

    receives: Settings
    reads: Settings
    sends: Settings
    shared: Path
    db: Database

    def send_study(self, folder: Path, port: int) -> tuple[str, list[str]]:
        """Send a small study to the listener; its UID and the statuses."""
        view = PhantomView("L", "CC", breast("L", _SHAPE, 1), (0.1, 0.1))
        made = write_study(folder / "study", [view], seed=1)
        return made.study_instance_uid, send(self.receives, port, *made.files)

    def close(self, study_uid: str) -> uuid.UUID:
        """Close a study; returns its run."""
        with self.db.transaction() as session:
            version = registry.answering(session, model_version(self.receives))
            studies.force_complete(session, study_uid, self.receives, version, now(session))
            study = studies.find(session, study_uid)
            found = studies.newest_run_id(session, study.id)
        assert found is not None
        return found

    def run(self, run_id: uuid.UUID) -> Run:
        """The run as it is."""
        with self.db.reading() as session:
            return session.get_one(Run, run_id)

    def waiting(self) -> list[Path]:
        """What the receiving host has not copied yet."""
        return BlobStore.of(self.receives).outgoing()


@pytest.fixture
def hosts(tmp_path: Path, postgres_server: Postgres) -> Iterator[Hosts]:
    """One database, one shared folder, three homes."""
    shared = tmp_path / "shared"
    shared.mkdir()
    common = {
        "database_url": postgres_server.new_database(),
        "blob_url": shared.as_uri(),
        "segment_threshold": 0.001,
        "threads": 1,
        "max_attempts": 1,
    }
    one, two, three = (make_settings(tmp_path / f"host-{n}", **common) for n in range(3))
    one.home.mkdir()
    schema.upgrade(one.db_url)
    db, threads = Database(one.db_url), torch.get_num_threads()
    # a small model, whose weights the reading host has to fetch, too
    learning.base_version(db, one)
    with db.transaction() as session:
        signed = Signed("ann", reason="for a test", override=True)
        registry.promote(session, learning.BASE, signed, Terms.of(one), now(session))
    yield Hosts(one, two, three, shared, db)
    torch.set_num_threads(threads)
    db.dispose()


def test_one_host_receives_another_reads_a_third_sends_through_an_outage(
    hosts: Hosts, tmp_path: Path
) -> None:
    away = tmp_path / "away"
    with running(hosts.receives) as listener, pacs() as peer:
        with hosts.db.transaction() as session:
            values = {"ae_title": "PACS", "host": "127.0.0.1", "port": peer.port}
            session.add(Peer(name="archive", kind="DICOM", created_at=now(session), **values))
        hosts.shared.rename(away)  # down
        study_uid, statuses = hosts.send_study(tmp_path, listener.port)
        assert statuses == ["0x0000"], "the listener asks its own disk alone"
        run_id = hosts.close(study_uid)
        worker = InferenceWorker(hosts.reads, "inference-1@two")
        assert worker.handle(run_id) == "QUEUED"
        run = hosts.run(run_id)
        assert (run.error_code, run.max_attempts) == ("BlobStoreUnavailable", 2), "none is used up"
        assert "the folder is not there: mount it" in f"{run.error}"
        assert hosts.waiting()
        away.rename(hosts.shared)  # up
        wait_until(lambda: not hosts.waiting(), 30, "the copy")
        wait_until(lambda: worker.handle(run_id) == "done", 60, "the run")
        with hosts.db.reading() as session:
            query = select(Delivery.id).where(Delivery.run_id == run_id)
            delivery_id = session.execute(query).scalar_one()
            made = session.execute(select(Artifact)).scalars().all()
        assert {one.kind for one in made} == {"SEG", "SR", "OVERLAY"}
        assert DeliveryWorker(hosts.sends, "delivery-1@three").deliver(delivery_id) == "done"
        assert peer.counts == {one.sop_uid: 1 for one in made if one.sop_uid}
    pages = BlobStore.of(hosts.receives)  # which show the pictures
    assert all(pages.fetch(one.sha256).stat().st_size == one.size_bytes for one in made)


def test_what_another_host_is_still_copying_costs_a_study_no_attempt(
    hosts: Hosts, tmp_path: Path
) -> None:
    with running(hosts.receives) as listener:
        study_uid, _ = hosts.send_study(tmp_path, listener.port)
        wait_until(lambda: not hosts.waiting(), 30, "the copy")
    run_id = hosts.close(study_uid)
    with hosts.db.reading() as session:
        digest = session.execute(select(Instance.sha256)).scalar_one()
    copy = hosts.shared / digest[:2] / digest[2:4] / digest
    copy.rename(tmp_path / "late")
    worker = InferenceWorker(hosts.reads, "inference-1@two")
    assert worker.handle(run_id) == "QUEUED"
    run = hosts.run(run_id)
    assert (run.error_code, run.max_attempts) == ("BlobAbsent", 2)
    assert f"blob {digest[:12]} is neither on this host nor in" in f"{run.error}"
    copy.write_bytes(b"something else")  # damaged: another try would find the same
    wait_until(lambda: worker.handle(run_id) == "FAILED", 60, "the refusal")
    assert hosts.run(run_id).error_code == "BlobDamaged"


def test_a_training_host_fetches_the_images_of_a_data_set(hosts: Hosts) -> None:
    dataset_id = learning.dataset(hosts.db, hosts.receives, splits={"train": 1})
    with hosts.db.reading() as session:
        (item,) = store.items(session, dataset_id)
        image = Image(*(getattr(item, name) for name in Image.__dataclass_fields__))
    cache = ImageCache(hosts.reads, BlobStore.of(hosts.reads))
    window_DHW = np.load(cache.get(image, Form((128, 96), "float16")))
    assert window_DHW.shape == (learning.SHAPE[0], 128, 96)
