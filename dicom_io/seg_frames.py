"""The frames of a segmentation: which source frame each lies on, where in the patient, and the packed pixels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code
from pydicom.tag import Tag

from dicom_io.findings import RunContext, Segment, SourceRef
from dicom_io.modules import reference_item
from dicom_io.result_codes import SOURCE_IMAGE, code_item
from dicom_io.seg_geometry import NoGeometry, PatientGeometry, decimal_strings, pixel_measures
from dicom_io.seg_pixels import PixelWriter
from dicom_io.uids import derive_uid

SEGMENTATION = Code("113076", "DCM", "Segmentation")

Place = tuple[int | None, int]
"""Segment number of a stored frame (None where frames are of no one segment), and its 0-based source frame."""


def add_frames(
    seg: Dataset,
    source: SourceRef,
    segments: list[Segment],
    geometry: PatientGeometry | NoGeometry,
    run: RunContext,
    *,
    jpeg2000: bool = False,
) -> None:
    """Multi-frame Dimension, Functional Groups and the pixels (PS3.3 C.7.6.16, C.7.6.17), packed or compressed."""
    kept = [(number, frame) for number, s in enumerate(segments, start=1) for frame in s.frames]
    add_groups(seg, source, kept, geometry, run)
    masks = (segments[number - 1].frames[frame] for number, frame in kept)
    if jpeg2000:
        with PixelWriter(jpeg2000=True, bits=1) as pixels:
            for mask_HW in masks:
                pixels.add(mask_HW.astype(np.uint8))
            pixels.attach(seg)
    else:
        seg.PixelData = pack_frames(masks)


def add_groups(
    target: Dataset,
    source: SourceRef,
    kept: Sequence[Place],
    geometry: PatientGeometry | NoGeometry,
    run: RunContext,
    derivation: Code = SEGMENTATION,
) -> None:
    """Everything that `add_frames` adds but the pixels, for the frames `kept` in their order."""
    by_segment = any(number is not None for number, _ in kept)
    dimension = derive_uid(run.run_id, "dimension", source.sop_instance_uid)
    organization = Dataset()
    organization.DimensionOrganizationUID = dimension
    target.DimensionOrganizationSequence = [organization]
    shared = Dataset()
    if isinstance(geometry, PatientGeometry):
        target.FrameOfReferenceUID = geometry.frame_of_reference_uid
        target.PositionReferenceIndicator = geometry.position_reference_indicator
        orientation = Dataset()
        orientation.ImageOrientationPatient = decimal_strings(geometry.orientation)
        shared.PlaneOrientationSequence = [orientation]
        second = _dimension(dimension, "ImagePositionPatient", "PlanePositionSequence")
    else:
        second = _dimension(dimension, "InStackPositionNumber", "FrameContentSequence")
    measures = pixel_measures(source)
    if measures is not None:
        shared.PixelMeasuresSequence = [measures]
    first = _dimension(dimension, "ReferencedSegmentNumber", "SegmentIdentificationSequence")
    target.DimensionIndexSequence = [first, second] if by_segment else [second]
    target.SharedFunctionalGroupsSequence = [shared]
    target.PerFrameFunctionalGroupsSequence = list(_frame_items(kept, source, geometry, derivation))
    target.NumberOfFrames = len(kept)


def _dimension(uid: str, pointer: str, group: str) -> Dataset:
    item = Dataset()
    item.DimensionOrganizationUID = uid
    item.DimensionIndexPointer = Tag(pointer)
    item.FunctionalGroupPointer = Tag(group)
    return item


def _frame_items(
    kept: Sequence[Place],
    source: SourceRef,
    geometry: PatientGeometry | NoGeometry,
    derivation: Code,
) -> Iterator[Dataset]:
    for number, frame in kept:
        content = Dataset()
        item = Dataset()
        if isinstance(geometry, PatientGeometry):
            position = Dataset()
            position.ImagePositionPatient = decimal_strings(geometry.positions_mm[frame])
            item.PlanePositionSequence = [position]
            place = int(geometry.rank[frame])
        else:
            content.StackID = "1"
            content.InStackPositionNumber = place = frame + 1
        content.DimensionIndexValues = [place] if number is None else [number, place]
        item.FrameContentSequence = [content]
        if number is not None:
            identification = Dataset()
            identification.ReferencedSegmentNumber = number
            item.SegmentIdentificationSequence = [identification]
        item.DerivationImageSequence = [_derivation(frame, source, derivation)]
        yield item


def _derivation(frame: int, source: SourceRef, code: Code) -> Dataset:
    """Names the source frame this frame lies on, pixel for pixel (PS3.3 C.7.6.16.2.6)."""
    reference = source.frame_reference(frame)
    image = reference_item(reference.sop_class_uid, reference.sop_instance_uid)
    image.SpatialLocationsPreserved = "YES"
    image.PurposeOfReferenceCodeSequence = [code_item(SOURCE_IMAGE)]
    if reference.frame is not None:
        image.ReferencedFrameNumber = reference.frame + 1
    item = Dataset()
    item.SourceImageSequence = [image]
    item.DerivationCodeSequence = [code_item(code)]
    return item


def pack_frames(masks: Iterable[NDArray[np.bool_]]) -> bytes:
    """Bits of bool (H, W) frames in one stream, first pixel in the lowest bit (PS3.5 8.1.1, 8.2).

    Frames follow one another without a gap, so a frame may begin inside a byte; the length is even.
    """
    packed = bytearray()
    rest = np.zeros(0, dtype=np.bool_)
    for mask_HW in masks:
        bits = np.concatenate([rest, mask_HW.reshape(-1)])
        whole = len(bits) // 8 * 8
        packed += np.packbits(bits[:whole], bitorder="little").tobytes()
        rest = bits[whole:]
    packed += np.packbits(rest, bitorder="little").tobytes()
    return bytes(packed) + b"\0" * (len(packed) % 2)
