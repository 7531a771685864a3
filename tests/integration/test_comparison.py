"""A version measured beside the active one on stored DICOM images: the page, the row, what is left out, and a kill."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from dicom_io.header import read_header
from dicom_io.phantom import PhantomView, write_study
from node import registry, schema
from node.blobs import BlobStore
from node.config import Settings
from node.datasets.digests import patient_digest
from node.datasets.secret import key_path, load_key
from node.db import Database, now
from node.errors import Conflict, NotFound
from node.labels import boxes
from node.labels.masks import MaskOutcome, MaskWishes, import_masks
from node.labels.values import Box
from node.learning_models import DatasetItem, Evaluation, TrainingRun
from node.promotion import Signed, Terms
from tests.conftest import make_settings
from tests.support.cohort import Cohort
from tests.support.command import environment, tomonode
from tests.support.drawings import draw, rectangle
from tests.support.versions import freeze, weights_file
from tests.unit.workers.breasts import breast
from workers.comparison import evaluate_version
from workers.models import register_file

SHAPE = (2, 448, 320)
FORCED = Signed("ann", reason="first of all", override=True)
SPLITS = ("test",) * 6 + ("valid",) * 4 + ("train",) * 2


class Bench:
    """A node with two versions, `small-1` active, and a data set `d1` of twelve patients with one image each."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        schema.upgrade(settings.db_url)
        self.settings = settings
        self.folder = folder
        self.db = Database(settings.db_url)
        load_key(settings.home, make=True)
        self.blobs = BlobStore(settings.blob_root, settings.spool)
        for seed in (1, 2):
            self.add_version(seed)
        with self.db.transaction() as session:
            registry.promote(session, "small-1", FORCED, Terms(), now(session))
        self.items = [self._item(n, split) for n, split in enumerate(SPLITS)]
        self.freeze("d1", self.items)

    def add_version(self, seed: int, **more: object) -> None:
        """Register small weights drawn from a seed."""
        register_file(self.db, self.blobs, weights_file(self.folder, seed), "ann", "CC0", **more)

    def freeze(self, name: str, items: Sequence[dict[str, object]]) -> None:
        """A data set of these images."""
        with self.db.transaction() as session:
            freeze(session, name, [DatasetItem(**item) for item in items])

    def _item(self, number: int, split: str) -> dict[str, object]:
        side = "L" if number % 2 else "R"
        views = [PhantomView(side, "CC", breast(side, SHAPE, number), (0.1, 0.1))]  # type: ignore[arg-type,list-item]
        patient = f"patient-{number}"
        path = write_study(self.folder / str(number), views, seed=number, patient_id=patient).files[
            0
        ]
        header = read_header(path)
        return {
            "sop_uid": header.sop_instance_uid, "sop_class_uid": header.sop_class_uid,
            "sha256": self.blobs.write(path.read_bytes()), "study_uid": header.study_instance_uid,
            "patient": patient, "laterality": side, "view": "CC", "split": split,
            "benign": number % 3 == 0, "malignant": number % 2 == 0,
            "strata": {"manufacturer": "Phantom", "site": None, "thickness_mm": 45, "age": "50-59"},
        }  # fmt: skip

    def evaluate(self, version: str, dataset: str = "d1", **more: object) -> Evaluation:
        """Measure a version."""
        return evaluate_version(self.db, self.settings, version, dataset, **more)  # type: ignore[arg-type]

    def page(self, row: Evaluation) -> str:
        """The page of an evaluation."""
        return self.blobs.path(row.report_sha256).read_text()

    def cached(self) -> int:
        """Scores on disk."""
        return len(list((self.settings.home / "scores").rglob("*.json")))


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    found = Bench(make_settings(tmp_path / "home", threads=1), tmp_path)
    yield found
    found.db.dispose()


class Killed(BaseException):
    """Stands for a kill: nothing in the program catches it."""


