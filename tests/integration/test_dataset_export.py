"""The de-identified copy of a data set: what is in it, what is not, and the way back."""

from __future__ import annotations

import csv
import hashlib
import json
import stat
from collections.abc import Callable, Iterator
from datetime import date, datetime
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import FileDataset

from node import schema
from node.cli import boundary
from node.datasets import store
from node.datasets.export import Exported, export
from node.db import Database
from node.errors import Conflict, NotFound
from node.learning_models import DatasetItem
from tests.conftest import make_settings
from tests.support.cohort import SINCE, Cohort
from workers.cli import TRUSTED, app

NAME, BORN, REFERRER, HOSPITAL = "Geheim^Gerda", "19551224", "Leak^Larry", "St. Elsewhere Hospital"


def identified(dataset: FileDataset) -> None:
    """A patient's data at the top, in a nested sequence and in private attributes."""
    dataset.PatientName, dataset.PatientBirthDate, dataset.PatientSex = NAME, BORN, "F"
    dataset.OtherPatientIDs, dataset.PatientAddress = "OLD-ID-77", "Milky Way 42"
    dataset.ReferringPhysicianName, dataset.InstitutionName = REFERRER, HOSPITAL
    dataset.PatientAge, dataset.AccessionNumber = "064Y", "ACC-SECRET"
    dataset.SeriesDescription = f"L CC of {NAME}"
    frame = dataset.PerFrameFunctionalGroupsSequence[0].FrameContentSequence[0]
    frame.FrameComments, frame.FrameAcquisitionDateTime = NAME, "20200102101112"
    dataset.private_block(0x0019, "VENDOR", create=True).add_new(1, "PN", NAME)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cohort]:
    """A node with a frozen data set `d` of six patients, the first with two exams."""
    home = tmp_path_factory.mktemp("home")
    settings = make_settings(home)
    schema.upgrade(settings.db_url)
    made = Cohort(Database(settings.db_url), settings, home / "made")
    for number in range(6):
        made.exam(
            f"SECRET-{number}", date(2020, 1, 2 + number), {"L": "malignant"}, edit=identified
        )
    made.exam("SECRET-0", date(2020, 2, 1), edit=identified)
    made.freeze("d", allow_one_class=True)
    yield made
    made.db.dispose()


