"""Small tools for pictures: grey slices, heat in the right place, boxes, captions, sheets of tiles.

Shapes: H, W pixels of the window, h, w cells of a map. Picture sizes are in picture pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from gmic.config import CLASSES
from gmic.errors import DataError
from gmic.geometry import ReceptiveField

NOTICE = "Research use only, not for clinical use"
COLOURS = dict(zip(CLASSES, ((40, 200, 190), (255, 106, 26)), strict=True))
"""Of the classes, as in the pictures of `dicom_io.overlay`."""
TRUTH = (255, 255, 255)
BLACK, TEXT, FAINT, WARNING = (0, 0, 0), (235, 235, 235), (150, 150, 150), (255, 214, 90)
GAP, LINE = 8, 20
_STRONGEST = 0.75
"""Share of the colour where saliency is 1."""

Rgb = tuple[int, int, int]
Rectangle = tuple[float, float, float, float]
"""(row0, col0, row1, col1), half-open, in window pixels."""


@dataclass(frozen=True)
class View:
    """How window pixels are shown: made smaller by `scale`, `low` as black and `high` as white."""

    window: tuple[int, int]
    scale: float
    low: float
    high: float

    @classmethod
    def of(cls, window_DHW: Any, height: int) -> View:
        """A view at most `height` picture pixels high, with grey values from the tissue itself.

        The middle 99 % of what is not background are shown, on at most eight slices.

        Raises:
            DataError: Not a volume (D, H, W).
        """
        shape = tuple(window_DHW.shape)
        if len(shape) != 3 or 0 in shape or height < 16:
            raise DataError(f"no picture of a volume of shape {shape} at a height of {height}")
        chosen = np.unique(np.linspace(0, shape[0] - 1, 8).round().astype(int)).tolist()
        sample = np.stack([np.asarray(window_DHW[d])[::4, ::4] for d in chosen]).astype(np.float32)
        # Background is one value, but for a trace of noise.
        least, most = float(sample.min()), float(sample.max())
        tissue = sample[sample > least + 0.02 * (most - least)]
        low, high = np.percentile(tissue, (0.5, 99.5)) if tissue.size else (least, most)
        return cls((shape[1], shape[2]), min(1.0, height / shape[1]), float(low), float(high))

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the picture."""
        return max(1, round(self.window[1] * self.scale)), max(
            1, round(self.window[0] * self.scale)
        )

    def grey(self, slice_HW: Any) -> NDArray[np.float32]:
        """A slice as picture (height, width, 3) of float values in [0, 255]."""
        values = np.ascontiguousarray(slice_HW, dtype=np.float32)
        small = cv2.resize(values, self.size, interpolation=cv2.INTER_AREA)
        span = max(self.high - self.low, 1e-6)
        level = np.clip((small - self.low) / span, 0, 1) * 255
        return np.repeat(level[..., None], 3, axis=2)

    def heat(
        self, map_hw: NDArray[np.floating], field: ReceptiveField, strongest: float
    ) -> NDArray[np.float32]:
        """Saliency (height, width) in [0, 1] at every picture pixel, `strongest` shown as 1.

        Between the centres of the cells' receptive fields it is interpolated, beyond the outermost
        it stays: so heat lies where the network looked.
        """
        width, height = self.size
        cols = (np.arange(width) + 0.5) / self.scale - 0.5
        rows = (np.arange(height) + 0.5) / self.scale - 0.5
        x = ((cols - field.offset) / field.stride).astype(np.float32)
        y = ((rows - field.offset) / field.stride).astype(np.float32)
        values: NDArray[np.float32] = cv2.remap(
            np.ascontiguousarray(map_hw, dtype=np.float32),
            *np.meshgrid(x, y),
            interpolation=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )
        return np.clip(values / strongest, 0, 1) if strongest > 0 else np.zeros_like(values)

    def rectangle(self, box: Rectangle) -> tuple[float, float, float, float]:
        """A box of window pixels as (left, top, right, bottom) of the picture, inclusive."""
        row0, col0, row1, col1 = (value * self.scale for value in box)
        return col0, row0, max(col1 - 1, col0), max(row1 - 1, row0)


def tinted(
    grey_HW3: NDArray[np.float32], heat_HW: NDArray[np.float32], colour: Rgb
) -> NDArray[np.float32]:
    """A picture with heat in one colour: the more heat, the less of the grey below shows."""
    share = (_STRONGEST * heat_HW)[..., None]
    result: NDArray[np.float32] = (1 - share) * grey_HW3 + share * np.array(colour, np.float32)
    return result


def picture(values_HW3: NDArray[np.float32]) -> Image.Image:
    """Float values in [0, 255] as a picture."""
    return Image.fromarray(values_HW3.round().astype(np.uint8))


def outline(
    image: Image.Image, corners: Sequence[float], colour: Rgb, *, label: str = "", width: int = 2
) -> None:
    """Draw a box given by (left, top, right, bottom), with a label at its upper left corner."""
    draw = ImageDraw.Draw(image)
    draw.rectangle(tuple(corners), outline=colour, width=width)
    if not label:
        return
    left, _, right, bottom = draw.textbbox((0, 0), label, font=font(13))
    x = min(max(corners[0], 0), max(image.width - (right - left) - 5, 0))
    y = corners[1] - bottom - 5 if corners[1] > bottom + 5 else corners[1]
    draw.rectangle((x, y, x + right - left + 5, y + bottom + 4), fill=colour)
    draw.text((x + 3, y + 1), label, fill=BLACK, font=font(13))


def captioned(image: Image.Image, *lines: str, colour: Rgb = TEXT) -> Image.Image:
    """The picture with lines of text above it."""
    canvas = Image.new("RGB", (image.width, image.height + LINE * len(lines)), BLACK)
    canvas.paste(image, (0, LINE * len(lines)))
    draw = ImageDraw.Draw(canvas)
    for number, line in enumerate(lines):
        draw.text((2, number * LINE + 2), _fitted(line, image.width - 4), colour, font(13))
    return canvas


def sheet(rows: Sequence[Sequence[Image.Image]], title: str) -> Image.Image:
    """Rows of tiles below a title, and the notice of research use at the foot."""
    widths = [sum(tile.width + GAP for tile in row) + GAP for row in rows]
    heights = [max(tile.height for tile in row) + GAP for row in rows]
    width = max([*widths, 320])
    canvas = Image.new("RGB", (width, 30 + sum(heights) + 26), BLACK)
    draw = ImageDraw.Draw(canvas)
    draw.text((GAP, 7), _fitted(title, width - 2 * GAP, 16), fill=TEXT, font=font(16))
    y = 30
    for row, height in zip(rows, heights, strict=True):
        x = GAP
        for tile in row:
            canvas.paste(tile, (x, y))
            x += tile.width + GAP
        y += height
    draw.text((GAP, y + 3), NOTICE.upper(), fill=WARNING, font=font(13))
    return canvas


def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own typeface, so that pictures are the same everywhere."""
    return ImageFont.load_default(size=size)


def _fitted(text: str, width: float, size: int = 13) -> str:
    """The text, cut where it is too wide."""
    while text and font(size).getlength(text) > width:
        text = text[:-2].rstrip() + "…" if len(text) > 2 else ""
    return text
