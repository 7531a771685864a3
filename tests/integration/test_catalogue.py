"""The catalogue: what is listed and when, what queries find, and that it can be made again from the blobs.

Real files go in through `node.ingest`, results through `node.runs`; everything runs on SQLite and on PostgreSQL.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from pydicom import dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless, generate_uid
from sqlalchemy import delete, inspect, select, text, update
from sqlalchemy.exc import IntegrityError

from node import doctor, reruns, runs, schema, studies
from node.arrivals import Recorded
from node.blobs import BlobStore
from node.catalogue import query, rows
from node.catalogue.attributes import ATTRIBUTES, Level
from node.catalogue.match import BadKey
from node.catalogue.rebuild import Done, rebuild
from node.config import Settings
from node.db import Database, now
from node.exchange_models import CatalogueRow
from node.ingest import ingest
from node.models import Study
from node.spool import Command, SpoolFile
from tests.support.command import environment, tomonode
from tests.support.objects import BREAST_TOMOSYNTHESIS, data_set_bytes, write_object

MODEL = "test-model"
SEG = "1.2.840.10008.5.1.4.1.1.66.4"
SR = "1.2.840.10008.5.1.4.1.1.88.34"
MG = "1.2.840.10008.5.1.4.1.1.1.2"
OF_STUDY = [one.column.key for one in ATTRIBUTES.values() if one.level is Level.STUDY]


class Node:
    """One node's database and blobs, and its own ways in."""

    def __init__(self, db: Database, settings: Settings) -> None:
        self.db, self.settings = db, settings
        self.store = BlobStore.of(settings)
        self._folder = settings.home / "sent"
        self._folder.mkdir(parents=True)

    def receive(self, study: str, **attributes: object) -> str:
        """One object arrives; returns its SOP Instance UID."""
        syntax = str(attributes.pop("syntax", ExplicitVRLittleEndian))
        dataset = write_object(
            self._folder / "one.dcm", syntax, StudyInstanceUID=study, **attributes
        )
        return self.resend(dataset, syntax)[1]

    def resend(self, dataset: Dataset, syntax: str) -> tuple[Recorded, str]:
        """The file last written arrives, as it is."""
        asked = Command(dataset.SOPClassUID, dataset.SOPInstanceUID, syntax)
        file = SpoolFile.create(self.store, 0, asked)
        file.write(data_set_bytes((self._folder / "one.dcm").read_bytes()))
        try:
            recorded, arrival = ingest(file, self.store, self.db, "MAMMO1")
        finally:
            file.close()
            file.path.unlink()
        return recorded, arrival.sop_uid

    def close(self, study: str) -> uuid.UUID:
        """The study closes; returns its newest run."""
        with self.db.transaction() as session:
            studies.force_complete(session, study, self.settings, MODEL, now(session))
            newest = studies.newest_run_id(session, studies.find(session, study).id)
        assert newest is not None
        return newest

    def succeed(self, study: str, run_id: uuid.UUID) -> dict[str, str]:
        """The run makes a SEG, an SR and a picture; returns the UIDs of the objects by kind."""
        held = runs.claim(self.db, run_id, "w", self.settings)
        assert held is not None
        png = self.store.write(b"a picture")
        files = [runs.ArtifactFile("OVERLAY", "key.png", png, 9)]
        for kind, sop_class, number in (("SEG", SEG, 901), ("SR", SR, 902)):
            uid = str(generate_uid())
            content = result(study, uid, sop_class, kind, number)
            sha256 = self.store.write(content)
            files.append(
                runs.ArtifactFile(kind, f"{kind}.dcm", sha256, len(content), None, uid, sop_class)
            )
        assert runs.succeed(self.db, held, runs.Outcome({"name": MODEL}, [], files), self.settings)
        return {one.kind: one.sop_uid for one in files if one.sop_uid is not None}

    def find(self, level: Level, limit: int = 1000, offset: int = 0, **keys: str) -> list[Any]:
        """The UIDs that a query finds, in its order."""
        uid = {Level.STUDY: "StudyInstanceUID", Level.SERIES: "SeriesInstanceUID"}
        return [
            match.values[uid.get(level, "SOPInstanceUID")]
            for match in self.matches(level, limit, offset, **keys)
        ]

    def matches(
        self, level: Level, limit: int = 1000, offset: int = 0, **keys: str
    ) -> list[query.Match]:
        """What a query finds."""
        with self.db.reading() as session:
            return query.find(session, level, keys, limit, offset)

    def listed(self) -> set[str]:
        """SOP Instance UIDs of all objects that have a row."""
        return set(self.find(Level.IMAGE))

    def everything(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Every column of the catalogue, and every attribute of every study."""
        with self.db.reading() as session:
            listed = session.execute(select(CatalogueRow).order_by(CatalogueRow.sop_uid)).scalars()
            known = session.execute(select(Study).order_by(Study.study_uid)).scalars()
            columns = [one.key for one in inspect(CatalogueRow).columns]
            return (
                [{name: getattr(row, name) for name in columns} for row in listed],
                [{name: getattr(study, name) for name in folded_too()} for study in known],
            )

    def forget(self) -> None:
        """The catalogue as a database has it that was upgraded just now."""
        with self.db.transaction() as session:
            session.execute(delete(CatalogueRow))
            session.execute(update(Study).values(dict.fromkeys(new_columns())))

    def rebuild(self, only_missing: bool = False) -> list[Done]:
        """Make it again."""
        return list(rebuild(self.db, self.store, only_missing))


def folded_too() -> list[str]:
    return [*OF_STUDY, "patient_name_folded", "referring_physician_folded"]


def new_columns() -> list[str]:
    return [
        name
        for name in folded_too()
        if name not in ("study_uid", "patient_id", "accession_number", "study_date")
    ]


def result(study: str, uid: str, sop_class: str, modality: str, number: int) -> bytes:
    """A small result object of a series of its own."""
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class, uid
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study, f"{uid[:60]}.1"
    dataset.Modality, dataset.SeriesNumber, dataset.InstanceNumber = modality, number, 1
    dataset.SeriesDescription = "research, not for clinical use"
    dataset.PatientName = "Not^Taken"
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    buffer = BytesIO()
    dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


@pytest.fixture
def node(db: Database, any_settings: Settings) -> Node:
    """An empty node on each engine in turn."""
    return Node(db, any_settings)


@pytest.fixture
def embedded(settings: Settings) -> Iterator[Node]:
    """An empty node on SQLite, where the engine makes no difference."""
    schema.upgrade(settings.db_url)
    db = Database(settings.db_url)
    yield Node(db, settings)
    db.dispose()


def test_an_object_is_listed_with_what_its_header_says(node: Node) -> None:
    study = str(generate_uid())
    uid = node.receive(
        study, syntax=JPEG2000Lossless, SpecificCharacterSet="ISO_IR 192", PatientName="Müller^Eva=山田^花",
        PatientSex="F", StudyTime="0910", StudyID="S1", StudyDescription="Screening", StudyDate="2026.03.04",
        ReferringPhysicianName="Ärztin^A", SeriesNumber=3, InstanceNumber=7, NumberOfFrames=1, SeriesDate="20260304",
        SeriesTime="09:10:11", SeriesDescription="L CC\0", BodyPartExamined="BREAST", ImageLaterality="L",
        ViewPosition="CC", Manufacturer="Maker", PhotometricInterpretation="MONOCHROME2",
    )  # fmt: skip

    (match,) = node.matches(Level.IMAGE)

    assert match.values == {
        "StudyInstanceUID": study, "PatientName": "Müller^Eva=山田^花", "PatientID": "SECRET-ID",
        "PatientBirthDate": "19600101", "PatientSex": "F", "StudyDate": "20260304", "StudyTime": "0910",
        "AccessionNumber": "ACC1", "StudyID": "S1", "StudyDescription": "Screening",
        "ReferringPhysicianName": "Ärztin^A", "ModalitiesInStudy": ("MG",),
        "SOPClassesInStudy": (BREAST_TOMOSYNTHESIS,), "NumberOfStudyRelatedSeries": 1,
        "NumberOfStudyRelatedInstances": 1, "SeriesInstanceUID": match.values["SeriesInstanceUID"],
        "Modality": "MG", "SeriesNumber": 3, "SeriesDescription": "L CC", "SeriesDate": "20260304",
        "SeriesTime": "091011", "BodyPartExamined": "BREAST", "Laterality": "L", "SOPInstanceUID": uid,
        "SOPClassUID": BREAST_TOMOSYNTHESIS, "AvailableTransferSyntaxUID": JPEG2000Lossless,
        "InstanceNumber": 7, "ImageLaterality": "L", "NumberOfFrames": 1, "Rows": 16, "Columns": 16,
    }  # fmt: skip
    assert match.attributes["00080070"] == {"vr": "LO", "Value": ["Maker"]}
    assert match.attributes["00280100"] == {"vr": "US", "Value": [16]}
    assert not [tag for tag in match.attributes if tag.startswith("0010")]
    assert node.find(Level.STUDY, PatientName="muller*", ReferringPhysicianName="arztin^a") == [
        study
    ]
    assert node.find(Level.STUDY, PatientName="山田^*") == [study]


@pytest.mark.parametrize(
    ("character_set", "name", "key"),
    [
        ("ISO_IR 100", "Müller^Eva", "MULLER^EVA"),
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎", "山田^太郎"),
    ],
)
def test_names_are_found_whatever_their_character_set(
    embedded: Node, character_set: object, name: str, key: str
) -> None:
    study = str(generate_uid())
    embedded.receive(study, SpecificCharacterSet=character_set, PatientName=name)
    (match,) = embedded.matches(Level.STUDY, PatientName=key)
    assert match.values["PatientName"] == name


def test_only_what_may_be_given_out_is_listed(node: Node) -> None:
    study = str(generate_uid())
    dataset = write_object(node._folder / "one.dcm", StudyInstanceUID=study)
    syntax = str(ExplicitVRLittleEndian)
    assert node.resend(dataset, syntax)[0] is Recorded.NEW
    assert node.resend(dataset, syntax)[0] is Recorded.DUPLICATE
    write_object(
        node._folder / "one.dcm",
        StudyInstanceUID=str(generate_uid()),
        SOPInstanceUID=dataset.SOPInstanceUID,
        PatientName="Other^One",
    )
    assert node.resend(dataset, syntax)[0] is Recorded.CONFLICT
    assert node.listed() == {dataset.SOPInstanceUID}
    assert node.find(Level.STUDY) == [study]
    assert node.find(Level.STUDY, PatientName="Other*") == []


def test_results_are_listed_with_their_run_and_go_with_it(node: Node) -> None:
    study = str(generate_uid())
    image = node.receive(study)
    first = node.succeed(study, node.close(study))
    assert node.listed() == {image, *first.values()}
    (found,) = node.matches(Level.STUDY)
    assert found.values["ModalitiesInStudy"] == ("MG", "SEG", "SR")
    assert found.values["NumberOfStudyRelatedInstances"] == 3
    assert found.values["PatientName"] == "Secret^Name"  # never from a result

    with node.db.transaction() as session:  # an operator wants it again
        again = reruns.retry(
            session, studies.find(session, study), node.settings, MODEL, now(session)
        )
    assert node.listed() == {image}
    second = node.succeed(study, again)
    assert node.listed() == {image, *second.values()}

    late = node.receive(study)  # and a late image opens a new generation
    assert node.listed() == {image, late, *second.values()}
    node.close(study)
    assert node.listed() == {image, late}
    with node.db.reading() as session:
        assert rows.without_row(session) == 0


def test_results_in_shadow_are_not_listed(node: Node) -> None:
    study = str(generate_uid())
    image = node.receive(study)
    node.close(study)
    with node.db.transaction() as session:
        known = studies.find(session, study)
        shadow = studies.queue_run(
            session, known.id, 1, node.settings, "other", now(session), shadow=True
        )
        session.execute(text("UPDATE runs SET state = 'SUCCEEDED' WHERE NOT shadow"))
    node.succeed(study, shadow)
    assert node.listed() == {image}
    assert node.rebuild()
    assert node.listed() == {image}


def test_a_result_that_a_pacs_sends_back_stays_the_runs(node: Node) -> None:
    study = str(generate_uid())
    image = node.receive(study)
    made = node.succeed(study, node.close(study))
    returned = {"SOPInstanceUID": made["SEG"], "SOPClassUID": SEG, "Modality": "SEG"}
    assert node.receive(study, **returned) == made["SEG"]
    assert node.listed() == {image, *made.values()}
    with node.db.transaction() as session:
        reruns.retry(session, studies.find(session, study), node.settings, MODEL, now(session))
    assert node.listed() == {image}
    node.rebuild()
    assert node.listed() == {image}


def fill(node: Node) -> dict[str, str]:
    """Two studies: a screening with a result, and an older one of another patient that tells little."""
    new, old = "1.2.3.1", "1.2.3.2"
    known = {"StudyTime": "101500", "PatientName": "Doe^Jane", "PatientID": "P1"}
    tomo = {**known, "SeriesInstanceUID": "1.2.3.1.1", "SeriesNumber": 1}
    flat = {**known, "SeriesInstanceUID": "1.2.3.1.2", "SeriesNumber": 2, "SOPClassUID": MG}
    uids = {
        "L": node.receive(new, **tomo, InstanceNumber=2, ImageLaterality="L"),
        "R": node.receive(new, **tomo, InstanceNumber=1, ImageLaterality="R"),
        "2D": node.receive(new, **flat, Laterality="L", PresentationIntentType="FOR PRESENTATION"),
        "old": node.receive(
            old, SeriesInstanceUID="1.2.3.2.1", StudyDate="20240101", PatientName="Roe^Ann",
            PatientID="p1", SeriesNumber="", AccessionNumber="",
        ),
    }  # fmt: skip
    made = node.succeed(new, node.close(new))
    return {**uids, **made, "new study": new, "old study": old}


def test_studies_are_found(node: Node) -> None:
    uids = fill(node)
    new, old = uids["new study"], uids["old study"]
    study = Level.STUDY
    assert node.find(study) == [new, old]  # newest first
    assert node.find(study, limit=1) == [new]
    assert node.find(study, limit=1, offset=1) == [old]
    assert node.find(study, limit=0) == []
    for keys, expected in (
        ({"PatientID": "P1"}, [new]),
        ({"PatientID": "?1"}, [new, old]),
        ({"PatientName": "DOE^J*"}, [new]),
        ({"StudyDate": "20250101-"}, [new]),
        ({"StudyDate": "-20250101"}, [old]),
        ({"StudyDate": "20260304", "StudyTime": "10-11"}, [new]),
        ({"StudyTime": "-09"}, []),
        ({"AccessionNumber": "ACC?"}, [new]),
        ({"AccessionNumber": ""}, [new, old]),
        ({"StudyInstanceUID": f"{old}\\{new}"}, [new, old]),
        ({"StudyInstanceUID": "1.9"}, []),
        ({"ModalitiesInStudy": "SR"}, [new]),
        ({"ModalitiesInStudy": "SR\\MG"}, [new, old]),
        ({"ModalitiesInStudy": "SR", "SOPClassesInStudy": MG}, [new]),
        ({"Modality": "SR", "SOPClassUID": MG}, []),  # of one object, which none is
        ({"SeriesInstanceUID": "1.2.3.2.1"}, [old]),
        ({"SOPInstanceUID": uids["R"], "NumberOfStudyRelatedInstances": ""}, [new]),
        ({"PatientID": "P1", "SOPInstanceUID": uids["old"]}, []),
    ):
        assert node.find(study, **keys) == expected, keys
    first, second = node.matches(study)
    assert first.values["NumberOfStudyRelatedSeries"] == 4
    assert first.values["NumberOfStudyRelatedInstances"] == 5
    assert first.values["SOPClassesInStudy"] == tuple(sorted({SEG, SR, MG, BREAST_TOMOSYNTHESIS}))
    assert second.values["ModalitiesInStudy"] == ("MG",)
    assert second.values["AccessionNumber"] is None


def test_what_was_asked_for_does_not_narrow_counts(node: Node) -> None:
    uids = fill(node)
    (of_study,) = node.matches(Level.STUDY, Modality="SR")
    assert of_study.values["NumberOfStudyRelatedInstances"] == 5
    (of_series,) = node.matches(Level.SERIES, SOPInstanceUID=uids["L"])
    assert of_series.values["NumberOfSeriesRelatedInstances"] == 2


def test_series_are_found(node: Node) -> None:
    uids = fill(node)
    mixed, flat, seg, sr, old = node.matches(Level.SERIES)
    numbers = [one.values["SeriesNumber"] for one in (mixed, flat, seg, sr, old)]
    assert numbers == [1, 2, 901, 902, None]
    assert mixed.values["Laterality"] is None  # its objects do not agree
    assert flat.values["Laterality"] == "L"
    assert flat.attributes["00080068"]["Value"] == ["FOR PRESENTATION"]
    assert seg.values["SeriesDescription"] == "research, not for clinical use"
    assert sr.values["StudyInstanceUID"] == uids["new study"]
    assert old.values["PatientName"] == "Roe^Ann"
    series = Level.SERIES
    within = {"StudyInstanceUID": uids["new study"], "Modality": "MG"}
    assert node.find(series, limit=1, offset=1, **within) == ["1.2.3.1.2"]
    assert node.find(series, SeriesNumber="2") == ["1.2.3.1.2"]
    assert node.find(series, PatientName="roe*") == ["1.2.3.2.1"]
    beside = {"ModalitiesInStudy": "SR", "Modality": "MG", "SeriesNumber": "1"}
    assert node.find(series, **beside) == ["1.2.3.1.1"]
    assert node.find(series, limit=0) == []


def test_objects_are_found_and_held(node: Node) -> None:
    uids = fill(node)
    in_order = [uids[name] for name in ("R", "L", "2D", "SEG", "SR", "old")]
    assert node.find(Level.IMAGE) == in_order
    assert node.find(Level.IMAGE, limit=2, offset=1) == in_order[1:3]
    assert node.find(Level.IMAGE, SOPClassUID=f"{MG},{SR}") == [uids["2D"], uids["SR"]]
    assert node.find(Level.IMAGE, ImageLaterality="R") == [uids["R"]]
    assert node.find(Level.IMAGE, InstanceNumber="2", Rows="16") == [uids["L"]]
    with node.db.reading() as session:
        everything = query.held(session, [uids["new study"]])
        one = query.held(session, [uids["new study"]], ["1.2.3.1.1"], [uids["L"], uids["old"]])
        assert query.held(session) == []
        assert query.held(session, [uids["old study"]], ["1.2.3.1.1"]) == []
    assert [held.sop_uid for held in everything] == in_order[:5]
    assert [held.sop_uid for held in one] == [uids["L"]]
    for held in everything:
        assert node.store.path(held.sha256).stat().st_size == held.size_bytes


@pytest.mark.parametrize(
    "keys", [{"PatientComments": "x"}, {"StudyDate": "soon"}, {"SeriesNumber": "1-2"}]
)
def test_a_key_that_cannot_be_is_one_line(embedded: Node, keys: dict[str, str]) -> None:
    with pytest.raises(BadKey) as caught:
        embedded.find(Level.STUDY, **keys)
    assert "\n" not in str(caught.value)


def test_odd_headers_are_listed_all_the_same(node: Node) -> None:
    study = str(generate_uid())
    file = node._folder / "one.dcm"
    dataset = write_object(
        file, StudyInstanceUID=study, SeriesNumber="99999999999", InstanceNumber="12345678", StudyTime="morning",
        PatientBirthDate="unknown", PatientName="?Nul\0^Name", SeriesDescription="x" * 500, Modality="M" * 40,
        ImageType=["A" * 400] * 5,
    )  # fmt: skip
    file.write_bytes(file.read_bytes().replace(b"12345678", b"no digit"))
    _, uid = node.resend(dataset, str(ExplicitVRLittleEndian))
    (match,) = node.matches(Level.IMAGE)
    assert match.values["SOPInstanceUID"] == uid
    assert match.values["SeriesNumber"] is None
    assert match.values["InstanceNumber"] is None
    assert match.values["StudyTime"] is None
    assert match.values["PatientBirthDate"] is None
    assert match.values["SeriesDescription"] == "x" * 64
    assert "00080008" not in match.attributes
    assert node.find(Level.STUDY, PatientName="?nul^*") == [study]


def test_a_row_is_of_one_object(node: Node) -> None:
    fill(node)
    with pytest.raises(IntegrityError), node.db.transaction() as session:
        session.execute(update(CatalogueRow).values(instance_id=None))
    with pytest.raises(IntegrityError), node.db.transaction() as session:
        session.execute(update(CatalogueRow).values(sha256="short"))


def test_rebuilt_it_is_the_same(node: Node) -> None:
    fill(node)
    before = node.everything()
    assert len(before[0]) == 6

    node.forget()
    with node.db.reading() as session:
        assert rows.without_row(session) == 6
    assert node.find(Level.STUDY) == []
    done = node.rebuild(only_missing=True)
    assert node.everything() == before
    assert sum(one.listed for one in done) == 6
    assert node.rebuild(only_missing=True) == []

    with (
        node.db.transaction() as session
    ):  # rows that say something else, and one of a run that is over
        session.execute(update(CatalogueRow).values(modality="XX", attributes={}))
    node.rebuild()
    assert node.everything() == before


def test_what_cannot_be_read_is_named_and_costs_no_neighbour(node: Node) -> None:
    uids = fill(node)
    before = node.everything()
    with node.db.reading() as session:
        (held,) = query.held(session, sop_uids=[uids["L"]])
    node.store.path(held.sha256).unlink()
    done = node.rebuild()
    assert [uid for one in done for uid in one.unreadable] == [uids["L"]]
    assert node.everything() == before  # it keeps the row it has
    node.forget()
    node.rebuild()
    assert node.listed() == {uids[name] for name in ("R", "2D", "SEG", "SR", "old")}
    with node.db.reading() as session:
        assert rows.without_row(session) == 1


_KILLED = """
import os, signal, sys
from sqlalchemy import event
from sqlalchemy.orm import Session
from node.blobs import BlobStore
from node.catalogue import rebuild
from node.config import load_settings
from node.db import Database

commits = 0

@event.listens_for(Session, "before_commit")
def kill(session):
    global commits
    commits += 1
    if commits > int(sys.argv[1]):
        session.flush()
        os.kill(os.getpid(), signal.SIGKILL)  # everything is written and nothing committed

settings = load_settings()
rebuild._PART = 2
for done in rebuild.rebuild(Database(settings.db_url), BlobStore.of(settings)):
    pass
"""


def test_killed_at_any_commit_and_called_again_it_is_the_same(node: Node) -> None:
    fill(node)
    before = node.everything()
    env = environment(node.settings.home, DATABASE_URL=node.settings.db_url)
    node.forget()
    seen = []
    for commits in (0, 3):
        ended = subprocess.run(
            [sys.executable, "-c", _KILLED, str(commits)], env=env, cwd=Path.cwd(), check=False
        )
        assert ended.returncode == -signal.SIGKILL
        seen.append(len(node.listed()))
    assert seen[0] == 0
    assert 0 < seen[1] < 6
    node.rebuild(only_missing=True)
    assert node.everything() == before


def test_an_old_database_is_upgraded_listed_and_taken_back(node: Node) -> None:
    fill(node)
    before = node.everything()
    config = schema._config(node.settings.db_url)
    command.downgrade(config, "0002")
    with node.db.reading() as session:
        assert session.execute(text("SELECT count(*) FROM instances")).scalar_one() == 4
    schema.upgrade(node.settings.db_url)
    command.check(config)
    node.rebuild()
    assert node.everything() == before


def test_the_doctor_counts_and_the_command_mends(embedded: Node) -> None:
    fill(embedded)
    settings = embedded.settings

    def check() -> doctor.Check:
        return next(one for one in doctor.examine(settings) if one.name == "catalogue")

    assert check().ok
    embedded.forget()
    assert not check().ok
    assert check().found.startswith("6 objects")
    assert "catalogue rebuild" in check().mend

    env = environment(settings.home, DATABASE_URL=settings.db_url)
    done = tomonode("catalogue", "rebuild", "--missing", "--json", env=env)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"listed": 6, "unreadable": []}
    assert check().ok

    with embedded.db.reading() as session:
        (held, *_) = query.held(session, ["1.2.3.2"])
    embedded.store.path(held.sha256).unlink()
    done = tomonode("catalogue", "rebuild", env=env)
    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        "5 objects listed, 1 cannot be read",
        f"gone or damaged: {held.sop_uid}",
    ]
    assert "Roe" not in done.stdout + done.stderr
