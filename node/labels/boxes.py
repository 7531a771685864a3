"""Boxes around lesions on frames, some with a mask: for evaluation only, never for training."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Unpack

from sqlalchemy import ColumnElement, and_, func, select
from sqlalchemy.orm import Session

from dicom_io.findings import LABELS
from dicom_io.header import InstanceHeader, read_header
from node import timeline
from node.blobs import BlobStore
from node.errors import InvalidLabel, NotFound
from node.labels.revisions import Origin, chunks, columns, lock
from node.labels.values import Box, shown
from node.learning_models import Annotation
from node.models import Instance


class KeptMask(NamedTuple):
    """A mask as a row keeps it: the bytes of a `dicom_io.outline.Outline`, and where it was drawn."""

    mask: bytes | None = None
    drawn_in: str | None = None


_NO_MASK = KeptMask()


def add_annotation(
    session: Session,
    instance: Instance,
    box: Box,
    *,
    label: str,
    number: int | None = None,
    kept: KeptMask = _NO_MASK,
    withdrawn: bool = False,
    **origin: Unpack[Origin],
) -> Annotation | None:
    """Write a box around a lesion, for evaluation only: a new one, or the next revision of box `number`.

    The image's rows and columns are not in the database: `check_inside` asks its header.

    Returns:
        The new row; None where the newest revision says the same.

    Raises:
        InvalidLabel: no such label, or the box cannot be on this image.
        NotFound: the image has no box `number`.
    """
    _check_box(instance, box, label)
    lock(session, [instance.study_id])
    known = {row.number: row for row in newest_on(session, instance)}
    if number is not None and number not in known:
        raise NotFound(f"no box {number} on this image; it has {len(known)}; leave the number out")
    number = number or max(known, default=0) + 1
    newest = known.get(number)
    if newest is not None and newest.drawn_in != kept.drawn_in:
        raise InvalidLabel(
            f"{number} is a mask on this image, drawn in {newest.drawn_in}; withdraw it, then draw a box"
        )
    values = {**vars(box), "label": label, **kept._asdict(), "withdrawn": withdrawn}
    if newest is not None and all(getattr(newest, name) == values[name] for name in values):
        return None
    where_from = columns(origin)
    where_from.pop("import_id")
    row = Annotation(
        instance_id=instance.id, number=number,
        revision=1 if newest is None else newest.revision + 1, **values, **where_from,
    )  # fmt: skip
    session.add(row)
    session.flush()
    what = "withdrawn" if withdrawn else label
    kind = "mask" if kept.mask else "box"
    message = f"{kind} {number} on {instance.sop_uid}, revision {row.revision}: {what}"
    timeline.add(session, instance.study_id, origin["at"], "label", message)
    return row


def withdraw(
    session: Session, instance: Instance, number: int, **origin: Unpack[Origin]
) -> Annotation | None:
    """Let a box count no more: its next revision is withdrawn. None: it was.

    Raises:
        NotFound: the image has no such box.
    """
    lock(session, [instance.study_id])
    known = {row.number: row for row in newest_on(session, instance)}
    if number not in known:
        raise NotFound(
            f"no box {number} on image {instance.sop_uid}; `tomonode label show` lists them"
        )
    last = known[number]
    place = Box(last.frame, last.row, last.col, last.height, last.width)
    return add_annotation(
        session, instance, place, label=last.label, number=number,
        kept=KeptMask(last.mask, last.drawn_in), withdrawn=True, **origin,
    )  # fmt: skip


def check_inside(store: BlobStore, instance: Instance, box: Box) -> None:
    """Raises InvalidLabel where the box leaves the stored image, NotFound where its bytes are not here."""
    header = stored_header(store, instance)
    rows, cols = header.rows or 0, header.columns or 0
    if box.row + box.height > rows or box.col + box.width > cols:
        raise InvalidLabel(
            f"box ends at row {box.row + box.height}, column {box.col + box.width}, the image has {rows} x {cols};"
            " give pixels as stored"
        )


def stored_header(store: BlobStore, instance: Instance) -> InstanceHeader:
    """What an image's own header says. Raises NotFound where its bytes are not here."""
    try:
        return read_header(store.fetch(instance.sha256))
    except FileNotFoundError:
        raise NotFound(
            f"image {instance.sop_uid} is not in the blob store; send it again"
        ) from None


def find_image(session: Session, sop_uid: str) -> Instance:
    """A stored image by its SOP Instance UID. Raises NotFound."""
    query = select(Instance).where(Instance.sop_uid == sop_uid, Instance.is_image)
    instance = session.execute(query).scalar_one_or_none()
    if instance is None:
        raise NotFound(f"no image {sop_uid!r}; `tomonode study show` lists those of a study")
    return instance


def revisions(session: Session, study_id: uuid.UUID) -> Sequence[Annotation]:
    """Every revision of every box of a study, by image, number and revision."""
    query = select(Annotation).join(Instance, Instance.id == Annotation.instance_id)
    order = (Instance.sop_uid, Annotation.number, Annotation.revision)
    return (
        session.execute(query.where(Instance.study_id == study_id).order_by(*order)).scalars().all()
    )


def newest_annotations(
    session: Session, study_ids: Iterable[uuid.UUID] | None = None
) -> dict[tuple[uuid.UUID, int], Annotation]:
    """The newest revision a box that was not withdrawn, by image and number, of these studies or of all."""
    if study_ids is None:
        rows = list(_boxes(session))
    else:
        rows = []
        for chunk in chunks(study_ids):
            held = select(Instance.id).where(Instance.study_id.in_(chunk))
            rows += _boxes(session, Annotation.instance_id.in_(held))
    return {(row.instance_id, row.number): row for row in rows if not row.withdrawn}


def newest_on(session: Session, instance: Instance) -> Sequence[Annotation]:
    """The newest revision of each box of an image, withdrawn ones too."""
    return _boxes(session, Annotation.instance_id == instance.id)


def _boxes(session: Session, *where: ColumnElement[bool]) -> Sequence[Annotation]:
    """The newest revision of each box, withdrawn ones too."""
    top = (
        select(
            Annotation.instance_id, Annotation.number, func.max(Annotation.revision).label("newest")
        )
        .where(*where)
        .group_by(Annotation.instance_id, Annotation.number)
        .subquery()
    )
    same = and_(
        Annotation.instance_id == top.c.instance_id,
        Annotation.number == top.c.number,
        Annotation.revision == top.c.newest,
    )
    return session.execute(select(Annotation).join(top, same)).scalars().all()


def _check_box(instance: Instance, box: Box, label: str) -> None:
    if label not in LABELS:
        raise InvalidLabel(f"label of a box is {shown(label)}; give {' or '.join(LABELS)}")
    if min(box.frame, box.row, box.col) < 0 or min(box.height, box.width) < 1:
        raise InvalidLabel(
            f"box {box.frame}, {box.row}, {box.col}, {box.height} x {box.width} cannot be; frame, row and column"
            " count from 0, height and width from 1"
        )
    frames = instance.frames or 1
    if box.frame >= frames:
        raise InvalidLabel(f"box on frame {box.frame}, the image has {frames}; they count from 0")
