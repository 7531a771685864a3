"""Masks that readers drew: imported on real databases and by the command, and never part of a data set."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest
from sqlalchemy import select

from dicom_io.outline import Outline
from node import studies
from node.cli import boundary
from node.cli.app import app
from node.config import Settings
from node.datasets import store as datasets
from node.db import Database, now
from node.errors import InvalidLabel
from node.labels import boxes
from node.labels.masks import MaskOutcome, MaskRow, MaskWishes, import_masks
from node.labels.values import Box
from node.learning_models import Annotation, DatasetItem
from node.models import Instance
from tests.support.cohort import Cohort
from tests.support.command import environment
from tests.support.drawings import draw, rectangle

SHAPE = (24, 16)
MASK, OTHER = rectangle(SHAPE, 4, 2, 5, 6), rectangle(SHAPE, 8, 2, 5, 6)
ANNA = MaskWishes("anna")


@pytest.fixture
def cohort(db: Database, any_settings: Settings, tmp_path: Path) -> Cohort:
    return Cohort(db, any_settings, tmp_path / "objects")


@pytest.fixture
def image(cohort: Cohort) -> Instance:
    """The left view of a received study of two frames a view."""
    return left(cohort, cohort.exam("SECRET-1", date(2020, 3, 1)))


def left(cohort: Cohort, study_uid: str) -> Instance:
    with cohort.db.reading() as session:
        study = studies.find(session, study_uid)
        query = select(Instance).where(Instance.study_id == study.id, Instance.laterality == "L")
        return session.execute(query).scalar_one()


@pytest.fixture
def bring(cohort: Cohort) -> Callable[..., list[MaskRow]]:
    def run(*files: Path, wishes: MaskWishes = ANNA) -> list[MaskRow]:
        return import_masks(cohort.db, cohort.blobs, files, wishes)

    return run


def rows_of(db: Database) -> list[Annotation]:
    with db.reading() as session:
        query = select(Annotation).order_by(Annotation.number, Annotation.revision)
        found = list(session.execute(query).scalars())
        for row in found:
            session.refresh(row, ["mask"])
        return found


def test_a_mask_is_kept_once_and_corrected_by_revisions(
    cohort: Cohort, image: Instance, bring: Callable[..., list[MaskRow]], tmp_path: Path
) -> None:
    source = cohort.blobs.path(image.sha256)
    both = ("malignant", {0: MASK, 1: MASK | OTHER})
    file = draw(tmp_path / "a.dcm", source, both, ("benign", {1: OTHER}))
    dry = bring(file, wishes=MaskWishes("anna", dry_run=True))
    assert [row.outcome for row in dry] == [MaskOutcome.WRITTEN] * 2
    assert rows_of(cohort.db) == []
    first = bring(file)
    assert [(r.outcome, r.label, r.frames, r.number, r.revision) for r in first] == [
        (MaskOutcome.WRITTEN, "malignant", 2, 1, 1), (MaskOutcome.WRITTEN, "benign", 1, 2, 1),
    ]  # fmt: skip
    assert {row.outcome for row in bring(file)} == {MaskOutcome.UNCHANGED}
    kept = rows_of(cohort.db)
    assert len(kept) == 2
    row = kept[0]
    assert (row.source, row.author, row.frame, row.row, row.col, row.height, row.width) == (
        "a.dcm", "anna", 1, 4, 2, 9, 6,
    )  # fmt: skip
    assert row.mask is not None
    assert (Outline.from_bytes(row.mask).projected(SHAPE) == (MASK | OTHER)).all()
    relabelled = bring(file, wishes=MaskWishes("ben", label="benign"))
    assert [(r.outcome, r.revision) for r in relabelled] == [
        (MaskOutcome.WRITTEN, 2), (MaskOutcome.UNCHANGED, None),
    ]  # fmt: skip
    assert {row.outcome for row in bring(file)} == {MaskOutcome.UNCHANGED}, "a correction stays"
    with cohort.db.transaction() as session:
        boxes.withdraw(session, image, 1, source="s", author="anna", at=now(session))
    again = bring(file)
    assert {row.outcome for row in again} == {MaskOutcome.UNCHANGED}
    assert "stays so" in again[0].reason
    with cohort.db.reading() as session:
        assert [row.number for row in boxes.newest_annotations(session).values()] == [2]


def test_what_cannot_be_mapped_is_refused_in_a_line(
    cohort: Cohort, image: Instance, bring: Callable[..., list[MaskRow]], tmp_path: Path
) -> None:
    source = cohort.blobs.path(image.sha256)
    good = ("malignant", {0: MASK})

    def renamed(seg) -> None:  # type: ignore[no-untyped-def]
        for groups in seg.PerFrameFunctionalGroupsSequence:
            groups.DerivationImageSequence[0].SourceImageSequence[
                0
            ].ReferencedSOPInstanceUID = "1.2.3"

    def far(seg) -> None:  # type: ignore[no-untyped-def]
        groups = seg.PerFrameFunctionalGroupsSequence[0]
        groups.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber = 3

    def unnumbered(seg) -> None:  # type: ignore[no-untyped-def]
        groups = seg.PerFrameFunctionalGroupsSequence[0]
        del groups.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber

    def narrow(seg) -> None:  # type: ignore[no-untyped-def]
        seg.Columns = 8
        seg.Rows = 48

    text = tmp_path / "text.dcm"
    text.write_text("SECRET")
    for path, words in (
        (draw(tmp_path / "1", source, good, edit=renamed), "no image '1.2.3'"),
        (draw(tmp_path / "2", source, good, edit=far), "lies on frame 3, image"),
        (draw(tmp_path / "3", source, good, edit=unnumbered), "on which of the 2 frames"),
        (draw(tmp_path / "4", source, good, edit=narrow), "it has 48 x 8 pixels"),
        (draw(tmp_path / "5", source, ("odd", {0: MASK})), "neither benign nor malignant"),
        (draw(tmp_path / "6", source, good, algorithm="AUTOMATIC"), "an algorithm made it"),
        (text, "no DICOM file"),
    ):
        [row] = bring(path)
        assert row.outcome is MaskOutcome.REFUSED, words
        assert words in row.reason
        assert "SECRET" not in row.reason.upper()
    assert rows_of(cohort.db) == []
    [row] = bring(tmp_path / "5", wishes=MaskWishes("anna", label="malignant"))
    assert (row.outcome, row.label) == (MaskOutcome.WRITTEN, "malignant")
    with pytest.raises(InvalidLabel, match="give benign or malignant"):
        bring(tmp_path / "5", wishes=MaskWishes("anna", label="odd"))
    with pytest.raises(InvalidLabel, match="is a mask"), cohort.db.transaction() as session:
        boxes.add_annotation(
            session, image, Box(0, 1, 1, 2, 2), label="benign", number=1,
            source="s", author="anna", at=now(session),
        )  # fmt: skip


def test_what_readers_draw_changes_no_data_set(
    cohort: Cohort, bring: Callable[..., list[MaskRow]], tmp_path: Path
) -> None:
    """A data set frozen after masks and boxes came holds what one frozen before them holds, training images first."""
    uids = cohort.few()
    before = cohort.freeze("before", allow_one_class=True)
    for n, uid in enumerate(uids):
        image = left(cohort, uid)
        file = draw(tmp_path / str(n), cohort.blobs.path(image.sha256), ("malignant", {0: MASK}))
        assert bring(file)[0].outcome is MaskOutcome.WRITTEN
        with cohort.db.transaction() as session:
            boxes.add_annotation(
                session, image, Box(1, 2, 2, 3, 3), label="benign",
                source="s", author="anna", at=now(session),
            )  # fmt: skip
    after = cohort.freeze("after", allow_one_class=True)
    columns = [c.key for c in DatasetItem.__table__.columns if c.key != "dataset_id"]
    with cohort.db.reading() as session:
        rows = [datasets.find(session, name) for name in ("before", "after")]
        held = [
            [[getattr(item, name) for name in columns] for item in datasets.items(session, row.id)]
            for row in rows
        ]
        assert held[0] == held[1]
        assert any(item.split == "train" for item in datasets.items(session, rows[1].id))
        assert rows[0].content_hash == rows[1].content_hash
    assert before.dataset.name != after.dataset.name


@pytest.fixture
def command(
    any_settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str]]:
    home = environment(any_settings.home, DATABASE_URL=any_settings.db_url)
    for name, value in home.items():
        monkeypatch.setenv(name, value)

    def run(*arguments: str | Path) -> tuple[int, str]:
        code = boundary.run(app, ["label", *map(str, arguments)])
        return code, capsys.readouterr().out

    return run


def test_by_the_command(
    cohort: Cohort, image: Instance, command: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    source = cohort.blobs.path(image.sha256)
    file = draw(tmp_path / "a.dcm", source, ("malignant", {0: MASK}), (None, {1: OTHER}))
    code, said = command("mask", file, "--dry-run")
    assert (code, rows_of(cohort.db)) == (1, [])
    assert "dry run, nothing written: 1 written, 1 refused" in said
    code, said = command("mask", file, "--label", "benign", "--json", "--by", "anna")
    assert code == 0
    assert [(row["outcome"], row["label"]) for row in json.loads(said)] == [
        ("written", "benign")
    ] * 2
    with cohort.db.reading() as session:
        study = session.get_one(Instance, image.id).study_id
        uid = studies.find(session, str(study)).study_uid
    shown = json.loads(command("show", uid, "--json")[1])["boxes"]
    assert [one["drawn_in"].split("#")[1] for one in shown] == ["1", "2"]
    assert "mask" not in shown[0]
