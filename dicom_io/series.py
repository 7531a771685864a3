"""Tomosynthesis sent as a series of CT Image Storage objects, one a slice, put together as one image.

The slices are ordered along their normal by Image Position (Patient); the order runs the way Instance Numbers run, so
that a well-numbered series keeps its order. Nothing is made up: a series whose slices differ, lie in one plane, leave a
gap or are too few for a volume is refused as a whole.

A *stored frame* of a series is one of its slices, counted in spatial order: `SeriesImage.slices` names its object.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from dicom_io import accept, pixels
from dicom_io.dbt import (
    VALUE_LIMIT,
    Loader,
    MammogramImage,
    data_set,
    frames_of,
    oddities,
    window_of,
)
from dicom_io.errors import ImageRefused, RefusalCode
from dicom_io.frame_geometry import frame_geometry, ordered
from dicom_io.header import InstanceHeader, header_from_dataset, numbers
from dicom_io.parse import parse
from dicom_io.recognise import Kind, kind_of

FEWEST_SLICES: Final = 5
_WIDEST_GAP: Final = 1.5  # of the median distance: a wider one means that a slice is missing
_SAME_PLANE_MM: Final = 0.01
_ASIDE_MM: Final = 0.5  # a slice may lie so far beside the first one's normal
_PARALLEL: Final = 1e-4  # of direction cosines


@dataclass(frozen=True)
class Slice:
    """One object of a series, and where its frame lies in its file."""

    path: Path
    header: InstanceHeader
    dataset: Dataset = field(repr=False)
    form: pixels.PixelFormat = field(repr=False)
    spans: tuple[pixels.Span, ...] = field(repr=False)

    @property
    def alike(self) -> tuple[object, ...]:
        """What all slices of a series must share."""
        head, form = self.header, self.form
        shown = (head.series_instance_uid, head.laterality, head.view, head.view_modifiers)
        held = replace(form, padding=None, rescale=(), transfer_syntax_uid="", word_swapped=False)
        return (
            *shown,
            head.frame_of_reference_uid,
            held,
            frame_geometry(self.dataset, 1).spacing_mm,
        )


@dataclass(frozen=True, eq=False)
class SeriesImage(MammogramImage):
    """A volume of several objects. `path`, `header` and `dataset` are those of its first slice."""

    slices: tuple[Slice, ...]

    @property
    def slice_headers(self) -> tuple[Dataset, ...]:
        """Headers of the slices, by stored frame."""
        return tuple(one.dataset for one in self.slices)

    @contextmanager
    def _loader(self) -> Iterator[Loader]:
        def load(stored_frame: int, out_HW: NDArray[np.uint16]) -> None:
            one = self.slices[stored_frame]
            # One file open a thread: a process may not have as many open as a series may have slices.
            with _opened(one) as file:
                pixels.read_frame(file, one.spans, one.form, stored_frame, out_HW)

        yield load


def open_series(paths: Sequence[Path]) -> SeriesImage:
    """Open the slices of one series as one image; no pixel is decoded yet.

    Raises ImageRefused with a reason for what is no volume of one breast in a known view, `detail` naming the slice by
    its Instance Number; UnreadableDataset where a file is no DICOM object; OSError from the disk.
    """
    slices = [_open_slice(path) for path in paths]
    if len(slices) < FEWEST_SLICES:
        raise ImageRefused(RefusalCode.SERIES_SHORT, f"{len(slices)} of at least {FEWEST_SLICES}")
    slices.sort(key=lambda one: (_number(one), one.header.sop_instance_uid))
    for one in slices[1:]:
        if one.alike != slices[0].alike:
            raise ImageRefused(RefusalCode.SERIES_DIFFERS, _which(slices[0], one))
    places_mm = _places(slices)
    order = ordered(places_mm)
    _check_gaps([slices[index] for index in order], np.abs(np.diff(places_mm[list(order)])))
    return _assembled([slices[index] for index in order], places_mm[list(order)])


def _open_slice(path: Path) -> Slice:
    with path.open("rb") as file:
        parsed = parse(file, limit=VALUE_LIMIT)
    header = header_from_dataset(parsed.dataset, parsed.transfer_syntax_uid)
    if kind_of(header) is not Kind.TOMO_SLICE:
        raise ImageRefused(RefusalCode.CT_SLICES, "a slice that is no tomosynthesis")
    accept.check_use(header, parsed.dataset)
    accept.side_of(header)
    accept.view_of(header, parsed.dataset)
    form = _without_offset(accept.pixel_format(parsed, header))
    spans, _ = frames_of(path, parsed, header, form)
    if len(spans) != 1:
        raise ImageRefused(RefusalCode.FRAME_COUNT, f"{len(spans)} frames in one slice")
    return Slice(path, header, parsed.dataset, form, spans[0])


def _without_offset(form: pixels.PixelFormat) -> pixels.PixelFormat:
    """CT's scale may begin below 0 (air is -1024). Grey values begin at 0, so that would cut tissue off."""
    slope, intercept = form.rescale[0]
    return form if form.signed or intercept >= 0 else replace(form, rescale=((slope, 0.0),))


