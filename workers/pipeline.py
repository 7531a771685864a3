"""One study, from files to findings, segmentations, report and pictures. No database, no queue.

One volume is in memory at a time; where a GPU computes, the next one is decoded meanwhile. Every file is handed out as
soon as it is made. The same run over the same files gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from importlib import metadata
from typing import Any

from pydicom.dataset import Dataset

from dicom_io import parse
from dicom_io.dbt import MammogramImage
from dicom_io.errors import DicomIoError
from dicom_io.findings import (
    Equipment,
    Excluded,
    ImageFindings,
    Reader,
    Region,
    RunContext,
    SourceRef,
)
from dicom_io.header import InstanceHeader
from dicom_io.recognise import repeated_views
from gmic.breast import breast_mask
from gmic.errors import InputError
from gmic.preprocess import max_projection, preprocess
from node.input_quality import Measured
from node.runs import ImageOutcome
from workers.errors import NothingReadable
from workers.measures import measure
from workers.readers import Readers
from workers.results import NEED_LEVELS, KeyFrame, Order, ResultFile, ResultWriter
from workers.translate import MAX_REGIONS, CellGrid, levels, translate
from workers.volumes import Decoded, Source, Stopwatch, decoded


@dataclass(frozen=True)
class Analysis:
    """How to read studies: with what, where files go, when to stop, the clock, and what to make."""

    readers: Readers
    emit: Callable[[ResultFile], None]
    check: Callable[[], None]
    watch: Stopwatch
    order: Order = field(default_factory=Order)


@dataclass(frozen=True)
class _Read:
    header: InstanceHeader
    findings: ImageFindings
    measured: Measured

    def with_note(self, note: str) -> _Read:
        """The same with one more note."""
        return replace(self, findings=replace(self.findings, notes=(*self.findings.notes, note)))


def run_context(readers: Readers, run_id: str, created_at: datetime, station: str) -> RunContext:
    """What the writers must know of a run; `station` is the AE title of the node."""
    identity, flat = readers.main.identity, readers.flat_identity
    return RunContext(
        run_id=run_id,
        created_at=created_at,
        algorithm=identity.algorithm(),
        operating_point=identity.operating_point,
        equipment=Equipment(
            manufacturer="Tomonode",
            model_name="Tomonode research node",
            software_version=metadata.version("tomonode"),
            serial_number=station,
            station_name=station,
        ),
        flat=None if flat is None else Reader(flat.algorithm(), flat.operating_point),
    )


def analyse_study(
    sources: Sequence[Source], run: RunContext, analysis: Analysis, unread: Sequence[Source] = ()
) -> tuple[ImageOutcome, ...]:
    """Read every image of a study and make its files: what `analysis.order` wants, and pictures.

    An image that cannot be read is left out with its reason, and the report says so; a study of such images alone
    still gets its report. `unread` are objects that the model is not asked to read: those that are images of a breast
    are in the report's image library.

    Raises:
        NothingReadable: not even the header of one object can be read.
        DeviceMemoryError: the device ran out of memory.
        LeaseLost: by `analysis.check`.
    """
    writer = ResultWriter(run, analysis.order, analysis.emit, analysis.watch)
    every: list[_Read | ImageOutcome] = []
    excluded: list[Excluded] = []
    for source, decode in decoded(sources, analysis.watch, ahead=analysis.readers.main.on_gpu):
        analysis.check()
        try:
            every.append(_analyse_image(decode, run, analysis, writer))
        except (DicomIoError, InputError) as error:
            excluded.append(source.left_out(str(error)))
            every.append(_left_out(source, excluded[-1].reason))
    every = _with_repeats(every)
    read = [one for one in every if isinstance(one, _Read)]
    header = read[0].findings.source.header if read else _any_header(sources)
    beside = [item for one in unread if (item := one.not_for_reading())]
    writer.documents(header, [one.findings for one in read], excluded, beside)
    return tuple(
        one if isinstance(one, ImageOutcome) else _outcome(one.findings, one.measured)
        for one in every
    )


def _left_out(source: Source, reason: str) -> ImageOutcome:
    return ImageOutcome(source.sop_uid, frames=len(source.slices) or None, excluded_reason=reason)


def _with_repeats(every: Sequence[_Read | ImageOutcome]) -> list[_Read | ImageOutcome]:
    """Where several images of one view were read, each has a note that says so."""
    notes = repeated_views(one.header for one in every if isinstance(one, _Read))
    return [
        one.with_note(notes[one.header.sop_instance_uid])
        if isinstance(one, _Read) and one.header.sop_instance_uid in notes
        else one
        for one in every
    ]


def _analyse_image(
    decode: Callable[[], Decoded], run: RunContext, analysis: Analysis, writer: ResultWriter
) -> _Read:
    watch = analysis.watch
    image, volume_DHW = decode()
    source = SourceRef.of(image)
    predictor, operating_point = analysis.readers.of(source), run.reading(source).operating_point
    del decode  # it may hold the volume
    analysis.check()
    with watch.stage("preprocess"):
        window_DHW, transform = preprocess(
            volume_DHW,
            image.laterality,
            image.view_family,
            window_shape=predictor.identity.window_shape,
        )
        # A finding lies in the breast: cells that see air alone are not marked.
        breast_HW = breast_mask(max_projection(volume_DHW))
        measured = measure(image, volume_DHW, breast_HW)
    del volume_DHW
    with watch.stage("inference"):
        prediction = predictor.predict(window_DHW, analysis.check)
    del window_DHW
    with watch.stage("translate"):
        rows, cols = prediction.saliency_CDhw.shape[2:]
        grid = CellGrid(predictor.receptive_field, (rows, cols), transform, image, breast_HW)
        found = translate(prediction.saliency_CDhw, operating_point, grid)
    notes = list(image.warnings)
    if image.flipped:
        notes.append(
            f"the breast lies at the side of the image that its laterality {image.laterality} does not expect: "
            "the model read it turned by half a turn; positions are those of the image as stored."
        )
    if found.dropped:
        notes.append(
            f"{found.dropped} more regions are in the segmentation; the {MAX_REGIONS} of each label with the highest"
            " scores are listed."
        )
    findings = ImageFindings(source, prediction.scores, found.segments, found.regions, tuple(notes))
    analysis.check()
    with watch.stage("decode"):
        key_frames = [
            KeyFrame(frame, image.read_frame(frame)) for frame in _key_frames(image, found.regions)
        ]
    scored = findings
    if NEED_LEVELS.intersection(analysis.order.kinds):
        scored = replace(findings, levels=levels(prediction.saliency_CDhw, grid))
    writer.image(scored, key_frames, image.window)
    return _Read(image.header, findings, measured)


def _key_frames(image: MammogramImage, regions: Sequence[Region]) -> list[int]:
    """Stored frames to show, those of higher scores first: the key frame of each label's highest region; the middle one
    where nothing was found."""
    best: dict[str, Region] = {}
    for region in regions:  # of one label: highest first
        best.setdefault(region.label, region)
    ranked = sorted(best.values(), key=lambda region: -region.score)
    frames = [region.key_frame for region in ranked]
    return list(dict.fromkeys(frames)) or [image.source_frames[len(image.source_frames) // 2]]


def _outcome(findings: ImageFindings, measured: Measured) -> ImageOutcome:
    source = findings.source
    return ImageOutcome(
        sop_uid=source.sop_instance_uid,
        laterality=source.laterality,
        view=source.view,
        frames=source.frame_count,
        score_benign=findings.scores["benign"],
        score_malignant=findings.scores["malignant"],
        segments=len(findings.segments),
        regions=[region_row(region) for region in findings.regions],
        notes=findings.notes,
        **vars(measured),
    )


def region_row(region: Region) -> dict[str, Any]:
    """A region as JSON: frames, rows and columns from 0, `box` half-open."""
    return {**vars(region), "box": list(region.box)}


def _any_header(sources: Sequence[Source]) -> Dataset:
    """Patient and study attributes of the first object whose header can be read."""
    for source in sources:
        try:
            with source.find().open("rb") as file:
                return parse.parse(file).dataset
        except DicomIoError:
            continue
    raise NothingReadable(
        f"none of {len(sources)} objects has a readable header; send the study again"
    )