@pytest.fixture(scope="module")
def exported(cohort: Cohort, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return export(cohort.db, cohort.settings, "d", tmp_path_factory.mktemp("out") / "copy")


def items_of(cohort: Cohort, name: str = "d") -> list[DatasetItem]:
    with cohort.db.reading() as session:
        return store.items(session, store.find(session, name).id)


def rows_of(exported: Exported) -> list[dict[str, str]]:
    with (exported.folder / "labels.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def files_of(exported: Exported) -> list[Path]:
    return sorted(path for path in exported.folder.rglob("*") if path.is_file())


def test_no_value_of_a_patient_is_in_any_byte(cohort: Cohort, exported: Exported) -> None:
    items = items_of(cohort)
    values = {NAME, "Geheim", "Gerda", BORN, REFERRER, "Leak", HOSPITAL, "Elsewhere", "OLD-ID-77", "Milky Way",
              "064Y", "ACC-SECRET", "SECRET", "20200102", "101112"}  # fmt: skip
    values |= {f"202001{2 + n:02d}" for n in range(6)} | {"20200201", "2020-01", "2020-12"}
    values |= {item.sop_uid for item in items} | {item.study_uid for item in items}
    values |= {item.patient for item in items} | {"tester"}
    source = cohort.blobs.path(items[0].sha256).read_bytes()
    assert b"SECRET" in source
    assert BORN.encode() in source

    for path in files_of(exported):
        content = path.read_bytes()
        assert [value for value in values if value.encode() in content] == [], path.name
        assert not [value for value in values if value in str(path.relative_to(exported.folder))]


def test_labels_and_manifest_describe_every_file(cohort: Cohort, exported: Exported) -> None:
    rows, items = rows_of(exported), items_of(cohort)
    manifest = json.loads((exported.folder / "manifest.json").read_text())
    way_back = json.loads(exported.key_file.read_text())

    assert len(rows) == len(items) == exported.images == 14
    assert manifest["notice"] == "Research use only, not for clinical use."
    assert manifest["held_back"] == []
    assert manifest["files"] == {row["file"]: row["sha256"] for row in rows}
    assert sum(manifest["images"].values()) == 14
    known = {item.sop_uid: item for item in items}
    for row in rows:
        item = known[way_back["uids"][row["sop_uid"]]]
        path = exported.folder / row["file"]
        assert hashlib.sha256(path.read_bytes()).hexdigest() == row["sha256"]
        assert (row["split"], row["laterality"], row["view"]) == (
            item.split,
            item.laterality,
            item.view,
        )
        assert (row["malignant"], row["benign"]) == (str(int(item.malignant)), "0")
        assert (row["age"], row["thickness_mm"]) == ("60-69", "50")
        assert way_back["patients"][row["patient"]]["digest"] == item.patient
        copy, source = dcmread(path), dcmread(cohort.blobs.path(item.sha256))
        assert (copy.PatientID, copy.StudyInstanceUID) == (row["patient"], row["study_uid"])
        assert copy.PixelData == source.PixelData


def test_a_patients_days_keep_their_distance(cohort: Cohort, exported: Exported) -> None:
    way_back = json.loads(exported.key_file.read_text())
    days: dict[str, set[date]] = {}
    for row in rows_of(exported):
        copy = dcmread(exported.folder / row["file"], stop_before_pixels=True)
        moved = datetime.strptime(copy.StudyDate, "%Y%m%d").date()
        days.setdefault(row["patient"], set()).add(moved)

    spans = sorted((max(found) - min(found)).days for found in days.values())
    assert spans == [0, 0, 0, 0, 0, 30]
    shifts = [entry["days"] for entry in way_back["patients"].values()]
    assert all(-3650 <= shift <= -1 for shift in shifts)
    assert len(set(shifts)) > 1


def test_the_way_back_is_the_owners_alone_and_not_in_the_export(exported: Exported) -> None:
    assert stat.S_IMODE(exported.key_file.stat().st_mode) == 0o600
    assert exported.folder not in exported.key_file.parents


def test_the_same_export_again_is_the_same_files(
    cohort: Cohort, exported: Exported, tmp_path: Path
) -> None:
    again = export(cohort.db, cohort.settings, "d", tmp_path / "again")

    one, two = files_of(exported), files_of(again)
    assert [path.relative_to(exported.folder) for path in one] == [
        p.relative_to(again.folder) for p in two
    ]
    assert all(a.read_bytes() == b.read_bytes() for a, b in zip(one, two, strict=True))


def test_two_data_sets_cannot_be_joined(cohort: Cohort, exported: Exported, tmp_path: Path) -> None:
    cohort.freeze("e", window_days=300, allow_one_class=True)

    other = export(cohort.db, cohort.settings, "e", tmp_path / "other")

    for column in ("patient", "study_uid", "sop_uid"):
        assert not {row[column] for row in rows_of(exported)} & {
            row[column] for row in rows_of(other)
        }


def test_a_folder_that_holds_something_is_left_alone(cohort: Cohort, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")

    with pytest.raises(Conflict, match="not empty"):
        export(cohort.db, cohort.settings, "d", tmp_path)
    with pytest.raises(NotFound, match="no data set"):
        export(cohort.db, cohort.settings, "nothing", tmp_path / "new")
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def stating(annotation: str) -> Callable[[FileDataset], None]:
    def edit(dataset: FileDataset) -> None:
        dataset.BurnedInAnnotation, dataset.RecognizableVisualFeatures = annotation, "NO"

    return edit


def test_what_cannot_be_exported_is_held_back_with_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = make_settings(tmp_path / "home")
    schema.upgrade(settings.db_url)
    node = Cohort(Database(settings.db_url), settings, tmp_path / "made")
    node.few(3)
    annotated = node.exam("A", SINCE, edit=stating("YES"))
    unstated = node.exam("B", SINCE, edit=stating(""))
    gone = node.exam("C", SINCE)
    changed = node.exam("D", SINCE)
    node.freeze("d", allow_one_class=True)
    for item in items_of(node):
        blob = node.blobs.path(item.sha256)
        if item.study_uid == gone:
            blob.unlink()
        elif item.study_uid == changed:
            blob.write_bytes(blob.read_bytes()[:-2] + b"\1\1")

    done = export(node.db, settings, "d", tmp_path / "out")

    way_back = json.loads(done.key_file.read_text())["uids"]
    studies = {item.sop_uid: item.study_uid for item in items_of(node)}
    found = {(studies[way_back[one.sop_uid]], one.code) for one in done.held_back}
    assert found == {
        (annotated, "burned-in"), (unstated, "unstated"), (gone, "missing"), (changed, "changed"),
    }  # fmt: skip
    assert (done.images, len(done.held_back)) == (6, 8)
    monkeypatch.setenv("TOMONODE_HOME", str(settings.home))
    out = tmp_path / "looked-at"
    assert (
        boundary.run(app, ["dataset", "export", "d", str(out), "--unstated-annotation"], TRUSTED)
        == 0
    )
    said = capsys.readouterr().out
    assert "8 images in" in said
    assert "Research use only" in said
    assert len(list(out.rglob("*.dcm"))) == 8
    node.db.dispose()