def _places(slices: Sequence[Slice]) -> NDArray[np.float64]:
    """Distance of every slice along the normal of the first, in millimetres."""
    found = [
        (
            numbers(one.dataset, "ImageOrientationPatient"),
            numbers(one.dataset, "ImagePositionPatient"),
        )
        for one in slices
    ]
    for one, (axes, corner) in zip(slices, found, strict=True):
        if len(axes) != 6 or len(corner) != 3:
            raise ImageRefused(RefusalCode.SERIES_POSITIONS, f"none given: {_called(one)}")
        if not np.allclose(axes, found[0][0], rtol=0, atol=_PARALLEL):
            raise ImageRefused(RefusalCode.SERIES_DIFFERS, f"orientation: {_called(one)}")
    axes_23 = np.reshape(found[0][0], (2, 3))
    shifts = np.array([corner for _, corner in found]) - found[0][1]
    aside_mm = np.abs(shifts @ axes_23.T).max(axis=1)
    if aside_mm.max() > _ASIDE_MM:
        one = slices[int(aside_mm.argmax())]
        raise ImageRefused(
            RefusalCode.SERIES_DIFFERS, f"{aside_mm.max():.1f} mm beside the first: {_called(one)}"
        )
    places: NDArray[np.float64] = shifts @ np.cross(*axes_23)
    return places


def _check_gaps(slices: Sequence[Slice], gaps_mm: NDArray[np.float64]) -> None:
    if gaps_mm.min() < _SAME_PLANE_MM:
        one, other = slices[int(gaps_mm.argmin())], slices[int(gaps_mm.argmin()) + 1]
        both = f"one place for two: {_called(one)}, {_called(other)}"
        raise ImageRefused(RefusalCode.SERIES_POSITIONS, both)
    usual = float(np.median(gaps_mm))
    if gaps_mm.max() > _WIDEST_GAP * usual:
        one = slices[int(gaps_mm.argmax())]
        detail = f"{gaps_mm.max():.2f} mm instead of {usual:.2f} mm after {_called(one)}"
        raise ImageRefused(RefusalCode.SERIES_GAP, detail)


def _assembled(slices: Sequence[Slice], places_mm: NDArray[np.float64]) -> SeriesImage:
    first = slices[0]
    header, dataset = first.header, first.dataset
    view = accept.view_of(header, dataset)
    geometry = replace(
        frame_geometry(dataset, 1),
        positions_mm=tuple(places_mm.tolist()),
        slice_spacing_mm=float(np.median(np.abs(np.diff(places_mm)))),
    )
    return SeriesImage(
        path=first.path,
        header=header,
        dataset=dataset,
        kind="tomosynthesis",
        laterality=accept.side_of(header),
        view=view.name,
        view_family=view.family,
        view_modifiers=header.view_modifiers,
        rows=first.form.rows,
        columns=first.form.columns,
        number_of_frames=len(slices),
        source_frames=tuple(range(len(slices))),
        positions_mm=geometry.positions_mm,
        duplicate_positions=False,
        spacing_mm=geometry.spacing_mm,
        slice_spacing_mm=geometry.slice_spacing_mm,
        slice_thickness_mm=geometry.slice_thickness_mm,
        frame_of_reference_uid=header.frame_of_reference_uid,
        window=window_of(dataset),
        form=first.form,
        spans=tuple(one.spans for one in slices),
        warnings=tuple(oddities(header, dataset, geometry)),
        slices=tuple(slices),
    )


@contextmanager
def _opened(one: Slice) -> Iterator[int]:
    end = max(offset + length for offset, length in one.spans)
    with data_set(one.path, one.form.transfer_syntax_uid, end) as file:
        yield file.fileno()


def _number(one: Slice) -> int:
    number = one.header.instance_number
    return -1 if number is None else number


def _called(one: Slice) -> str:
    """A slice as messages name it: by its number, which is no patient attribute."""
    return f"slice {_number(one)}"


def _which(first: Slice, other: Slice) -> str:
    """The first thing in which two slices differ."""
    names = (
        "series",
        "laterality",
        "view",
        "view modifiers",
        "frame of reference",
        "pixel format",
        "spacing",
    )
    pairs = zip(names, first.alike, other.alike, strict=True)
    return f"{next(name for name, a, b in pairs if a != b)}: {_called(other)}"
