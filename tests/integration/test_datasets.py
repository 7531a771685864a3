"""Data sets on real SQLite and PostgreSQL: frozen once, the same everywhere, never changed, every absence explained."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from pathlib import Path

import pytest
from pydicom.dataset import FileDataset
from sqlalchemy import delete, insert, text, update
from sqlalchemy.exc import IntegrityError

from node import schema, studies
from node.config import Settings
from node.datasets import store
from node.datasets.rule import Kind, Rule
from node.datasets.secret import key_path, load_key
from node.datasets.why import why_frozen, why_now
from node.db import Database
from node.errors import ConfigError, Conflict, NotFound
from node.labels.views import study_labels
from node.learning_models import Dataset, DatasetExclusion, DatasetItem
from tests.conftest import make_settings
from tests.support.breast_objects import shared_item
from tests.support.cohort import SINCE, Cohort


@pytest.fixture
def cohort(db: Database, any_settings: Settings, tmp_path: Path) -> Cohort:
    return Cohort(db, any_settings, tmp_path / "made")


@pytest.fixture
def local(tmp_path: Path) -> Iterator[Cohort]:
    """A node on SQLite, for what has nothing to do with the database."""
    made = other_node(tmp_path / "node")
    yield made
    made.db.dispose()


def other_node(home: Path) -> Cohort:
    settings = make_settings(home)
    schema.upgrade(settings.db_url)
    return Cohort(Database(settings.db_url), settings, home / "made")


def codes(cohort: Cohort, name: str = "first") -> set[tuple[str, bool, str]]:
    """(study, whether it is the whole one, code) of what was left out."""
    with cohort.db.reading() as session:
        rows = store.exclusions(session, store.find(session, name).id)
        return {(one.study_uid, one.sop_uid is None, one.code) for one in rows}


def test_a_frozen_data_set_holds_images_labels_and_counts(cohort: Cohort) -> None:
    uids = cohort.ten()

    frozen = cohort.freeze()

    assert frozen.new
    with cohort.db.reading() as session:
        dataset = store.find(session, "first")
        store.verify(session, dataset)
        items = store.items(session, dataset.id)
        assert [item.split for item in store.items(session, dataset.id, "test")] == ["test"] * 2
    splits = dataset.counts["splits"]
    assert [splits[name]["patients"] for name in ("train", "valid", "test")] == [8, 1, 1]
    assert splits["train"] == {
        "patients": 8, "studies": 8, "breasts": 16, "images": 16,
        "negative": 8, "benign": 4, "malignant": 4, "both": 0,
    }  # fmt: skip
    assert splits["test"]["both"] == 1
    assert {item.study_uid for item in items if item.split == "test"} == {uids[9]}
    assert dataset.rule["window_days"] == 365
    first = next(item for item in items if item.study_uid == uids[0] and item.laterality == "L")
    assert (first.malignant, first.pathology_revision, first.birads, first.assessment_revision) == (
        True,
        1,
        4,
        1,
    )
    assert (first.view, first.strata["manufacturer"], first.strata["thickness_mm"]) == (
        "CC",
        "tomonode",
        50,
    )
    assert "SECRET" not in json.dumps([(item.patient, item.strata) for item in items])


def test_the_same_again_is_nothing_new_and_other_content_is_refused(cohort: Cohort) -> None:
    uids = cohort.ten()
    first = cohort.freeze()

    again = cohort.freeze()
    cohort.label(uids[3], "L", "malignant", SINCE + timedelta(days=120))

    assert not again.new
    assert again.dataset.id == first.dataset.id
    with pytest.raises(Conflict, match=r"other content .* give another name"):
        cohort.freeze()
    second = cohort.freeze("second")
    assert second.dataset.content_hash != first.dataset.content_hash
    with cohort.db.reading() as session:
        assert len(store.items(session, first.dataset.id)) == 20
        assert [one.name for one in store.listed(session)] == ["second", "first"]


def test_two_who_freeze_at_once_write_one_data_set(cohort: Cohort) -> None:
    cohort.few()
    start = threading.Barrier(3)

    def together(_number: int) -> bool:
        start.wait()
        return cohort.freeze(allow_one_class=True).new

    with ThreadPoolExecutor(3) as pool:
        new = list(pool.map(together, range(3)))

    assert sorted(new) == [False, False, True]
    with cohort.db.reading() as session:
        assert len(store.items(session, store.find(session, "first").id)) == 10


def test_the_hash_is_the_same_on_every_node_and_database(cohort: Cohort, tmp_path: Path) -> None:
    other = other_node(tmp_path / "other")
    cohort.ten()
    other.ten(backwards=True)
    for node in (cohort, other):
        node.exam("SECRET-late", SINCE + timedelta(days=5), closed=False)

    here, there = cohort.freeze().dataset, other.freeze("another-name").dataset

    assert here.content_hash == there.content_hash
    with cohort.db.reading() as one, other.db.reading() as two:
        patients = [
            {item.patient for item in store.items(session, dataset.id)}
            for session, dataset in ((one, here), (two, there))
        ]
    assert not patients[0] & patients[1], "digests are salted with each node's own secret"
    other.db.dispose()


def test_the_database_refuses_every_change(cohort: Cohort) -> None:
    cohort.few()
    cohort.exam("SECRET-open", SINCE, closed=False)
    cohort.freeze(allow_one_class=True)
    changed = {Dataset: "created_by", DatasetItem: "view", DatasetExclusion: "reason"}
    statements = [delete(model) for model in changed]
    statements += [update(model).values({column: "x"}) for model, column in changed.items()]
    if not cohort.db.is_sqlite:
        statements += [text(f"TRUNCATE {model.__tablename__} CASCADE") for model in changed]

    for statement in statements:
        with (
            pytest.raises(IntegrityError, match="frozen data set is never changed"),
            cohort.db.transaction() as session,
        ):
            session.execute(statement)


def test_rows_added_behind_the_nodes_back_are_noticed(cohort: Cohort) -> None:
    cohort.few()
    dataset = cohort.freeze(allow_one_class=True).dataset
    with cohort.db.transaction() as session:
        item = store.items(session, dataset.id)[0]
        values = {c.key: getattr(item, c.key) for c in DatasetItem.__table__.columns}
        session.execute(insert(DatasetItem), [{**values, "sop_uid": "1.2.3"}])

    with pytest.raises(Conflict, match="not what was frozen"), cohort.db.reading() as session:
        store.verify(session, dataset)


def test_every_study_and_image_that_is_not_in_has_a_reason(local: Cohort) -> None:
    def sideless(dataset: FileDataset) -> None:
        if dataset.SharedFunctionalGroupsSequence[0].FrameAnatomySequence[0].FrameLaterality == "L":
            shared_item(dataset, "FrameAnatomySequence").FrameLaterality = "U"

    def undated(dataset: FileDataset) -> None:
        dataset.StudyDate = ""

    local.few()
    receiving = local.exam("A", date(2020, 5, 1), closed=False)
    no_date = local.exam("B", date(2020, 5, 2), edit=undated)
    no_side = local.exam("C", date(2020, 5, 3), edit=sideless)
    flat = local.exam("D", date(2020, 5, 4), kind="mammogram")
    lost = local.exam("E", date(2020, 5, 5))
    outside = local.exam("F", date(2019, 5, 5))
    for blob in blobs_of(local, lost):
        blob.unlink()

    local.freeze(allow_one_class=True)

    assert codes(local) == {
        (receiving, True, "receiving"),
        (no_date, True, "no-study-date"),
        (no_side, False, "missing-laterality"),
        (flat, True, "other-kind"),
        (lost, False, "missing"),
    }
    with local.db.reading() as session:
        assert [one.code for one in why_frozen(session, receiving, "first")] == ["receiving"]
        assert sorted(one.code for one in why_frozen(session, no_side, "first")) == [
            "in",
            "missing-laterality",
        ]
        assert [one.code for one in why_frozen(session, outside, "first")] == ["out-of-range"]
        with pytest.raises(NotFound, match="no data set"):
            why_frozen(session, outside, "nothing")
    late = local.exam("G", date(2020, 6, 6))
    with local.db.reading() as session:
        assert [one.code for one in why_frozen(session, late, "first")] == ["arrived-later"]


def blobs_of(cohort: Cohort, study_uid: str) -> list[Path]:
    with cohort.db.reading() as session:
        return [cohort.blobs.path(one.sha256) for one in studies.find(session, study_uid).instances]


def test_an_open_window_keeps_an_image_out_until_it_has_passed(local: Cohort) -> None:
    local.few()
    today = date.today()
    recent = local.exam("R", today - timedelta(days=10))
    local.label(recent, "L", "malignant", today - timedelta(days=5))

    local.freeze(until=today, allow_one_class=True)

    assert codes(local) == {(recent, False, "window-open")}
    with local.db.reading() as session:
        answers = why_frozen(session, recent, "first")
    assert sorted(one.code for one in answers) == ["in", "window-open"]


def test_a_patient_without_an_id_is_the_study_alone(local: Cohort) -> None:
    def nameless(dataset: FileDataset) -> None:
        dataset.PatientID = ""

    local.few()
    for day in (1, 2):
        local.exam("N", date(2020, 2, day), edit=nameless)

    counts = local.freeze(allow_one_class=True).dataset.counts

    assert sum(part["patients"] for part in counts["splits"].values()) == 7


def test_one_class_and_too_few_patients_are_refused_with_one_line(local: Cohort) -> None:
    local.few(4)
    with pytest.raises(Conflict, match=r"4 patients .* at least 5"):
        local.freeze()
    local.exam("last", SINCE + timedelta(days=90), {"L": "malignant"})

    with pytest.raises(Conflict, match=r"train has no benign breast.*--allow-one-class"):
        local.freeze()

    counts = local.freeze(allow_one_class=True).dataset.counts
    assert counts["one_class"] == [
        "train has no benign breast", "train has no malignant breast", "test has no benign breast",
    ]  # fmt: skip
    with pytest.raises(ConfigError, match="data set name"):
        local.freeze("a/b")


def test_a_late_finding_does_not_make_a_proven_cancer_negative(local: Cohort) -> None:
    day = date(2020, 5, 1)
    uid = local.exam("P", day, {"L": "malignant"})
    local.few()
    local.label(uid, "L", "malignant", day + timedelta(days=400))

    local.freeze(allow_one_class=True)

    late = f"revision 2 of {day + timedelta(days=400)}: outside the window of 365 days, not counted"
    answers = why_now(local.db, local.settings, uid, Rule(SINCE, SINCE))
    assert {one.reason for one in answers} == {f"malignant ({late})", "negative"}
    with local.db.reading() as session:
        [held] = [
            item
            for item in store.items(session, store.find(session, "first").id)
            if (item.study_uid, item.laterality) == (uid, "L")
        ]
        shown = study_labels(session, studies.find(session, uid), date(2026, 1, 1))
    assert (held.malignant, held.pathology_revision) == (True, 1)
    left = next(one for one in shown.breasts if one.laterality == "L")
    assert (left.counts_as, left.because) == ("malignant", f"pathology, revision 1; {late}")
    other = local.exam("Q", day)
    local.label(other, "R", "malignant", day + timedelta(days=400))
    with local.db.reading() as session:
        shown = study_labels(session, studies.find(session, other), date(2026, 1, 1))
    right = next(one for one in shown.breasts if one.laterality == "R")
    assert right.counts_as == "negative"
    assert right.because.endswith(f"revision 1{late.removeprefix('revision 2')}")


def test_no_secret_is_made_while_data_sets_exist(local: Cohort) -> None:
    """Else one patient would have two digests, and nobody could tell that a model learned from this one."""
    uids = local.few()
    first = local.freeze(allow_one_class=True)
    path = key_path(local.settings.home)
    kept = path.read_bytes()
    path.unlink()

    with pytest.raises(Conflict, match=r"datasets\.key is missing.*put back the copy"):
        local.freeze("second", allow_one_class=True)
    assert why_now(local.db, local.settings, uids[0], Rule(SINCE, SINCE)), "a question needs none"
    assert not path.exists()

    load_key(local.settings.home, make=True)  # as a host with a home of its own did
    with pytest.raises(Conflict, match=r"not the one that the 1 data sets here were frozen with"):
        local.freeze("second", allow_one_class=True)
    path.write_bytes(kept)
    second = local.freeze("second", allow_one_class=True)
    with local.db.reading() as session:
        patients = [
            {item.patient for item in store.items(session, one.dataset.id)}
            for one in (first, second)
        ]
    assert patients[0] == patients[1]


def test_why_now_judges_as_a_freeze_would(local: Cohort) -> None:
    uid = local.exam("P", date(2020, 5, 1), {"L": "benign"})

    tomosynthesis = why_now(local.db, local.settings, uid, Rule(SINCE, SINCE))
    flat = why_now(local.db, local.settings, uid, Rule(SINCE, SINCE, Kind.TWO_D))

    assert sorted((one.code, one.reason) for one in tomosynthesis) == [
        ("in", "benign"),
        ("in", "negative"),
    ]
    assert [one.code for one in flat] == ["other-kind"]
