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
from node.runs import ArtifactFile, Claim, Failure, Outcome
from workers.models import Models
from workers.pipeline import Analysis, ResultFile, analyse_study, run_context
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
            predictor = self._models.get(held.model_version, shadow=held.shadow)
        artifacts: list[ArtifactFile] = []
        run = run_context(
            predictor.identity,
            str(held.run_id),
            held.created_at,
            self._settings.ae_title,
            self._predecessor(held),
        )
        sources = [
            Source(partial(self._fetch, i.sha256, check), i.sop_uid, i.sop_class_uid)
            for i in held.inputs
        ]
        analysis = Analysis(
            predictor, lambda file: artifacts.append(self._keep(file)), check, watch
        )
        images = analyse_study(sources, run, analysis)
        check()
        outcome = Outcome(
            model=predictor.identity.card(),
            images=images,
            artifacts=artifacts,
            stage_seconds={stage: round(s, 3) for stage, s in watch.seconds.items()},
        )
        write = partial(runs.succeed, self._db, held, outcome, self._settings)
        return persist(write, check, self._settings.lease_s)

    def _keep(self, file: ResultFile) -> ArtifactFile:
        return ArtifactFile(
            kind=file.kind,
            name=file.name,
            sha256=self._blobs.write(file.content),
            size_bytes=len(file.content),
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

    def _predecessor(self, held: Claim) -> DocumentRef | None:
        report = held.predecessor_sr
        if report is None:
            return None
        header = read_header(self._blobs.fetch(report.sha256))
        return DocumentRef(
            held.study_uid, header.series_instance_uid, report.sop_class_uid, report.sop_uid
        )

    def _fail(self, held: Claim, failure: Failure) -> str | None:
        return runs.fail(self._db, held, failure, self._settings)
