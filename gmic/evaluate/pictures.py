"""Pictures of what a model saw in one window: patches, saliency over slices, a scrolling animation.

All are made from the window, its output and the receptive field of the cells, and shown as the
window is: the breast points right. The colours are those of the classes; white dashes the truth, where
it is given. Every picture says that it is for research only.

Shapes: C classes, D slices, H, W pixels of the window, h, w cells of the map.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from gmic.config import CLASSES
from gmic.errors import DataError
from gmic.evaluate.drawing import (
    COLOURS,
    FAINT,
    GAP,
    TRUTH,
    View,
    captioned,
    outline,
    picture,
    sheet,
    tinted,
)
from gmic.evaluate.localisation import LesionBox
from gmic.geometry import PatchBox, ReceptiveField
from gmic.volume import SliceSource

MALIGNANT = CLASSES.index("malignant")
PATCH = (255, 224, 102)
ANIMATIONS = {".webp": "WEBP", ".gif": "GIF", ".png": "PNG", ".apng": "PNG"}
LEAST_STRONGEST = 0.05
"""Saliency shown in full colour is that of the strongest cell, but never less than this."""


@dataclass(frozen=True, eq=False)
class Reading:
    """One window and what a model said of it.

    Attributes:
        window_DHW: The window, standardised or not.
        saliency_CDhw: Saliency (2, D, h, w).
        field: Where the cells lie.
        patches: In the order of picking (`GMIC3D.patch_boxes`).
        lesions: The truth, where it is known, with the name of the class of each.
        title: What is seen, without any patient attribute.
    """

    window_DHW: SliceSource
    saliency_CDhw: NDArray[np.floating]
    field: ReceptiveField
    patches: tuple[PatchBox, ...] = ()
    lesions: tuple[tuple[str, LesionBox], ...] = ()
    title: str = ""

    def __post_init__(self) -> None:
        """Raise DataError where saliency is not (2, D, h, w) with the window's slices."""
        shape = self.saliency_CDhw.shape
        depth = tuple(self.window_DHW.shape)[:1]
        if len(shape) != 4 or shape[0] != len(CLASSES) or shape[1:2] != depth:
            raise DataError(
                f"saliency is of shape {shape} for a window of {tuple(self.window_DHW.shape)}; "
                "give (2, D, h, w) of the same slices"
            )

    @property
    def depth(self) -> int:
        """Slices."""
        return int(self.saliency_CDhw.shape[1])

    def strongest(self, class_index: int) -> float:
        """What is shown in full colour: one value for all slices, so that they can be compared."""
        return max(float(self.saliency_CDhw[class_index].max()), LEAST_STRONGEST)

    def shown(self, view: View, d: int, class_index: int | None = None) -> Image.Image:
        """One slice, with the heat of one class where it is given, and the truth."""
        values = view.grey(self.window_DHW[d])
        if class_index is not None:
            map_hw = self.saliency_CDhw[class_index, d]
            heat = view.heat(map_hw, self.field, self.strongest(class_index))
            values = tinted(values, heat, COLOURS[CLASSES[class_index]])
        image = picture(values)
        for _, box in self.lesions:
            if box.has_slice(d):
                corners = (box.row0, box.col0, box.row1, box.col1)
                dashed(image, view.rectangle(corners))
        return image


