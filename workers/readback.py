"""What a receiver finds in the SEG and SR objects it got, read from the objects alone: no database, no model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import Comprehensive3DSRStorage, SegmentationStorage

from dicom_io import result_codes as names
from dicom_io.findings import LABELS, Label
from workers.errors import DemoFailed

_PLAIN_STATEMENTS = (names.NOTICE, names.SCORE_NOTICE)

_MEASUREMENT_GROUP = "125007"  # DCM
_ALGORITHM_VERSION = "111003"  # DCM


@dataclass(frozen=True)
class RegionRead:
    """A region of a report; `key_frame` counts from 1 as in DICOM, 1 for an image of one frame."""

    label: str
    score: float
    key_frame: int


@dataclass(frozen=True)
class SegmentationRead:
    """A segmentation: for each label the source frames (from 1) it has a mask on.

    Of an image that came one object a slice, `slices` are their UIDs in order, frames count them, and `source_uid` is
    the first.
    """

    path: Path
    sop_uid: str
    source_uid: str
    frames: dict[Label, tuple[int, ...]]
    slices: tuple[str, ...] = ()

    @property
    def frame_count(self) -> int:
        """Stored frames of all segments."""
        return sum(len(frames) for frames in self.frames.values())

    def masks(self, frame: int) -> dict[Label, NDArray[np.bool_]]:
        """The masks (H, W) of each label on a source frame (from 1); labels without one are left out."""
        seg = highdicom.seg.segread(self.path)
        found: dict[Label, NDArray[np.bool_]] = {}
        for item in seg.SegmentSequence:
            label = _label(item)
            if frame in self.frames.get(label, ()):
                found[label] = self._masks(seg, [frame], int(item.SegmentNumber))[0]
        return found

    def _masks(self, seg: Any, frames: Sequence[int], number: int) -> NDArray[np.bool_]:
        """Masks (N, H, W) of a segment on source frames (from 1)."""
        if self.slices:
            uids = [self.slices[frame - 1] for frame in frames]
            pixels = seg.get_pixels_by_source_instance(uids, segment_numbers=[number])
        else:
            pixels = seg.get_pixels_by_source_frame(
                self.source_uid, list(frames), segment_numbers=[number]
            )
        masks: NDArray[np.bool_] = pixels[..., 0].astype(bool)
        return masks

    def segment(self, label: Label) -> tuple[tuple[int, ...], NDArray[np.bool_] | None]:
        """The source frames (from 1) with a mask of a label, and the masks (N, H, W); None without one."""
        frames = self.frames.get(label, ())
        if not frames:
            return (), None
        seg = highdicom.seg.segread(self.path)
        number = next(int(i.SegmentNumber) for i in seg.SegmentSequence if _label(i) == label)
        return frames, self._masks(seg, frames, number)


@dataclass
class ReportRead:
    """A report: scores and regions of each image, by its SOP Instance UID."""

    path: Path
    sop_uid: str
    study_uid: str
    caveat: str
    model_version: str
    replaces: frozenset[str]
    scores: dict[str, dict[Label, float]] = field(default_factory=dict)
    regions: dict[str, list[RegionRead]] = field(default_factory=dict)
    referenced: set[str] = field(default_factory=set)
    left_out: list[str] = field(default_factory=list)


@dataclass
class Received:
    """What counts of a receiver's folder: reports that no other one replaces, and the segmentations they refer to."""

    reports: list[ReportRead]
    segmentations: dict[str, SegmentationRead]  # by source SOP Instance UID
    files: list[Path]
    replaced: int  # objects of earlier runs

    def check_references(self, sent: Iterable[str]) -> None:
        """Raises DemoFailed where an object refers to an image that was not sent, or to a SEG that did not arrive."""
        here = {seg.sop_uid for seg in self.segmentations.values()}
        refers = {uid for report in self.reports for uid in report.referenced} - here
        if strange := sorted((refers | self.segmentations.keys()) - set(sent)):
            raise DemoFailed(
                f"what arrived refers to {len(strange)} objects that were neither sent nor received; {strange[0]}"
            )


def read_reports(folder: Path, study_uid: str) -> list[ReportRead]:
    """The reports of one study below a folder, those that a later one replaces too."""
    found = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        dataset = dcmread(path, stop_before_pixels=True)
        if (dataset.SOPClassUID, dataset.StudyInstanceUID) == (Comprehensive3DSRStorage, study_uid):
            found.append(_report(path, dataset))
    return found


