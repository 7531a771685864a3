from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gmic.errors import DataError
from gmic.evaluate import pictures
from gmic.evaluate.drawing import COLOURS, View
from gmic.evaluate.localisation import LesionBox
from gmic.geometry import PatchBox, ReceptiveField

FIELD = ReceptiveField(stride=32, offset=2.0, size=127)
WINDOW = (320, 192)
DEPTH = 7


def reading(**other: object) -> pictures.Reading:
    """A grey window with one hot cell, malignant, in slice 4, row 3, column 2."""
    window = np.random.default_rng(0).normal(0, 0.1, (DEPTH, *WINDOW)).astype(np.float32)
    window[:, :, 150:] = -2.0
    saliency = np.zeros((2, DEPTH, 10, 6), np.float32)
    saliency[1, 4, 3, 2] = 0.8
    patches = (PatchBox(4, 64, 32, 128, 96, 0.7, 1.0), PatchBox(1, 0, 0, 64, 64, 0.3, 0.5))
    values = {"window_DHW": window, "saliency_CDhw": saliency, "patches": patches, **other}
    return pictures.Reading(field=FIELD, **values)  # type: ignore[arg-type]


def warmth(image: Image.Image) -> np.ndarray:
    """How much redder than blue each pixel is."""
    values = np.asarray(image.convert("RGB")).astype(float)
    return values[..., 0] - values[..., 2]


@pytest.mark.parametrize("height", [320, 160, 100])
def test_heat_lies_on_the_centre_of_the_receptive_field(height: int) -> None:
    shown = reading()
    view = View.of(shown.window_DHW, height)
    heat = warmth(shown.shown(view, 4, 1))
    rows, cols = np.indices(heat.shape)
    weights = np.where(heat > 0.1 * heat.max(), heat, 0)
    row, col = (float((axis * weights).sum() / weights.sum()) for axis in (rows, cols))
    # Picture pixel p shows window pixels around (p + 0.5) / scale - 0.5.
    assert (row + 0.5) / view.scale - 0.5 == pytest.approx(FIELD.cell_centre(3), abs=2.5)
    assert (col + 0.5) / view.scale - 0.5 == pytest.approx(FIELD.cell_centre(2), abs=2.5)


def test_heat_is_of_one_class_and_one_slice() -> None:
    shown = reading()
    view = View.of(shown.window_DHW, 160)
    plain = np.asarray(shown.shown(view, 4))
    assert (np.asarray(shown.shown(view, 4, 0)) == plain).all()
    assert np.asarray(shown.shown(view, 3)).std(axis=2).max() == 0
    assert (np.asarray(shown.shown(view, 4, 1)) != plain).any()
    peak = np.asarray(shown.shown(view, 4, 1))[49, 33].astype(float)
    colour = np.array(COLOURS["malignant"], float)
    assert np.argsort(peak).tolist() == np.argsort(colour).tolist()


def test_weak_saliency_stays_weak() -> None:
    """Full colour stands for the strongest cell of the volume, but not for a trace of saliency."""
    strong = reading()
    weak = reading(saliency_CDhw=strong.saliency_CDhw * 0.01)
    view = View.of(strong.window_DHW, 160)
    assert warmth(weak.shown(view, 4, 1)).max() < 0.3 * warmth(strong.shown(view, 4, 1)).max()


def test_the_truth_is_drawn_where_it_is() -> None:
    shown = reading(lesions=(("malignant", LesionBox(2, 100, 60, 4, 140, 100)),))
    view = View.of(shown.window_DHW, 320)
    drawn = [np.asarray(shown.shown(view, d)) for d in range(DEPTH)]
    clean = [np.asarray(reading().shown(view, d)) for d in range(DEPTH)]
    differs = [(a != b).any() for a, b in zip(drawn, clean, strict=True)]
    assert differs == [False, False, True, True, False, False, False]
    rows, cols = np.nonzero((drawn[2] != clean[2]).any(axis=2))
    assert (rows.min(), rows.max()) == (97, 142)
    assert (cols.min(), cols.max()) == (57, 102)