def patch_map(reading: Reading, *, height: int = 420, most: int = 6) -> Image.Image:
    """The slices that hold patches, with their squares numbered in the order of picking.

    The brighter a square, the more attention it got; slices come by the attention of their patches.

    Args:
        reading: With patches; without any a single slice is shown.
        height: Of a slice (picture pixels), at most.
        most: Slices shown.
    """
    view = View.of(reading.window_DHW, height)
    by_slice: dict[int, list[tuple[int, PatchBox]]] = {}
    for number, patch in enumerate(reading.patches, start=1):
        by_slice.setdefault(patch.slice_index, []).append((number, patch))
    attention = {d: sum(p.attention for _, p in held) for d, held in by_slice.items()}
    chosen = sorted(attention, key=lambda d: -attention[d])[:most]
    tiles = []
    for d in chosen or [reading.depth // 2]:
        image = reading.shown(view, d)
        for number, patch in by_slice.get(d, []):
            corners = view.rectangle((patch.row0, patch.col0, patch.row1, patch.col1))
            label = f"{number} · {patch.attention:.2f}"
            outline(image, corners, _brightness(reading, patch), label=label)
        where = f"slice {d + 1} of {reading.depth}"
        tiles.append(captioned(image, where, f"attention {attention.get(d, 0.0):.2f}"))
    left = len(by_slice) - len(chosen)
    more = f", {left} slices more hold some" if left > 0 else ""
    return sheet([tiles], _titled(reading, f"patches by attention{more}"))


def saliency_sheet(
    reading: Reading, *, height: int = 300, slices: Sequence[int] | None = None, most: int = 6
) -> Image.Image:
    """A row for each class, malignant first: the maximum over the slices first, then slices in their order.

    Args:
        reading: What to show.
        height: Of a slice (picture pixels), at most.
        slices: To show; by default the most salient of each class, the lesions' middle ones, and others
            spread over the volume.
        most: Slices chosen where none are given.

    Raises:
        DataError: A slice that is not there.
    """
    chosen = list(slices) if slices is not None else _spread(reading, most)
    if wrong := [d for d in chosen if not 0 <= d < reading.depth]:
        raise DataError(f"slice {wrong[0]} is not there; the volume has {reading.depth} from 0")
    view = View.of(reading.window_DHW, height)
    brightest = _brightest(reading.window_DHW)
    rows = []
    for c, name in reversed(list(enumerate(CLASSES))):
        projected = reading.saliency_CDhw[c].max(axis=0)
        heat = view.heat(projected, reading.field, reading.strongest(c))
        first = picture(tinted(view.grey(brightest), heat, COLOURS[name]))
        highest = f"all slices, highest {float(projected.max()):.2f}"
        tiles = [captioned(first, name, highest, colour=COLOURS[name])]
        for d in chosen:
            peak = float(reading.saliency_CDhw[c, d].max())
            where = f"slice {d + 1} of {reading.depth}"
            tiles.append(captioned(reading.shown(view, d, c), where, f"highest {peak:.2f}"))
        rows.append(tiles)
    return sheet(rows, _titled(reading, "saliency"))


def patch_strip(reading: Reading, *, side: int = 128, most: int = 8) -> Image.Image:
    """The patches with the most attention, as the local network sees them, with a bar each.

    Args:
        reading: With patches.
        side: Of a patch (picture pixels).
        most: Patches shown.

    Raises:
        DataError: No patch.
    """
    if not reading.patches:
        raise DataError("no patch was picked: saliency is 0 everywhere")
    view = View.of(reading.window_DHW, 1 << 20)
    numbered = sorted(enumerate(reading.patches, start=1), key=lambda n: -n[1].attention)[:most]
    tiles = []
    for number, patch in numbered:
        slice_HW = np.asarray(reading.window_DHW[patch.slice_index])
        part = slice_HW[patch.row0 : patch.row1, patch.col0 : patch.col1]
        patch_view = View((part.shape[0], part.shape[1]), 1.0, view.low, view.high)
        scale = side / max(part.shape)
        size = max(1, round(part.shape[1] * scale)), max(1, round(part.shape[0] * scale))
        image = picture(patch_view.grey(part)).resize(size, Image.Resampling.BICUBIC)
        canvas = Image.new("RGB", (side, side + 8))
        canvas.paste(image, (0, 0))
        bar = (side - 1) * min(max(patch.attention, 0.0), 1.0)
        draw = ImageDraw.Draw(canvas)
        draw.rectangle((0, side + 3, side - 1, side + 7), fill=(60, 60, 60))
        draw.rectangle((0, side + 3, bar, side + 7), fill=PATCH)
        lines = (f"{number} · {patch.attention:.2f}", f"slice {patch.slice_index + 1}")
        tiles.append(captioned(canvas, *lines))
    return sheet([tiles], _titled(reading, "patches and their attention"))


def scroll(
    reading: Reading, path: Path, *, height: int = 360, milliseconds: int = 120, most: int = 120
) -> None:
    """Write an animation through the slices: the slice alone, then with the heat of each class.

    It runs forwards and starts again. The ending of the file decides the form: .webp is the
    smallest, .gif is shown by everything and has few colours, .png or .apng loses nothing.

    Args:
        reading: What to show.
        path: File to write.
        height: Of a slice (picture pixels), at most.
        milliseconds: A slice.
        most: Frames; of more slices every second, third, ... is shown.

    Raises:
        DataError: An ending that is none of these.
        OSError: The file cannot be written.
    """
    form = ANIMATIONS.get(path.suffix.lower())
    if form is None:
        raise DataError(f"no animation {path.suffix!r}; give {', '.join(ANIMATIONS)}")
    view = View.of(reading.window_DHW, height)
    step = -(-reading.depth // most)
    frames = [_frame(reading, view, d) for d in range(0, reading.depth, step)]
    if form == "GIF":  # one palette for all, without dithering, which would double the file
        palette = frames[len(frames) // 2].quantize(256)
        frames = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    options: dict[str, Any] = {"quality": 80, "method": 2} if form == "WEBP" else {}
    first, *others = frames
    first.save(
        path,
        format=form,
        save_all=True,
        append_images=others,
        duration=milliseconds,
        loop=0,
        **options,
    )


def dashed(image: Image.Image, corners: Sequence[float], dash: int = 5) -> None:
    """Draw the outline of a box in white dashes: the truth. A small one is drawn larger."""
    draw = ImageDraw.Draw(image)
    left, top, right, bottom = corners
    left, top, right, bottom = left - 3, top - 3, right + 3, bottom + 3
    for x in np.arange(left, right, 2 * dash):
        for y in (top, bottom):
            draw.line((x, y, min(x + dash, right), y), fill=TRUTH)
    for y in np.arange(top, bottom, 2 * dash):
        for x in (left, right):
            draw.line((x, y, x, min(y + dash, bottom)), fill=TRUTH)


def _frame(reading: Reading, view: View, d: int) -> Image.Image:
    tiles = [captioned(reading.shown(view, d), f"slice {d + 1} of {reading.depth}")]
    for c in reversed(range(len(CLASSES))):
        peak = float(reading.saliency_CDhw[c, d].max())
        text = f"{CLASSES[c]} {peak:.2f}"
        tiles.append(captioned(reading.shown(view, d, c), text, colour=COLOURS[CLASSES[c]]))
    frame = sheet([tiles], reading.title)
    draw = ImageDraw.Draw(frame)
    draw.rectangle((GAP, frame.height - 4, frame.width - GAP, frame.height - 2), fill=(50, 50, 50))
    done = GAP + (frame.width - 2 * GAP) * (d + 1) / reading.depth
    draw.rectangle((GAP, frame.height - 4, done, frame.height - 2), fill=FAINT)
    return frame


def _titled(reading: Reading, what: str) -> str:
    return f"{reading.title}: {what}" if reading.title else what[0].upper() + what[1:]


def _brightness(reading: Reading, patch: PatchBox) -> tuple[int, int, int]:
    most = max(p.attention for p in reading.patches)
    share = 0.35 + 0.65 * (patch.attention / most if most > 0 else 1.0)
    red, green, blue = (round(value * share) for value in PATCH)
    return red, green, blue


def _spread(reading: Reading, most: int) -> list[int]:
    """Slices in order: each class's most salient, each lesion's middle, others evenly between them."""
    wanted = [int(each.max(axis=(1, 2)).argmax()) for each in reversed(reading.saliency_CDhw)]
    wanted += [(box.slice0 + box.slice1 - 1) // 2 for _, box in reading.lesions]
    chosen = list(dict.fromkeys(d for d in wanted if 0 <= d < reading.depth))[:most]
    while len(chosen) < min(most, reading.depth):
        # The slice farthest from all chosen ones.
        distances = [min(abs(d - other) for other in chosen) for d in range(reading.depth)]
        chosen.append(int(np.argmax(distances)))
    return sorted(chosen)


def _brightest(window_DHW: SliceSource) -> NDArray[np.float32]:
    """Maximum over the slices."""
    result = np.asarray(window_DHW[0], dtype=np.float32).copy()
    for d in range(1, int(window_DHW.shape[0])):
        np.maximum(result, np.asarray(window_DHW[d], dtype=np.float32), out=result)
    return result