def read_folder(folder: Path) -> Received:
    """Read every SEG and SR below a folder.

    Raises:
        DemoFailed: an object is neither, or two segmentations that count are of one image.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    reports: list[ReportRead] = []
    found: list[SegmentationRead] = []
    for path in files:
        dataset = dcmread(path, defer_size="1 MB")
        if dataset.SOPClassUID == Comprehensive3DSRStorage:
            reports.append(_report(path, dataset))
        elif dataset.SOPClassUID == SegmentationStorage:
            found.append(_segmentation(path, dataset))
        else:
            raise DemoFailed(f"an object of class {dataset.SOPClassUID.name} arrived; {path.name}")
    old = {uid for report in reports for uid in report.replaces}
    current = [report for report in reports if report.sop_uid not in old]
    wanted = {uid for report in current for uid in report.referenced}
    segmentations: dict[str, SegmentationRead] = {}
    for seg in found:
        if seg.sop_uid in wanted:
            if seg.source_uid in segmentations:
                raise DemoFailed(f"two segmentations of image {seg.source_uid} arrived")
            segmentations[seg.source_uid] = seg
    replaced = len(files) - len(current) - len(segmentations)
    return Received(current, segmentations, files, replaced)


def _segmentation(path: Path, dataset: Dataset) -> SegmentationRead:
    labels = {int(item.SegmentNumber): _label(item) for item in dataset.SegmentSequence}
    frames: dict[Label, list[int]] = {label: [] for label in labels.values()}
    # of an image that came one object a slice there are many, in the order of its slices
    sources = [str(one.ReferencedSOPInstanceUID) for one in dataset.SourceImageSequence]
    for item in dataset.PerFrameFunctionalGroupsSequence:
        number = int(item.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
        source = item.DerivationImageSequence[0].SourceImageSequence[0]
        uid = str(source.ReferencedSOPInstanceUID)
        if uid not in sources:
            raise DemoFailed(
                f"a frame of segmentation {path.name} lies on an image it does not name"
            )
        frames[labels[number]].append(
            int(source.get("ReferencedFrameNumber", sources.index(uid) + 1))
        )
    return SegmentationRead(
        path,
        str(dataset.SOPInstanceUID),
        sources[0],
        {label: tuple(sorted(numbers)) for label, numbers in frames.items()},
        tuple(sources) if len(sources) > 1 else (),
    )


def _label(segment: Dataset) -> Label:
    for label in LABELS:
        if str(segment.SegmentLabel) == names.segment_label(label):
            return label
    raise DemoFailed(f"segment label {segment.SegmentLabel!r} is none of ours")


def _report(path: Path, dataset: Dataset) -> ReportRead:
    statements = _texts(dataset, names.STATEMENT.value)
    report = ReportRead(
        path=path,
        sop_uid=str(dataset.SOPInstanceUID),
        study_uid=str(dataset.StudyInstanceUID),
        caveat=" ".join(s for s in statements if s not in _PLAIN_STATEMENTS),
        model_version=", ".join(sorted(set(_texts(dataset, _ALGORITHM_VERSION)))),
        replaces=frozenset(_instances(dataset.get("PredecessorDocumentsSequence", []))),
        referenced=set(_instances(dataset.get("CurrentRequestedProcedureEvidenceSequence", []))),
        left_out=_texts(dataset, names.INPUT_LEFT_OUT.value),
    )
    volumes: list[list[str]] = []
    for item in _items(dataset):
        if item.ValueType == "IMAGE":
            report.referenced.add(_reference(item))
        if item.ValueType == "CONTAINER" and _code(item) == _MEASUREMENT_GROUP:
            _read_group(item, report, volumes)
    for slices in volumes:
        _join(report, slices)
    return report


def _join(report: ReportRead, slices: Sequence[str]) -> None:
    """Regions that name slices of one volume become regions of the volume: its first slice, and a count of slices."""
    found = [
        replace(region, key_frame=number)
        for number, uid in enumerate(slices, start=1)
        for region in report.regions.pop(uid, [])
    ]
    if found:
        report.regions[slices[0]] = found


def _read_group(group: Dataset, report: ReportRead, volumes: list[list[str]]) -> None:
    numbers = {_code(i): i for i in group.ContentSequence if i.ValueType == "NUM"}
    coded = {_code(i): i for i in group.ContentSequence if i.ValueType == "CODE"}
    images = [_reference(i) for i in group.ContentSequence if i.ValueType == "IMAGE"]
    scores = {label: code.value for label, code in names.IMAGE_SCORES.items()}
    if all(value in numbers for value in scores.values()) and images:
        if len(images) > 1:
            volumes.append(images)
        report.scores[images[0]] = {label: _number(numbers[v]) for label, v in scores.items()}
    if names.REGION_SCORE.value in numbers:
        score = numbers[names.REGION_SCORE.value]
        source = next(_reference(i) for i in _items(score) if i.ValueType == "IMAGE")
        chosen = coded[names.MODEL_CLASS.value].ConceptCodeSequence[0].CodeValue
        label = next(label for label, code in names.CLASSES.items() if code.value == chosen)
        key = numbers.get(names.KEY_FRAME.value)
        region = RegionRead(label, _number(score), int(_number(key)) if key is not None else 1)
        report.regions.setdefault(source, []).append(region)


def _instances(studies: Iterable[Dataset]) -> Iterator[str]:
    """SOP Instance UIDs of a hierarchical reference (PS3.3 C.17.2.1)."""
    for study in studies:
        for series in study.ReferencedSeriesSequence:
            for instance in series.ReferencedSOPSequence:
                yield str(instance.ReferencedSOPInstanceUID)


def _items(dataset: Dataset) -> Iterator[Dataset]:
    """Every content item below one, depth first."""
    for item in dataset.get("ContentSequence", []):
        yield item
        yield from _items(item)


def _texts(dataset: Dataset, code: str) -> list[str]:
    """The text items of a concept, in their order."""
    return [
        str(item.TextValue)
        for item in _items(dataset)
        if item.ValueType == "TEXT" and _code(item) == code
    ]


def _code(item: Dataset) -> str:
    name = item.get("ConceptNameCodeSequence")
    return str(name[0].CodeValue) if name else ""


def _number(item: Dataset) -> float:
    return float(item.MeasuredValueSequence[0].NumericValue)


def _reference(item: Dataset) -> str:
    return str(item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID)