def test_a_candidate_is_measured_beside_the_active_version(bench: Bench) -> None:
    row = bench.evaluate("small-2")
    summary = row.summary
    assert (summary["version"], summary["against"], summary["dataset"]) == (
        "small-2", "small-1", "d1",
    )  # fmt: skip
    assert (summary["images"], summary["patients"]) == (6, 6)
    malignant = summary["breast"]["malignant"]
    assert malignant["positives"] == 3
    assert malignant["difference"]["low"] <= malignant["difference"]["high"]
    assert {p["wanted"] for p in summary["operating_points"]} == {
        "sensitivity 0.9",
        "specificity 0.9",
    }
    assert summary["failed"] == []
    page = bench.blobs.path(row.report_sha256).read_text()
    assert "small-2 against small-1" in page
    assert "patient-" not in page, "patients are numbers in it"
    assert "No image of the test split has a mask or a box" in page
    # two classes, of which each has negatives and positives: as many kinds of worst cases, of the candidate alone
    shown = re.findall(r"<h3>(small-[12]): (.*)</h3>", page)
    assert [what for name, what in shown if name == "small-2"] == [
        "not malignant, highest scores", "malignant, lowest scores",
        "not benign, highest scores", "benign, lowest scores",
    ]  # fmt: skip
    assert len(shown) == 4
    assert page.count("data:image/webp") == 3 + 3 + 4 + 2
    assert len(page) < 3_000_000
    assert "Research use only, not for clinical use" in page
    with bench.db.reading() as session:
        (kept,) = registry.evaluations(session, registry.find(session, "small-2").id)
        active = registry.active(session)
        assert active is not None
        assert (kept.id, kept.against_id) == (row.id, active.id)
    assert bench.cached() == 2 * 10
    again = bench.evaluate("small-2")
    assert {k: v for k, v in again.summary.items() if k != "versions_measured"} == {
        k: v for k, v in summary.items() if k != "versions_measured"
    }


def test_what_readers_drew_is_measured_on_both_versions(bench: Bench, tmp_path: Path) -> None:
    """A mask on one test image, a box on another; withdrawn, they count no more, and no image is read again."""
    cohort = Cohort(bench.db, bench.settings, tmp_path)
    files = [next((tmp_path / str(n)).glob("*.dcm")) for n in (0, 1)]
    for file in files:
        cohort.receive(file)
    mask = rectangle(SHAPE[1:], 200, 200, 30, 40)
    seg = draw(tmp_path / "seg.dcm", files[0], ("malignant", {0: mask, 1: mask}))
    [taken] = import_masks(bench.db, bench.blobs, [seg], MaskWishes("anna"))
    assert taken.outcome is MaskOutcome.WRITTEN
    signed = {"source": "a test", "author": "anna"}
    with bench.db.transaction() as session:
        image = boxes.find_image(session, str(bench.items[1]["sop_uid"]))
        box = Box(1, 200, 100, 40, 40)
        boxes.add_annotation(session, image, box, label="benign", at=now(session), **signed)  # type: ignore[arg-type]
    row = bench.evaluate("small-2")
    summary, page = row.summary, bench.blobs.path(row.report_sha256).read_text()
    assert summary["annotations"] == {"images": 2, "lesions": 2, "masks": 1}
    assert [(one["class"], one["version"], one["images"]) for one in summary["segmentation"]] == [
        ("malignant", "small-2", 1), ("malignant", "small-1", 1),
    ]  # fmt: skip
    assert all(0 < one["dsc"] < 1 and 0 < one["pxap"] < 1 for one in summary["segmentation"])
    assert summary["segmentation"][0]["dsc"] != summary["segmentation"][1]["dsc"]
    assert [(one["version"], one["lesions"]) for one in summary["detection"]] == [
        ("small-2", 2), ("small-1", 2),
    ]  # fmt: skip
    for words in (
        "Outlines of lesions",
        "Detection of lesions",
        "Readers drew 2 lesions on 2 images",
    ):
        assert words in page
    read: list[str] = []
    again = bench.evaluate("small-2", say=read.append)
    assert (again.summary["segmentation"], read) == (summary["segmentation"], [])
    with bench.db.transaction() as session:
        for n in (0, 1):
            image = boxes.find_image(session, str(bench.items[n]["sop_uid"]))
            boxes.withdraw(session, image, 1, at=now(session), **signed)  # type: ignore[arg-type]
    last = bench.evaluate("small-2").summary
    assert (last["annotations"], last["segmentation"]) == (None, [])
    assert last["breast"] == summary["breast"]


