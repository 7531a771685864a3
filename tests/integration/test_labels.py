"""Labels on real SQLite and real PostgreSQL: revisions, imports, boxes, and what was predicted beside them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta

import pytest
from sqlalchemy import func, select, update

from node import studies
from node.config import Settings
from node.db import Database, now
from node.errors import InvalidLabel, NotFound
from node.labels import boxes, store, views
from node.labels.importing import Report, Wishes, import_labels
from node.labels.values import Box
from node.learning_models import Annotation, Assessment, LabelImport, Pathology
from node.models import Base, Instance, Run, Study, TimelineEvent
from tests.support.factory import Factory

FOUND = date(2026, 3, 20)
WISHES = Wishes("labels.csv", "anna")
HEAD = "study_uid,accession_number,patient_id,study_date,laterality,benign,malignant,found_on,birads,source"
TABLES: tuple[type[Base], ...] = (Pathology, Assessment, Annotation, LabelImport, TimelineEvent)


@pytest.fixture
def factory(db: Database, any_settings: Settings) -> Factory:
    return Factory(db, any_settings)


def count(db: Database) -> list[int]:
    with db.reading() as session:
        return [session.execute(select(func.count()).select_from(t)).scalar_one() for t in TABLES]


def bring(db: Database, *rows: str, wishes: Wishes = WISHES) -> Report:
    return import_labels(db, "\n".join([HEAD, *rows]).encode(), wishes)


def outcomes(report: Report) -> list[str]:
    return [verdict.outcome.value for verdict in report.rows]


def say(
    db: Database, study_uid: str, laterality: str = "L", malignant: bool = True, **more: object
) -> int | None:
    """Add pathology; the revision that was written."""
    with db.transaction() as session:
        values = {
            "benign": False, "malignant": malignant, "found_on": FOUND, "source": "report",
            "author": "anna", "at": now(session), **more,
        }  # fmt: skip
        row = store.add_pathology(session, studies.find(session, study_uid), laterality, **values)  # type: ignore[arg-type]
        return row.revision if row else None


def test_a_correction_is_a_revision_and_nothing_is_overwritten(
    db: Database, factory: Factory
) -> None:
    uid = factory.receive()
    assert [say(db, uid), say(db, uid), say(db, uid, malignant=False)] == [1, None, 2]
    assert say(db, uid, malignant=False, note="second reading") == 3
    assert say(db, uid, malignant=False) is None
    assert say(db, uid, "R") == 1
    with db.reading() as session:
        study = studies.find(session, uid)
        newest = store.newest_pathology(session, [study.id])
        assert store.newest_pathology(session) == newest
        assert {side: row.revision for (_, side), row in newest.items()} == {"L": 3, "R": 1}
        shown = views.study_labels(session, study, date(2026, 4, 1))
        [right, left] = shown.breasts
        assert [one.finding for one in left.pathology] == ["neither", "neither", "malignant"]
        assert (right.counts_as, left.counts_as) == ("malignant", "neither")
        history = session.execute(select(TimelineEvent.message)).scalars().all()
    assert "L: pathology neither (revision 2)" in history


def test_assessments_have_revisions_of_their_own(db: Database, factory: Factory) -> None:
    uid = factory.receive()
    written = []
    for category in (2, 2, 4):
        with db.transaction() as session:
            study, at = studies.find(session, uid), now(session)
            row = store.add_assessment(
                session, study, "R", category=category, source="ris", author="ben", at=at
            )
            written.append(row.revision if row else None)
    assert written == [1, None, 2]
    with db.reading() as session:
        [newest] = store.newest_assessments(session).values()
    assert (newest.category, newest.revision) == (4, 2)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"laterality": "B"}, "give L or R"),
        ({"found_on": date(2026, 2, 28) - timedelta(days=60)}, "days before the study"),
        ({"found_on": datetime.now(UTC).date() + timedelta(days=2)}, "in the future"),
        ({"source": " "}, "source has 0 characters"),
        ({"author": "two\nlines"}, "author has 9 characters"),
        ({"note": "a\0b"}, "note has 3 characters"),
    ],
)
def test_a_label_that_cannot_be_is_refused(
    db: Database, factory: Factory, values: dict[str, object], words: str
) -> None:
    uid = factory.receive()
    with pytest.raises(InvalidLabel, match=words):
        say(db, uid, **values)  # type: ignore[arg-type]
    assert count(db) == [0, 0, 0, 0, 0]


def test_a_label_of_the_breast_that_was_not_imaged_is_refused(
    db: Database, factory: Factory
) -> None:
    uid = factory.receive(["R-CC", "R-MLO"])
    with pytest.raises(InvalidLabel, match="left and right may be swapped"):
        say(db, uid, "L")
    assert say(db, uid, "R") == 1


def test_many_hands_on_one_breast_get_a_revision_each(db: Database, factory: Factory) -> None:
    uid = factory.receive()
    written: list[int | None] = []
    ready = threading.Barrier(6)

    def correct(day: int) -> None:
        ready.wait()
        written.append(say(db, uid, found_on=FOUND + timedelta(days=day)))

    threads = [threading.Thread(target=correct, args=(day,)) for day in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(revision or 0 for revision in written) == [1, 2, 3, 4, 5, 6]


def test_an_import_writes_what_it_matches_and_reports_every_row(
    db: Database, factory: Factory
) -> None:
    one = factory.receive(accession_number="A1", patient_id="P1", study_date="20260301")
    two = factory.receive(["R-CC"], accession_number="A2", patient_id="P2", study_date="20260302")
    for _ in range(2):
        factory.receive(accession_number="TWICE", patient_id="P3")
    rows = (
        f"{one},,,,L,0,1,2026-03-20,5,report 7",
        ",A1,,,R,0,0,2026-03-20,,",
        ",,P2,2026-03-03,R,1,1,2026-03-20,,",
        ",TWICE,,,L,0,1,2026-03-20,,",
        f"{two},,,,L,0,1,2026-03-20,,",
        ",NOBODY,,,L,0,1,2026-03-20,,",
        f"{one},,,,R,0,1,2026-02-30,,",
    )
    expected = ["matched"] * 3 + ["ambiguous", "contradictory", "unmatched", "invalid"]
    dry = bring(db, *rows, wishes=Wishes("labels.csv", "anna", dry_run=True))
    assert outcomes(dry) == expected
    assert count(db) == [0, 0, 0, 0, 0]
    report = bring(db, *rows)
    assert report.rows == dry.rows
    assert report.counts == dry.counts == {
        "matched": 3, "unchanged": 0, "ambiguous": 1, "unmatched": 1, "contradictory": 1, "invalid": 1,
    }  # fmt: skip
    assert count(db) == [3, 1, 0, 1, 4]
    with db.reading() as session:
        newest = store.newest_pathology(session)
        first = newest[studies.find(session, one).id, "L"]
        assert (first.source, first.author, first.import_id) == (
            "report 7",
            "anna",
            report.import_id,
        )
        both = newest[studies.find(session, two).id, "R"]
        assert (both.benign, both.malignant, both.source) == (True, True, "labels.csv")
    text = str(report)
    assert not [secret for secret in ("A1", "P2", "TWICE", "NOBODY") if secret in text]


def test_the_same_file_and_the_same_row_change_nothing(db: Database, factory: Factory) -> None:
    uid = factory.receive()
    row = f"{uid},,,,L,0,1,2026-03-20,5,"
    assert outcomes(bring(db, row)) == ["matched"]
    before = count(db)
    again = bring(db, row)
    assert (outcomes(again), again.import_id) == (["unchanged"], None)
    assert count(db) == before
    other = bring(db, row, f"{uid},,,,L,0,1,2026-03-20,,", wishes=Wishes("next.csv", "ben"))
    assert outcomes(other) == ["unchanged", "unchanged"]
    assert count(db)[:3] == before[:3]


def test_a_study_that_comes_later_is_matched_by_the_same_file(
    db: Database, factory: Factory
) -> None:
    row = ",LATE,,,L,0,1,2026-03-20,,"
    assert outcomes(bring(db, row)) == ["unmatched"]
    factory.receive(accession_number="LATE")
    assert outcomes(bring(db, row)) == ["matched"]
    with db.reading() as session:
        assert [row.counts["matched"] for row in views.import_list(session)] == [1, 0]


def test_an_old_file_never_undoes_a_correction(db: Database, factory: Factory) -> None:
    uid = factory.receive()
    old, new = f"{uid},,,,L,0,1,2026-03-20,,", f"{uid},,,,L,1,0,2026-03-20,,"
    assert outcomes(bring(db, old)) == ["matched"]
    assert outcomes(bring(db, new)) == ["matched"]
    report = bring(db, old)
    assert outcomes(report) == ["contradictory"]
    assert "was corrected: revision 2 says benign" in report.rows[0].reason
    assert say(db, uid) == 3  # a person may go back
    assert outcomes(bring(db, old)) == ["unchanged"]


def test_imports_beside_each_other_write_each_revision_once(db: Database, factory: Factory) -> None:
    uids = [factory.receive(["L-CC"]) for _ in range(20)]
    rows = [f"{uid},,,,L,0,1,2026-03-20,4," for uid in uids]
    reports: list[Report] = []
    threads = [
        threading.Thread(target=lambda order=order: reports.append(bring(db, *order)))
        for order in (rows, rows[::-1], rows)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(reports) == 3
    assert sum(report.counts["matched"] for report in reports) == 20
    assert count(db)[:2] == [20, 20]


def test_a_file_may_have_more_rows_than_a_statement_has_values(
    db: Database, factory: Factory
) -> None:
    at = datetime.now(UTC)
    with db.transaction() as session:
        session.add_all(
            Study(
                study_uid=f"1.2.{index}", received_at=at, generation_at=at, last_activity_at=at,
                accession_number=f"A{index}", patient_id=f"P{index}", study_date="20260301",
            )
            for index in range(2000)
        )  # fmt: skip
    report = bring(db, *(f",A{index},P{index},,L,0,1,2026-03-20,4," for index in range(2000)))
    assert report.counts["matched"] == 2000
    assert count(db) == [2000, 2000, 0, 1, 4000]
    with db.reading() as session:
        assert len(views.label_list(session, limit=50)) == 50
        assert len(store.newest_pathology(session)) == 2000


def test_boxes_have_revisions_and_stay_on_the_image(db: Database, factory: Factory) -> None:
    uid = factory.receive(["L-CC"])

    def draw(box: Box, **more: object) -> Annotation | None:
        with db.transaction() as session:
            image = session.execute(select(Instance)).scalar_one()
            values = {
                "label": "malignant",
                "source": "s",
                "author": "anna",
                "at": now(session),
                **more,
            }
            return store.add_annotation(session, image, box, **values)  # type: ignore[arg-type]

    first, second = Box(3, 10, 20, 30, 40), Box(4, 0, 0, 5, 5)
    numbers = [draw(first), draw(second), draw(first, number=1), draw(second, number=1)]
    assert [(row.number, row.revision) if row else None for row in numbers] == [
        (1, 1), (2, 1), None, (1, 2),
    ]  # fmt: skip
    for wrong in (Box(60, 0, 0, 1, 1), Box(-1, 0, 0, 1, 1), Box(0, 0, 0, 0, 1)):
        with pytest.raises(InvalidLabel):
            draw(wrong)
    with pytest.raises(InvalidLabel, match="benign or malignant"):
        draw(first, label="odd")
    with pytest.raises(NotFound, match="no box 9"):
        draw(first, number=9)
    with db.transaction() as session:
        image = session.execute(select(Instance)).scalar_one()
        boxes.withdraw(session, image, 2, source="s", author="anna", at=now(session))
    with db.reading() as session:
        study_id = studies.find(session, uid).id
        newest = store.newest_annotations(session, [study_id])
        assert newest == store.newest_annotations(session)
        [(key, row)] = newest.items()
        assert (key[1], row.revision, row.frame) == (1, 2, 4)


@pytest.fixture
def predicted(factory: Factory) -> Callable[..., str]:
    """A study that was read: scores of its views, and its day."""

    def make(day: str, scores: dict[str, float], **more: object) -> str:
        uid, run_id = factory.queued(study_date=day)
        factory.succeed(run_id, scores, **more)  # type: ignore[arg-type]
        return uid

    return make


def test_outcomes_pair_scores_with_pathology_by_month(
    db: Database, factory: Factory, predicted: Callable[..., str]
) -> None:
    april = predicted("20260402", {"L-CC": 0.5, "L-MLO": 0.9, "R-CC": 0.1, "R-MLO": 0.3})
    march = predicted("20260301", {"L-CC": 0.4, "L-MLO": 0.8}, left_out="L-CC")
    undated = predicted("", {"R-CC": 0.2, "R-MLO": 0.2})
    unread = factory.receive()
    predicted("20260303", {"L-CC": 0.7})  # nobody labels it
    for uid, side in ((april, "L"), (march, "L"), (undated, "R"), (unread, "L")):
        say(db, uid, side)
    say(db, april, "L", malignant=False)  # the newest revision counts
    with db.reading() as session:
        found = store.outcomes(session)
    assert [(one.month, one.study_uid, one.laterality) for one in found] == [
        ("2026-03", march, "L"), ("2026-04", april, "L"), (None, undated, "R"),
    ]  # fmt: skip
    assert [one.score_malignant for one in found] == pytest.approx([0.8, 0.7, 0.2])
    assert [one.malignant for one in found] == [True, False, True]
    assert [one.days for one in found] == [19, -13, None]
    assert all(one.late and one.trained for one in found)


def test_outcomes_are_of_the_newest_run_that_answers_for_the_node(
    db: Database, factory: Factory, predicted: Callable[..., str]
) -> None:
    uid = predicted("20260301", {"L-CC": 0.2, "L-MLO": 0.2})
    say(db, uid)
    with db.transaction() as session:
        study = studies.find(session, uid)
        shadow = studies.queue_run(session, study.id, 1, factory.settings, "shadow-1", now(session))
    factory.succeed(shadow, {"L-CC": 0.9, "L-MLO": 0.9})
    with db.transaction() as session:
        session.execute(update(Run).where(Run.id == shadow).values(shadow=True))
    with db.reading() as session:
        [one] = store.outcomes(session)
    assert one.score_malignant == pytest.approx(0.2)
    with db.transaction() as session:
        session.execute(update(Run).where(Run.id == shadow).values(shadow=False))
    with db.reading() as session:
        [one] = store.outcomes(session)
    assert (one.score_malignant, one.model_version) == (pytest.approx(0.9), "shadow-1")
