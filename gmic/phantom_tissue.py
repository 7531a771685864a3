"""Outline and tissue of a phantom breast, chest wall at the left (see `gmic.phantom`).

The outline is the column of the skin in every row. Tissue is drawn as a stack of layers on a
coarse grid: each holds glandular texture with a power-law spectrum and the curves of ligaments and
vessels. A slice is the layer in focus plus the others, smeared along the rows, as a limited angle
of view smears them.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

HALF_ANGLE = 0.131
"""Tangent of half the scan angle, 7.5 degrees: how far an object moves a mm out of focus."""
COARSE_MM = 0.25
FIELD_MM = 0.8
"""Grid of the random fields at all finer spacings: the same seed gives the same tissue there."""
LAYER_MM = 2.5
LIGAMENTS, VESSELS = 12, 3
"""Curves in a layer. Together the layers throw so many over each other that a projection hides
spicules among them, which a slice shows."""
FOCUS_MM = 2.0
"""Distance over which structure out of focus fades to 1/e."""

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Outline:
    """Shape of the breast in its middle plane.

    Attributes:
        edge_H: Column of the skin in every row (pixels, float64); 0 where there is no breast.
        centre_row: Row of the nipple.
        half_rows: Rows from there to the lower end of the breast.
        muscle: Columns at the top row and rows at the left edge of the pectoral triangle, or None.
        width: Columns of the frame.
        thickness_mm: Of the compressed breast.
        spacing_mm: Distance of rows and of columns.
        density: Share of gland in the breast's middle, in [0, 1].
    """

    edge_H: NDArray[np.float64]
    centre_row: float
    half_rows: float
    muscle: tuple[float, float] | None
    width: int
    thickness_mm: float
    spacing_mm: float
    density: float

    def edge_at(self, height_mm: float) -> NDArray[np.float64]:
        """Columns of the skin, (H,), at a height over the middle plane: the side is rounded."""
        relative = min(abs(2 * height_mm / self.thickness_mm), 1.0)
        rounded = 0.3 * self.thickness_mm / self.spacing_mm * (1 - np.sqrt(1 - relative**2))
        edge: NDArray[np.float64] = self.edge_H - min(rounded, 0.12 * float(self.edge_H.max()))
        return edge


def draw_outline(
    view: str,
    frame_shape: tuple[int, int],
    thickness_mm: float,
    spacing_mm: float,
    size_rng: np.random.Generator,
    view_rng: np.random.Generator,
) -> Outline:
    """Draw the breast's outline; `size_rng` is the same for all views of a study."""
    height, width = frame_shape
    breadth, reach, density = size_rng.uniform((0.30, 0.50, 0.30), (0.39, 0.68, 0.65))
    shift, phase = view_rng.uniform((-0.03, 0.0), (0.03, 2 * np.pi))
    muscle_size = view_rng.uniform((0.38, 0.42), (0.52, 0.60))
    rows = np.arange(height, dtype=np.float64)
    centre = (0.5 + shift if view == "CC" else 0.92 - breadth + shift) * height
    half, depth = breadth * height, reach * width
    away = np.clip(np.abs(rows - centre) / half, 0.0, 1.0)
    edge = depth * (1 - away**2.2) ** 0.55
    muscle = None
    if view == "MLO":
        # Above the nipple the outline runs on to the armpit, beyond the frame's upper edge.
        upward = np.clip((centre - rows) / centre, 0.0, 1.0)
        edge = np.where(rows < centre, depth * (1 - 0.55 * np.sin(upward * np.pi / 2) ** 1.6), edge)
        muscle = (muscle_size[0] * depth, muscle_size[1] * height)
    edge *= 1 + 0.015 * np.cos(2 * np.pi * 2 * rows / height + phase)
    edge += 0.035 * depth * np.exp(-(((rows - centre) / (0.02 * height)) ** 4))
    return Outline(edge, centre, half, muscle, width, thickness_mm, spacing_mm, float(density))


