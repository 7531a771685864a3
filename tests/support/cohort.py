"""Exams of several patients, as small phantom objects in a node's blob store, with labels; for data sets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zlib import crc32

from pydicom.dataset import FileDataset

from dicom_io.header import read_header
from dicom_io.phantom import PhantomView, write_study
from dicom_io.syntaxes import BREAST_TOMOSYNTHESIS, MAMMOGRAPHY_PRESENTATION
from node import arrivals, studies
from node.arrivals import Arrival
from node.blobs import BlobStore
from node.config import Settings
from node.datasets.freeze import Frozen, Wish, freeze
from node.datasets.rule import Rule
from node.db import Database, now
from node.labels.store import add_assessment, add_pathology
from node.labels.values import FINDINGS
from node.model_version import UNTRAINED
from tests.support.breast_objects import edited, volume

SINCE, UNTIL = date(2020, 1, 1), date(2020, 12, 31)
_IMAGES = (BREAST_TOMOSYNTHESIS, MAMMOGRAPHY_PRESENTATION)
_SHAPE = (2, 24, 16)


class Cohort:
    """Makes exams on one node. The same arguments give the same UIDs and bytes on every node."""

    def __init__(self, db: Database, settings: Settings, folder: Path) -> None:
        self.db, self.settings, self.folder = db, settings, folder
        self.blobs = BlobStore(settings.blob_root, settings.spool)

    def exam(
        self,
        patient: str,
        day: date,
        findings: Mapping[str, str] | None = None,
        edit: Callable[[FileDataset], None] | None = None,
        closed: bool = True,
        kind: str = "tomosynthesis",
    ) -> str:
        """A study of both breasts, one view each, with pathology by laterality; returns its UID."""
        seed = crc32(f"{patient} {day} {kind}".encode())
        shape = (1 if kind == "mammogram" else _SHAPE[0], *_SHAPE[1:])
        views = [
            PhantomView(side, "CC", volume(side, shape, seed % 1000), (0.1, 0.1), kind=kind)  # type: ignore[arg-type]
            for side in "LR"
        ]
        made = write_study(
            self.folder / str(seed),
            views,
            seed=seed,
            patient_id=patient,
            study_date=f"{day:%Y%m%d}",
        )
        for path in made.files:
            self.receive(edited(path, edit) if edit else path)
        if closed:
            self.close(made.study_instance_uid)
        for side, finding in (findings or {}).items():
            self.label(made.study_instance_uid, side, finding, day + timedelta(days=30))
        return made.study_instance_uid

    def receive(self, path: Path) -> None:
        """File one object as the listener does."""
        header = read_header(path)
        content = path.read_bytes()
        arrival = Arrival(
            study_uid=header.study_instance_uid,
            series_uid=header.series_instance_uid,
            sop_uid=header.sop_instance_uid,
            sop_class_uid=header.sop_class_uid,
            transfer_syntax_uid=header.transfer_syntax_uid,
            is_image=header.sop_class_uid in _IMAGES,
            sha256=self.blobs.write(content),
            size_bytes=len(content),
            laterality=header.laterality,
            view=header.view,
            frames=header.number_of_frames,
            patient_id=header.patient_id or None,
            accession_number=header.accession_number or None,
            study_date=header.study_date or None,
            calling_ae="TEST",
        )
        with self.db.transaction() as session:
            arrivals.record(session, arrival, now(session))

    def close(self, study_uid: str) -> None:
        """An operator closes the study."""
        with self.db.transaction() as session:
            studies.force_complete(session, study_uid, self.settings, UNTRAINED, now(session))

    def label(self, study_uid: str, side: str, finding: str, found_on: date) -> None:
        """What pathology said of one breast: a word of `node.labels.values.FINDINGS`; BI-RADS 4 with it."""
        benign, malignant = FINDINGS[finding]
        with self.db.transaction() as session:
            study = studies.find(session, study_uid)
            add_pathology(
                session, study, side, benign=benign, malignant=malignant, found_on=found_on,
                source="test", author="tester", at=datetime.now(UTC),
            )  # fmt: skip
            add_assessment(
                session,
                study,
                side,
                category=4,
                source="test",
                author="tester",
                at=datetime.now(UTC),
            )

    def ten(self, backwards: bool = False) -> list[str]:
        """Ten patients with an exam each, a month apart: malignant and benign in turn, the last one both; the other
        breast is negative. UIDs are in the order of the exams."""
        words = [*("malignant", "benign") * 4, "malignant", "both"]
        order = reversed(range(10)) if backwards else range(10)
        uids = {
            n: self.exam(f"SECRET-{n}", SINCE + timedelta(days=30 * n), {"LR"[n % 2]: words[n]})
            for n in order
        }
        return [uids[n] for n in range(10)]

    def few(self, count: int = 5) -> list[str]:
        """So many patients with a negative exam each, on one day after the other."""
        return [self.exam(f"SECRET-{n}", SINCE + timedelta(days=n)) for n in range(count)]

    def freeze(self, name: str = "first", **changed: object) -> Frozen:
        """Freeze the year; `changed` are fields of the rule, or `allow_one_class`."""
        allowed = bool(changed.pop("allow_one_class", False))
        rule = Rule(**{"since": SINCE, "until": UNTIL, **changed})  # type: ignore[arg-type]
        return freeze(self.db, self.settings, Wish(name, rule, "tester", allowed))
