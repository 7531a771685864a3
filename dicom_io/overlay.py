"""Pictures for people: a key slice with the regions a model marked, as PNG or for a DICOM object.

Every picture carries the research notice, and what there is to know of the weights, in a bar of its
own below the image, so that no copy loses them and nothing of the breast is covered.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from textwrap import wrap

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from dicom_io.errors import InvalidFindings
from dicom_io.findings import LABELS, Label, Region, SourceRef
from dicom_io.result_codes import NOTICE, STYLES, image_title

MAX_HEIGHT = 900
_MIN_WIDTH = 560
_BAR_LINE = 26
_MARGIN = 10
_TINT = 0.22
_CONTOUR_WIDTH = 2
_SMALLEST_BOX = 12
_WARNING_RGB = (255, 214, 90)
_TEXT_RGB = (235, 235, 235)
_CAPTION = 56  # letters that fit the narrowest picture


def key_slice_png(
    frame_HW: NDArray[np.uint16],
    masks: Mapping[Label, NDArray[np.bool_]],
    regions: Sequence[Region],
    title: str,
    *,
    caveat: str = "",
    window: tuple[float, float] | None = None,
) -> bytes:
    """The picture of `key_slice_rgb` as PNG; its arguments and errors."""
    rgb_HWC = key_slice_rgb(frame_HW, masks, regions, title, caveat=caveat, window=window)
    return _png(Image.fromarray(rgb_HWC))


def key_slice_rgb(
    frame_HW: NDArray[np.uint16],
    masks: Mapping[Label, NDArray[np.bool_]],
    regions: Sequence[Region],
    title: str,
    *,
    caveat: str = "",
    window: tuple[float, float] | None = None,
) -> NDArray[np.uint8]:
    """One frame with tinted, outlined masks and region boxes, at most `MAX_HEIGHT` + 3 lines of text high.

    Gives uint8 (rows, columns, 3), red, green and blue.

    Args:
        frame_HW: stored grey values, bright is dense (MONOCHROME2).
        masks: bool (H, W) per label on this frame; a label may be missing.
        regions: their boxes are drawn, in the colour of their label, with the score.
        title: what is seen, without any patient attribute; `slice_title` makes one.
        caveat: what a reader must know of the weights (`dicom_io.result_codes.caveat_of`).
        window: (centre, width) of the grey values; None takes them from the breast itself.

    Raises InvalidFindings where the frame is not (H, W) or a mask has another shape.
    """
    if frame_HW.ndim != 2 or 0 in frame_HW.shape:
        raise InvalidFindings(
            f"a frame to draw has shape {frame_HW.shape}; it must be (rows, columns)"
        )
    for mask in masks.values():
        if mask.shape != frame_HW.shape:
            raise InvalidFindings(f"a mask has shape {mask.shape}, the frame {frame_HW.shape}")
    scale = min(1.0, MAX_HEIGHT / frame_HW.shape[0])
    height, width = (max(1, round(size * scale)) for size in frame_HW.shape)
    low, high = _grey_range(frame_HW, window)
    grey = np.asarray(
        Image.fromarray(frame_HW.astype(np.float32)).resize((width, height), Image.Resampling.BOX)
    )
    levels = np.clip((grey - low) / (high - low), 0, 1) * 255
    rgb = np.repeat(levels[..., None], 3, axis=2).astype(np.float32)
    for label in LABELS:
        if label in masks:
            _paint(rgb, _shrink(masks[label], (width, height)), STYLES[label].rgb)
    picture = Image.fromarray(rgb.round().astype(np.uint8))
    _draw_boxes(picture, regions, scale)
    return np.asarray(_with_captions(picture, title, caveat))


def slice_title(source: SourceRef, frame: int) -> str:
    """ "R MLO, frame 23 of 52"; `frame` is 0-based, the text counts from 1."""
    title = image_title(source.laterality, source.view)
    if source.slices:
        return f"{title}, slice {frame + 1} of {source.frame_count}"
    return f"{title}, frame {frame + 1} of {source.frame_count}" if source.is_multi_frame else title


def _grey_range(
    frame_HW: NDArray[np.uint16], window: tuple[float, float] | None
) -> tuple[float, float]:
    """Grey values shown black and white. Without a window: the middle 99 % of what is not background."""
    if window is not None and window[1] >= 1:
        return window[0] - window[1] / 2, window[0] + window[1] / 2
    sample = frame_HW[::4, ::4]
    tissue = sample[sample > sample.min()]
    if tissue.size == 0:
        return float(sample.min()), float(sample.min()) + 1
    low, high = np.percentile(tissue, (0.5, 99.5))
    return float(low), float(max(high, low + 1))


def _shrink(mask_HW: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.bool_]:
    """The mask at picture size; a pixel that holds any of it is set, so that a small region never vanishes."""
    small = (
        Image.fromarray(mask_HW.astype(np.uint8) * 255)
        .convert("F")
        .resize(size, Image.Resampling.BOX)
    )
    return np.asarray(small) > 0


def _paint(rgb: NDArray[np.float32], mask: NDArray[np.bool_], colour: tuple[int, int, int]) -> None:
    """Tint the mask and draw its outline, in place."""
    rgb[mask] = (1 - _TINT) * rgb[mask] + _TINT * np.array(colour, dtype=np.float32)
    inside = np.pad(mask, 1)
    for _ in range(_CONTOUR_WIDTH):
        middle = inside[1:-1, 1:-1]
        shrunk = (
            middle & inside[:-2, 1:-1] & inside[2:, 1:-1] & inside[1:-1, :-2] & inside[1:-1, 2:]
        )
        inside = np.pad(shrunk, 1)
    rgb[mask & ~inside[1:-1, 1:-1]] = colour


def _draw_boxes(picture: Image.Image, regions: Sequence[Region], scale: float) -> None:
    draw = ImageDraw.Draw(picture)
    font = _font(15)
    for region in regions:
        row0, col0, row1, col1 = _box_to_draw(region, scale)
        colour = STYLES[region.label].rgb
        draw.rectangle((col0, row0, col1, row1), outline=colour, width=1)
        text = f"{region.label} {region.score:.2f}"
        left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
        x = min(max(0.0, col0), max(0.0, picture.width - (right - left) - 4))
        y = row0 - (bottom - top) - 8 if row0 > 24 else row1 + 2
        draw.rectangle((x, y, x + right - left + 4, y + bottom + 3), fill=(0, 0, 0))
        draw.text((x + 2, y), text, fill=colour, font=font)


def _box_to_draw(region: Region, scale: float) -> tuple[float, float, float, float]:
    """Corners of the box in picture pixels, widened where it is too small to be seen."""
    row0, col0, row1, col1 = (value * scale for value in region.box)
    grow_row = max(0.0, _SMALLEST_BOX - (row1 - row0)) / 2
    grow_col = max(0.0, _SMALLEST_BOX - (col1 - col0)) / 2
    return row0 - grow_row, col0 - grow_col, row1 - 1 + grow_row, col1 - 1 + grow_col


def _with_captions(picture: Image.Image, title: str, caveat: str) -> Image.Image:
    """The picture with a line for title and legend, one for the notice, and those of the caveat."""
    notices = [NOTICE.upper().rstrip(".").replace(", ", " - "), *wrap(caveat.upper(), _CAPTION)]
    width = max(picture.width, _MIN_WIDTH)
    lines = 2 + len(notices)
    canvas = Image.new("RGB", (width, picture.height + _BAR_LINE * lines + _MARGIN), (0, 0, 0))
    canvas.paste(picture, ((width - picture.width) // 2, 0))
    draw = ImageDraw.Draw(canvas)
    y = picture.height + _MARGIN // 2
    draw.line((0, picture.height, width, picture.height), fill=(90, 90, 90))
    draw.text((_MARGIN, y), title, fill=_TEXT_RGB, font=_font(17))
    y += _BAR_LINE
    x = float(_MARGIN)
    for label in LABELS:
        style = STYLES[label]
        draw.rectangle((x, y + 4, x + 14, y + 18), fill=style.rgb)
        draw.text((x + 21, y + 2), style.title, fill=style.rgb, font=_font(15))
        x += 21 + draw.textlength(style.title, font=_font(15)) + 24
    draw.text((x, y + 2), "numbers are model outputs", fill=_TEXT_RGB, font=_font(15))
    for notice in notices:
        y += _BAR_LINE
        draw.text((_MARGIN, y + 2), notice, fill=_WARNING_RGB, font=_font(16))
    return canvas


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=size)


def _png(picture: Image.Image) -> bytes:
    buffer = BytesIO()
    picture.save(buffer, format="PNG", optimize=False)
    return buffer.getvalue()