def smear(image: Floats, distance_mm: float, pixel_mm: float) -> Floats:
    """Blur along the rows' direction as an object `distance_mm` out of focus appears."""
    length = round(2 * HALF_ANGLE * distance_mm / pixel_mm)
    if length < 2:
        return image
    blurred: Floats = cv2.blur(image, (1, length), borderType=cv2.BORDER_REPLICATE)
    return blurred


@dataclass(frozen=True)
class Tissue:
    """Layers of tissue, float32 (layers, h, w), on a grid `step` pixels coarse.

    `overlay` is what all layers throw on every slice, out of focus.
    """

    layers: Floats
    heights_mm: tuple[float, ...]
    overlay: Floats
    outline: Outline
    step: int

    def slice_at(self, height_mm: float) -> tuple[Floats, Floats, Floats]:
        """Share of gland (with curves), of muscle and of skin, each (h, w), at a height."""
        away = np.abs(np.array(self.heights_mm) - height_mm)
        weights = np.exp(-away / FOCUS_MM)
        weights *= 0.75 / weights.sum()
        gland: Floats = np.float32(0.25) * self.overlay
        coarse_mm = self.step * self.outline.spacing_mm
        for layer, weight, distance in zip(self.layers, weights, away, strict=True):
            if weight > 0.005:
                gland += np.float32(weight) * smear(layer, float(distance), coarse_mm)
        inward_mm = _inward_mm(self.outline, self.step, height_mm)
        skin: Floats = np.exp(-((inward_mm / 1.4) ** 2)).astype(np.float32)
        return gland, _muscle(self.outline, self.step), skin


def draw_tissue(outline: Outline, rng: np.random.Generator) -> Tissue:
    """Draw all layers of tissue of a breast."""
    step = max(round(COARSE_MM / outline.spacing_mm), 1)
    inward_mm = _inward_mm(outline, step, 0.0)
    shape = inward_mm.shape
    room = _gland_room(outline, step, inward_mm)
    count = max(round(outline.thickness_mm / LAYER_MM), 1)
    heights = (np.arange(count) - (count - 1) / 2) * (outline.thickness_mm / count)
    field_shape = _field_shape(outline)
    size = (shape[1], shape[0])
    shared = power_law_field(field_shape, 3.2, rng)
    threshold = 0.9 - 1.8 * outline.density
    layers = np.empty((count, *shape), dtype=np.float32)
    for layer in layers:
        lumps = 1.1 * shared + power_law_field(field_shape, 2.8, rng) - np.float32(threshold)
        if lumps.shape != shape:
            lumps = cv2.resize(lumps, size, interpolation=cv2.INTER_LINEAR)
        layer[:] = room / (1 + np.exp(np.float32(-2.5) * lumps)) + _curves(
            outline, step, shape, rng
        )
    coarse_mm = step * outline.spacing_mm
    overlay = smear(layers.mean(axis=0), outline.thickness_mm / 2, coarse_mm)
    return Tissue(layers, tuple(float(h) for h in heights), overlay, outline, step)


def power_law_field(shape: tuple[int, ...], exponent: float, rng: np.random.Generator) -> Floats:
    """Random field (h, w) with power spectrum 1 / f ** exponent, mean 0, standard deviation 1.

    Mammograms have exponents near 3 (Burgess, Medical Physics 28, 2001).
    """
    height, width = shape
    white = np.fft.rfft2(rng.standard_normal((height, width), dtype=np.float32))
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    frequency[0, 0] = np.inf
    white *= (frequency ** (-exponent / 2)).astype(np.float32)
    field: Floats = np.fft.irfft2(white, s=(height, width)).astype(np.float32, copy=False)
    field /= field.std()
    return field


def _field_shape(outline: Outline) -> tuple[int, int]:
    """Rows and columns of the random fields: the frame at about `FIELD_MM`, in multiples of 32, which
    the Fourier transform likes."""
    rows, cols = (
        32 * max(round(extent * min(outline.spacing_mm / FIELD_MM, 1.0) / 32), 1)
        for extent in (len(outline.edge_H), outline.width)
    )
    return rows, cols


