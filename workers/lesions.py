"""Lesions that readers drew on the images of a test split: read from the annotations, and moved to where a model saw
them. For evaluation alone; no training reads them.

Stored frames -> (frame order, orientation) -> volume -> (crop, flip) -> window, exact to the pixel, as
`workers.translate` goes the other way.
"""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select
from sqlalchemy.orm import Session

from dicom_io.findings import LABELS, Label
from dicom_io.outline import Outline
from gmic.evaluate.localisation import LesionBox
from node.labels.boxes import newest_annotations
from node.labels.revisions import CHUNK
from node.labels.values import Box
from node.learning_models import Annotation, DatasetItem
from node.models import Instance
from workers.looks import Look


@dataclass(frozen=True)
class Lesion:
    """One lesion of an image as it was drawn, in stored frames; `outline` is None where there is a box alone."""

    label: Label
    box: Box
    outline: Outline | None = None


Lesions = Mapping[str, tuple[Lesion, ...]]
"""By SOP Instance UID of the image; an image without one is not in it."""


def lesions_of(session: Session, items: Sequence[DatasetItem]) -> Lesions:
    """What is drawn today on these images, by their bytes: newest revisions that were not withdrawn."""
    digests = {item.sop_uid: item.sha256 for item in items}
    images: dict[uuid.UUID, Instance] = {}
    uids = sorted(digests)
    for start in range(0, len(uids), CHUNK):
        query = select(Instance).where(Instance.sop_uid.in_(uids[start : start + CHUNK]))
        images |= {one.id: one for one in session.execute(query).scalars()}
    drawn = newest_annotations(session, {image.study_id for image in images.values()})
    found: dict[str, list[Lesion]] = defaultdict(list)
    for (instance_id, _), row in sorted(drawn.items(), key=lambda each: each[0][1]):
        image = images.get(instance_id)
        if image is not None and digests[image.sop_uid] == image.sha256:
            found[image.sop_uid].append(_lesion(row))
    return {uid: tuple(lesions) for uid, lesions in found.items()}


def _lesion(row: Annotation) -> Lesion:
    return Lesion(
        next(label for label in LABELS if label == row.label),
        Box(row.frame, row.row, row.col, row.height, row.width),
        Outline.from_bytes(row.mask) if row.mask is not None else None,
    )


def window_mask(lesions: Sequence[Lesion], label: Label, look: Look) -> NDArray[np.bool_] | None:
    """The masks of a label, over all frames, in the window (h, w) that was read; None where there is none."""
    outlines = [one.outline for one in lesions if one.label == label and one.outline is not None]
    if not outlines:
        return None
    shape = look.transform.source_shape
    mask_HW = np.any([one.projected((shape[1], shape[2])) for one in outlines], axis=0)
    return look.transform.mask_to_window(mask_HW[::-1, ::-1] if look.turned else mask_HW)


def volume_box(lesion: Lesion, look: Look) -> LesionBox:
    """The box of a lesion in slices, rows and columns of the volume; its one slice is the box's frame."""
    _, rows, cols = look.transform.source_shape
    box = lesion.box
    # The nearest one: a header may speak of more frames than there are.
    d = min(range(len(look.frames)), key=lambda index: abs(look.frames[index] - box.frame))
    row, col = box.row, box.col
    if look.turned:
        row, col = rows - row - box.height, cols - col - box.width
    return LesionBox(d, row, col, d + 1, row + box.height, col + box.width)
