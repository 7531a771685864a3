"""Parametric Maps (PS3.3 A.75): the scores of one label, pixel by pixel, one object per image and label, for research.

Stored values are the levels of `seg_values` as scores from 0 to 1 in floating point numbers, which is what the readers
of such maps expect; with JPEG 2000, which has none, the levels themselves. A Real World Value Mapping says which number
is a score of 1, and that a score is a model output.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code
from pydicom.uid import ParametricMapStorage

from dicom_io import result_codes as names
from dicom_io.findings import ImageFindings, Label, RunContext, SourceRef
from dicom_io.modules import start_object
from dicom_io.result_codes import code_item
from dicom_io.seg import add_image, add_series
from dicom_io.seg_frames import Place, add_groups
from dicom_io.seg_geometry import NoGeometry, PatientGeometry, read_geometry
from dicom_io.seg_pixels import PixelWriter
from dicom_io.seg_values import HIGHEST, levels_of
from dicom_io.uids import derive_uid

_SERIES_NUMBER = 9007
_FRAME_TYPE = ["DERIVED", "PRIMARY", "VOLUME", "NONE"]
_DERIVATION = Code("113068", "DCM", "Image processing")
_QUANTITY = Code("246205007", "SCT", "Quantity")
_NO_UNITS = Code("1", "UCUM", "no units")


def build_parametric_map(
    findings: ImageFindings,
    label: Label,
    run: RunContext,
    *,
    jpeg2000: bool = False,
    scratch: Path | None = None,
) -> Dataset | None:
    """The map of one label of one image; None where all its levels are 0, or where the source claims no position.

    The object must lie in a frame of reference with a known pixel spacing (PS3.3 A.75.3), so a source whose geometry
    cannot be believed has none; its FRACTIONAL segmentation holds the same levels. Frames follow their place in the
    patient, from the first with a level to the last and without a gap, since some readers go by their order alone. One
    is in memory at a time. Without `jpeg2000` the pixels lie in a temporary file in `scratch`: write the
    data set with `write.write`.

    Raises InvalidFindings as `seg_values.levels_of` does.
    """
    source = findings.source
    geometry = read_geometry(source)
    if isinstance(geometry, NoGeometry):
        return None
    marked = [frame for frame, _ in levels_of(findings, label)]
    if not marked:
        return None
    frames = _slab(geometry, marked)
    blank_HW = np.zeros(source.shape, dtype=np.uint8)
    with PixelWriter(jpeg2000=jpeg2000, bits=16 if jpeg2000 else 32, scratch=scratch) as pixels:
        for frame in frames:
            whole_HW = findings.levels[label].get(frame, blank_HW).astype(np.uint16)
            pixels.add(whole_HW if jpeg2000 else whole_HW / np.float32(HIGHEST))
        result = _start(source, label, run)
        pixels.attach(result)
    add_image(result, source, geometry, run)
    result.ImageType = list(_FRAME_TYPE)
    result.ContentLabel = f"AI_{label.upper()}"
    result.ContentDescription = "Scores of a model, research, not for clinical use"
    result.BurnedInAnnotation = "NO"
    result.RecognizableVisualFeatures = "NO"
    result.ContentQualification = "RESEARCH"
    if jpeg2000:
        result.BitsAllocated = result.BitsStored = 16
        result.HighBit = 15
    else:
        result.BitsAllocated = 32
        del result.PixelRepresentation
    result.AcquisitionContextSequence = []
    kept: list[Place] = [(None, frame) for frame in frames]
    add_groups(result, source, kept, geometry, run, _DERIVATION)
    _add_anatomy(result.SharedFunctionalGroupsSequence[0], source)
    _add_meaning(result.SharedFunctionalGroupsSequence[0], label, HIGHEST if jpeg2000 else 1)
    return result


def _slab(geometry: PatientGeometry, marked: Sequence[int]) -> list[int]:
    """Source frames from the first to the last that is marked, in the order of their places."""
    ranks = geometry.rank[list(marked)]
    in_order = np.argsort(geometry.rank)
    return [int(frame) for frame in in_order[ranks.min() - 1 : ranks.max()]]


def _start(source: SourceRef, label: Label, run: RunContext) -> Dataset:
    parts = (source.sop_instance_uid, label)
    result = start_object(
        source.header,
        run,
        sop_class_uid=ParametricMapStorage,
        sop_instance_uid=derive_uid(run.run_id, "parametric-map", *parts),
        series_instance_uid=derive_uid(run.run_id, "parametric-map-series", *parts),
    )
    add_series(result, source, _SERIES_NUMBER, f"{label} scores", run)
    result.Modality = "OT"
    if source.laterality not in names.SIDES:
        result.Laterality = None  # type 2C; where the side is known the frames say it
    result.CodingSchemeIdentificationSequence = [names.private_scheme_item()]
    result.SourceImageSequence[0].PurposeOfReferenceCodeSequence = [code_item(names.SOURCE_IMAGE)]
    return result


def _add_anatomy(shared: Dataset, source: SourceRef) -> None:
    """Which breast (PS3.3 C.7.6.16.2.8), where that is known; some readers cannot do without."""
    if source.laterality not in names.SIDES:
        return
    region = code_item(names.BREAST)
    region.AnatomicRegionModifierSequence = [code_item(names.SIDES[source.laterality])]
    anatomy = Dataset()
    anatomy.FrameLaterality = source.laterality
    anatomy.AnatomicRegionSequence = [region]
    shared.FrameAnatomySequence = [anatomy]


def _add_meaning(shared: Dataset, label: Label, highest: int) -> None:
    """What the numbers are (PS3.3 C.7.6.16.2.11), how to show them, and the kind of frame.

    `highest` is a score of 1.
    """
    kind = Dataset()
    kind.FrameType = list(_FRAME_TYPE)
    shared.ParametricMapFrameTypeSequence = [kind]
    identity = Dataset()
    identity.RescaleIntercept, identity.RescaleSlope, identity.RescaleType = "0", "1", "US"
    shared.PixelValueTransformationSequence = [identity]
    window = Dataset()
    window.WindowCenter, window.WindowWidth = highest / 2, highest
    shared.FrameVOILUTSequence = [window]
    quantity = Dataset()
    quantity.ValueType = "CODE"
    quantity.ConceptNameCodeSequence = [code_item(_QUANTITY)]
    quantity.ConceptCodeSequence = [code_item(names.PIXEL_SCORES[label])]
    mapping = Dataset()
    if highest == 1:
        mapping.DoubleFloatRealWorldValueFirstValueMapped = 0.0
        mapping.DoubleFloatRealWorldValueLastValueMapped = 1.0
    else:
        mapping.RealWorldValueFirstValueMapped = 0
        mapping["RealWorldValueFirstValueMapped"].VR = "US"
        mapping.RealWorldValueLastValueMapped = highest
        mapping["RealWorldValueLastValueMapped"].VR = "US"
    mapping.RealWorldValueIntercept = 0.0
    mapping.RealWorldValueSlope = 1 / highest
    mapping.LUTExplanation = f"{label} score, a model output"[:64]
    mapping.LUTLabel = f"AI_{label.upper()}"
    mapping.MeasurementUnitsCodeSequence = [code_item(_NO_UNITS)]
    mapping.QuantityDefinitionSequence = [quantity]
    shared.RealWorldValueMappingSequence = [mapping]
