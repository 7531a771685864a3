"""The Image Library of a CAD report (PS3.16 TID 4020), and where in the tree each entry stands.

The rest of the tree refers to entries by their place. Marks on tomosynthesis lie on one frame, so each frame that
carries a mark has an entry of its own beside that of the whole image.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from highdicom import sr
from pydicom.dataset import Dataset

from dicom_io import cad_codes as cad
from dicom_io import result_codes as names
from dicom_io.findings import FrameRef, ImageFindings, SourceRef
from dicom_io.header import numbers, values
from dicom_io.header import text as header_text
from dicom_io.seg_geometry import NoGeometry, PatientGeometry, pixel_measures, read_geometry

_ROOT_PLACE = 1


@dataclass(frozen=True)
class Library:
    """`entries` in their order; `places` the item identifier of each, by image and 0-based frame (None: the whole)."""

    entries: tuple[Dataset, ...]
    places: dict[tuple[str, int | None], tuple[int, ...]]

    @classmethod
    def of(cls, findings: Sequence[ImageFindings], position: int) -> Library:
        """The library that is the root's child number `position`, counted from 1."""
        entries: list[Dataset] = []
        places: dict[tuple[str, int | None], tuple[int, ...]] = {}
        for image in findings:
            source = image.source
            geometry = read_geometry(source)
            marked = sorted({region.key_frame for region in image.regions})
            frames = (None, *marked) if source.is_multi_frame else (None,)
            for frame in range(source.frame_count) if source.slices else frames:
                reference = _reference(source, frame)
                entries.append(_entry(source, frame, geometry))
                places[reference[1:]] = (_ROOT_PLACE, position, len(entries))
        return cls(tuple(entries), places)

    def place(self, source: SourceRef, frame: int | None = None) -> tuple[int, ...]:
        """Where the entry of an image, or of a marked frame of it, stands; of a series, that of one slice."""
        return self.places[_reference(source, frame)[1:]]

    def whole(self, source: SourceRef) -> list[tuple[int, ...]]:
        """Where the entries of an image stand: one, or one a slice."""
        return [self.places[uid, None] for _, uid in source.instances]


def _reference(source: SourceRef, frame: int | None) -> FrameRef:
    if frame is None:
        return FrameRef(source.sop_class_uid, source.sop_instance_uid, None)
    return source.frame_reference(frame)


def _entry(source: SourceRef, frame: int | None, geometry: PatientGeometry | NoGeometry) -> Dataset:
    item = cad.image(*_reference(source, frame), cad.CONTAINS)
    descriptors = [*_view(source), *_spacing(source)]
    if isinstance(geometry, PatientGeometry):
        descriptors += _position(geometry, frame)
    with_below: Dataset = cad.with_children(item, descriptors)
    return with_below


def _view(source: SourceRef) -> Iterator[Any]:
    """Side, view, orientation and date (rows 2 to 7), those that are known."""
    if source.laterality in names.BREASTS:
        yield cad.code(cad.IMAGE_LATERALITY, names.BREASTS[source.laterality], cad.ACQUIRED)
    if source.view in names.VIEWS:
        yield cad.code(cad.IMAGE_VIEW, names.VIEWS[source.view], cad.ACQUIRED)
    orientation = values(source.header, "PatientOrientation")
    if len(orientation) == 2:
        for name, value in zip(
            (cad.ORIENTATION_ROW, cad.ORIENTATION_COLUMN), orientation, strict=True
        ):
            yield cad.text(name, str(value), cad.ACQUIRED)
    date = header_text(source.header, "StudyDate")
    if len(date) == 8 and date.isdigit():
        yield sr.DateContentItem(cad.STUDY_DATE, date, cad.ACQUIRED)


def _spacing(source: SourceRef) -> Iterator[Any]:
    """Pixel spacing in mm (rows 11, 12): in the patient, or at the detector for a projection image."""
    measures = pixel_measures(source)
    spacing = numbers(
        measures or source.header, "PixelSpacing" if measures else "ImagerPixelSpacing"
    )
    if len(spacing) == 2 and min(spacing) > 0:
        yield cad.number(cad.HORIZONTAL_SPACING, spacing[1], cad.MILLIMETRE, cad.ACQUIRED)
        yield cad.number(cad.VERTICAL_SPACING, spacing[0], cad.MILLIMETRE, cad.ACQUIRED)


def _position(geometry: PatientGeometry, frame: int | None) -> Iterator[Any]:
    """Frame of reference, and of a frame where it lies in it (rows 17 to 26)."""
    yield sr.UIDRefContentItem(
        cad.FRAME_OF_REFERENCE, geometry.frame_of_reference_uid, cad.ACQUIRED
    )
    if frame is None:
        return
    for name, value in zip(cad.POSITION, geometry.positions_mm[frame], strict=True):
        yield cad.number(name, float(value), cad.MILLIMETRE, cad.ACQUIRED)
    for name, value in zip(cad.ORIENTATION, geometry.orientation, strict=True):
        yield cad.number(name, float(value), cad.COSINE, cad.ACQUIRED)
