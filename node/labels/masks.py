"""Masks that readers drew, from DICOM Segmentation objects: for evaluation only, never for training.

A segment on an image is one annotation, named by the object's UID and the segment's number: brought in again it is on
record already, a withdrawn one stays so, and other pixels or another `label` are its next revision. An object is taken
segment by segment; what cannot be mapped to a frame of an image that is here is reported and left alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from sqlalchemy.orm import Session

from dicom_io.drawn import DrawnSegment, read_drawn
from dicom_io.errors import DicomIoError
from dicom_io.findings import LABELS
from dicom_io.outline import Outline
from node.blobs import BlobStore
from node.db import Database, now
from node.errors import InvalidLabel, NotFound
from node.labels.boxes import KeptMask, add_annotation, find_image, newest_on, stored_header
from node.labels.revisions import lock
from node.labels.values import Box, name_of
from node.learning_models import Annotation
from node.models import Instance


class MaskOutcome(StrEnum):
    """What became of a segment."""

    WRITTEN = "written"
    UNCHANGED = "unchanged"
    REFUSED = "refused"


@dataclass(frozen=True)
class MaskWishes:
    """How to import: `label` takes the place of what the segments say, `source` of the file's name."""

    author: str
    source: str | None = None
    label: str | None = None
    dry_run: bool = False


@dataclass(frozen=True)
class MaskRow:
    """One segment on one image; `number` and `revision` are None where nothing was written, or would be."""

    file: str
    segment: int | None
    sop_uid: str | None
    outcome: MaskOutcome
    label: str | None = None
    frames: int = 0
    number: int | None = None
    revision: int | None = None
    reason: str = ""


class _Verdict(NamedTuple):
    """Of a segment that fits its image: `known` is the newest revision on record, `why` to leave it alone."""

    label: str
    known: Annotation | None
    why: str | None


def import_masks(
    db: Database, blobs: BlobStore, files: Sequence[Path], wishes: MaskWishes
) -> list[MaskRow]:
    """Import what readers drew, a transaction a file.

    Raises:
        InvalidLabel: the label, the source or the author cannot be; nothing was written.
        DatabaseUnavailable: no connection; the files before it are in.
        OSError: a file cannot be read; the same.
    """
    if wishes.label is not None and wishes.label not in LABELS:
        raise InvalidLabel(f"label is {wishes.label!r}; give {' or '.join(LABELS)}")
    for what, name in (("author", wishes.author), ("source", wishes.source or files[0].name)):
        name_of(what, name)
    return [row for path in files for row in _import(db, blobs, path, wishes)]


def _import(db: Database, blobs: BlobStore, path: Path, wishes: MaskWishes) -> list[MaskRow]:
    try:
        found = read_drawn(path)
    except DicomIoError as error:
        return [MaskRow(path.name, None, None, MaskOutcome.REFUSED, reason=str(error))]
    with db.reading() if wishes.dry_run else db.transaction() as session:
        taker = _Taker(session, blobs, path.name, wishes)
        return [taker.take(one, found.sop_uid, found.shape) for one in found.drawings]


@dataclass(frozen=True)
class _Taker:
    """Decides and writes within one transaction."""

    session: Session
    blobs: BlobStore
    file: str
    wishes: MaskWishes

    def take(self, drawn: DrawnSegment, seg_uid: str, shape: tuple[int, int]) -> MaskRow:
        """Write one segment, or say why not; `shape` (rows, columns) is that of the object's frames."""
        drawn_in = f"{seg_uid}#{drawn.segment}"
        try:
            if drawn.problem or drawn.sop_uid is None or drawn.outline is None:
                raise InvalidLabel(drawn.problem)
            image = find_image(self.session, drawn.sop_uid)
            self._check(image, drawn, drawn.outline, shape)
            verdict = self._judge(image, drawn, drawn_in, drawn.outline)
        except (InvalidLabel, NotFound, DicomIoError) as error:
            return self._row(drawn, MaskOutcome.REFUSED, None, str(error))
        if verdict.why is not None:
            return self._row(drawn, MaskOutcome.UNCHANGED, verdict.label, verdict.why)
        row = None if self.wishes.dry_run else self._write(image, drawn.outline, verdict, drawn_in)
        return self._row(drawn, MaskOutcome.WRITTEN, verdict.label, "", row)

    def _check(
        self, image: Instance, drawn: DrawnSegment, outline: Outline, shape: tuple[int, int]
    ) -> None:
        header = stored_header(self.blobs, image)
        rows, cols, frames = header.rows or 0, header.columns or 0, image.frames or 1
        if shape != (rows, cols):
            raise InvalidLabel(
                f"it has {shape[0]} x {shape[1]} pixels, image {image.sop_uid} has {rows} x {cols};"
                " draw on the image as stored"
            )
        wrong = next((frame for frame in outline.frames if not 0 <= frame < frames), None)
        if wrong is not None:
            raise InvalidLabel(
                f"it lies on frame {wrong + 1}, image {image.sop_uid} has {frames}; export it again"
            )
        if frames > 1 and not drawn.numbered:
            raise InvalidLabel(
                f"it does not say on which of the {frames} frames of image {image.sop_uid} it lies"
                " (Referenced Frame Number); export it with them"
            )

    def _judge(
        self, image: Instance, drawn: DrawnSegment, drawn_in: str, outline: Outline
    ) -> _Verdict:
        if not self.wishes.dry_run:
            lock(self.session, [image.study_id])
        here = {row.drawn_in: row for row in newest_on(self.session, image)}
        known = here.get(drawn_in)
        label = self.wishes.label or (known.label if known else drawn.label)
        if label is None:
            raise InvalidLabel(
                "its property says neither benign nor malignant; say it with --label"
            )
        if known is not None and known.withdrawn:
            return _Verdict(known.label, known, f"mask {known.number} was withdrawn, and stays so")
        same = known is not None and known.mask == outline.to_bytes() and known.label == label
        return _Verdict(label, known, "on record already" if same else None)

    def _write(
        self, image: Instance, outline: Outline, verdict: _Verdict, drawn_in: str
    ) -> Annotation | None:
        frame, place = outline.central
        return add_annotation(
            self.session, image, Box(frame, *place), label=verdict.label,
            number=verdict.known.number if verdict.known else None,
            kept=KeptMask(outline.to_bytes(), drawn_in), source=self.wishes.source or self.file,
            author=self.wishes.author, at=now(self.session),
        )  # fmt: skip

    def _row(
        self,
        drawn: DrawnSegment,
        outcome: MaskOutcome,
        label: str | None,
        reason: str,
        row: Annotation | None = None,
    ) -> MaskRow:
        return MaskRow(
            self.file, drawn.segment, drawn.sop_uid, outcome, label,
            len(drawn.outline.frames) if drawn.outline else 0,
            row.number if row else None, row.revision if row else None, reason,
        )  # fmt: skip


def outcomes(rows: Sequence[MaskRow]) -> Iterator[str]:
    """ "3 written", "1 refused": those that occur."""
    for outcome in MaskOutcome:
        if count := sum(row.outcome is outcome for row in rows):
            yield f"{count} {outcome.value}"
