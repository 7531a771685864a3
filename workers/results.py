"""The files of a run: every kind of result that is wanted, written from the same findings, image by image.

Nothing but one object at a time is in memory: pixels of the large ones go through a temporary file, and whoever takes
a file has it written where it shall lie. SEG and SR are made always, so that documents have what they refer to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from dicom_io import key_images, overlay, seg, write
from dicom_io.cad_sr import build_cad_sr
from dicom_io.findings import (
    LABELS,
    DocumentRef,
    Excluded,
    ImageFindings,
    KeyImageRef,
    RunContext,
    SegmentationRef,
)
from dicom_io.key_objects import build_key_objects
from dicom_io.labelmap import build_labelmap
from dicom_io.parametric_map import build_parametric_map
from dicom_io.result_codes import caveat_of
from dicom_io.seg_values import build_fractional
from dicom_io.sr import build_sr
from node import results
from workers.volumes import Stopwatch

NEED_LEVELS = frozenset({results.SEG_FRACTIONAL, results.PARAMETRIC_MAP})
"""Kinds that store scores pixel by pixel (`ImageFindings.levels`)."""


@dataclass(frozen=True)
class ResultFile:
    """A file that was made; `kind` is one of `node.results`, `name` unique in the run. `write` writes it, once."""

    kind: str
    name: str
    write: Callable[[Path], object]
    source_sop_uid: str | None = None
    sop_uid: str | None = None
    sop_class_uid: str | None = None


@dataclass(frozen=True)
class Order:
    """What a run shall make: kinds, in any order; the earlier documents that its own replace, by kind; and where
    temporary files go (None: where the system has them)."""

    kinds: tuple[str, ...] = results.USUAL
    predecessors: Mapping[str, DocumentRef] = field(default_factory=dict)
    scratch: Path | None = None


@dataclass(frozen=True)
class KeyFrame:
    """A stored frame, 0-based, that shows what was found, with its grey values."""

    frame: int
    frame_HW: NDArray[np.uint16]


@dataclass(frozen=True)
class ImageMaterial:
    """What the objects of one image are made of; `window` is (centre, width) of its grey values."""

    findings: ImageFindings
    key_frames: tuple[KeyFrame, ...]
    window: tuple[float, float] | None
    run: RunContext
    scratch: Path | None


@dataclass(frozen=True)
class StudyMaterial:
    """What the documents of a study are made of; `header` is that of any of its objects, `unread` are images that the
    model is not asked to read."""

    header: Dataset
    findings: Sequence[ImageFindings]
    excluded: Sequence[Excluded]
    unread: Sequence[Excluded]
    segmentations: Sequence[SegmentationRef]
    key_images: Sequence[KeyImageRef]
    run: RunContext
    predecessor: DocumentRef | None


@dataclass(frozen=True)
class Made:
    """An object; `part` distinguishes those of one kind and image; `reference` is how documents refer to it."""

    dataset: Dataset
    part: str = ""
    reference: SegmentationRef | KeyImageRef | None = None


def _seg(image: ImageMaterial) -> Iterator[Made]:
    dataset = seg.build_seg(image.findings, image.run)
    if dataset is not None:
        yield Made(dataset, reference=seg.reference(dataset, image.findings.source))


def _seg_jpeg2000(image: ImageMaterial) -> Iterator[Made]:
    dataset = seg.build_seg(image.findings, image.run, jpeg2000=True)
    if dataset is not None:
        yield Made(dataset)


def _seg_fractional(image: ImageMaterial) -> Iterator[Made]:
    dataset = build_fractional(image.findings, image.run, scratch=image.scratch)
    if dataset is not None:
        yield Made(dataset)


def _seg_labelmap(image: ImageMaterial) -> Iterator[Made]:
    dataset = build_labelmap(image.findings, image.run, scratch=image.scratch)
    if dataset is not None:
        yield Made(dataset)


def _parametric_map(image: ImageMaterial) -> Iterator[Made]:
    for label in LABELS:
        dataset = build_parametric_map(image.findings, label, image.run, scratch=image.scratch)
        if dataset is not None:
            yield Made(dataset, f"-{label}")


def _key_image(image: ImageMaterial) -> Iterator[Made]:
    source = image.findings.source
    for number, key in enumerate(image.key_frames, start=1):
        dataset = key_images.build_key_image(
            image.findings, key.frame, key.frame_HW, image.run, number=number, window=image.window
        )
        yield Made(dataset, f"-{key.frame + 1}", key_images.reference(dataset, source, key.frame))


def _sr(study: StudyMaterial) -> Dataset:
    return build_sr(
        study.header,
        study.findings,
        study.excluded,
        study.segmentations,
        study.run,
        study.unread,
        predecessor=study.predecessor,
    )


def _cad_sr(study: StudyMaterial) -> Dataset | None:
    return build_cad_sr(
        study.header, study.findings, study.excluded, study.run, predecessor=study.predecessor
    )


def _key_objects(study: StudyMaterial) -> Dataset | None:
    return build_key_objects(
        study.header,
        study.findings,
        study.key_images,
        study.segmentations,
        study.run,
        predecessor=study.predecessor,
    )


OF_IMAGE: Mapping[str, Callable[[ImageMaterial], Iterator[Made]]] = {
    results.SEG: _seg,
    results.SEG_JPEG2000: _seg_jpeg2000,
    results.SEG_FRACTIONAL: _seg_fractional,
    results.SEG_LABELMAP: _seg_labelmap,
    results.PARAMETRIC_MAP: _parametric_map,
    results.KEY_IMAGE: _key_image,
}
"""The writer of each kind that there is for an image."""

OF_STUDY: Mapping[str, Callable[[StudyMaterial], Dataset | None]] = {
    results.SR: _sr,
    results.CAD_SR: _cad_sr,
    results.KEY_OBJECTS: _key_objects,
}
"""The writer of each kind that there is one of for a study."""


class ResultWriter:
    """Writes what is wanted of one run, image by image, and last its documents, which refer to what was written."""

    def __init__(
        self, run: RunContext, order: Order, emit: Callable[[ResultFile], None], watch: Stopwatch
    ) -> None:
        """`emit` has each file written before it returns."""
        self._run = run
        self._order = order
        self._kinds = results.ordered({*results.USUAL, *order.kinds})
        self._emit = emit
        self._watch = watch
        self._segmentations: list[SegmentationRef] = []
        self._key_images: list[KeyImageRef] = []

    def image(
        self,
        findings: ImageFindings,
        key_frames: Sequence[KeyFrame],
        window: tuple[float, float] | None,
    ) -> None:
        """Write everything that there is for one image.

        Raises InvalidFindings, and OSError of the disk.
        """
        material = ImageMaterial(
            findings,
            tuple(key_frames),
            window,
            self._run.reading(findings.source),
            self._order.scratch,
        )
        uid = findings.source.sop_instance_uid
        with self._watch.stage("write"):
            for kind, made in self._objects(material):
                if isinstance(made.reference, SegmentationRef):
                    self._segmentations.append(made.reference)
                elif made.reference is not None:
                    self._key_images.append(made.reference)
                name = f"{kind.lower().replace('_', '-')}-{uid}{made.part}.dcm"
                self._emit(_dicom_file(kind, name, made.dataset, uid))
        with self._watch.stage("pictures"):
            for key in key_frames:
                self._emit(_picture(material, key))

    def _objects(self, material: ImageMaterial) -> Iterator[tuple[str, Made]]:
        for kind in self._kinds:
            if kind in OF_IMAGE:
                for made in OF_IMAGE[kind](material):
                    yield kind, made

    def documents(
        self,
        header: Dataset,
        findings: Sequence[ImageFindings],
        excluded: Sequence[Excluded],
        unread: Sequence[Excluded] = (),
    ) -> None:
        """Write what there is one of for the study; `header` is that of any of its objects."""
        run = self._run.over(image.source for image in findings)
        for kind in self._kinds:
            if kind not in OF_STUDY:
                continue
            material = StudyMaterial(
                header=header,
                findings=findings,
                excluded=excluded,
                unread=unread,
                segmentations=self._segmentations,
                key_images=self._key_images,
                run=run,
                predecessor=self._order.predecessors.get(kind),
            )
            with self._watch.stage("write"):
                dataset = OF_STUDY[kind](material)
                if dataset is not None:
                    name = f"{kind.lower().replace('_', '-')}.dcm"
                    self._emit(_dicom_file(kind, name, dataset))


def _dicom_file(kind: str, name: str, dataset: Dataset, source: str | None = None) -> ResultFile:
    return ResultFile(
        kind,
        name,
        partial(write.write, dataset),
        source,
        str(dataset.SOPInstanceUID),
        str(dataset.SOPClassUID),
    )


def _picture(material: ImageMaterial, key: KeyFrame) -> ResultFile:
    """A key frame for the study's page."""
    findings = material.findings
    content = overlay.key_slice_png(
        key.frame_HW,
        {s.label: s.frames[key.frame] for s in findings.segments if key.frame in s.frames},
        [region for region in findings.regions if region.key_frame == key.frame],
        overlay.slice_title(findings.source, key.frame),
        caveat=caveat_of(material.run.algorithm),
        window=material.window,
    )
    uid = findings.source.sop_instance_uid
    name = f"key-{uid}-{key.frame + 1}.png"
    return ResultFile(results.OVERLAY, name, lambda path: path.write_bytes(content), uid)
