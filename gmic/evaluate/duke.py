"""The public Duke set (BCS-DBT): its three tables, and the orientation its boxes are given in.

Tables, as they are published: file paths, labels and boxes, one row an image, an image and a box.
An image is named by patient, study and view; views are lcc, rcc, lmlo and rmlo, with a number where
a view was repeated (lcc2). Nothing here reads DICOM; `gmic.evaluate.duke_run` does the evaluation.

The laterality that a file states is wrong in some. The set's organisers therefore take the side of
the image with the brighter edge as that of the chest wall, compare it with the view's name, and
reverse rows and columns where the two disagree; boxes are given in that orientation (`oriented`).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gmic.errors import DataError
from gmic.evaluate.froc import TrueBox, Volume
from gmic.evaluate.scores import ImageScore
from gmic.evaluate.tables import Row, number, read_table, whole_number, words, zero_or_one

KEY = ("PatientID", "StudyUID", "View")
PATH_COLUMNS = (*KEY, "descriptive_path", "classic_path")
LABEL_COLUMNS = (*KEY, "Normal", "Actionable", "Benign", "Cancer")
BOX_COLUMNS = (*KEY, "Slice", "X", "Y", "Width", "Height", "Class", "VolumeSlices")
"""Those used; the table also has Subject and AD (architectural distortion)."""
BOX_CLASSES = {"benign": "benign", "cancer": "malignant"}

_VIEW = re.compile(r"([lr])(cc|mlo)[ _-]?\d*")


class LeftOut(NamedTuple):
    """An image that is not evaluated, and why."""

    name: str
    kind: str
    """One of few, to be counted."""
    detail: str = ""


@dataclass(frozen=True)
class DukeBox:
    """A biopsied lesion, in the set's orientation."""

    lesion: TrueBox
    label: str
    """Class of `gmic.config.CLASSES`."""


@dataclass(frozen=True)
class DukeImage:
    """One image of the set.

    Attributes:
        volume: Its name.
        path: Its file.
        laterality: "L" or "R", from the view's name.
        view: "CC" or "MLO".
        labels: Benign, malignant (the table's Benign and Cancer: proven by biopsy). An image that is
            Normal, or Actionable without a biopsy, is neither.
        boxes: Its biopsied lesions.
    """

    volume: Volume
    path: Path
    laterality: str
    view: str
    labels: tuple[int, int]
    boxes: tuple[DukeBox, ...]

    @property
    def image_id(self) -> str:
        """Unique in the set."""
        return "/".join(self.volume)

    def scored(self, scores: tuple[float, float]) -> ImageScore:
        """Its row of the table of scores; a breast is a side of one study."""
        patient, study, _ = self.volume
        breast = f"{patient}/{study}/{self.laterality}"
        return ImageScore(self.image_id, breast, patient, self.labels, scores)


@dataclass(frozen=True)
class DukeTables:
    """Where the set lies.

    Attributes:
        paths: CSV of file paths.
        labels: CSV of labels.
        boxes: CSV of boxes; without it detection is not measured.
        images: Folder that the paths are relative to.
    """

    paths: Path
    labels: Path
    images: Path
    boxes: Path | None = None


def read_duke(tables: DukeTables) -> tuple[list[DukeImage], list[LeftOut]]:
    """Join the tables: the images that can be evaluated, in the order of the labels, and the others.

    Left out, and named: views that are not known, images without a row of paths, files that are
    not there, rows that repeat an image, boxes of images that have no label.

    Raises:
        DataError: A table lacks a column or has a bad row, or no table row is left.
        OSError: A table cannot be read.
    """
    paths = dict(reversed(read_table(tables.paths, PATH_COLUMNS, _path)))  # the first row rules
    labels = read_table(tables.labels, LABEL_COLUMNS, _label)
    boxes: dict[Volume, list[DukeBox]] = {}
    for box in read_table(tables.boxes, BOX_COLUMNS, _box) if tables.boxes else ():
        boxes.setdefault(box.lesion.volume, []).append(box)
    images: list[DukeImage] = []
    left_out: list[LeftOut] = []
    seen: set[Volume] = set()
    for volume, marks in labels:
        name = "/".join(volume)
        match = _VIEW.fullmatch(volume.view)
        if volume in seen:
            left_out.append(LeftOut(name, "label given twice"))
        elif match is None:
            left_out.append(LeftOut(name, "unknown view", volume.view))
        elif volume not in paths:
            left_out.append(LeftOut(name, "no file path"))
        elif (path := _existing(tables.images, paths[volume])) is None:
            left_out.append(LeftOut(name, "file missing", paths[volume][0] or paths[volume][1]))
        else:
            side, view = match[1].upper(), match[2].upper()
            images.append(DukeImage(volume, path, side, view, marks, tuple(boxes.get(volume, ()))))
        seen.add(volume)
    left_out += [LeftOut("/".join(v), "box without a label") for v in boxes if v not in seen]
    if not images and not left_out:
        raise DataError(f"{tables.labels}: the table has no row")
    return images, left_out


def counted(left_out: Sequence[LeftOut]) -> Mapping[str, int]:
    """How many images were left out for each reason, the most frequent first."""
    return dict(Counter(each.kind for each in left_out).most_common())


def image_side(slice_HW: NDArray[Any]) -> str:
    """The side of the image, "L" or "R", where the breast touches it: the one with the brighter edge.

    Only the outermost columns are compared, as by the set's organisers; where these are equal, such
    as both black, the halves are.
    """
    values = slice_HW.astype(np.float64)
    left, right = values[:, 0].sum(), values[:, -1].sum()
    if left == right:
        half = values.shape[1] // 2
        left, right = values[:, :half].sum(), values[:, -half:].sum()
    return "R" if left < right else "L"


def oriented(volume_DHW: NDArray[Any], laterality: str) -> NDArray[Any]:
    """The volume in the orientation of the boxes: rows and columns reversed where sides disagree (a view).

    The first slice decides.
    """
    agrees = image_side(volume_DHW[0]) == laterality
    return volume_DHW if agrees else volume_DHW[:, ::-1, ::-1]


def _key(row: Row) -> Volume:
    return Volume(words(row, "PatientID"), words(row, "StudyUID"), words(row, "View").lower())


def _path(row: Row) -> tuple[Volume, tuple[str, str]]:
    return _key(row), (row["descriptive_path"], row["classic_path"])


def _label(row: Row) -> tuple[Volume, tuple[int, int]]:
    marks = {name: zero_or_one(row, name) for name in LABEL_COLUMNS[3:]}
    if sum(marks.values()) == 0:
        raise DataError("no label is 1; give Normal, Actionable, Benign or Cancer")
    return _key(row), (marks["Benign"], marks["Cancer"])


def _box(row: Row) -> DukeBox:
    label = BOX_CLASSES.get(row["Class"].lower())
    if label is None:
        raise DataError(f"Class is {row['Class']!r}; give benign or cancer")
    slices = whole_number(row, "VolumeSlices")
    if slices < 1:
        raise DataError(f"VolumeSlices is {slices}; give at least 1")
    lesion = TrueBox(
        _key(row),
        x=number(row, "X"),
        y=number(row, "Y"),
        width=number(row, "Width"),
        height=number(row, "Height"),
        slice_index=number(row, "Slice"),
        slices=slices,
    )
    return DukeBox(lesion, label)


def _existing(folder: Path, names: tuple[str, str]) -> Path | None:
    """The file under either of its names; archives are unpacked to one or the other."""
    for name in names:
        if name and (folder / name).is_file():
            return folder / name
    return None