def test_killed_it_loses_one_image(bench: Bench) -> None:
    seen: list[str] = []

    def kill_in_the_fourth_image(line: str) -> None:
        seen.append(line)
        if len(seen) == 4:
            raise Killed

    with pytest.raises(Killed):
        bench.evaluate("small-2", say=kill_in_the_fourth_image)
    assert bench.cached() == 2 * 4
    torn = next((bench.settings.home / "scores").rglob("*.json"))
    torn.write_text('{"benign": 0.')  # what a power cut leaves
    rest: list[str] = []
    row = bench.evaluate("small-2", say=rest.append)
    assert rest[-1] == "image 7 of 7"
    assert row.summary["images"] == 6
    fresh = bench.evaluate("small-2")
    assert fresh.summary["breast"] == row.summary["breast"]


def test_nobody_is_tested_whom_a_model_learned_from(bench: Bench) -> None:
    """Neither from an earlier data set, nor through the version it was trained from."""
    learned = [{**item, "split": "train"} for item in bench.items[:2]]
    bench.freeze("d0", learned)
    with bench.db.transaction() as session:
        dataset = bench_dataset(session, "d0")
        training = training_from(session, dataset, "small-3")
    bench.add_version(3, dataset_id=dataset)
    bench.add_version(4, training_run_id=training)
    for version in ("small-3", "small-4"):
        summary = bench.evaluate(version).summary
        assert (summary["patients"], summary["learned_patients_left_out"]) == (4, 2)
    assert summary["versions_measured"] == 2
    bench.freeze("d2", [{**item, "split": "test"} for item in bench.items[:2]])
    with pytest.raises(Conflict, match="no patient that no version learned from"):
        bench.evaluate("small-3", "d2")


def test_patients_of_another_secret_are_not_taken_for_others(bench: Bench, tmp_path: Path) -> None:
    """With another secret the patients that a version learned from match nobody, and would be tested."""
    cohort = Cohort(bench.db, bench.settings, tmp_path)
    for number in range(3):
        cohort.receive(next((tmp_path / str(number)).glob("*.dcm")))
    path = key_path(bench.settings.home)

    def named(numbers: Sequence[int], split: str) -> list[dict[str, object]]:
        key = load_key(bench.settings.home)
        digests = {
            n: patient_digest(key, f"patient-{n}", str(bench.items[n]["study_uid"]))
            for n in numbers
        }
        return [{**bench.items[n], "patient": digests[n], "split": split} for n in numbers]

    bench.freeze("learned", named((0, 1), "train"))
    bench.freeze("asked", named((0, 1, 2), "test"))
    kept = path.read_bytes()
    with bench.db.transaction() as session:
        bench_learned = bench_dataset(session, "learned")
    bench.add_version(3, dataset_id=bench_learned)
    summary = bench.evaluate("small-3", "asked").summary
    assert (summary["patients"], summary["learned_patients_left_out"]) == (1, 2)
    path.unlink()
    with pytest.raises(Conflict, match=r"datasets\.key is missing.*put back the copy"):
        bench.evaluate("small-3", "asked")
    assert not path.exists(), "none is made"
    load_key(bench.settings.home, make=True)
    bench.freeze("other", named((0, 1, 2), "test"))  # a host that made a secret of its own
    with pytest.raises(Conflict, match=r"data set '(learned|asked)' was not frozen with secret"):
        bench.evaluate("small-3", "asked")
    path.write_bytes(kept)
    with pytest.raises(Conflict, match="data set 'other' was not frozen with secret"):
        bench.evaluate("small-3", "other")
    assert bench.evaluate("small-3", "asked").summary["learned_patients_left_out"] == 2
    path.unlink()
    assert bench.evaluate("small-2", "asked").summary["patients"] == 3, (
        "one data set needs no secret"
    )


def test_no_threshold_is_chosen_on_patients_that_a_model_was_trained_on(bench: Bench) -> None:
    plain = bench.evaluate("small-2")
    assert plain.summary["trained_patients_left_out_of_thresholds"] == 0
    assert "left out of the choice of thresholds" not in bench.page(plain)
    bench.freeze("d0", [{**bench.items[6], "split": "train"}, {**bench.items[7], "split": "valid"}])
    with bench.db.transaction() as session:
        dataset = bench_dataset(session, "d0")
        training = training_from(session, dataset, "small-3")
    bench.add_version(3, dataset_id=dataset)
    bench.add_version(4, training_run_id=training)
    for version in ("small-3", "small-4"):
        row = bench.evaluate(version)
        assert row.summary["trained_patients_left_out_of_thresholds"] == 1
        assert "1 patients of the validation split are left out of the choice" in bench.page(row)
        # of images 6 to 9 the even ones are malignant
        assert "the validation split has 1 malignant and 2 other breasts" in bench.page(row)


