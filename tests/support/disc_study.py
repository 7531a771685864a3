"""A four-view study whose lesion is a bright disc that wanders from frame to frame, with results that mark just that.

The disc lies elsewhere in every frame that it is in, so a mark that is paired with a wrong frame, turned or mirrored is
not on it. Every view has it at another place. The last frame with a disc is not marked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from dicom_io.cad_sr import build_cad_sr
from dicom_io.dbt import open_image
from dicom_io.findings import ImageFindings, Region, Segment, SourceRef
from dicom_io.phantom import PhantomView, write_study
from dicom_io.seg import build_seg, reference
from dicom_io.sr import build_sr
from dicom_io.write import write
from tests.support.breast_objects import edited, shared_item
from tests.support.sources import make_run

SLICES, ROWS = 12, 321
ODD, EVEN = (
    253,
    256,
)  # columns: a frame of one bit a pixel ends within a byte, and at the end of one
RADIUS: Final = 11
_TISSUE, _BRIGHT = (150, 450), 1000
_SCORE = 0.9


@dataclass(frozen=True)
class DiscView:
    """One view. Its disc is in frames `first` to `last`, counted from 0, and `step` (rows, columns) further in each;
    `at` is its centre in `first`, in stored rows and columns."""

    laterality: Literal["L", "R"]
    view: str
    first: int
    last: int
    at: tuple[int, int]
    step: tuple[int, int]
    columns: int = ODD

    @property
    def name(self) -> str:
        return f"{self.laterality}-{self.view}"

    @property
    def frames(self) -> range:
        """Those with the disc."""
        return range(self.first, self.last + 1)

    @property
    def marked(self) -> range:
        """Those that the segmentation marks."""
        return range(self.first, self.last)

    def centre(self, frame: int) -> tuple[int, int]:
        """(row, column) of the disc's centre."""
        steps = frame - self.first
        return self.at[0] + steps * self.step[0], self.at[1] + steps * self.step[1]

    def disc(self, frame: int) -> NDArray[np.bool_]:
        """Where the disc is, (H, W)."""
        row, column = self.centre(frame)
        rows, columns = np.ogrid[:ROWS, : self.columns]
        found: NDArray[np.bool_] = (rows - row) ** 2 + (columns - column) ** 2 <= RADIUS**2
        return found

    @cached_property
    def volume(self) -> NDArray[np.uint16]:
        """(D, H, W): half an ellipse of tissue at the chest wall, darker towards the skin, and the disc."""
        height, width = ROWS, self.columns
        rows, columns = np.ogrid[:height, :width]
        if self.laterality == "R":
            columns = width - 1 - columns
        out = ((rows - height / 2) / (height * 0.45)) ** 2 + (columns / (width * 0.8)) ** 2
        low, high = _TISSUE
        tissue = np.where(out <= 1, high - (high - low) * out, 0).astype(np.uint16)
        volume = np.repeat(tissue[None], SLICES, axis=0)
        for frame in self.frames:
            volume[frame][self.disc(frame)] = _BRIGHT
        return volume


VIEWS: Final = (
    DiscView("L", "CC", 4, 7, (90, 60), (14, 10)),
    DiscView("L", "MLO", 2, 4, (200, 110), (-12, -13)),
    DiscView("R", "CC", 7, 9, (130, 190), (12, -11)),
    DiscView("R", "MLO", 5, 7, (210, 150), (-15, 14)),
)


@dataclass(frozen=True)
class Result:
    """An object that a run makes of the study."""

    kind: str
    path: Path
    dataset: Dataset
    source_sop_uid: str | None


@dataclass(frozen=True)
class DiscStudy:
    """The study and its results as files; `images` and `segmentations` in the order of the views."""

    study_uid: str
    images: tuple[Path, ...]
    segmentations: tuple[Result, ...]
    reports: tuple[Result, ...]

    @property
    def results(self) -> tuple[Result, ...]:
        return self.segmentations + self.reports


def make(folder: Path, views: Sequence[DiscView] = VIEWS, *, jpeg2000: bool = False) -> DiscStudy:
    """Write the study and what `build_seg`, `build_sr` and `build_cad_sr` make of it."""
    pictured = (PhantomView(v.laterality, v.view, v.volume, (0.5, 0.5)) for v in views)
    study = write_study(folder, pictured, seed=1)
    for file in study.files:
        edited(file, _dim)
    run = make_run(trained=False)
    findings = [_findings(*pair) for pair in zip(views, study.files, strict=True)]
    segmentations = []
    for view, found in zip(views, findings, strict=True):
        seg = build_seg(found, run, jpeg2000=jpeg2000)
        assert seg is not None
        source = found.source.sop_instance_uid
        segmentations.append(_written("SEG", folder / f"seg-{view.name}.dcm", seg, source))
    header = findings[0].source.header
    pairs = zip(segmentations, findings, strict=True)
    refs = [reference(seg.dataset, found.source) for seg, found in pairs]
    sr, cad = build_sr(header, findings, [], refs, run), build_cad_sr(header, findings, [], run)
    assert cad is not None
    reports = (
        _written("SR", folder / "sr.dcm", sr, None),
        _written("CAD_SR", folder / "cad-sr.dcm", cad, None),
    )
    return DiscStudy(study.study_instance_uid, study.files, tuple(segmentations), reports)


def _dim(dataset: Dataset) -> None:
    """Have the image shown so that the disc is white and tissue is at most half as bright."""
    window = shared_item(dataset, "FrameVOILUTSequence")
    window.WindowCenter, window.WindowWidth = _BRIGHT / 2, _BRIGHT


def _findings(view: DiscView, path: Path) -> ImageFindings:
    masks = {frame: view.disc(frame) for frame in view.marked}
    key = view.marked[-1]
    row, column = view.centre(key)
    box = (row - RADIUS, column - RADIUS, row + RADIUS + 1, column + RADIUS + 1)
    region = Region("malignant", view.first, view.marked[-1], key, row, column, box, _SCORE)
    return ImageFindings(
        SourceRef.of(open_image(path)),
        {"benign": 0.1, "malignant": _SCORE},
        (Segment("malignant", masks, _SCORE),),
        (region,),
    )


def _written(kind: str, path: Path, dataset: Dataset, source: str | None) -> Result:
    write(dataset, path)
    return Result(kind, path, dataset, source)
