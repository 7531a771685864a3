"""A node as far as workers need one: database, a Redis of its own, relay in a thread, and worker processes."""

from __future__ import annotations

import hashlib
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from sqlalchemy import select

from dicom_io.header import read_header
from node import arrivals, redis_server, relay, schema, studies
from node.arrivals import Arrival
from node.blobs import BlobStore, sync_file
from node.config import Settings, child_environment
from node.db import Database, now
from node.model_version import model_version
from node.models import Base, Delivery, Peer, Run, Study
from tests.support.services import PATIENCE, wait_until

_Row = TypeVar("_Row", bound=Base)

_PROGRAM = f"""
import sys
from node.config import load_settings
from workers import app
app.SHUTDOWN_S *= {PATIENCE}
sys.exit(app.run_worker(load_settings(), sys.argv[1], lambda: print("ready", flush=True)))
"""


class WorkerProcess:
    """A real worker in a process of its own; its log goes to a file."""

    def __init__(self, settings: Settings, queue: str, log: Path) -> None:
        self.log = log
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM, queue],
                env=child_environment(settings) | {"TOMONODE_THREADS": "2"},
                stdout=subprocess.PIPE,
                stderr=errors,
            )
        assert self._process.stdout is not None
        self._out = self._process.stdout

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def wait_ready(self) -> None:
        """Until it takes messages."""
        assert self._out.readline() == b"ready\n", self.log.read_text()

    def kill(self) -> None:
        """kill -9."""
        self._process.kill()
        self._process.wait(timeout=60)

    def terminate(self) -> int:
        """SIGTERM; returns the exit code."""
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(timeout=120)

    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._process.poll()

    def close(self) -> None:
        """End it whatever it does."""
        self.kill()
        self._out.close()


class WorkerNode:
    """Settings, database, blobs, and whatever was started with it."""

    def __init__(self, settings: Settings, stack: ExitStack) -> None:
        self.settings = settings
        self.db = Database(settings.db_url)
        self.blobs = BlobStore(settings.blob_root, settings.spool)
        self.version = model_version(settings)
        self._stack = stack
        self._redis: subprocess.Popen[bytes] | None = None
        stack.callback(self.stop_redis)

    def start_redis(self) -> None:
        """Start the broker."""
        self._redis = subprocess.Popen(
            redis_server.prepare(self.settings),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_until(lambda: redis_server.answers(self.settings), 20, "Redis to answer")

    def stop_redis(self) -> None:
        """kill -9 of the broker, with everything in it."""
        if self._redis is not None:
            self._redis.kill()
            self._redis.wait(timeout=60)
            self._redis = None

    def start(self, queue: str) -> WorkerProcess:
        """Start a worker, without waiting until it is ready."""
        worker = WorkerProcess(self.settings, queue, self.settings.home / f"{queue}.log")
        self._stack.callback(worker.close)
        return worker

    def receive(self, paths: Sequence[Path]) -> None:
        """File objects as the listener does: blob, then row."""
        for path in paths:
            content = path.read_bytes()
            digest = hashlib.sha256(content).hexdigest()
            spooled = self.settings.spool / uuid.uuid4().hex
            spooled.write_bytes(content)
            sync_file(spooled)
            with self.blobs.hold(spooled, digest), self.db.transaction() as session:
                arrivals.record(session, _arrival(path, digest), now(session))
            spooled.unlink()

    def complete(self, study_uid: str) -> None:
        """Close a study into a queued run."""
        with self.db.transaction() as session:
            studies.force_complete(session, study_uid, self.settings, self.version, now(session))

    def add_peer(self, name: str, port: int) -> None:
        """A DICOM peer on the loopback interface."""
        with self.db.transaction() as session:
            at: datetime = now(session)
            session.add(
                Peer(
                    name=name,
                    kind="DICOM",
                    ae_title="PACS",
                    host="127.0.0.1",
                    port=port,
                    created_at=at,
                )
            )

    def run(self, study_uid: str) -> Run:
        """The newest run of a study, with its images and artifacts loaded."""
        with self.db.reading() as session:
            query = select(Run).join(Study).where(Study.study_uid == study_uid)
            found = session.execute(query.order_by(Run.created_at.desc())).scalars().first()
            assert found is not None
            return _loaded(found, "images", "artifacts")

    def deliveries(self, run: Run) -> dict[str, Delivery]:
        """The deliveries of a run by peer, with their instances loaded."""
        with self.db.reading() as session:
            found = session.execute(select(Delivery).where(Delivery.run_id == run.id)).scalars()
            return {d.peer.name: _loaded(d, "instances") for d in found}

    def wait_run(self, study_uid: str, state: str, timeout_s: float = 120) -> Run:
        """Until the newest run of a study is in a state."""
        wait_until(lambda: self.run(study_uid).state == state, timeout_s, f"{state} of {study_uid}")
        return self.run(study_uid)

    def wait_delivery(
        self, study_uid: str, peer: str, state: str, timeout_s: float = 180
    ) -> Delivery:
        """Until the delivery of the newest run to a peer is in a state."""

        def there() -> bool:
            found = self.deliveries(self.run(study_uid)).get(peer)
            return found is not None and found.state == state

        wait_until(there, timeout_s, f"{state} to {peer} of {study_uid}")
        return self.deliveries(self.run(study_uid))[peer]


def _loaded(row: _Row, *names: str) -> _Row:
    for name in names:
        len(getattr(row, name))
    return row


def _arrival(path: Path, digest: str) -> Arrival:
    header = read_header(path)
    return Arrival(
        study_uid=header.study_instance_uid,
        series_uid=header.series_instance_uid,
        sop_uid=header.sop_instance_uid,
        sop_class_uid=header.sop_class_uid,
        transfer_syntax_uid=header.transfer_syntax_uid,
        is_image=True,
        sha256=digest,
        size_bytes=path.stat().st_size,
        laterality=header.laterality,
        view=header.view,
        frames=header.number_of_frames,
        patient_id=None,
        accession_number=None,
        study_date=header.study_date or None,
        calling_ae="TEST",
    )


@contextmanager
def worker_node(settings: Settings) -> Iterator[WorkerNode]:
    """A migrated node with its relay running; workers are started by the caller."""
    schema.upgrade(settings.db_url)
    stop = threading.Event()
    with ExitStack() as stack:
        node = WorkerNode(settings, stack)
        node.start_redis()
        thread = threading.Thread(target=relay.run, args=(settings, node.version, stop))
        thread.start()
        try:
            yield node
        finally:
            stop.set()
            thread.join(timeout=60)
            stack.close()
            node.db.dispose()
