"""Scores pixel by pixel: a FRACTIONAL Segmentation (PS3.3 A.51, C.8.20.2.3) per image, for research.

Its values are model outputs. The standard knows two kinds of fraction, occupancy and probability; it is written as
PROBABILITY, and every segment says that it is neither calibrated nor a probability of malignancy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import SegmentationStorage

from dicom_io.errors import InvalidFindings
from dicom_io.findings import LABELS, ImageFindings, Label, RunContext, SourceRef
from dicom_io.modules import start_object
from dicom_io.seg import add_image, add_series, segment_item
from dicom_io.seg_frames import Place, add_groups
from dicom_io.seg_geometry import read_geometry
from dicom_io.seg_pixels import PixelWriter
from dicom_io.uids import derive_uid

HIGHEST = 255
"""The stored value of a score of 1."""
_SERIES_NUMBER = 9005


class LevelFrames(Mapping[int, NDArray[np.uint8]]):
    """Levels by stored frame, each made when asked for: a volume of them would need gigabytes."""

    def __init__(
        self,
        cells: Mapping[int, NDArray[np.float32]],
        place: Callable[[NDArray[np.uint8]], NDArray[np.uint8]],
    ) -> None:
        """`cells` maps a 0-based stored frame to its scores (h, w); `place` gives pixels (H, W) their cell's value."""
        self._cells = dict(sorted(cells.items()))
        self._place = place

    def __getitem__(self, frame: int) -> NDArray[np.uint8]:
        return self._place(to_levels(self._cells[frame]))

    def __iter__(self) -> Iterator[int]:
        return iter(self._cells)

    def __len__(self) -> int:
        return len(self._cells)


def to_levels(scores: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Scores in [0, 1] as whole numbers from 0 to `HIGHEST`, the nearest. Raises InvalidFindings for other scores."""
    if not (np.isfinite(scores).all() and (scores >= 0).all() and (scores <= 1).all()):
        raise InvalidFindings("a score of a map is no number from 0 to 1")
    return np.rint(scores * HIGHEST).astype(np.uint8)


def levels_of(findings: ImageFindings, label: Label) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """The frames of a label with a level above 0, one at a time, in stored order.

    Raises InvalidFindings where levels have another shape than the source, or lie on a frame that is not there.
    """
    source = findings.source
    for frame in sorted(findings.levels.get(label, {})):
        if not 0 <= frame < source.frame_count:
            raise InvalidFindings(
                f"levels lie on frame index {frame}; the source has {source.frame_count} frames"
            )
        levels_HW = findings.levels[label][frame]
        if levels_HW.shape != source.shape or levels_HW.dtype != np.uint8:
            raise InvalidFindings(
                f"levels are {levels_HW.dtype} {levels_HW.shape}; they must be uint8 {source.shape}, "
                "the source's rows and columns"
            )
        if levels_HW.any():
            yield frame, levels_HW


def build_fractional(
    findings: ImageFindings, run: RunContext, *, jpeg2000: bool = False, scratch: Path | None = None
) -> Dataset | None:
    """The levels of one image, or None where all are 0. One frame is in memory at a time.

    Segments are numbered from 1 in the order benign, malignant, those without a level left out; frames follow segment
    number, then source frame, and those of zeros are not stored. Geometry as in `seg.build_seg`. Without `jpeg2000`
    the pixels lie in a temporary file in `scratch`: write the data set with `write.write`.

    Raises InvalidFindings as `levels_of` does.
    """
    source = findings.source
    kept: list[Place] = []
    highest: dict[Label, int] = {}
    with PixelWriter(jpeg2000=jpeg2000, bits=8, scratch=scratch) as pixels:
        for label in LABELS:
            for frame, levels_HW in levels_of(findings, label):
                highest[label] = max(highest.get(label, 0), int(levels_HW.max()))
                kept.append((len(highest), frame))
                pixels.add(levels_HW)
        if not kept:
            return None
        seg = _start(source, run)
        pixels.attach(seg)
    seg.SegmentSequence = [
        segment_item(number, label, level / HIGHEST, source, run, _described(label))
        for number, (label, level) in enumerate(highest.items(), start=1)
    ]
    add_groups(seg, source, kept, read_geometry(source), run)
    return seg


def _described(label: Label) -> str:
    return (
        f"What a model scores as {label}, pixel by pixel, {HIGHEST} for 1: model output, not calibrated, no "
        "probability of malignancy"
    )


def _start(source: SourceRef, run: RunContext) -> Dataset:
    uid = source.sop_instance_uid
    seg = start_object(
        source.header,
        run,
        sop_class_uid=SegmentationStorage,
        sop_instance_uid=derive_uid(run.run_id, "seg-fractional", uid),
        series_instance_uid=derive_uid(run.run_id, "seg-fractional-series", uid),
    )
    add_series(seg, source, _SERIES_NUMBER, "scores", run)
    add_image(seg, source, read_geometry(source), run)
    seg.BitsAllocated = seg.BitsStored = 8
    seg.HighBit = 7
    seg.SegmentationType = "FRACTIONAL"
    seg.SegmentationFractionalType = "PROBABILITY"
    seg.MaximumFractionalValue = HIGHEST
    seg.SegmentsOverlap = "UNDEFINED"
    return seg
