"""Why a study is, or is not, in a data set: one answer for each of its images."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from node import studies
from node.blobs import BlobStore
from node.config import Settings
from node.datasets import store
from node.datasets.candidates import candidates, reader
from node.datasets.eligibility import Candidate, Excluded, Included, judge
from node.datasets.rule import Rule
from node.db import Database, now
from node.labels.rule import passed_over
from node.labels.values import finding_word
from node.learning_models import Dataset, DatasetExclusion, DatasetItem
from node.models import Instance, Study


@dataclass(frozen=True)
class Answer:
    """One image, or the whole study (`sop_uid` None): in (code "in") or out, and why."""

    sop_uid: str | None
    code: str
    reason: str


def why_now(db: Database, settings: Settings, study_uid: str, rule: Rule) -> list[Answer]:
    """Whether each image of a study could be frozen today, whatever the rule's range.

    Raises:
        NotFound: no such study.
    """
    look = reader(BlobStore.of(settings), key=b"")  # digests of sites are not in the answer
    with db.reading() as session:
        today = now(session).date()
        (found,) = candidates(session, [studies.find(session, study_uid).id])
    return [
        Answer(verdict.sop_uid, verdict.code, verdict.reason)
        if isinstance(verdict, Excluded)
        else Answer(verdict.object.sop_uid, "in", _counts_as(found, verdict, rule))
        for verdict in judge(found, rule, today, look)
    ]


def _counts_as(study: Candidate, image: Included, rule: Rule) -> str:
    label = _label(image.benign, image.malignant)
    revisions = study.pathology.get(image.laterality, ())
    late = passed_over(revisions, study.study_date, rule.window_days)
    return f"{label} ({late})" if late else label


def why_frozen(session: Session, study_uid: str, name: str) -> list[Answer]:
    """What a frozen data set says of a study.

    Raises:
        NotFound: no such study or data set.
    """
    dataset, study = store.find(session, name), studies.find(session, study_uid)
    held = select(DatasetItem).where(
        DatasetItem.dataset_id == dataset.id, DatasetItem.study_uid == study.study_uid
    )
    left_out = select(DatasetExclusion).where(
        DatasetExclusion.dataset_id == dataset.id, DatasetExclusion.study_uid == study.study_uid
    )
    answers = [
        Answer(item.sop_uid, "in", f"{_label(item.benign, item.malignant)}, {item.split}")
        for item in session.execute(held).scalars()
    ]
    answers += [
        Answer(one.sop_uid, one.code, one.reason) for one in session.execute(left_out).scalars()
    ]
    if not answers:
        return [_absent(study, dataset)]
    if None not in {answer.sop_uid for answer in answers}:
        answers += _late(session, study, answers)
    return sorted(answers, key=lambda answer: answer.sop_uid or "")


def _absent(study: Study, dataset: Dataset) -> Answer:
    if study.received_at > dataset.created_at:
        return Answer(None, "arrived-later", "the study arrived after the data set was frozen")
    since, until = dataset.rule["since"], dataset.rule["until"]
    return Answer(None, "out-of-range", f"the study's date is not from {since} to {until}")


def _late(session: Session, study: Study, answers: list[Answer]) -> list[Answer]:
    known = {answer.sop_uid for answer in answers}
    stored = session.execute(select(Instance.sop_uid).where(Instance.study_id == study.id))
    reason = "the image arrived after the data set was frozen"
    return [Answer(uid, "arrived-later", reason) for uid in stored.scalars() if uid not in known]


def _label(benign: bool, malignant: bool) -> str:
    return finding_word(benign, malignant) if benign or malignant else "negative"
