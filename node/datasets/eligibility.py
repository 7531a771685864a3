"""Which images of a study a data set may hold, and for every other one the reason. Pure: headers come through `Look`.

Every image of the asked kind that the model can read and whose breast has a label is in. A view taken twice is in
twice: both show the breast, and which one is better is not for us to say.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from dicom_io.syntaxes import BREAST_TOMOSYNTHESIS, MAMMOGRAPHY_PRESENTATION, STORAGE_CLASSES
from node.datasets.rule import Rule
from node.labels.rule import Unknown, truth_of
from node.learning_models import Assessment, Pathology
from node.lifecycle import StudyState

_READ = (BREAST_TOMOSYNTHESIS, MAMMOGRAPHY_PRESENTATION)


@dataclass(frozen=True)
class Object:
    """One stored object of a study."""

    sop_uid: str
    sop_class_uid: str
    sha256: str


@dataclass(frozen=True)
class Candidate:
    """One study with what is known of it; labels by laterality, pathology newest first.

    `study_date` is None where the header has none.
    """

    id: uuid.UUID
    study_uid: str
    state: str
    excluded_reason: str | None
    patient_id: str | None = field(repr=False)
    study_date: date | None
    objects: tuple[Object, ...]
    pathology: Mapping[str, Sequence[Pathology]]
    assessments: Mapping[str, Assessment]


@dataclass(frozen=True)
class Seen:
    """What the header of a readable image says."""

    laterality: str
    view: str
    strata: Mapping[str, Any]


@dataclass(frozen=True)
class Refused:
    """Why an image cannot be read."""

    code: str
    reason: str


Look = Callable[[Object, date], Seen | Refused]


@dataclass(frozen=True)
class Included:
    """An image for the data set, with its breast's labels."""

    object: Object
    study_uid: str
    patient_id: str | None = field(repr=False)
    study_date: date
    laterality: str
    view: str
    benign: bool
    malignant: bool
    pathology_revision: int | None
    birads: int | None
    assessment_revision: int | None
    strata: Mapping[str, Any]


@dataclass(frozen=True)
class Excluded:
    """A study (`sop_uid` None) or an image that is not in, and why."""

    study_uid: str
    sop_uid: str | None
    code: str
    reason: str


def judge(study: Candidate, rule: Rule, today: date, look: Look) -> list[Included | Excluded]:
    """Every stored object of a study with its verdict, or one verdict for the whole study.

    Args:
        study: with its labels.
        rule: what the data set is asked to be; whether the study is in its range is the caller's business.
        today: the day that asks, which decides whose window is still open.
        look: reads the header of an image.
    """
    day = study.study_date
    if day is None:
        return [_whole(study, "no-study-date", "the study has no date: it is in no range")]
    refused = _whole_study(study, rule)
    if refused is not None:
        return [refused]
    objects = sorted(study.objects, key=lambda one: one.sop_uid)
    return [_judge_object(study, day, one, rule, today, look) for one in objects]


def _whole_study(study: Candidate, rule: Rule) -> Excluded | None:
    if study.state == StudyState.RECEIVING:
        return _whole(study, "receiving", "the study is still receiving images")
    if study.state == StudyState.EXCLUDED:
        return _whole(study, "excluded", study.excluded_reason or "left out when it was closed")
    classes = {one.sop_class_uid for one in study.objects}
    if not classes.intersection(_READ):
        return _whole(study, "nothing-to-read", "the study has no image that the model reads")
    if rule.kind.sop_class_uid not in classes:
        return _whole(study, "other-kind", f"the study has no image of kind {rule.kind}")
    return None


def _whole(study: Candidate, code: str, reason: str) -> Excluded:
    return Excluded(study.study_uid, None, code, reason)


def _judge_object(
    study: Candidate, day: date, one: Object, rule: Rule, today: date, look: Look
) -> Included | Excluded:
    def out(code: str, reason: str) -> Excluded:
        return Excluded(study.study_uid, one.sop_uid, code, reason)

    if one.sop_class_uid not in _READ:
        name = STORAGE_CLASSES.get(one.sop_class_uid, one.sop_class_uid)
        return out("not-read", f"the model does not read {name}")
    if one.sop_class_uid != rule.kind.sop_class_uid:
        return out("other-kind", f"the image is not of kind {rule.kind}")
    seen = look(one, day)
    if isinstance(seen, Refused):
        return out(seen.code, seen.reason)
    truth = truth_of(study.pathology.get(seen.laterality, ()), day, today, rule.window_days)
    if isinstance(truth, Unknown):
        return out(truth.reason_code, truth.reason)
    assessment = study.assessments.get(seen.laterality)
    return Included(
        object=one,
        study_uid=study.study_uid,
        patient_id=study.patient_id,
        study_date=day,
        laterality=seen.laterality,
        view=seen.view,
        benign=truth.benign,
        malignant=truth.malignant,
        pathology_revision=truth.pathology_revision,
        birads=assessment.category if assessment else None,
        assessment_revision=assessment.revision if assessment else None,
        strata=seen.strata,
    )
