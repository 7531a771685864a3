"""Label maps: one Label Map Segmentation (PS3.3 A.51, LABELMAP, C.8.20.2.4) per image with suspicious regions.

A pixel holds the number of its segment, 0 where there is none, so it can hold one: where both labels are marked,
malignant wins, and the segments do not overlap. Whoever needs both takes the BINARY segmentation.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import UID

from dicom_io.findings import ImageFindings, RunContext, Segment
from dicom_io.modules import start_object
from dicom_io.seg import add_image, add_series, present_segments, segment_item
from dicom_io.seg_frames import add_groups
from dicom_io.seg_geometry import read_geometry
from dicom_io.seg_pixels import PixelWriter
from dicom_io.uids import derive_uid

# Newer than the table of the library that writes it.
LABEL_MAP_SEGMENTATION = UID("1.2.840.10008.5.1.4.1.1.66.7")
_SERIES_NUMBER = 9006


def build_labelmap(
    findings: ImageFindings, run: RunContext, *, jpeg2000: bool = False, scratch: Path | None = None
) -> Dataset | None:
    """The label map of one image, or None where no mask has a pixel set.

    Segments are those of `seg.build_seg` with the same numbers, frames those with a pixel of any label, in stored
    order, one in memory at a time. Without `jpeg2000` the pixels lie in a temporary file in `scratch`: write the data
    set with `write.write`.

    Raises InvalidFindings as `seg.build_seg` does.
    """
    segments = present_segments(findings)
    if not segments:
        return None
    source = findings.source
    geometry = read_geometry(source)
    labelmap = start_object(
        source.header,
        run,
        sop_class_uid=LABEL_MAP_SEGMENTATION,
        sop_instance_uid=derive_uid(run.run_id, "labelmap", source.sop_instance_uid),
        series_instance_uid=derive_uid(run.run_id, "labelmap-series", source.sop_instance_uid),
    )
    add_series(labelmap, source, _SERIES_NUMBER, "label map", run)
    add_image(labelmap, source, geometry, run)
    labelmap.BitsAllocated = labelmap.BitsStored = 8
    labelmap.HighBit = 7
    labelmap.SegmentationType = "LABELMAP"
    labelmap.SegmentsOverlap = "NO"
    labelmap.PixelPaddingValue = 0  # the background
    labelmap.SegmentSequence = [
        segment_item(i, s.label, s.max_score, source, run) for i, s in enumerate(segments, start=1)
    ]
    frames = sorted({frame for segment in segments for frame in segment.frames})
    with PixelWriter(jpeg2000=jpeg2000, bits=8, scratch=scratch) as pixels:
        for frame in frames:
            pixels.add(_numbers(segments, frame, source.shape))
        pixels.attach(labelmap)
    add_groups(labelmap, source, [(None, frame) for frame in frames], geometry, run)
    return labelmap


def _numbers(segments: list[Segment], frame: int, shape: tuple[int, int]) -> NDArray[np.uint8]:
    """Segment numbers (H, W) of a frame; the later segment wins, and malignant is the last."""
    numbers_HW = np.zeros(shape, dtype=np.uint8)
    for number, segment in enumerate(segments, start=1):
        if frame in segment.frames:
            numbers_HW[segment.frames[frame]] = number
    return numbers_HW
