"""One study, from files to findings, segmentations, report and pictures. No database, no queue.

One volume is in memory at a time; where a GPU computes, the next one is decoded meanwhile. Every file is handed out as
soon as it is made. The same run over the same files gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib import metadata
from typing import Any

from pydicom.dataset import Dataset

from dicom_io import overlay, parse, seg, sr, write
from dicom_io.dbt import MammogramImage
from dicom_io.errors import DicomIoError
from dicom_io.findings import (
    DocumentRef,
    Equipment,
    Excluded,
    ImageFindings,
    Region,
    RunContext,
    SegmentationRef,
    SourceRef,
)
from dicom_io.result_codes import caveat_of
from gmic.breast import breast_mask
from gmic.errors import InputError
from gmic.preprocess import max_projection, preprocess
from node.input_quality import Measured
from node.runs import ImageOutcome
from workers.errors import NothingReadable
from workers.measures import measure
from workers.predictor import ModelIdentity, Predictor
from workers.translate import MAX_REGIONS, CellGrid, translate
from workers.volumes import Decoded, Source, Stopwatch, decoded


@dataclass(frozen=True)
class ResultFile:
    """A file that was made; `kind` is SEG, SR or OVERLAY, `name` unique in the run."""

    kind: str
    name: str
    content: bytes
    source_sop_uid: str | None = None
    sop_uid: str | None = None
    sop_class_uid: str | None = None


@dataclass(frozen=True)
class Analysis:
    """How to read studies: with what, where files go, when to stop, and the clock."""

    predictor: Predictor
    emit: Callable[[ResultFile], None]
    check: Callable[[], None]
    watch: Stopwatch


@dataclass(frozen=True)
class _Read:
    findings: ImageFindings
    segmentation: SegmentationRef | None
    measured: Measured


def run_context(
    identity: ModelIdentity,
    run_id: str,
    created_at: datetime,
    station: str,
    predecessor: DocumentRef | None = None,
) -> RunContext:
    """What the writers must know of a run; `station` is the AE title of the node."""
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
        predecessor=predecessor,
    )


def analyse_study(
    sources: Sequence[Source], run: RunContext, analysis: Analysis
) -> tuple[ImageOutcome, ...]:
    """Read every image of a study and make its files: a SEG for each image with a finding, pictures, and one SR.

    An object that cannot be read is left out with its reason, and the report says so; a study of such objects alone
    still gets its report.

    Raises:
        NothingReadable: not even the header of one object can be read.
        DeviceMemoryError: the device ran out of memory.
        LeaseLost: by `analysis.check`.
    """
    read: list[_Read] = []
    excluded: list[Excluded] = []
    outcomes: list[ImageOutcome] = []
    for source, decode in decoded(sources, analysis.watch, ahead=analysis.predictor.on_gpu):
        analysis.check()
        try:
            one = _analyse_image(decode, run, analysis)
        except (DicomIoError, InputError) as error:
            excluded.append(Excluded(source.sop_uid, source.sop_class_uid, str(error)))
            outcomes.append(ImageOutcome(source.sop_uid, excluded_reason=str(error)))
        else:
            read.append(one)
            outcomes.append(_outcome(one.findings, one.measured))
    with analysis.watch.stage("write"):
        header = read[0].findings.source.header if read else _any_header(sources)
        report = sr.build_sr(
            header,
            [one.findings for one in read],
            excluded,
            [one.segmentation for one in read if one.segmentation],
            run,
        )
        analysis.emit(_dicom_file("SR", "sr.dcm", report))
    return tuple(outcomes)


def _analyse_image(decode: Callable[[], Decoded], run: RunContext, analysis: Analysis) -> _Read:
    predictor, watch = analysis.predictor, analysis.watch
    image, volume_DHW = decode()
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
        found = translate(prediction.saliency_CDhw, run.operating_point, grid)
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
    findings = ImageFindings(
        SourceRef.of(image), prediction.scores, found.segments, found.regions, tuple(notes)
    )
    analysis.check()
    segmentation = _write_segmentation(findings, run, analysis)
    _write_pictures(image, findings, run, analysis)
    return _Read(findings, segmentation, measured)


def _write_segmentation(
    findings: ImageFindings, run: RunContext, analysis: Analysis
) -> SegmentationRef | None:
    with analysis.watch.stage("write"):
        dataset = seg.build_seg(findings, run)
        if dataset is None:
            return None
        uid = findings.source.sop_instance_uid
        analysis.emit(_dicom_file("SEG", f"seg-{uid}.dcm", dataset, uid))
        return seg.reference(dataset, findings.source)


def _write_pictures(
    image: MammogramImage, findings: ImageFindings, run: RunContext, analysis: Analysis
) -> None:
    """A picture of the key frame of each label's highest region; of the middle frame where nothing was found."""
    source = findings.source
    for frame in _key_frames(image, findings.regions):
        with analysis.watch.stage("decode"):
            frame_HW = image.read_frame(frame)
        with analysis.watch.stage("pictures"):
            content = overlay.key_slice_png(
                frame_HW,
                {s.label: s.frames[frame] for s in findings.segments if frame in s.frames},
                [region for region in findings.regions if region.key_frame == frame],
                overlay.slice_title(source, frame),
                caveat=caveat_of(run.algorithm),
                window=image.window,
            )
            uid = source.sop_instance_uid
            analysis.emit(ResultFile("OVERLAY", f"key-{uid}-{frame + 1}.png", content, uid))


def _key_frames(image: MammogramImage, regions: Sequence[Region]) -> list[int]:
    """Stored frames to show, those of higher scores first."""
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
        **vars(measured),
    )


def region_row(region: Region) -> dict[str, Any]:
    """A region as JSON: frames, rows and columns from 0, `box` half-open."""
    return {**vars(region), "box": list(region.box)}


def _dicom_file(kind: str, name: str, dataset: Dataset, source: str | None = None) -> ResultFile:
    return ResultFile(
        kind,
        name,
        write.to_bytes(dataset),
        source,
        str(dataset.SOPInstanceUID),
        str(dataset.SOPClassUID),
    )


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
