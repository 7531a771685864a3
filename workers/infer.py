"""The inference worker: a claimed run, from blobs to blobs, and its end in the database."""

from __future__ import annotations

import time
import uuid
from functools import partial
from pathlib import Path

from structlog.contextvars import bound_contextvars

from dicom_io.findings import DocumentRef
from dicom_io.header import read_header
from node import log, runs
from node.blobs import BlobStore
from node.config import Settings
from node.db import Database
from node.errors import BlobAbsent, DatabaseUnavailable, DiskFull
from node.inputs import Input
from node.runs import ArtifactFile, Claim, Failure, Outcome
from workers.models import Models
from workers.pipeline import Analysis, analyse_study, run_context
from workers.results import Order, ResultFile
from workers.task import Check, Job, perform, persist
from workers.volumes import Source, Stopwatch

# A study's results are a few megabytes; without that much room nothing is claimed, and no attempt is used up.
_ROOM_BYTES = 64 * 2**20


class InferenceWorker:
    """Takes runs, one at a time. Make one a process; a model is loaded with the first run that names it."""

    def __init__(self, settings: Settings, name: str) -> None:
        """`name` is what the database calls this worker."""
        self._settings = settings
        self._name = name
        self._db = Database(settings.db_url)
        self._blobs = BlobStore.of(settings)
        self._models = Models(self._db, self._blobs, settings)

    def handle(self, run_id: uuid.UUID) -> str:
        """Claim a run and do it: "done", "lost", the state a failure led to, or "" where nothing was claimed."""
        try:
            self._blobs.require_room(_ROOM_BYTES)
            held = runs.claim(self._db, run_id, self._name, self._settings)
        except (DatabaseUnavailable, DiskFull) as error:
            # Still queued: the relay writes the message again.
            log.get().warning("run not claimed", code=error.code, error=str(error))
            return ""
        if held is None:
            return ""
        with bound_contextvars(
            study_id=str(held.study_id), run_id=str(run_id), attempt=held.attempt
        ):
            log.get().info("run claimed", count=len(held.inputs))
            job = Job(
                beat=partial(runs.heartbeat, self._db, run_id, held.attempt, self._settings),
                body=partial(self._body, held),
                fail=partial(self._fail, held),
            )
            return perform(job, self._settings.lease_s, self._settings.run_limit_s)

    def _body(self, held: Claim, check: Check) -> bool:
        watch = Stopwatch()
        with watch.stage("load"):
            readers = self._models.readers(held.model_version, shadow=held.shadow)
        artifacts: list[ArtifactFile] = []
        run = run_context(
            readers,
            str(held.run_id),
            held.created_at,
            self._settings.ae_title,
        )
        sources, unread = (
            [self._source(one, check) for one in some] for some in (held.inputs, held.unread)
        )
        analysis = Analysis(
            readers,
            lambda file: artifacts.append(self._keep(file)),
            check,
            watch,
            Order(held.kinds, self._predecessors(held), self._settings.spool),
        )
        images = analyse_study(sources, run, analysis, unread)
        check()
        outcome = Outcome(
            model=readers.card(),
            images=images,
            artifacts=artifacts,
            stage_seconds={stage: round(s, 3) for stage, s in watch.seconds.items()},
        )
        write = partial(runs.succeed, self._db, held, outcome, self._settings)
        return persist(write, check, self._settings.lease_s)

    def _source(self, one: Input, check: Check) -> Source:
        slices = tuple(partial(self._fetch, sha256, check) for sha256 in one.slices)
        find = partial(self._fetch, one.sha256, check)
        return Source(find, one.sop_uid, one.sop_class_uid, slices)

    def _keep(self, file: ResultFile) -> ArtifactFile:
        sha256 = self._blobs.make(file.write)
        return ArtifactFile(
            kind=file.kind,
            name=file.name,
            sha256=sha256,
            size_bytes=self._blobs.path(sha256).stat().st_size,
            source_sop_uid=file.source_sop_uid,
            sop_uid=file.sop_uid,
            sop_class_uid=file.sop_class_uid,
        )

    def _fetch(self, sha256: str, check: Check) -> Path:
        """An object of the study. Another host may be copying it at this moment: that is worth a short wait."""
        end = time.monotonic() + self._settings.retry_base_s
        while True:
            try:
                return self._blobs.fetch(sha256)
            except BlobAbsent:
                if time.monotonic() >= end:
                    raise
                time.sleep(min(1.0, self._settings.retry_base_s / 10))
                check()

    def _predecessors(self, held: Claim) -> dict[str, DocumentRef]:
        """The documents that this run's replace, by kind, as a document names them."""
        found = {}
        for kind, earlier in held.predecessors.items():
            series = read_header(self._blobs.fetch(earlier.sha256)).series_instance_uid
            found[kind] = DocumentRef(
                held.study_uid, series, earlier.sop_class_uid, earlier.sop_uid
            )
        return found

    def _fail(self, held: Claim, failure: Failure) -> str | None:
        return runs.fail(self._db, held, failure, self._settings)
