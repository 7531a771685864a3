"""Sets of images: what they give, and one clear error for each thing that can be wrong with them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gmic.errors import DataError
from gmic.train.data import Example, FolderSet, MemorySet, require_both, require_disjoint
from tests.unit.gmic.training import images, write_folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "set", train=3, valid=2)


def test_a_folder_gives_what_was_put_in(folder: Path) -> None:
    every = images(5)
    assert FolderSet(folder).examples == every.examples
    train, valid = FolderSet(folder, "train"), FolderSet(folder, "valid")
    assert [*train.examples, *valid.examples] == list(every.examples)
    np.testing.assert_array_equal(valid.volume(1), every.volume(4))
    assert train.problems() == []


def test_volumes_are_mapped_and_not_read(folder: Path) -> None:
    assert isinstance(FolderSet(folder).volume(0), np.memmap)


def test_two_dimensions_half_precision_and_zipped_arrays_are_taken(folder: Path) -> None:
    image = images(1).volume(0)
    np.save(folder / "i0.npy", image[0])
    assert FolderSet(folder).volume(0).shape == (1, 96, 64)
    np.save(folder / "i0.npy", image.astype(np.float16))
    assert FolderSet(folder).volume(0).dtype == np.float32
    np.savez_compressed(folder / "i0.npz", image)
    text = (folder / "index.csv").read_text().replace("i0.npy", "i0.npz")
    (folder / "index.csv").write_text(text)
    np.testing.assert_array_equal(FolderSet(folder).volume(0), image)


def test_an_index_may_be_json(folder: Path) -> None:
    row = {"file": "i0.npy", "image_id": 1, "breast_id": 2, "patient_id": 3, "benign": 0}
    (folder / "index.csv").unlink()
    (folder / "index.json").write_text(json.dumps([{**row, "malignant": 1}]))
    assert FolderSet(folder).examples == (Example("1", "2", "3", (0, 1)),)
    (folder / "index.json").write_text('{"file": 1}')
    with pytest.raises(DataError, match="no list of objects"):
        FolderSet(folder)
    (folder / "index.json").write_text("[")
    with pytest.raises(DataError, match="cannot read"):
        FolderSet(folder)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("i1.npy", "gone.npy", r"row 3: file gone\.npy is missing; copy it or drop the row"),
        ("i1.npy", "i1.dcm", "row 3: i1.dcm is no .npy or .npz file"),
        ("i1.npy,i1", "i1.npy,i0", "row 2: image_id 'i0' is there twice"),
        ("i1.npy,i1", "i1.npy,", "row 3 has no image_id"),
        (
            "b1,p1,0,0",
            "b1,p1,2,0",
            r"row 3: benign and malignant are \(2, 0\); each must be 0 or 1",
        ),
        ("b1,p1,0,0", "b1,p1,x,0", "row 3: benign is 'x'; it must be a whole number"),
        ("malignant", "cancer", r"row 2 has no malignant; .* \(and 4 more bad rows\)"),
    ],
)
def test_bad_rows_are_named(folder: Path, old: str, new: str, says: str) -> None:
    index = folder / "index.csv"
    assert old in index.read_text()
    index.write_text(index.read_text().replace(old, new))
    with pytest.raises(DataError, match=says) as caught:
        FolderSet(folder)
    assert "\n" not in str(caught.value)


def _nan(image: np.ndarray) -> np.ndarray:
    image[1, 2, 3] = np.nan
    return image


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (_nan, "slice 1 holds NaN or infinity"),
        (lambda image: np.full_like(image, 2), "every voxel is 2; give an image with contrast"),
        (lambda image: image[None], r"has shape \(1, 3, 96, 64\)"),
        (lambda image: image[:0], r"has shape \(0, 96, 64\)"),
        (lambda image: image[:, :90], r"has slices of \(90, 64\) pixels; the model's window is of"),
        (lambda image: (100 * image).astype(np.int16), "holds int16; give the standardised window"),
    ],
)
def test_bad_files_are_named(
    folder: Path, change: Callable[[np.ndarray], np.ndarray], says: str
) -> None:
    np.save(folder / "i1.npy", change(images(2).volume(1)))
    found = FolderSet(folder, window_shape=(96, 64))
    with pytest.raises(DataError, match=rf"i1\.npy:? .*{says}|i1\.npy {says}"):
        found.volume(1)
    assert len(found.problems()) == 1
    found.volume(2)


def test_damaged_files_are_named_and_pickles_not_run(folder: Path, tmp_path: Path) -> None:
    whole = (folder / "i1.npy").read_bytes()
    for data in (whole[:40], whole[:-9], b"", b"\x93NUMPY", b"PK\x03\x04"):
        (folder / "i1.npy").write_bytes(data)
        with pytest.raises(DataError, match=r"i1\.npy is damaged or no array of numbers"):
            FolderSet(folder).volume(1)
    np.save(folder / "i1.npy", np.array([Path]), allow_pickle=True)
    with pytest.raises(DataError, match=r"i1\.npy is damaged or no array of numbers"):
        FolderSet(folder).volume(1)


def test_a_folder_without_index_or_split_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no index; put index\.csv or index\.json there"):
        FolderSet(tmp_path)
    with pytest.raises(DataError, match="lists no image of split 'test'"):
        FolderSet(folder, "test")
    index = folder / "index.csv"
    index.write_text(index.read_text().replace("split", "part"))
    with pytest.raises(DataError, match="has no column split"):
        FolderSet(folder, "train")


def test_sets_in_memory_are_checked_too() -> None:
    every = images(2)
    with pytest.raises(DataError, match="2 examples for 1 volumes"):
        MemorySet(every.examples, [every.volume(0)])
    with pytest.raises(DataError, match="i1: every voxel is 0"):
        MemorySet(every.examples, [every.volume(0), np.zeros((2, 96, 64), np.float32)])


def test_a_class_that_cannot_be_learned_is_named() -> None:
    with pytest.raises(DataError, match="all 2 images of the training set have malignant = 0"):
        require_both(images(2, 1), (1,), "training")
    with pytest.raises(DataError, match="the training set is empty"):
        require_both(MemorySet([], []), (1,), "training")
    require_both(images(4), (0, 1), "training")


def test_patients_in_both_sets_are_refused() -> None:
    require_disjoint(images(3), images(3, 3))
    with pytest.raises(DataError, match="2 patients are in both"):
        require_disjoint(images(4), images(3, 2))
