"""The evaluation of a model version: on a data set's locked test split, beside the version that is active.

Both versions read the same images by the pipeline that also reads studies. Patients that either version learned from,
in whatever data set, are left out of the test, and those that either was trained on are left out of the choice of
thresholds. The page and the row are kept; images already read are not read again.
Where readers drew lesions on test images, it is measured too how well they are found; no training reads these.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from sqlalchemy import distinct, func, select
from sqlalchemy.orm import Session

from gmic.config import CLASSES
from node import model_history, registry
from node.blobs import BlobStore
from node.config import Settings
from node.datasets import digests, store
from node.db import Database, now
from node.errors import Conflict
from node.learning_models import Dataset, DatasetItem, Evaluation, ModelVersion
from workers.figures import Measured, Split, measure
from workers.gallery import Painter
from workers.lesions import Lesions, lesions_of
from workers.located import Read, locate
from workers.looks import LookCache, Saliency
from workers.models import CODE_VERSION, load_version
from workers.scoring import Contender, Reading, Scored, score

Say = Callable[[str], None]
FEW = 10
"""Breasts with, or without, a finding; a threshold chosen on fewer says little, and the page says so."""


@dataclass(frozen=True)
class Plan:
    """What is compared on what."""

    version: ModelVersion
    against: ModelVersion | None
    dataset: Dataset
    test: list[DatasetItem]
    valid: list[DatasetItem]
    learned: int
    """Patients of the test split that were left out, for one of the versions learned from them."""
    trained: int
    """Patients of the validation split that were left out, for one of the versions was trained on them."""
    looks: int
    """Versions measured on this data set, this one included: the more, the more the best of them flatters."""
    lesions: Lesions
    """Drawn by readers on images of the test split."""

    @property
    def versions(self) -> list[ModelVersion]:
        """The candidate, and what it is compared with."""
        return [self.version] if self.against is None else [self.version, self.against]


def evaluate_version(
    db: Database,
    settings: Settings,
    version: str,
    dataset: str,
    check: Callable[[], None] = lambda: None,
    *,
    against: str | None = None,
    say: Say = lambda _line: None,
) -> Evaluation:
    """Measure a version on a data set's test split, beside another, and keep figures and page.

    Killed at any moment and called again, it goes on with the image it was at.

    Args:
        db: Of the node.
        settings: Of the node.
        version: The candidate's name.
        dataset: The data set's name.
        check: Called before each slice; may raise.
        against: A version's name; by default the active one. Alone where that is the candidate, or where none is.
        say: Gets a line now and then.

    Raises:
        NotFound: no such version or data set.
        Conflict: a version against itself, a data set that is not what was frozen, a test split of which nothing is
            left to measure on, or data sets whose patients cannot be told to be the same (`node.datasets.digests`).
        WeightsGone, WeightsError, DeviceMemoryError: of a model.
        DiskFull: no room for the page.
    """
    blobs = BlobStore.of(settings)
    with db.reading() as session:
        plan = _plan(session, settings.home, version, dataset, against)
    contenders = [
        Contender(one.version, one.sha256, partial(load_version, db, blobs, settings, one.version))
        for one in plan.versions
    ]
    reading = Reading(
        blobs.fetch,
        LookCache(settings.home),
        check,
        mapped={uid for uid, drawn in plan.lesions.items() if any(one.outline for one in drawn)},
        progress=lambda done, count: say(f"image {done} of {count}"),
    )
    scored = score([*plan.test, *plan.valid], contenders, reading)
    check()
    found = _measure(plan, scored, contenders, reading)
    check()
    row = Evaluation(
        id=uuid.uuid4(),
        version_id=plan.version.id,
        against_id=plan.against.id if plan.against else None,
        dataset_id=plan.dataset.id,
        summary=found.summary,
        report_sha256=blobs.write(found.page.encode()),
    )
    with db.transaction() as session:
        row.created_at = now(session)
        session.add(row)
    return row


def _plan(session: Session, home: Path, version: str, dataset: str, against: str | None) -> Plan:
    row, found = registry.find(session, version), store.find(session, dataset)
    store.verify(session, found)
    other = registry.find(session, against) if against else registry.active(session)
    if against == version:
        raise Conflict(f"model {version!r} cannot be compared with itself; name another")
    if other is not None and other.id == row.id:
        other = None
    sources = _learned_from(session, [row, *([other] if other else [])])
    digests.require_one_secret(session, home, {*sources, found.id})
    learned = _patients(session, sources, ("train", "valid"))
    trained = _patients(session, sources, ("train",))
    items = store.items(session, found.id)
    test = [item for item in items if item.split == "test"]
    valid = [item for item in items if item.split == "valid"]
    left = [item for item in test if item.patient not in learned]
    if not left:
        why = "is empty" if not test else "holds no patient that no version learned from"
        raise Conflict(f"the test split of data set {dataset!r} {why}; freeze another data set")
    counted = select(func.count(distinct(Evaluation.version_id))).where(
        Evaluation.dataset_id == found.id, Evaluation.version_id != row.id
    )
    return Plan(
        row,
        other,
        found,
        left,
        [item for item in valid if item.patient not in trained],
        len({item.patient for item in test} & learned),
        len({item.patient for item in valid} & trained),
        1 + session.execute(counted).scalar_one(),
        lesions_of(session, left),
    )


def _learned_from(session: Session, versions: Sequence[ModelVersion]) -> set[uuid.UUID]:
    return {d for version in versions for d in model_history.learned_from(session, version)}


def _patients(session: Session, datasets: set[uuid.UUID], splits: Sequence[str]) -> set[str]:
    query = select(DatasetItem.patient).where(
        DatasetItem.dataset_id.in_(datasets), DatasetItem.split.in_(splits)
    )
    return set(session.execute(query.distinct()).scalars())


def _measure(
    plan: Plan, scored: Scored, contenders: Sequence[Contender], reading: Reading
) -> Measured:
    names = [row.version for row in plan.versions]
    patients = sorted({item.patient for item in (*plan.test, *plan.valid)})
    called = {patient: f"{number}" for number, patient in enumerate(patients, 1)}
    test, valid = (
        Split([i for i in items if _read_by_all(i, scored)], scored.scores, called)
        for items in (plan.test, plan.valid)
    )
    tested = {item.sop_uid for item in plan.test}
    failed = [one for one in scored.failed if one.sop_uid in tested]
    if not test.items:
        raise Conflict(
            f"none of the {len(tested)} test images of data set {plan.dataset.name!r} could be read:"
            f" {failed[0].reason}"
        )
    about = {
        "dataset": plan.dataset.name,
        "content_hash": plan.dataset.content_hash,
        "rule": plan.dataset.rule,
        "trained": {row.version: row.trained for row in plan.versions},
        "learned_patients_left_out": plan.learned,
        "trained_patients_left_out_of_thresholds": plan.trained,
        "versions_measured": plan.looks,
        "code_version": CODE_VERSION,
        "lines": [*_lines(plan), *_threshold_lines(plan, valid.items)],
    }
    read = Read(test.items, scored.looks, partial(_saliency, contenders, reading.cache))
    painter = Painter(contenders[0], reading, scored.looks[names[0]], plan.lesions)
    located = locate(names, read, plan.lesions)
    return measure(names, test, valid, failed, about, located, painter.of(test.items))


def _saliency(
    contenders: Sequence[Contender], cache: LookCache, version: str, item: DatasetItem
) -> Saliency:
    weights = next(one.weights_sha256 for one in contenders if one.version == version)
    found = cache.saliency(weights, item.sha256)
    if found is None:
        raise Conflict(
            f"the saliency of image {item.sop_uid} was removed meanwhile; run the evaluation again"
        )
    return found


def _read_by_all(item: DatasetItem, scored: Scored) -> bool:
    return all(item.sop_uid in scores for scores in scored.scores.values())


def _lines(plan: Plan) -> list[str]:
    """What the page says first."""
    dataset = plan.dataset
    lines = [f"Test split of data set {dataset.name}, content {dataset.content_hash[:12]}."]
    for row in plan.versions:
        said = "" if row.trained else " Its weights are untrained: its scores mean nothing."
        origin = "" if row.dataset_id else " What it learned from is not known here."
        lines.append(
            f"{row.version}: weights {row.sha256[:12]}, {row.state.lower()}.{said}{origin}"
        )
    if plan.learned:
        lines.append(
            f"{plan.learned} patients of the split are left out, for one of the models learned from them."
        )
    if plan.looks > 1:
        lines.append(
            f"{plan.looks} versions were measured on this split: the best of many looks better than it is."
        )
    return lines


def _threshold_lines(plan: Plan, items: Sequence[DatasetItem]) -> list[str]:
    """Who is left out of the choice of thresholds, and where too few cases are left to choose one by."""
    lines = []
    if plan.trained:
        lines.append(
            f"{plan.trained} patients of the validation split are left out of the choice of thresholds, for one of the"
            " models was trained on them."
        )
    for name in reversed(CLASSES):
        breasts = {(item.study_uid, item.laterality): getattr(item, name) for item in items}
        positives = sum(breasts.values())
        negatives = len(breasts) - positives
        if min(positives, negatives) < FEW:
            lines.append(
                f"Thresholds of {name}: the validation split has {positives} {name} and {negatives} other breasts to"
                f" choose them on; with fewer than {FEW} of either they say little, with none there is no threshold."
            )
    return lines
