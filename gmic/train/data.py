"""Images to learn from: what a set of images is, one in memory, one over a folder.

A folder holds an index, `index.csv` or `index.json`, and a file for each image, `.npy` or `.npz`.
The index has a row (CSV) or an object (JSON: a list of them) for each image:

    file        path of the image's file, seen from the folder
    image_id    unique name of the image
    breast_id   images of one breast share it
    patient_id  images of one patient share it
    benign      1 when a benign lesion was proven in this breast, else 0
    malignant   the same for malignant lesions
    birads      optional: group of the BI-RADS category, from 0 (paper, III-A); empty = not known
    split       optional: `train`, `valid` or `test`

A file holds one standardised window (D, H, W), or (H, W) for a 2D image; an `.npz` holds that one
array. `.npy` is mapped, not read: one volume at a time is in memory, and of that only what is used.
"""

from __future__ import annotations

import csv
import json
import zipfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gmic.config import CLASSES
from gmic.errors import DataError

Volume = NDArray[np.float32]

INDEX_NAMES = ("index.csv", "index.json")
_COLUMNS = ("file", "image_id", "breast_id", "patient_id", *CLASSES)


@dataclass(frozen=True)
class Example:
    """What is known of one image.

    Attributes:
        image_id: Unique in its set.
        breast_id: Images of one breast share it.
        patient_id: Images of one patient share it.
        labels: Benign, malignant: 1 when such a lesion was proven.
        birads: Group of the BI-RADS category, from 0; None where it is not known.
    """

    image_id: str
    breast_id: str
    patient_id: str
    labels: tuple[int, int]
    birads: int | None = None


class ImageSet(Protocol):
    """Images in a fixed order, each made or read when asked for."""

    @property
    def examples(self) -> Sequence[Example]:
        """What is known of the images, in order."""
        ...

    def volume(self, index: int) -> Volume:
        """Standardised window of image `index`: (D, H, W); D = 1 for a 2D image."""
        ...


class MemorySet:
    """Images that all lie in memory.

    Raises:
        DataError: Another number of examples than of volumes, or a volume that cannot be used.
    """

    def __init__(self, examples: Sequence[Example], volumes: Sequence[NDArray[Any]]) -> None:
        if len(examples) != len(volumes):
            raise DataError(f"{len(examples)} examples for {len(volumes)} volumes; give as many")
        pairs = zip(examples, volumes, strict=True)
        self.examples: Sequence[Example] = tuple(examples)
        self._volumes = [_checked(volume, example.image_id) for example, volume in pairs]

    def volume(self, index: int) -> Volume:
        """Image `index`: (D, H, W)."""
        return self._volumes[index]


class FolderSet:
    """Images in a folder with an index (see the module); files are opened when asked for.

    Args:
        folder: The folder with `index.csv` or `index.json`.
        split: Keep the rows of this split; None keeps all.
        window_shape: Rows and columns that every image must have; None takes any.

    Raises:
        DataError: No index or no image in it, or a row that cannot be used (the first is named,
            the others are counted). Voxels are looked at when a volume is first asked for.
    """

    def __init__(
        self,
        folder: str | Path,
        split: str | None = None,
        window_shape: tuple[int, int] | None = None,
    ) -> None:
        self.folder, self.window_shape = Path(folder), window_shape
        rows = _read_index(self.folder, split)
        self.examples: Sequence[Example] = tuple(example for example, _ in rows)
        self._files = [file for _, file in rows]
        self._seen: set[int] = set()

    def volume(self, index: int) -> Volume:
        """Image `index`: (D, H, W); read-only when it is mapped.

        Raises:
            DataError: The file cannot be read, or holds no finite volume with contrast, or one of
                another shape.
        """
        path = self._files[index]
        volume = _as_volume(_open(path), str(path))
        if self.window_shape not in (None, volume.shape[1:]):
            raise DataError(
                f"{path} has slices of {volume.shape[1:]} pixels; the model's window is of "
                f"{self.window_shape}"
            )
        if index not in self._seen:
            _require_contrast(volume, str(path))
            self._seen.add(index)
        return volume

    def problems(self) -> list[str]:
        """Read every voxel once; one line for each file that cannot be used."""
        found = []
        for index in range(len(self._files)):
            try:
                self.volume(index)
            except DataError as error:
                found.append(str(error))
        return found


def require_both(images: ImageSet, classes: Iterable[int], name: str) -> None:
    """Refuse a set from which a class cannot be learned or measured.

    Raises:
        DataError: An empty set, or all images alike in one of `classes` (places in `CLASSES`).
    """
    if not images.examples:
        raise DataError(f"the {name} set is empty; give images")
    for place in classes:
        values = {example.labels[place] for example in images.examples}
        if len(values) < 2:
            raise DataError(
                f"all {len(images.examples)} images of the {name} set have "
                f"{CLASSES[place]} = {values.pop()}; give some with and some without"
            )


def require_disjoint(train_set: ImageSet, valid_set: ImageSet) -> None:
    """Refuse sets that share a patient: the validation would flatter the model.

    Raises:
        DataError: Names the first shared patient's place in the order of names, not the patient.
    """
    shared = {e.patient_id for e in train_set.examples} & {e.patient_id for e in valid_set.examples}
    if shared:
        raise DataError(
            f"{len(shared)} patients are in both the training and the validation set; "
            "split the images by patient"
        )


