"""How a lesion shows in the slices of a limited-angle reconstruction."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from gmic.phantom_lesion import Lesion
from gmic.phantom_tissue import Floats, smear
from gmic.window import Box

FADE_MM = 2.0
"""Out of focus, a lesion fades to 1/e over this distance."""
OUT_OF_FOCUS = 0.35
LEAST_WEIGHT = 0.004


@dataclass(frozen=True)
class Relief:
    """What each plane of a lesion adds to its own slice, in units of gland over fat.

    `box` is (row0, col0, row1, col1) in the frame; `planes` holds (frame, image of the box).
    """

    box: Box
    planes: tuple[tuple[int, Floats], ...]

    def add_to(
        self, slice_hw: Floats, frame: int, pixel_mm: tuple[float, float], scale: float
    ) -> None:
        """Add the lesion as it shows in one frame: sharp in its own, smeared and faded in others.

        Args:
            slice_hw: The frame, changed in place.
            frame: Its index.
            pixel_mm: Distance of slices, distance of pixels.
            scale: Value of one unit of gland over fat.
        """
        slice_mm, spacing_mm = pixel_mm
        row0, col0, row1, col1 = self.box
        for plane, image in self.planes:
            away_mm = abs(plane - frame) * slice_mm
            weight = focus(away_mm)
            if weight >= LEAST_WEIGHT:
                part = smear(image, away_mm, spacing_mm)
                slice_hw[row0:row1, col0:col1] += np.float32(weight * scale) * part


def focus(away_mm: float) -> float:
    """Share of a plane's contrast that is left at a distance from it."""
    return 1.0 if away_mm == 0 else OUT_OF_FOCUS * float(np.exp(-away_mm / FADE_MM))


def relief(
    lesion: Lesion, slice_mm: float, spacing_mm: float, frame_shape: tuple[int, int]
) -> Relief:
    """Draw the planes of a lesion; together they reach its contrast in its middle slice."""
    z, y, x = lesion.centre_zyx
    longest = max((length for _, length, _ in lesion.spicules), default=1.4)
    reach = round((longest + 0.5) * max(lesion.radii_zyx[1:]))
    row0, row1 = max(int(y) - reach, 0), min(int(y) + reach + 1, frame_shape[0])
    col0, col1 = max(int(x) - reach, 0), min(int(x) + reach + 1, frame_shape[1])
    box = (row0, col0, row1, col1)
    distance = lesion.body_distance(np.arange(row0, row1), np.arange(col0, col1))
    spicules = _spicules(lesion, box, spacing_mm)
    frames = range(lesion.box[0], lesion.box[3])
    total = sum(focus(abs(plane - round(z)) * slice_mm) for plane in frames)
    planes = []
    for plane in frames:
        scale = np.sqrt(max(1 - ((plane - z) / lesion.radii_zyx[0]) ** 2, 0.05))
        away = distance / scale
        body = lesion.core / (1 + np.exp(np.clip((away - 1) / lesion.softness, -30, 30)))
        image = np.maximum(body, spicules * scale)
        if lesion.rim:
            image -= lesion.rim * np.exp(-(((away - 1.35) / 0.2) ** 2))
        planes.append((plane, (image * (lesion.contrast / total)).astype(np.float32)))
    return Relief(box, tuple(planes))


def _spicules(lesion: Lesion, box: Box, spacing_mm: float) -> Floats:
    """Tapering lines from the centre outward, in [0, 1]; fainter where thinner than a pixel."""
    row0, col0, row1, col1 = box
    canvas = np.zeros((row1 - row0, col1 - col0), dtype=np.uint8)
    _, y, x = lesion.centre_zyx
    start = np.array([x - col0, y - row0])
    origin = [int(value) for value in np.rint(start * 16)]
    for angle, length, width_mm in lesion.spicules:
        row, col = lesion.tip(angle, length)
        along = np.array([col - col0, row - row0]) - start
        for part in (1.0, 0.9, 0.8, 0.7, 0.6, 0.5):  # fainter and thinner towards the tip
            tip = [int(value) for value in np.rint((start + along * part) * 16)]
            wide_mm = width_mm * (1.9 - 1.2 * part)
            thickness = max(round(wide_mm / spacing_mm), 1)
            share = min(wide_mm / (thickness * spacing_mm), 1.0)
            grey = round(250 * (1.4 - part) * share)
            cv2.line(canvas, origin, tip, grey, thickness, cv2.LINE_AA, 4)
    lines: Floats = canvas.astype(np.float32) / np.float32(255)
    return lines
