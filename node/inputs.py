"""What a run reads: the images of its study, an object each or one object a slice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from dicom_io.syntaxes import (
    BREAST_PROJECTION_PRESENTATION,
    BREAST_PROJECTION_PROCESSING,
    MAMMOGRAPHY_PROCESSING,
)
from node.models import Instance, Run

_UNREAD: Final = (
    MAMMOGRAPHY_PROCESSING,
    BREAST_PROJECTION_PRESENTATION,
    BREAST_PROJECTION_PROCESSING,
)


@dataclass(frozen=True)
class Input:
    """One image of a claimed run: an object, or the slices of a volume that came one object a slice.

    `slices` are the digests of them all, by SOP Instance UID; the rest is then of the first of these.
    """

    sop_uid: str
    sop_class_uid: str
    sha256: str
    slices: tuple[str, ...] = ()


def of_run(session: Session, run: Run) -> tuple[Input, ...]:
    """The images to read, by SOP Instance UID; the slices of a volume are one image, in the place of the first."""
    found: dict[str, list[Instance]] = {}
    for one in session.execute(_objects(run).where(Instance.is_image)).scalars():
        found.setdefault(one.volume_uid or one.sop_uid, []).append(one)
    return tuple(
        Input(
            one.sop_uid,
            one.sop_class_uid,
            one.sha256,
            slices=tuple(each.sha256 for each in (one, *others)) if one.volume_uid else (),
        )
        for one, *others in found.values()
    )


def unread_of_run(session: Session, run: Run) -> tuple[Input, ...]:
    """Images of a breast that no model is asked to read, as far as their class tells."""
    listed = Instance.sop_class_uid.in_(_UNREAD) | Instance.kept_aside.is_not(None)
    query = _objects(run).where(Instance.is_image.is_(False), listed)
    found = session.execute(query).scalars()
    return tuple(Input(one.sop_uid, one.sop_class_uid, one.sha256) for one in found)


def _objects(run: Run) -> Select[Instance]:
    query = select(Instance).where(
        Instance.study_id == run.study_id, Instance.generation <= run.generation
    )
    return query.order_by(Instance.sop_uid)