def _read_index(folder: Path, split: str | None) -> list[tuple[Example, Path]]:
    """Examples and files of one split, all rows checked."""
    path = next((folder / n for n in INDEX_NAMES if (folder / n).is_file()), None)
    if path is None:
        raise DataError(f"{folder} holds no index; put {' or '.join(INDEX_NAMES)} there")
    rows = _rows(path)
    if split is not None:
        if rows and "split" not in rows[0]:
            raise DataError(f"{path} has no column split; add one with train, valid or test")
        rows = [row for row in rows if row.get("split") == split]
    if not rows:
        raise DataError(f"{path} lists no image{f' of split {split!r}' if split else ''}")
    twice = {k for k, n in Counter(str(row.get("image_id")) for row in rows).items() if n > 1}
    found, problems = [], []
    for row in rows:
        try:
            found.append(_parse(row, folder, twice))
        except DataError as error:
            problems.append(str(error))
    if problems:
        more = f" (and {len(problems) - 1} more bad rows)" if len(problems) > 1 else ""
        raise DataError(f"{path}: {problems[0]}{more}")
    return found


def _rows(path: Path) -> list[dict[str, Any]]:
    """The rows of an index with their number under `#`, counted like lines of a CSV file."""
    try:
        if path.suffix == ".csv":
            with path.open(newline="", encoding="utf-8-sig") as file:
                rows: Any = list(csv.DictReader(file))
        else:
            rows = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, csv.Error, json.JSONDecodeError) as error:
        raise DataError(f"cannot read {path}: {error}") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DataError(f"{path} is no list of objects; give one object for each image")
    return [{**row, "#": number} for number, row in enumerate(rows, 2)]


def _parse(row: Mapping[str, Any], folder: Path, twice: set[str]) -> tuple[Example, Path]:
    """One row of the index."""
    where = f"row {row['#']}"
    for column in _COLUMNS:
        if row.get(column) in (None, ""):
            raise DataError(f"{where} has no {column}; every row needs {', '.join(_COLUMNS)}")
    if str(row["image_id"]) in twice:
        raise DataError(f"{where}: image_id {row['image_id']!r} is there twice; make it unique")
    labels = tuple(_whole(row[name], f"{where}: {name}") for name in CLASSES)
    if not set(labels) <= {0, 1}:
        raise DataError(f"{where}: {' and '.join(CLASSES)} are {labels}; each must be 0 or 1")
    birads = None if row.get("birads") in (None, "") else _whole(row["birads"], f"{where}: birads")
    path = folder / str(row["file"])
    if path.suffix not in (".npy", ".npz"):
        raise DataError(f"{where}: {path.name} is no .npy or .npz file; convert it")
    if not path.is_file():
        raise DataError(f"{where}: file {row['file']} is missing; copy it or drop the row")
    image_id, breast_id, patient_id = (
        str(row[f"{of}_id"]) for of in ("image", "breast", "patient")
    )
    return Example(image_id, breast_id, patient_id, (labels[0], labels[1]), birads), path


def _whole(value: Any, what: str) -> int:
    text = str(value)
    if not text.isascii() or not text.isdigit():
        raise DataError(f"{what} is {value!r}; it must be a whole number from 0")
    return int(text)


def _open(path: Path) -> NDArray[Any]:
    """The array in a file; nothing is unpickled."""
    try:
        if path.suffix == ".npy":
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        else:
            with np.load(path, allow_pickle=False) as arrays:
                if len(arrays.files) != 1:
                    raise DataError(f"{path} holds {len(arrays.files)} arrays; put one in")
                array = arrays[arrays.files[0]]
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        if isinstance(error, DataError):
            raise
        reason = str(error).strip().split("\n")[0]
        raise DataError(f"{path} is damaged or no array of numbers ({reason})") from error
    return np.asarray(array) if not isinstance(array, np.memmap) else array


def _checked(array: NDArray[Any], what: str) -> Volume:
    volume = _as_volume(array, what)
    _require_contrast(volume, what)
    return volume


def _as_volume(array: NDArray[Any], what: str) -> Volume:
    """`array` as float32 (D, H, W)."""
    if array.dtype.kind != "f":
        raise DataError(f"{what} holds {array.dtype}; give the standardised window as float32")
    if array.ndim not in (2, 3) or 0 in array.shape:
        raise DataError(f"{what} has shape {array.shape}; give (D, H, W), or (H, W) for 2D")
    return (array if array.ndim == 3 else array[None]).astype(np.float32, copy=False)


def _require_contrast(volume_DHW: Volume, what: str) -> None:
    """Look at every voxel, slice by slice."""
    low, high = np.inf, -np.inf
    for index, slice_HW in enumerate(volume_DHW):
        least, most = float(slice_HW.min()), float(slice_HW.max())
        if not np.isfinite(least) or not np.isfinite(most):
            raise DataError(f"{what}: slice {index} holds NaN or infinity; give finite numbers")
        low, high = min(low, least), max(high, most)
    if low == high:
        raise DataError(f"{what}: every voxel is {low:g}; give an image with contrast")
