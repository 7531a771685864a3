"""Segmentations: one BINARY Segmentation object (PS3.3 A.51) per image with suspicious regions.

Each stored frame holds one label on one source frame and names that frame (Derivation Image Sequence), so a reader
pairs them without geometry. Only frames with a pixel set are stored, and their bits are packed one frame at a time:
memory grows by an eighth of a byte per pixel of such a frame.
"""

from __future__ import annotations

import numpy as np
from highdicom import AlgorithmIdentificationSequence
from highdicom.color import CIELabColor
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import SegmentationStorage

from dicom_io import result_codes as names
from dicom_io.errors import InvalidFindings
from dicom_io.findings import (
    LABELS,
    ImageFindings,
    Label,
    RunContext,
    Segment,
    SegmentationRef,
    SourceRef,
)
from dicom_io.header import values
from dicom_io.modules import (
    copy_lossy_compression,
    disclaimer,
    reference_item,
    series_description,
    start_object,
)
from dicom_io.result_codes import code_item
from dicom_io.seg_frames import add_frames
from dicom_io.seg_geometry import (
    NoGeometry,
    PatientGeometry,
    read_geometry,
)
from dicom_io.uids import derive_uid

_SERIES_NUMBER = 9001
_FAMILY = codes.DCM.ArtificialIntelligence


def build_seg(
    findings: ImageFindings, run: RunContext, *, jpeg2000: bool = False
) -> Dataset | None:
    """The segmentation of one image, or None where no mask has a pixel set.

    Segments are numbered from 1 in the order benign, malignant, those without a pixel left out. Frames follow
    segment number, then source frame. Where the source's geometry can be believed it is copied frame by frame;
    where not, the object claims none and says why in Image Comments (see `seg_geometry`). With `jpeg2000` every frame
    is a lossless code stream of one bit a pixel (PS3.5 8.2.4); the same instance in another form, so send one of them.

    Raises InvalidFindings where a mask has another shape than the source, a frame is not there,
    or a label occurs twice.
    """
    segments = present_segments(findings)
    if not segments:
        return None
    source = findings.source
    seg = start_object(
        source.header,
        run,
        sop_class_uid=SegmentationStorage,
        sop_instance_uid=derive_uid(run.run_id, "seg", source.sop_instance_uid),
        # A series has one frame of reference (PS3.3 A.1.2.5) and every image its own, so each has its own series.
        series_instance_uid=derive_uid(run.run_id, "seg-series", source.sop_instance_uid),
    )
    geometry = read_geometry(source)
    add_series(seg, source, _SERIES_NUMBER, "regions", run)
    add_image(seg, source, geometry, run)
    seg.BitsAllocated = seg.BitsStored = 1
    seg.HighBit = 0
    seg.SegmentationType = "BINARY"
    seg.SegmentsOverlap = "YES" if _overlap(segments) else "NO"
    seg.SegmentSequence = [
        segment_item(i, s.label, s.max_score, source, run) for i, s in enumerate(segments, start=1)
    ]
    add_frames(seg, source, segments, geometry, run, jpeg2000=jpeg2000)
    return seg


def reference(seg: Dataset, source: SourceRef) -> SegmentationRef:
    """What the report says of a segmentation made by `build_seg`."""
    present = {label: names.segment_label(label) for label in LABELS}
    numbers = {
        label: int(item.SegmentNumber)
        for item in seg.SegmentSequence
        for label, name in present.items()
        if item.SegmentLabel == name
    }
    return SegmentationRef(
        source_sop_instance_uid=source.sop_instance_uid,
        series_instance_uid=str(seg.SeriesInstanceUID),
        sop_class_uid=str(seg.SOPClassUID),
        sop_instance_uid=str(seg.SOPInstanceUID),
        segment_numbers=numbers,
    )


def present_segments(findings: ImageFindings) -> list[Segment]:
    """The segments with a pixel set, benign first, their frames in order and without empty ones."""
    source = findings.source
    by_label: dict[Label, Segment] = {}
    for segment in findings.segments:
        if segment.label in by_label:
            raise InvalidFindings(f"label {segment.label} has two segments; join their masks")
        for frame, mask in segment.frames.items():
            _check_mask(frame, mask, source)
        frames = {f: segment.frames[f] for f in sorted(segment.frames) if segment.frames[f].any()}
        by_label[segment.label] = Segment(segment.label, frames, segment.max_score)
    return [by_label[label] for label in LABELS if label in by_label and by_label[label].frames]


