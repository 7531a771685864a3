"""Lesions as readers drew them, moved to where a model saw them, and how well versions find them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dicom_io.dbt import open_image
from dicom_io.outline import Outline
from gmic.evaluate.found import FoundBox
from gmic.evaluate.segmentation import segmentation_score
from gmic.geometry import ReceptiveField
from gmic.preprocess import preprocess
from gmic.window import WindowTransform
from node.labels.values import Box
from node.learning_models import DatasetItem
from tests.unit.workers.breasts import shuffle_frames, write_marked
from workers.lesions import Lesion, volume_box, window_mask
from workers.located import Read, locate
from workers.looks import Look, LookCache, Saliency

FIELD = ReceptiveField(stride=64, offset=2, size=100)
SHAPE = (3, 256, 192)
CELLS = (4, 3)
WHERE = (100, 60)


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("side", ["L", "R"])
def test_a_drawn_pixel_is_the_same_pixel_of_the_window(
    tmp_path: Path, side: str, turned: bool
) -> None:
    """The brightest voxel of an image, drawn where it is stored: through flips, crops and frames out of order."""
    mark = (1, 200, 100 if (side == "L") != turned else 219)
    path = write_marked(tmp_path, side, "CC", (4, 448, 320), mark, turned=turned)  # type: ignore[arg-type]
    shuffle_frames(path)
    image = open_image(path)
    volume_DHW = image.read_volume()
    window_DHW, transform = preprocess(volume_DHW, side, "CC", window_shape=(256, 192))
    look = Look((0.0, 0.0), image.source_frames, image.flipped, transform, FIELD, ())
    pixel = np.zeros((448, 320), dtype=bool)
    pixel[mark[1:]] = True
    lesion = Lesion("malignant", Box(*mark, 1, 1), Outline.of({mark[0]: pixel}))
    box = volume_box(lesion, look)
    assert look.turned == turned
    brightest = np.argwhere(volume_DHW == volume_DHW.max()).tolist()
    assert [[box.slice0, box.row0, box.col0]] == brightest
    mask_hw = window_mask([lesion], "malignant", look)
    assert mask_hw is not None
    _, row, col = np.unravel_index(window_DHW.argmax(), window_DHW.shape)
    assert np.argwhere(mask_hw).tolist() == [[row, col]]
    assert window_mask([lesion], "benign", look) is None
    again = LookCache(tmp_path)
    again.put("w", "i", look)
    assert again.get("w", "i") == look


def item(number: int, malignant: bool = False) -> DatasetItem:
    """An image."""
    return DatasetItem(
        sop_uid=f"1.{number}", sha256=f"{number}", study_uid=f"2.{number}", patient=f"p{number}",
        benign=False, malignant=malignant,
    )  # fmt: skip


def look(*boxes: FoundBox) -> Look:
    """An image that is its own window, as large as `SHAPE`."""
    transform = WindowTransform(SHAPE, SHAPE, 0, 0, False, (0, 0, *SHAPE[1:]))
    return Look((0.5, 0.5), tuple(range(SHAPE[0])), False, transform, FIELD, boxes)


def found(row: int, col: int, score: float = 0.9) -> FoundBox:
    """A found box on the middle slice."""
    return FoundBox(1, row, col, row + 20, col + 20, score)


def outline(row: int, col: int) -> Lesion:
    """A lesion on two slices, largest on the middle one."""
    one, two = np.zeros(SHAPE[1:], dtype=bool), np.zeros(SHAPE[1:], dtype=bool)
    one[row : row + 20, col : col + 20] = True
    two[row : row + 5, col : col + 5] = True
    made = Outline.of({1: one, 2: two})
    frame, place = made.central
    return Lesion("malignant", Box(frame, *place), made)


def saliency(row: int | None) -> Saliency:
    """1 in one malignant cell of the middle slice, or nowhere."""
    result: Saliency = np.zeros((2, SHAPE[0], *CELLS), dtype=np.float32)
    if row is not None:
        result[1, 1, row, 1] = 1.0
    return result


def test_a_version_that_looks_at_the_lesion_has_the_better_figures() -> None:
    """The far one marks another place 150 pixels away, on the lesion's image and on a free one."""
    items = [item(1, malignant=True), item(2), item(3, malignant=True)]
    lesions = {"1.1": (outline(*WHERE),)}
    near, far = found(*WHERE), found(WHERE[0] + 130, WHERE[1] + 75)
    looks = {
        "near": {"1.1": look(near), "1.2": look(), "1.3": look(far)},
        "far": {"1.1": look(far), "1.2": look(far), "1.3": look(far)},
    }
    maps = {"near": saliency(2), "far": saliency(0)}
    located = locate(["near", "far"], Read(items, looks, lambda version, _: maps[version]), lesions)
    assert located.summary["annotations"] == {"images": 1, "lesions": 1, "masks": 1}
    one, other = located.summary["segmentation"]
    mask_hw = window_mask(lesions["1.1"], "malignant", looks["near"]["1.1"])
    assert mask_hw is not None
    wanted = segmentation_score(maps["near"][1], mask_hw, FIELD)
    assert wanted is not None
    assert (one["version"], one["class"], one["images"]) == ("near", "malignant", 1)
    assert (one["dsc"], one["pxap"]) == (wanted.dsc, wanted.pxap)
    assert other["dsc"] < one["dsc"]
    assert other["pxap"] < one["pxap"]
    hit, miss = located.summary["detection"]
    assert (hit["mean_sensitivity"], miss["mean_sensitivity"]) == (1.0, 0.0)
    assert (hit["lesions"], hit["images_with_lesions"]) == (1, 1)
    assert hit["images"] == 2, (
        "what may lie in an image with a finding that nobody drew is not known"
    )
    assert [table.title for table in located.tables] == [
        "Outlines of lesions",
        "Detection of lesions",
    ]
    assert located.charts[0][1].lstrip().startswith("<?xml")


