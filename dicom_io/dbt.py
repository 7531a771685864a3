"""Breast images as a model needs them: metadata checked, frames in order, the side agreeing with the content.

`open_image` reads metadata only and refuses what cannot be analysed, with a reason. Frames are decoded by
`MammogramImage.read_frame` and `read_volume`. Shapes: D slices of the volume, H rows, W columns of a stored frame.

Two coordinate systems meet here, and only here:

- *stored*: frames, rows and columns as in the object; what segmentations and reports refer to;
- *volume*: slices in spatial order, rows and columns turned by half a turn where content and laterality disagree.

`source_frames` takes a slice to its stored frame, `to_stored` and `stored_point` take rows and columns back.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from dicom_io import accept, pixels
from dicom_io.codes import ViewFamily
from dicom_io.errors import ImageRefused, RefusalCode
from dicom_io.frame_geometry import FrameGeometry, frame_geometry
from dicom_io.header import (
    InstanceHeader,
    header_from_dataset,
    item,
    items,
    numbers,
    stated_sides,
    text,
)
from dicom_io.orientation import Orientation, Side, judge
from dicom_io.parse import ParsedDataset, inflated, parse
from dicom_io.syntaxes import (
    BREAST_TOMOSYNTHESIS,
    DEFLATED,
    JPEG_LOSSY_SYNTAXES,
    MAMMOGRAPHY_PRESENTATION,
)

VALUE_LIMIT = (
    64 << 20
)  # bytes of one header value; the per-frame groups of a long stack come to a few megabytes
Loader = Callable[[int, NDArray[np.uint16]], None]  # stored frame, where to


@dataclass(frozen=True, eq=False)
class MammogramImage:
    """A breast image that can be analysed. Lengths are in millimetres, frame indices count from 0."""

    path: Path
    header: InstanceHeader
    dataset: Dataset = field(repr=False)  # every attribute before the pixel data
    kind: Literal["tomosynthesis", "mammogram"]
    laterality: Side
    view: str  # an abbreviation of `codes.VIEWS`
    view_family: ViewFamily  # the standard view it resembles most
    view_modifiers: tuple[str, ...]
    rows: int
    columns: int
    number_of_frames: int  # what the pixel data really holds
    source_frames: tuple[int, ...]  # stored frame of every slice of the volume
    positions_mm: tuple[float, ...] | None  # of the stored frames, along the normal
    duplicate_positions: bool
    spacing_mm: tuple[float, float] | None  # between rows, between columns
    slice_spacing_mm: float | None
    slice_thickness_mm: float | None
    frame_of_reference_uid: str | None
    window: tuple[float, float] | None  # centre, width
    form: pixels.PixelFormat = field(repr=False)
    spans: tuple[tuple[pixels.Span, ...], ...] = field(
        repr=False
    )  # where every stored frame lies in the data set
    warnings: tuple[str, ...]  # oddities that were got around, in plain sentences

    @cached_property
    def orientation(self) -> Orientation:
        """Whether the breast touches the side its laterality says, judged on the middle slice (see `orientation`)."""
        return judge(self.read_frame(self._middle), self.laterality)

    @property
    def flipped(self) -> bool:
        """Whether rows and columns of the volume run against those of the stored frames."""
        return self.orientation == "flipped"

    @property
    def slice_headers(self) -> tuple[Dataset, ...]:
        """Headers of the objects of an image that came one a slice, by stored frame; empty for one object."""
        return ()

    @property
    def _middle(self) -> int:
        return self.source_frames[self.number_of_frames // 2]

    def read_frame(self, stored_frame: int) -> NDArray[np.uint16]:
        """One frame (H, W) in stored rows and columns, as grey values with a dark background. Raises ImageRefused."""
        frame_HW = np.empty((self.rows, self.columns), np.uint16)
        with self._loader() as load:
            load(stored_frame, frame_HW)
        return frame_HW

    def read_volume(self, workers: int | None = None) -> NDArray[np.uint16]:
        """All slices (D, H, W) in spatial order, turned so that content and laterality agree.

        Frames are decoded once each, in `workers` threads (every core by default), straight into the volume. Raises
        ImageRefused, naming the frame, where one cannot be decoded.
        """
        volume_DHW = np.empty((self.number_of_frames, self.rows, self.columns), np.uint16)
        middle = self.number_of_frames // 2
        with self._loader() as load:
            load(self._middle, volume_DHW[middle])
            if (
                "orientation" not in self.__dict__
            ):  # fill the cached property from the frame at hand
                self.__dict__["orientation"] = judge(volume_DHW[middle], self.laterality)
            turned_DHW = volume_DHW[:, ::-1, ::-1] if self.flipped else volume_DHW
            if self.flipped:
                volume_DHW[middle] = volume_DHW[middle, ::-1, ::-1].copy()
            others = [index for index in range(self.number_of_frames) if index != middle]
            with ThreadPoolExecutor(workers or len(os.sched_getaffinity(0))) as pool:
                stored = [self.source_frames[index] for index in others]
                for _ in pool.map(load, stored, (turned_DHW[index] for index in others)):
                    pass
        return volume_DHW

    def to_stored(self, array: NDArray[Any]) -> NDArray[Any]:
        """Rows and columns (..., H, W) of the volume as those of the stored frames (a view, no copy)."""
        return array[..., ::-1, ::-1] if self.flipped else array

    def stored_point(self, row: float, column: float) -> tuple[float, float]:
        """The same for a point, in pixel centres counted from 0."""
        return (self.rows - 1 - row, self.columns - 1 - column) if self.flipped else (row, column)

    @contextmanager
    def _loader(self) -> Iterator[Loader]:
        """What reads one stored frame into an array, while the file is open; threads may share it."""
        end = max(offset + length for spans in self.spans for offset, length in spans)
        with data_set(self.path, self.form.transfer_syntax_uid, end) as file:

            def load(stored_frame: int, out_HW: NDArray[np.uint16]) -> None:
                spans = self.spans[stored_frame]
                pixels.read_frame(file.fileno(), spans, self.form, stored_frame, out_HW)

            yield load


def open_image(path: str | Path) -> MammogramImage:
    """Open a Breast Tomosynthesis or Digital Mammography For Presentation object; no frame is decoded yet.

    Raises ImageRefused with a reason for everything else, and for images that cannot be read as grey frames of one
    breast in a known view; UnreadableDataset where the file is no DICOM object; OSError from the disk.
    """
    path = Path(path)
    with path.open("rb") as file:
        parsed = parse(file, limit=VALUE_LIMIT)
    header = header_from_dataset(parsed.dataset, parsed.transfer_syntax_uid)
    dataset = parsed.dataset
    accept.check_class(header, dataset)
    side, view = accept.side_of(header), accept.view_of(header, dataset)
    form = accept.pixel_format(parsed, header)
    spans, warnings = frames_of(path, parsed, header, form)
    tomosynthesis = header.sop_class_uid == BREAST_TOMOSYNTHESIS
    geometry = frame_geometry(dataset, len(spans))
    return MammogramImage(
        path=path,
        header=header,
        dataset=dataset,
        kind="tomosynthesis" if tomosynthesis else "mammogram",
        laterality=side,
        view=view.name,
        view_family=view.family,
        view_modifiers=header.view_modifiers,
        rows=form.rows,
        columns=form.columns,
        number_of_frames=len(spans),
        source_frames=geometry.source_frames,
        positions_mm=geometry.positions_mm,
        duplicate_positions=geometry.duplicate_positions,
        spacing_mm=geometry.spacing_mm,
        slice_spacing_mm=geometry.slice_spacing_mm,
        slice_thickness_mm=geometry.slice_thickness_mm,
        frame_of_reference_uid=header.frame_of_reference_uid,
        window=window_of(dataset),
        form=form,
        spans=spans,
        warnings=(*warnings, *oddities(header, dataset, geometry)),
    )


def frames_of(
    path: Path, parsed: ParsedDataset, header: InstanceHeader, form: pixels.PixelFormat
) -> tuple[tuple[tuple[pixels.Span, ...], ...], list[str]]:
    """The frames that are there. Number of Frames and the per-frame items may disagree; the pixel data rules, as long
    as one of the two agrees with it."""
    if parsed.pixels is None:
        raise ImageRefused(RefusalCode.NO_PIXELS)
    stated = header.number_of_frames or 1
    described = len(items(parsed.dataset, "PerFrameFunctionalGroupsSequence"))
    end = parsed.pixels.offset + (parsed.pixels.length or 0)
    with data_set(path, parsed.transfer_syntax_uid, end) as file:
        size = os.fstat(file.fileno()).st_size
        spans = pixels.frame_spans(file, parsed.pixels, form, stated, described, size)
    found = len(spans)
    counts = (
        f"pixel data holds {found}, Number of Frames says {stated}, {described} per-frame items"
    )
    if found == 0:
        raise ImageRefused(RefusalCode.NO_PIXELS, counts)
    if found not in (stated, described):
        raise ImageRefused(RefusalCode.FRAME_COUNT, counts)
    agreed = found == stated and described in (0, found)
    return tuple(map(tuple, spans)), [] if agreed else [
        f"frame counts disagree, the pixel data rules: {counts}"
    ]


def oddities(header: InstanceHeader, dataset: Dataset, geometry: FrameGeometry) -> Iterator[str]:
    """What a reader of the results should know of the source; see `dicom_io.input_policy`."""
    if geometry.duplicate_positions:
        yield "several frames have one position: they are taken in the order of their stack numbers, or as stored"
    if geometry.spacing_mm is None:
        yield "the header gives no pixel spacing: nothing is measured in millimetres"
    if header.frame_of_reference_uid is None and header.sop_class_uid != MAMMOGRAPHY_PRESENTATION:
        yield "the header names no frame of reference: results refer to frames, not to places in the patient"
    if len(sides := stated_sides(dataset)) > 1 and len(set(sides)) > 1:
        yield f"laterality is given as {' and '.join(sides)}: the first rules"
    if header.implant or "ID" in header.view_modifiers:
        how = "is displaced from this view" if "ID" in header.view_modifiers else "is in this view"
        yield f"the breast has an implant, which {how}: the image is read like any other"
    if loss := _loss(header, dataset):
        yield loss


def _loss(header: InstanceHeader, dataset: Dataset) -> str:
    """A note on lossy compression (PS3.3 C.7.6.1.1.5), past or present, with the ratios of its steps; "" for none."""
    said = text(dataset, "LossyImageCompression") == "01"
    if not said and header.transfer_syntax_uid not in JPEG_LOSSY_SYNTAXES:
        return ""
    ratios = " and then ".join(
        f"{ratio:g} to 1" for ratio in numbers(dataset, "LossyImageCompressionRatio") if ratio > 0
    )
    unsaid = "" if said else ", which its header does not say"
    return f"the image was compressed with loss ({ratios or 'ratio not given'}){unsaid}"


def window_of(dataset: Dataset) -> tuple[float, float] | None:
    """Centre and width of the first VOI window given (PS3.3 C.11.2.1.2), of the groups, else of the image."""
    shared = item(item(dataset, "SharedFunctionalGroupsSequence"), "FrameVOILUTSequence")
    first = item(item(dataset, "PerFrameFunctionalGroupsSequence"), "FrameVOILUTSequence")
    for source in (shared, first, dataset):
        centre, width = numbers(source, "WindowCenter"), numbers(source, "WindowWidth")
        if centre and width and width[0] > 0:
            return centre[0], width[0]
    return None


@contextmanager
def data_set(path: Path, transfer_syntax_uid: str, end: int) -> Iterator[BinaryIO]:
    """The file whose offsets the frames were found at: a deflated data set is inflated to disk up to `end`."""
    with path.open("rb") as file:
        if transfer_syntax_uid != DEFLATED:
            yield file
            return
        with inflated(file, end) as data_set:
            yield data_set
