"""Measurement groups of the report (PS3.16 TID 1501, 1410, 1411): the analysis, each image, each region."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from highdicom import sr
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from dicom_io import result_codes as names
from dicom_io.errors import InvalidFindings
from dicom_io.findings import LABELS, ImageFindings, Region, RunContext, SegmentationRef, SourceRef
from dicom_io.uids import derive_uid

_CONTAINS = sr.RelationshipTypeValues.CONTAINS
_PIXELS = Code("{pixels}", "UCUM", "Pixels")


def text_item(name: Code, value: str) -> Any:
    """A contained TEXT item."""
    return sr.TextContentItem(name, value, _CONTAINS)


def _algorithm(run: RunContext, *, in_full: bool) -> Any:
    """TID 4019 "Algorithm Identification"; every parameter once, the weights' hash everywhere."""
    given = names.algorithm_parameters(run)
    shown = (
        given
        if in_full
        else {"weights_sha256": given["weights_sha256"], "weights": given["weights"]}
    )
    return sr.AlgorithmIdentification(
        name=run.algorithm.name,
        version=run.algorithm.version,
        parameters=[f"{name} = {value}" for name, value in shown.items()],
        family=codes.DCM.ArtificialIntelligence,
    )


def analysis_groups(run: RunContext) -> list[Any]:
    """TID 1501 for each model: what computed the findings, in full, and the operating point."""
    study, *mammograms = run.readers
    return [
        _analysis_group(study, "Analysis of the study", "analysis"),
        *(_analysis_group(one, "Analysis of the mammograms", "analysis-2d") for one in mammograms),
    ]


def _analysis_group(run: RunContext, title: str, part: str) -> Any:
    return sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(derive_uid(run.run_id, part), title),
        algorithm_id=_algorithm(run, in_full=True),
        measurements=[_score(names.OPERATING_POINT, run.operating_point)],
    )


def image_group(image: ImageFindings, run: RunContext) -> Any:
    """TID 1501: what the model says of one image, whether or not it marked a region."""
    source = image.source
    run = run.reading(source)
    found = bool(image.regions)
    evaluations = [
        sr.QualitativeEvaluation(
            names.PROCESSING_SUMMARY, names.WITH_FINDINGS if found else names.WITHOUT_FINDINGS
        )
    ]
    if source.view in names.VIEWS:
        evaluations.insert(
            0, sr.QualitativeEvaluation(codes.DCM.ImageView, names.VIEWS[source.view])
        )
    group = sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(
            derive_uid(run.run_id, "image", source.sop_instance_uid),
            f"{names.image_title(source.laterality, source.view)}, whole image",
        ),
        finding_sites=[_site(source)],
        algorithm_id=_algorithm(run, in_full=False),
        measurements=[_score(names.IMAGE_SCORES[label], image.scores[label]) for label in LABELS],
        qualitative_evaluations=evaluations,
        source_images=[sr.SourceImageForMeasurementGroup(*one) for one in source.instances],
    )
    group[0].ContentSequence.extend(
        [
            text_item(names.RESULT, image_sentence(image, run)),
            *(text_item(codes.DCM.Comment, n) for n in image.notes),
        ]
    )
    return group


def image_sentence(image: ImageFindings, run: RunContext) -> str:
    """What was marked on one image, in words."""
    if not image.regions:
        return f"No region above the operating point {run.operating_point:g}."
    counts = [(sum(region.label == label for region in image.regions), label) for label in LABELS]
    return (
        "Regions marked: " + ", ".join(f"{count} {label}" for count, label in counts if count) + "."
    )


def region_groups(
    findings: Sequence[ImageFindings], segmentations: Mapping[str, SegmentationRef], run: RunContext
) -> list[Any]:
    """The groups of all regions, image by image; none where nothing was marked."""
    return [
        item
        for image in findings
        for number, region in enumerate(image.regions, start=1)
        for item in _region_group(
            number, region, image, segmentations.get(image.source.sop_instance_uid), run
        )
    ]