def test_the_patch_map_shows_the_slices_with_patches_by_attention() -> None:
    one = pictures.patch_map(reading(), height=320, most=1)
    both = pictures.patch_map(reading(), height=320)
    assert both.width > one.width
    # Title and captions take 70 rows; the patch's outline ends at row 127, its label is above it.
    column = warmth(one)[70 : 70 + WINDOW[0], 8 + 32]
    rows = np.flatnonzero(column > 60)
    assert rows.max() == 127
    assert 40 < rows.min() < 64
    assert set(range(64, 128)) <= set(rows.tolist())
    assert pictures.patch_map(reading(patches=())).width >= 320


def test_the_saliency_sheet_holds_both_classes_and_the_slices_that_matter() -> None:
    lesion = ("benign", LesionBox(0, 10, 10, 1, 30, 30))
    shown = reading(lesions=(lesion,))
    few, all_of_them = (pictures.saliency_sheet(shown, height=160, most=n) for n in (3, 20))
    same = pictures.saliency_sheet(shown, height=160, slices=[0, 2, 4])
    assert few.tobytes() == same.tobytes()  # the benign peak and the lesion, the malignant, between
    assert all_of_them.width > 2 * few.width * 0.9
    picture = pictures.saliency_sheet(shown, height=160, slices=[0, 4])
    middle = picture.height // 2
    upper, lower = warmth(picture)[60:middle], warmth(picture)[middle + 40 : -40]
    assert upper.max() > 40  # malignant heat
    assert lower.max() <= 0  # no benign heat
    with pytest.raises(DataError, match="slice 7 is not there"):
        pictures.saliency_sheet(shown, slices=[7])


def test_the_patch_strip_comes_by_attention() -> None:
    patches = (PatchBox(0, 0, 0, 32, 32, 0.2, 1.0), PatchBox(1, 0, 0, 32, 32, 0.8, 1.0))
    window = np.zeros((DEPTH, *WINDOW), np.float32)
    window[1] = np.linspace(0, 1, WINDOW[1])
    strip = pictures.patch_strip(reading(window_DHW=window, patches=patches), side=64)
    first, second = (np.asarray(strip)[75:130, x : x + 64] for x in (8, 80))
    assert first.std() > 0
    assert second.std() == 0
    bars = np.asarray(strip)[30 + 40 + 64 + 5, :, 0] == pictures.PATCH[0]
    assert bars[8:72].sum() == pytest.approx(0.8 * 64, abs=1.5)
    assert bars[80:144].sum() == pytest.approx(0.2 * 64, abs=1.5)
    with pytest.raises(DataError, match="no patch"):
        pictures.patch_strip(reading(patches=()))


@pytest.mark.parametrize("ending", ["webp", "gif", "png", "apng"])
def test_the_animation_goes_through_the_slices(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"scroll.{ending}"
    pictures.scroll(reading(title="L CC"), path, height=100)
    with Image.open(path) as animation:
        assert animation.n_frames == DEPTH
        hottest = []
        for d in range(DEPTH):
            animation.seek(d)
            hottest.append(warmth(animation)[55:-40].max())
    assert int(np.argmax(hottest)) == 4


def test_long_volumes_are_thinned_and_unknown_forms_refused(tmp_path: Path) -> None:
    path = tmp_path / "scroll.webp"
    pictures.scroll(reading(), path, height=60, most=3)
    with Image.open(path) as animation:
        assert animation.n_frames == 3
    with pytest.raises(DataError, match=r"no animation '\.mp4'"):
        pictures.scroll(reading(), tmp_path / "scroll.mp4")


def test_a_single_slice_makes_pictures_too(tmp_path: Path) -> None:
    whole = reading()
    one = reading(
        window_DHW=np.asarray(whole.window_DHW)[4:5],
        saliency_CDhw=whole.saliency_CDhw[:, 4:5],
        patches=(PatchBox(0, 64, 32, 128, 96, 1.0, 1.0),),
    )
    assert pictures.saliency_sheet(one).width > 0
    pictures.scroll(one, tmp_path / "one.gif", height=60)
    assert (tmp_path / "one.gif").stat().st_size > 0


def test_saliency_must_fit_the_window() -> None:
    with pytest.raises(DataError, match="of the same slices"):
        reading(saliency_CDhw=np.zeros((2, 3, 10, 6)))
    with pytest.raises(DataError, match="no picture of a volume"):
        View.of(np.zeros((4, 4)), 100)