def test_some_images_that_were_drawn_on_are_shown() -> None:
    """Both classes, whatever their number, and never more than a page takes."""
    items = [item(n) for n in range(9)]
    for one in items:
        one.laterality, one.view = "L", "CC"
    places = {f"1.{n}": "benign" if n == 8 else "malignant" for n in range(1, 9)}
    lesions = {
        uid: (Lesion("benign" if label == "benign" else "malignant", Box(0, *WHERE, 20, 20)),)
        for uid, label in places.items()
    }
    looks = {"v": {one.sop_uid: look() for one in items}}
    located = locate(["v"], Read(items, looks, lambda *_: saliency(None)), lesions)
    assert [uid for _, uid in located.gallery] == ["1.1", "1.8", "1.2", "1.3", "1.4", "1.5"]
    assert located.gallery[0][0].startswith("L CC, drawn: malignant; v scores 0.500 malignant")
    assert "drawn: benign" in located.gallery[1][0]


def test_a_lesion_outside_of_the_window_is_missed() -> None:
    transform = WindowTransform(SHAPE, (3, 64, 64), 0, 0, False, (0, 0, 64, 64))
    cut = Look((0.5, 0.5), (0, 1, 2), False, transform, FIELD, ())
    lesions = {"1.1": (outline(*WHERE),)}
    full = np.ones((2, 3, 1, 1), dtype=np.float32)
    read = Read([item(1, malignant=True)], {"v": {"1.1": cut}}, lambda *_: full)
    [row] = locate(["v"], read, lesions).summary["segmentation"]
    assert (row["dsc"], row["pxap"], row["images"]) == (0.0, 0.0, 1)


def test_a_box_in_an_image_of_one_slice_is_found() -> None:
    transform = WindowTransform((1, 256, 192), (1, 256, 192), 0, 0, False, (0, 0, 256, 192))
    flat = Look((0.5, 0.5), (0,), False, transform, FIELD, (FoundBox(0, 100, 60, 120, 80, 0.9),))
    lesions = {"1.1": (Lesion("benign", Box(0, *WHERE, 20, 20)),)}
    read = Read([item(1)], {"v": {"1.1": flat}}, lambda *_: saliency(None))
    located = locate(["v"], read, lesions)
    assert located.summary["detection"][0]["mean_sensitivity"] == 1.0
    assert located.summary["segmentation"] == []


def test_where_nobody_drew_it_is_said() -> None:
    located = locate(["v"], Read([item(1)], {"v": {"1.1": look()}}, lambda *_: saliency(None)), {})
    assert (located.summary["annotations"], located.tables) == (None, ())
    assert "has a mask or a box" in located.lines[0]