def _region_group(
    number: int, region: Region, image: ImageFindings, seg: SegmentationRef | None, run: RunContext
) -> Any:
    """TID 1411 with the region's segment where there is one, else TID 1410 with its box on the key frame."""
    source = image.source
    run = run.reading(source)
    check_frames(region, source)
    title = names.image_title(source.laterality, source.view)
    common = {
        "tracking_identifier": sr.TrackingIdentifier(
            derive_uid(run.run_id, "region", source.sop_instance_uid, region.label, str(number)),
            f"{title}, region {number}, {region.label} suspicion, {_key(region, source)}",
        ),
        "finding_category": names.ABNORMAL_STRUCTURE,
        "finding_type": names.LESION,
        "finding_sites": [_site(source)],
        "algorithm_id": _algorithm(run, in_full=False),
        "measurements": _region_measurements(region, source),
        "qualitative_evaluations": [
            sr.QualitativeEvaluation(names.MODEL_CLASS, names.CLASSES[region.label])
        ],
    }
    if seg is None or region.label not in seg.segment_numbers:
        return sr.PlanarROIMeasurementsAndQualitativeEvaluations(
            referenced_region=_box(region, source), **common
        )
    segment = sr.ReferencedSegment(
        seg.sop_class_uid,
        seg.sop_instance_uid,
        seg.segment_numbers[region.label],
        source_images=_segmented(region, source),
    )
    return sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        referenced_segment=segment, **common
    )


def _key(region: Region, source: SourceRef) -> str:
    """The key frame in words; of a series, its slice counted in spatial order."""
    if source.slices:
        return f"key slice {region.key_frame + 1} of {source.frame_count}"
    return f"key frame {region.key_frame + 1}"


def _segmented(region: Region, source: SourceRef) -> list[Any]:
    """The frames of a region: numbers in their one object, or an object each."""
    frames = range(region.first_frame, region.last_frame + 1)
    if source.is_multi_frame:
        numbers = [frame + 1 for frame in frames]
        return [
            sr.SourceImageForSegmentation(source.sop_class_uid, source.sop_instance_uid, numbers)
        ]
    references = [source.frame_reference(frame) for frame in frames]
    return [sr.SourceImageForSegmentation(one[0], one[1]) for one in references]


def check_frames(region: Region, source: SourceRef) -> None:
    """Raises InvalidFindings where a region lies on a frame that is not there."""
    if not 0 <= region.first_frame <= region.key_frame <= region.last_frame < source.frame_count:
        raise InvalidFindings(
            f"a region lies on frames {region.first_frame} to {region.last_frame}, key frame {region.key_frame}; "
            f"the source has {source.frame_count} frames"
        )


def _region_measurements(region: Region, source: SourceRef) -> list[Any]:
    """Frame numbers count from 1 as everywhere in DICOM; rows and columns from 0, as their names say."""
    key_image = sr.SourceImageForMeasurement(*_one_frame(region, source))
    measurements = [_score(names.REGION_SCORE, region.score, [key_image])]
    if source.is_multi_frame:
        measurements += [
            sr.Measurement(names.KEY_FRAME, region.key_frame + 1, codes.UCUM.NoUnits),
            sr.Measurement(names.FIRST_FRAME, region.first_frame + 1, codes.UCUM.NoUnits),
            sr.Measurement(names.LAST_FRAME, region.last_frame + 1, codes.UCUM.NoUnits),
        ]
    measurements += [
        sr.Measurement(names.CENTRE_ROW, round(region.centre_row, 2), _PIXELS),
        sr.Measurement(names.CENTRE_COLUMN, round(region.centre_col, 2), _PIXELS),
    ]
    return measurements


def _box(region: Region, source: SourceRef) -> Any:
    """The region's box as a closed line of (column, row), pixel edges (PS3.3 C.18.6.1.2: 0, 0 is the first corner)."""
    row0, col0, row1, col1 = region.box
    corners = [(col0, row0), (col1, row0), (col1, row1), (col0, row1), (col0, row0)]
    return sr.ImageRegion(
        graphic_type=sr.GraphicTypeValues.POLYLINE,
        graphic_data=np.array(corners, dtype=np.float64),
        source_image=sr.SourceImageForRegion(*_one_frame(region, source)),
    )


def _one_frame(region: Region, source: SourceRef) -> tuple[str, str, list[int] | None]:
    """The key frame as a reference: its number counts from 1, and is left out where the object is one frame."""
    sop_class_uid, sop_instance_uid, frame = source.frame_reference(region.key_frame)
    return sop_class_uid, sop_instance_uid, None if frame is None else [frame + 1]


def _score(name: Code, value: float, images: Sequence[Any] | None = None) -> Any:
    return sr.Measurement(
        name, checked_score(name, value), codes.UCUM.NoUnits, referenced_images=images
    )


def checked_score(name: Code, value: float) -> float:
    """The score as it is written. Raises InvalidFindings where it is no number from 0 to 1."""
    if not (math.isfinite(value) and 0.0 <= value <= 1.0):
        raise InvalidFindings(f"{name.meaning} is {value}; it must be a number from 0 to 1")
    return round(float(value), 6)


def _site(source: SourceRef) -> Any:
    side = names.SIDES.get(source.laterality or "")
    return sr.FindingSite(names.BREAST, laterality=side)