def _check_mask(frame: int, mask: NDArray[np.bool_], source: SourceRef) -> None:
    if mask.shape != source.shape or mask.dtype != np.bool_:
        raise InvalidFindings(
            f"a mask is {mask.dtype} {mask.shape}; it must be bool {source.shape}, the source's rows and columns"
        )
    if not 0 <= frame < source.frame_count:
        raise InvalidFindings(
            f"a mask lies on frame index {frame}; the source has {source.frame_count} frames"
        )


def add_series(
    seg: Dataset, source: SourceRef, series_number: int, subject: str, run: RunContext
) -> None:
    """Segmentation Series and Common Instance Reference modules (PS3.3 C.8.20.1, C.12.2)."""
    title = names.image_title(source.laterality, source.view)
    seg.Modality = "SEG"
    seg.SeriesNumber = series_number
    seg.InstanceNumber = 1
    seg.SeriesDescription = series_description(f"{title} {subject}", run)
    seg.BodyPartExamined = "BREAST"
    seg.SourceImageSequence = [reference_item(*one) for one in source.instances]
    series = Dataset()
    series.SeriesInstanceUID = source.header.SeriesInstanceUID
    series.ReferencedInstanceSequence = [reference_item(*one) for one in source.instances]
    seg.ReferencedSeriesSequence = [series]


def add_image(
    seg: Dataset, source: SourceRef, geometry: PatientGeometry | NoGeometry, run: RunContext
) -> None:
    """Segmentation Image module (PS3.3 C.8.20.2), but what depends on the kind of segmentation."""
    seg.ImageType = ["DERIVED", "PRIMARY"]
    seg.ContentLabel = "AI_REGIONS"
    seg.ContentDescription = "Regions marked by a model, research, not for clinical use"
    seg.ContentCreatorName = None
    comment = disclaimer(run)
    if isinstance(geometry, NoGeometry):
        # Type 2C where no orientation in the patient is given (PS3.3 C.7.6.1).
        seg.PatientOrientation = values(source.header, "PatientOrientation") or None
        comment += (
            f" No position in the patient is claimed: {geometry.reason}. "
            "Frames pair with source frames by number."
        )
    seg.ImageComments = comment
    seg.SamplesPerPixel = 1
    seg.PhotometricInterpretation = "MONOCHROME2"
    seg.Rows, seg.Columns = source.shape
    seg.PixelRepresentation = 0
    seg.PresentationLUTShape = "IDENTITY"
    copy_lossy_compression(source.header, seg)


def _overlap(segments: list[Segment]) -> bool:
    if len(segments) < 2:
        return False
    first, second = (segment.frames for segment in segments)
    return any(bool(np.any(first[frame] & second[frame])) for frame in first.keys() & second.keys())


def segment_item(
    number: int,
    label: Label,
    max_score: float,
    source: SourceRef,
    run: RunContext,
    described: str = "",
) -> Dataset:
    """An item of Segment Sequence (PS3.3 C.8.20.4): what the segment is, and what made it.

    `described` says what its pixels are; left out: those at or above the operating point.
    """
    algorithm = run.algorithm
    item = Dataset()
    item.SegmentNumber = number
    item.SegmentLabel = names.segment_label(label)
    item.SegmentDescription = (
        described or f"Pixels a model scores as {label} at or above {run.operating_point:g}"
    ) + f"; highest score {max_score:.3f} (model output). {disclaimer(run)}"
    item.SegmentAlgorithmType = "AUTOMATIC"
    item.SegmentAlgorithmName = algorithm.name[:64]
    item.SegmentationAlgorithmIdentificationSequence = AlgorithmIdentificationSequence(
        name=algorithm.name[:64],
        family=_FAMILY,
        version=algorithm.version[:64],
        source=run.equipment.manufacturer[:64],
        parameters=names.algorithm_parameters(run),
    )
    item.SegmentedPropertyCategoryCodeSequence = [code_item(names.ABNORMAL_STRUCTURE)]
    lesion = code_item(names.LESION)
    lesion.SegmentedPropertyTypeModifierCodeSequence = [
        code_item(names.SUSPECTED),
        code_item(names.CLASSES[label]),
    ]
    item.SegmentedPropertyTypeCodeSequence = [lesion]
    region = code_item(names.BREAST)
    if source.laterality in names.SIDES:
        region.AnatomicRegionModifierSequence = [code_item(names.SIDES[source.laterality])]
    item.AnatomicRegionSequence = [region]
    item.TrackingID = f"{names.image_title(source.laterality, source.view)} {label}"
    item.TrackingUID = derive_uid(run.run_id, "segment", source.sop_instance_uid, label)
    item.RecommendedDisplayCIELabValue = list(CIELabColor.from_rgb(*names.STYLES[label].rgb).value)
    return item
