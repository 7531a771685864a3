"""A node whose objects come over real associations and whose runs are done by the real worker, in this process.

There is no relay and no broker: the test says when a study closes and when its run starts.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import select

from node import studies, views
from node.blobs import BlobStore
from node.config import Settings
from node.db import Database, now
from node.model_version import model_version
from node.models import Run, Study
from tests.support.listening import running, send
from workers.infer import InferenceWorker


@dataclass
class ReadingNode:
    """See above."""

    settings: Settings
    port: int
    db: Database
    worker: InferenceWorker

    def send(self, *files: Path) -> None:
        """Over one association; every object is taken."""
        assert set(send(self.settings, self.port, *files)) == {"0x0000"}

    def close(self, study_uid: str) -> None:
        """Close a study, as the relay does."""
        version = model_version(self.settings)
        with self.db.transaction() as session:
            studies.force_complete(session, study_uid, self.settings, version, now(session))

    def read(self, study_uid: str) -> Run:
        """Close a study and run it, as the relay and the broker do; the run with its results."""
        self.close(study_uid)
        with self.db.reading() as session:
            query = select(Run).join(Study).where(Study.study_uid == study_uid)
            newest = session.execute(query.order_by(Run.created_at.desc())).scalars().first()
            assert newest is not None
            run_id = newest.id
        assert self.worker.handle(run_id) == "done"
        with self.db.reading() as session:
            run = session.get_one(Run, run_id)
            assert run.state == "SUCCEEDED", run.error
            assert run.images
            assert run.artifacts
            return run

    def file(self, run: Run, kind: str) -> Path:
        """The one file of a kind that a run made."""
        [found] = [artifact for artifact in run.artifacts if artifact.kind == kind]
        return BlobStore.of(self.settings).path(found.sha256)

    def objects(self, run: Run) -> list[tuple[str, Path]]:
        """Kind and file of every DICOM object that a run made."""
        store = BlobStore.of(self.settings)
        return [(one.kind, store.path(one.sha256)) for one in run.artifacts if one.sop_uid]

    def page(self, study_uid: str) -> views.StudyPage:
        """What the study's page and `study show` are made of."""
        with self.db.reading() as session:
            return views.study_page(session, study_uid, self.settings, now(session))


@contextmanager
def reading_node(settings: Settings) -> Iterator[ReadingNode]:
    """A listener and a worker with these settings."""
    with running(settings) as listener:
        db = Database(settings.db_url)
        try:
            yield ReadingNode(settings, listener.port, db, InferenceWorker(settings, "test"))
        finally:
            db.dispose()
