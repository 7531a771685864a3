"""Studies in every state, made through the node's own functions; for tests that look at them."""

from __future__ import annotations

import io
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from PIL import Image
from pydicom.uid import generate_uid
from sqlalchemy import select

from node import arrivals, deliveries, peers, runs, studies
from node.arrivals import Arrival, Recorded
from node.blobs import BlobStore
from node.config import Settings
from node.db import Database, now
from node.input_quality import Measured
from node.model_version import UNTRAINED
from node.models import Artifact, Delivery, Study
from node.runs import ArtifactFile, ImageOutcome, Outcome

BTO = "1.2.840.10008.5.1.4.1.1.13.1.3"
JPEG2000 = "1.2.840.10008.1.2.4.90"
SEG = "1.2.840.10008.5.1.4.1.1.66.4"
SR = "1.2.840.10008.5.1.4.1.1.88.34"
SCREENING = ("R-CC", "L-CC", "R-MLO", "L-MLO")
FRAMES = 60


class Factory:
    """Makes rows and blobs on one node."""

    def __init__(self, db: Database, settings: Settings) -> None:
        self.db = db
        self.settings = settings
        self.store = BlobStore(settings.blob_root, settings.spool)

    def arrive(self, study_uid: str, view: str = "R-CC", **changed: object) -> Recorded:
        """One object arrives; `changed` are other fields of `Arrival`, or `at`."""
        at = changed.pop("at", None) or datetime.now(UTC)
        assert isinstance(at, datetime)
        content = uuid.uuid4().bytes
        laterality, code = view.split("-")
        values: dict[str, object] = {
            "study_uid": study_uid,
            "series_uid": generate_uid(),
            "sop_uid": generate_uid(),
            "sop_class_uid": BTO,
            "transfer_syntax_uid": JPEG2000,
            "is_image": True,
            "sha256": self.store.write(content),
            "size_bytes": len(content),
            "laterality": laterality,
            "view": code,
            "frames": FRAMES,
            "patient_id": "PID-4711",
            "accession_number": "ACC-0815",
            "study_date": "20260301",
            "calling_ae": "MAMMO1",
            **changed,
        }
        with self.db.transaction() as session:
            return arrivals.record(session, Arrival(**values), at)  # type: ignore[arg-type]

    def receive(self, views: Sequence[str] = SCREENING, **changed: object) -> str:
        """A study arrives, an object a view; returns its UID."""
        study_uid = str(changed.pop("study_uid", None) or generate_uid())
        for view in views:
            self.arrive(study_uid, view, **changed)
        return study_uid

    def close(self, study_uid: str) -> uuid.UUID:
        """An operator closes the study; returns its newest run."""
        with self.db.transaction() as session:
            studies.force_complete(session, study_uid, self.settings, UNTRAINED, now(session))
        run_id = self.newest_run(study_uid)
        assert run_id is not None
        return run_id

    def queued(self, **changed: object) -> tuple[str, uuid.UUID]:
        """A study whose run is queued: its UID and the run."""
        study_uid = self.receive(**changed)  # type: ignore[arg-type]
        return study_uid, self.close(study_uid)

    def newest_run(self, study_uid: str) -> uuid.UUID | None:
        """The newest run of a study, of those that answer."""
        with self.db.reading() as session:
            study = studies.find(session, study_uid)
            return studies.newest_run_id(session, study.id)

    def claim(self, run_id: uuid.UUID, worker: str = "inference-1") -> runs.Claim:
        """A worker takes the run."""
        held = runs.claim(self.db, run_id, worker, self.settings)
        assert held is not None
        return held

    def fail(self, run_id: uuid.UUID, message: str, transient: bool = False) -> str | None:
        """A worker takes the run and fails; returns the state it went to."""
        held = self.claim(run_id)
        failure = runs.Failure("ImageRefused", message, transient)
        return runs.fail(self.db, held, failure, self.settings)

    def succeed(
        self,
        run_id: uuid.UUID,
        malignant: Mapping[str, float] | None = None,
        trained: bool = True,
        left_out: str | None = None,
        caveat: str = "",
        measured: Measured | None = None,
    ) -> None:
        """A worker takes the run and finds something: malignant scores by view; `left_out` is a view that is left out,
        `measured` what it measures of each other one."""
        held = self.claim(run_id)
        scores = malignant or {}
        views = self._views(held.study_id)
        images, files = [], []
        for sop_uid, view in views.items():
            if left_out == view:
                images.append(ImageOutcome(sop_uid, excluded_reason="4 frames, 45 frame items"))
                continue
            score = scores.get(view, 0.05)
            found = _image(sop_uid, view, score)
            images.append(replace(found, **vars(measured)) if measured else found)
            files += self._files(sop_uid, with_segmentation=score >= 0.5)
        files.append(self._dicom("SR", "sr.dcm", SR))
        model = {"name": "3D-GMIC", "version": "1", "trained": trained, "operating_point": 0.5}
        if caveat:
            model["caveat"] = caveat
        stages = {"decode": 3.2, "model": 14.8, "write": 0.9}
        outcome = Outcome(model, images, files, stages)
        assert runs.succeed(self.db, held, outcome, self.settings)

    def _views(self, study_id: uuid.UUID) -> dict[str, str]:
        with self.db.reading() as session:
            study = session.get_one(Study, study_id)
            return {one.sop_uid: f"{one.laterality}-{one.view}" for one in study.instances}

    def _files(self, sop_uid: str, with_segmentation: bool) -> list[ArtifactFile]:
        content = picture(sop_uid)
        name = f"key-{sop_uid}-31.png"
        files = [
            ArtifactFile("OVERLAY", name, self.store.write(content), len(content), sop_uid),
        ]
        if with_segmentation:
            files.append(self._dicom("SEG", f"seg-{sop_uid}.dcm", SEG, sop_uid))
        return files

    def _dicom(
        self, kind: str, name: str, sop_class: str, source: str | None = None
    ) -> ArtifactFile:
        content = kind.encode() + uuid.uuid4().bytes
        return ArtifactFile(
            kind, name, self.store.write(content), len(content), source, generate_uid(), sop_class
        )

    def peer(self, name: str = "PACS") -> None:
        """A DICOM destination for runs that end from now on."""
        with self.db.transaction() as session:
            peers.add(session, peers.dicom_peer(name, name, "127.0.0.1", 104, now(session)))

    def deliveries_of(self, run_id: uuid.UUID) -> list[uuid.UUID]:
        """The deliveries of a run."""
        with self.db.reading() as session:
            query = select(Delivery.id).where(Delivery.run_id == run_id).order_by(Delivery.id)
            return list(session.execute(query).scalars())

    def send(self, delivery_id: uuid.UUID) -> None:
        """The peer takes everything."""
        held = self._hold(delivery_id)
        answers = [deliveries.Answer(parcel.artifact_id, True, "0x0000") for parcel in held.parcels]
        assert deliveries.finish(self.db, held, answers, self.settings)

    def refuse(self, delivery_id: uuid.UUID, message: str, transient: bool = False) -> None:
        """The peer takes the first object and refuses the others."""
        held = self._hold(delivery_id)
        answers = [
            deliveries.Answer(parcel.artifact_id, index == 0, "0xA700" if index else "0x0000")
            for index, parcel in enumerate(held.parcels)
        ]
        failure = runs.Failure("PeerRefused", message, transient)
        deliveries.fail(self.db, held, answers, failure, self.settings)

    def _hold(self, delivery_id: uuid.UUID) -> deliveries.DeliveryClaim:
        held = deliveries.claim(self.db, delivery_id, "delivery-1", self.settings)
        assert held is not None
        return held

    def artifacts(self, run_id: uuid.UUID) -> list[Artifact]:
        """The files of a run."""
        with self.db.reading() as session:
            query = select(Artifact).where(Artifact.run_id == run_id).order_by(Artifact.name)
            return list(session.execute(query).scalars())


def picture(seed: str) -> bytes:
    """A small PNG that differs from seed to seed."""
    shade = sum(seed.encode()) % 200
    out = io.BytesIO()
    Image.new("L", (96, 160), shade).save(out, "PNG")
    return out.getvalue()


def _image(sop_uid: str, view: str, malignant: float) -> ImageOutcome:
    laterality, code = view.split("-")
    region = {
        "label": "malignant",
        "first_frame": 24,
        "last_frame": 33,
        "key_frame": 30,
        "centre_row": 1200.5,
        "centre_col": 640.0,
        "box": [1100, 560, 1300, 720],
        "score": malignant,
    }
    return ImageOutcome(
        sop_uid,
        laterality,
        code,
        FRAMES,
        score_benign=round(malignant / 3 + 0.1, 3),
        score_malignant=malignant,
        segments=int(malignant >= 0.5),
        regions=[region] if malignant >= 0.5 else [],
    )


def earlier(minutes: float) -> datetime:
    """That many minutes ago."""
    return datetime.now(UTC) - timedelta(minutes=minutes)