def test_a_validation_split_of_which_nothing_is_left_is_said(bench: Bench) -> None:
    bench.freeze("d0", [{**item, "split": "train"} for item in bench.items[6:10]])
    with bench.db.transaction() as session:
        dataset = bench_dataset(session, "d0")
    bench.add_version(3, dataset_id=dataset)
    row = bench.evaluate("small-3")
    assert row.summary["operating_points"] == []
    assert "4 patients of the validation split are left out" in bench.page(row)
    assert "the validation split has 0 malignant and 0 other breasts" in bench.page(row)


def bench_dataset(session, name):  # type: ignore[no-untyped-def]
    from node.datasets import store

    return store.find(session, name).id


def training_from(session, dataset_id, base):  # type: ignore[no-untyped-def]
    at = now(session)
    row = TrainingRun(
        dataset_id=dataset_id, base_version=base, recipe="r", config={}, seed=1, request_hash="h", code_version="0",
        requested_by="ann", not_before=at, time_limit_s=1.0, disk_limit_mb=1, created_at=at,
    )  # fmt: skip
    session.add(row)
    session.flush()
    return row.id


def test_images_that_cannot_be_read_are_named(bench: Bench) -> None:
    gone, black = (str(bench.items[n]["sha256"]) for n in (0, 1))
    bench.blobs.path(gone).unlink()
    bench.blobs.path(black).chmod(0o644)
    bench.blobs.path(black).write_bytes(b"no DICOM at all")
    summary = bench.evaluate("small-2").summary
    assert summary["images"] == 4
    reasons = {one["sop_uid"]: one["reason"] for one in summary["failed"]}
    assert set(reasons) == {bench.items[0]["sop_uid"], bench.items[1]["sop_uid"]}
    assert reasons[str(bench.items[0]["sop_uid"])] == "its file is not in the blob store"
    assert summary["failed_alone"] == 0, "both versions failed on them"


def test_what_cannot_be_compared(bench: Bench) -> None:
    bench.freeze("empty", [{**item, "split": "train"} for item in bench.items])
    for version, dataset, against, kind, words in (
        ("small-2", "empty", None, Conflict, "test split of data set 'empty' is empty"),
        ("small-2", "d1", "small-2", Conflict, "with itself"),
        ("nobody", "d1", None, NotFound, "no model 'nobody'"),
        ("small-2", "nothing", None, NotFound, "no data set 'nothing'"),
    ):
        with pytest.raises(kind, match=words):
            bench.evaluate(version, dataset, against=against)
    alone = bench.evaluate("small-1")
    assert (alone.against_id, alone.summary["against"]) == (None, None)


def test_from_the_command_line(bench: Bench, tmp_path: Path) -> None:
    env = environment(bench.settings.home)
    page = tmp_path / "page.html"
    done = tomonode(
        "model", "compare", "small-2", "small-1", "--dataset", "d1", "--out", str(page), "--json", env=env
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["summary"]["against"] == "small-1"
    assert page.read_text().startswith("<!doctype html>")
    done = tomonode("model", "promote", "small-2", env=env)
    assert done.returncode == 1
    assert "3 malignant breasts, at least 10" in done.stderr
    known = env | {"TOMONODE_PROMOTION_MIN_MALIGNANT": "1"}
    done = tomonode("model", "promote", "small-2", env=known)
    assert done.returncode == 1
    assert "it may be worse than the active version" in done.stderr, "three breasts prove nothing"
    done = tomonode("model", "promote", "small-2", "--override", "--reason", "a test", env=env)
    assert done.returncode == 0, done.stderr
    shown = json.loads(tomonode("model", "show", "small-2", "--json", env=env).stdout)
    assert shown["state"] == "ACTIVE"
    assert shown["decisions"][-1]["evaluation_id"] == shown["evaluations"][0]["id"]
    assert (shown["decisions"][-1]["overridden"], shown["decisions"][-1]["reason"]) == (
        True,
        "a test",
    )
    for command, wanted in (("rollback", "small-1 is active"), ("list", "small-1")):
        assert wanted in tomonode("model", command, env=env).stdout
