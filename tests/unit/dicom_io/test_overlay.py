"""Overlay pictures: looked at as pixels."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from dicom_io.errors import InvalidFindings
from dicom_io.findings import Label, Region, SourceRef
from dicom_io.overlay import MAX_HEIGHT, key_slice_png, slice_title
from dicom_io.result_codes import STYLES
from tests.support.sources import mammogram, tomosynthesis


def picture(
    frame: NDArray[np.uint16],
    masks: dict[Label, NDArray[np.bool_]] | None = None,
    regions: tuple[Region, ...] = (),
    *,
    caveat: str = "",
    window: tuple[float, float] | None = None,
) -> NDArray[np.uint8]:
    data = key_slice_png(frame, masks or {}, regions, "R MLO", caveat=caveat, window=window)
    return np.asarray(Image.open(BytesIO(data)).convert("RGB"))


def flat(rows: int = 400, columns: int = 600, value: int = 500) -> NDArray[np.uint16]:
    return np.full((rows, columns), value, dtype=np.uint16)


def disc(shape: tuple[int, int], row: int, column: int, radius: int) -> NDArray[np.bool_]:
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    return (rows - row) ** 2 + (columns - column) ** 2 <= radius**2


def colour_centre(
    image: NDArray[np.uint8], rgb: tuple[int, int, int], rows: int
) -> tuple[float, float]:
    """Mean row and column of pixels of exactly this colour in the first `rows` rows."""
    where = np.argwhere((image[:rows] == rgb).all(axis=2))
    assert len(where)
    row, column = where.mean(axis=0)
    return float(row), float(column)


def test_outlines_lie_where_the_masks_are_each_in_its_colour() -> None:
    frame = flat()
    image = picture(
        frame,
        {"malignant": disc(frame.shape, 100, 150, 30), "benign": disc(frame.shape, 300, 450, 30)},
        window=(500, 1000),
    )
    assert colour_centre(image, STYLES["malignant"].rgb, 400) == pytest.approx((100, 150), abs=0.5)
    assert colour_centre(image, STYLES["benign"].rgb, 400) == pytest.approx((300, 450), abs=0.5)
    inside, outside = image[100, 150].astype(int), image[100, 300].astype(int)
    assert outside.tolist() == [128] * 3
    assert inside[0] > outside[0] > inside[2]


def test_a_large_frame_is_shrunk_and_its_mask_with_it() -> None:
    frame = flat(3600, 2400)
    image = picture(frame, {"malignant": disc(frame.shape, 1200, 800, 200)}, window=(500, 1000))
    assert MAX_HEIGHT < image.shape[0] < 1050
    assert image.shape[1] == 600
    assert colour_centre(image, STYLES["malignant"].rgb, MAX_HEIGHT) == pytest.approx(
        (300, 200), abs=1
    )


def test_a_mask_smaller_than_a_picture_pixel_is_still_seen() -> None:
    frame = flat(3600, 2400)
    mask = np.zeros(frame.shape, dtype=bool)
    mask[1801, 1201] = True
    image = picture(frame, {"benign": mask}, window=(500, 1000))
    assert colour_centre(image, STYLES["benign"].rgb, MAX_HEIGHT) == pytest.approx(
        (450, 300), abs=1
    )


def test_a_box_is_drawn_on_its_edges() -> None:
    region = Region("malignant", 0, 0, 0, 200, 300, (150, 250, 251, 351), 0.8)
    image = picture(flat(), regions=(region,), window=(500, 1000))
    malignant = (image == STYLES["malignant"].rgb).all(axis=2)
    assert malignant[150, 250:351].all()
    assert malignant[250, 250:351].all()
    assert malignant[150:251, 250].all()
    assert malignant[150:251, 350].all()
    assert not malignant[160:240, 260:340].any()


def test_notices_are_written_below_the_image_never_on_it() -> None:
    frame = flat()
    plain, warned = (
        picture(frame, window=(500, 1000)),
        picture(frame, caveat="The weights never saw a patient.", window=(500, 1000)),
    )
    assert (plain[:400] == 128).all()
    assert warned.shape[0] > plain.shape[0]
    yellow = (warned[400:] == (255, 214, 90)).all(axis=2)
    assert (
        yellow.any(axis=1).sum() > (plain[400:] == (255, 214, 90)).all(axis=2).any(axis=1).sum() > 0
    )


def test_a_long_caveat_is_written_whole() -> None:
    short, long = (picture(flat(), caveat="word " * words) for words in (3, 30))
    assert long.shape[0] > short.shape[0]
    yellow = (long == (255, 214, 90)).all(axis=2)
    assert not yellow[:, -5:].any()


def test_grey_values_follow_the_window_else_the_breast() -> None:
    frame = np.zeros((400, 600), dtype=np.uint16)
    frame[:, 200:] = np.linspace(3000, 4000, 400, dtype=np.uint16)[:, None]
    image = picture(frame)
    assert image[:400, 50].max() == 0
    assert image[5, 400, 0] < 10
    assert float(image[200, 400, 0]) == pytest.approx(128, abs=6)
    assert image[395, 400, 0] > 245


@pytest.mark.parametrize("value", [0, 65535])
def test_a_frame_of_one_value_is_drawn(value: int) -> None:
    assert picture(flat(value=value)).shape[1] == 600


def test_a_small_frame_leaves_room_for_the_text() -> None:
    assert picture(flat(40, 30)).shape[1] >= 500


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InvalidFindings, match="mask"):
        picture(flat(), {"benign": np.zeros((400, 599), dtype=bool)})
    with pytest.raises(InvalidFindings, match="rows, columns"):
        picture(np.zeros((2, 3, 4), dtype=np.uint16))


def test_titles_count_frames_from_one() -> None:
    assert slice_title(SourceRef(tomosynthesis(), 6, "L", "CC"), 2) == "L CC, frame 3 of 6"
    assert slice_title(SourceRef(mammogram(), 1, "R", None), 0) == "R"