def _inward_mm(outline: Outline, step: int, height_mm: float) -> NDArray[np.float64]:
    """Distance from the skin inward (mm), on the coarse grid; negative outside."""
    edge = outline.edge_at(height_mm)
    slope = np.gradient(edge)
    steepness = np.sqrt(1 + np.clip(slope, -20, 20) ** 2)
    cols = np.arange(0, outline.width, step)
    inward: NDArray[np.float64] = (edge[::step, None] - cols) / steepness[::step, None]
    return inward * outline.spacing_mm


def _muscle(outline: Outline, step: int) -> Floats:
    """Share of pectoral muscle: a triangle in the upper corner with a soft, slightly bent edge."""
    rows = np.arange(0, len(outline.edge_H), step)[:, None]
    cols = np.arange(0, outline.width, step)
    if outline.muscle is None:
        return np.zeros((len(rows), len(cols)), dtype=np.float32)
    across, down = outline.muscle
    border = across * (1 - rows / down + 0.12 * np.sin(np.pi * np.clip(rows / down, 0, 1)))
    softness = np.clip((border - cols) * outline.spacing_mm / 0.8, -30, 30)
    share: Floats = (1 / (1 + np.exp(-softness))).astype(np.float32)
    return share


def _gland_room(outline: Outline, step: int, inward_mm: NDArray[np.float64]) -> Floats:
    """Where gland may be, in [0, 1]: a cone behind the nipple, away from skin and chest wall."""
    rows = np.arange(0, len(outline.edge_H), step)[:, None]
    cols = np.arange(0, outline.width, step)
    reach = float(outline.edge_H.max())
    fat_mm = 0.06 * reach * outline.spacing_mm
    inside = np.clip(inward_mm / fat_mm - 0.8, 0, 1)
    anterior = cols / reach
    spread = 0.35 + 0.55 * np.clip(1 - anterior, 0, 1)
    beside = ((rows - outline.centre_row) / outline.half_rows / spread) ** 2
    room: Floats = (inside * np.exp(-beside) * np.clip(anterior * 3, 0.15, 1)).astype(np.float32)
    return room


def _curves(
    outline: Outline, step: int, shape: tuple[int, ...], rng: np.random.Generator
) -> Floats:
    """Cooper's ligaments (thin, many) and vessels (thicker, few) of one layer, in [0, 1].

    A curve thinner than a pixel is drawn fainter, so that pixels hold what finer ones would average.
    """
    canvas = np.zeros(shape, dtype=np.uint8)
    pixel_mm = step * outline.spacing_mm
    reach, centre = float(outline.edge_H.max()) / step, outline.centre_row / step
    half = outline.half_rows / step
    t = np.linspace(0, 1, 24)[:, None]
    basis = np.hstack([(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3])
    for index in range(VESSELS + LIGAMENTS):
        vessel = index < VESSELS
        ends = rng.uniform((-1.0, 0.0), (1.0, 1.0), (4, 2))
        if not vessel:  # a ligament is short: it stays near its first point
            ends[1:] = ends[0] + rng.uniform(-0.25, 0.25, (3, 2))
        width_mm, strength = rng.uniform((0.7, 110), (1.5, 200)) if vessel else (0.6, 170)
        path = basis @ ends
        points = np.stack([path[:, 1] * reach, centre + path[:, 0] * half], axis=1)
        fixed = np.rint(points * 16).astype(np.int32)[:, None]
        thickness = max(round(width_mm / pixel_mm), 1)
        grey = int(strength * min(width_mm / (thickness * pixel_mm), 1.0))
        cv2.polylines(canvas, [fixed], False, grey, thickness, cv2.LINE_AA, shift=4)
    curves: Floats = canvas.astype(np.float32) / np.float32(255)
    return curves
