"""The side of the image the breast touches."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from dicom_io.orientation import chest_wall_side, judge

Frame = NDArray[np.uint16]


def breast(height: int = 600, width: int = 400, reach: float = 0.7, dense: int = 900) -> Frame:
    """Half an ellipse at column 0, fatty with a dense middle, on black."""
    rows, columns = np.mgrid[:height, :width]
    inside = ((rows - height / 2) / (height * 0.4)) ** 2 + (columns / (width * reach)) ** 2 < 1
    core = ((rows - height / 2) / (height * 0.2)) ** 2 + (
        (columns - width * 0.35) / (width * 0.2)
    ) ** 2 < 1
    frame = np.where(inside, 300, 0) + np.where(inside & core, dense - 300, 0)
    return frame.astype(np.uint16)


def with_label(frame: Frame) -> Frame:
    """A burned-in label, as bright as it gets, at the side opposite to the breast."""
    frame = frame.copy()
    frame[20:80, -120:-10] = 65535
    return frame


def with_border(frame: Frame) -> Frame:
    """Bright lines of collimation all around."""
    frame = frame.copy()
    frame[:, :3] = frame[:, -3:] = frame[:3] = frame[-3:] = 4095
    return frame


def with_noise(frame: Frame) -> Frame:
    noise = np.random.default_rng(0).normal(60, 12, frame.shape)
    return (frame + noise.clip(0)).astype(np.uint16)


BREASTS = {
    "plain": breast(),
    "small": breast(reach=0.2),
    "wide": breast(reach=1.3),
    "dense": breast(dense=4000),
    "label": with_label(breast(reach=0.3)),
    "border": with_border(breast()),
    "noise": with_noise(breast()),
    "tiny frame": breast(24, 16),
    "large frame": breast(3000, 2400),
}


@pytest.mark.parametrize("name", BREASTS)
def test_the_side_is_found_and_turns_with_the_image(name: str) -> None:
    frame = BREASTS[name]
    assert chest_wall_side(frame) == "L"
    assert chest_wall_side(frame[:, ::-1]) == "R"
    assert chest_wall_side(frame[::-1, ::-1]) == "R"


@pytest.mark.parametrize(
    "frame",
    [
        np.zeros((100, 80), np.uint16),
        np.full((100, 80), 700, np.uint16),
        np.random.default_rng(1).integers(0, 1024, (300, 200)).astype(np.uint16),
        np.pad(np.full((40, 40), 900, np.uint16), 40),  # a specimen in the middle
        with_label(np.zeros((600, 400), np.uint16))[:, ::-1][
            :, 130:
        ],  # a label alone, cropped away
    ],
    ids=["empty", "flat", "noise", "middle", "cropped"],
)
def test_no_side_where_there_is_none_to_see(frame: Frame) -> None:
    assert chest_wall_side(frame) is None
    assert judge(frame, "L") == judge(frame, "R") == "undecided"


def test_content_is_compared_with_the_stated_side() -> None:
    assert judge(breast(), "L") == "consistent"
    assert judge(breast(), "R") == "flipped"
    assert judge(breast()[:, ::-1], "R") == "consistent"
