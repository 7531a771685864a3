"""Lesions of a phantom breast: where they go, how they look in each slice, and what the truth is."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from gmic.errors import InputError
from gmic.phantom_tissue import Outline, smear
from gmic.window import Box

KINDS = ("malignant", "benign")
FADE_MM = 2.0
"""Out of focus, a lesion fades to 1/e over this distance."""
OUT_OF_FOCUS = 0.35


@dataclass(frozen=True)
class LesionSpec:
    """A lesion to be put into a phantom.

    Attributes:
        kind: "malignant": irregular and spiculated; "benign": a smooth ellipsoid.
        radius_mm: Mean radius of its body in the slice plane (mm).
        contrast: Value over its surroundings, in units of gland over fat.
        place: (lateral, superior, anterior) in the breast, the first two in [-1, 1], anterior in
            [0, 1] from chest wall to nipple. CC shows lateral along the rows (up) and superior
            along the slices (first), MLO superior along the rows (up) and lateral along the slices.
    """

    kind: str
    radius_mm: float
    contrast: float
    place: tuple[float, float, float]

    def __post_init__(self) -> None:
        """Raise InputError for a value no lesion can have."""
        lateral, superior, anterior = self.place
        if self.kind not in KINDS:
            raise InputError(f"lesion kind is {self.kind!r}; give one of {', '.join(KINDS)}")
        if not (self.radius_mm > 0 and self.contrast > 0):
            raise InputError(
                f"lesion has radius {self.radius_mm} mm and contrast {self.contrast}; "
                "both must be above 0"
            )
        if not (abs(lateral) <= 1 and abs(superior) <= 1 and 0 <= anterior <= 1):
            raise InputError(f"lesion place is {self.place}; give values in [-1, 1] and [0, 1]")


@dataclass(frozen=True)
class Lesion:
    """A lesion as it lies in the volume, in stored orientation.

    Attributes:
        label: "malignant" or "benign".
        centre_zyx: Frame, row and column of its centre, 0-based, pixel centres.
        box: (frame0, row0, col0, frame1, row1, col1), half-open: the frames that are in focus, and
            the body with its spicules in the slice plane, clipped to the volume.
        radii_zyx: Of the body: in frames, rows and columns.
        radius_mm: Mean radius of the body in the slice plane.
        contrast: As in the specification.
        waves: (order, height, phase) of the body's waviness around its outline.
        spicules: (angle, length in radii, width in mm) of each spicule.
        mirrored: Angles count the other way round: the view was mirrored after drawing.
    """

    label: str
    centre_zyx: tuple[float, float, float]
    box: tuple[int, int, int, int, int, int]
    radii_zyx: tuple[float, float, float]
    radius_mm: float
    contrast: float
    waves: tuple[tuple[int, float, float], ...]
    spicules: tuple[tuple[float, float, float], ...]
    mirrored: bool = False

    def mask(self, frame: int, frame_shape: tuple[int, int]) -> NDArray[np.bool_]:
        """Voxels of the body, without spicules, in one frame: bool (H, W)."""
        mask = np.zeros(frame_shape, dtype=bool)
        level = 1 - ((frame - self.centre_zyx[0]) / self.radii_zyx[0]) ** 2
        if level > 0:
            distance = self._body_distance(np.arange(frame_shape[0]), np.arange(frame_shape[1]))
            mask |= distance <= np.sqrt(level)
        return mask

    def mirror(self, width: int) -> Lesion:
        """The same lesion in a volume mirrored left to right."""
        z, y, x = self.centre_zyx
        frame0, row0, col0, frame1, row1, col1 = self.box
        return replace(
            self,
            centre_zyx=(z, y, width - 1 - x),
            box=(frame0, row0, width - col1, frame1, row1, width - col0),
            mirrored=not self.mirrored,
        )

    def _body_distance(
        self, rows: NDArray[np.int64], cols: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Distance from the centre in radii of the body, 1 on its outline in the middle frame."""
        _, y, x = self.centre_zyx
        down = (rows[:, None] - y) / self.radii_zyx[1]
        across = (cols - x) / self.radii_zyx[2] * (-1 if self.mirrored else 1)
        angle = np.arctan2(down, across)
        radius = 1 + sum(height * np.cos(n * angle + phase) for n, height, phase in self.waves)
        distance: NDArray[np.float64] = np.hypot(down, across) / radius
        return distance


def place_lesion(
    spec: LesionSpec, outline: Outline, depth: int, slice_mm: float, rng: np.random.Generator
) -> Lesion:
    """Put a lesion into a breast, chest wall at the left.

    Raises:
        InputError: The breast is too small for it.
    """
    lateral, superior, anterior = spec.place
    oblique = outline.muscle is not None
    along_rows, along_slices = (superior, lateral) if oblique else (lateral, superior)
    radius = spec.radius_mm / outline.spacing_mm
    row = round(outline.centre_row - along_rows * 0.6 * outline.half_rows)
    frame = round((depth - 1) / 2 * (1 - 0.6 * along_slices))
    height = len(outline.edge_H)
    body = outline.edge_H[max(row - round(radius), 0) : row + round(radius) + 1]
    nearest, farthest = 1.3 * radius, float(body.min()) - 1.5 * radius
    if outline.muscle is not None:
        across, down = outline.muscle
        nearest += max(across * (1.1 - row / down), 0.0)
    if not (radius <= row < height - radius and farthest > 1.3 * radius):
        raise InputError(
            f"a lesion of radius {spec.radius_mm} mm does not fit into the breast, which is "
            f"{outline.edge_H.max() * outline.spacing_mm:.0f} mm wide; give a smaller radius"
        )
    nearest = min(nearest, farthest)
    col = round(nearest + anterior * (farthest - nearest))
    return _draw_lesion(spec, (frame, row, col), outline, depth, slice_mm, rng)


def _draw_lesion(
    spec: LesionSpec,
    centre: tuple[int, int, int],
    outline: Outline,
    depth: int,
    slice_mm: float,
    rng: np.random.Generator,
) -> Lesion:
    radius = spec.radius_mm / outline.spacing_mm
    stretch = float(rng.uniform(0.85, 1.15))
    thick = max(min(0.6 * spec.radius_mm / slice_mm, 0.3 * depth), 0.6)
    waves: tuple[tuple[int, float, float], ...] = ()
    spicules: tuple[tuple[float, float, float], ...] = ()
    if spec.kind == "malignant":
        phases, heights = rng.uniform(0, 2 * np.pi, 4), rng.uniform(0.03, 0.10, 4)
        waves = tuple((n + 2, float(heights[n]), float(phases[n])) for n in range(4))
        count = int(rng.integers(12, 20))
        angles = (np.arange(count) + rng.uniform(-0.35, 0.35, count)) * 2 * np.pi / count
        lengths, widths = rng.uniform(1.6, 2.7, count), rng.uniform(0.3, 0.7, count)
        spicules = tuple(
            (float(a), float(length), float(w))
            for a, length, w in zip(angles, lengths, widths, strict=True)
        )
    lesion = Lesion(
        spec.kind,
        (float(centre[0]), float(centre[1]), float(centre[2])),
        (0, 0, 0, 0, 0, 0),
        (thick, radius * stretch, radius / stretch),
        spec.radius_mm,
        spec.contrast,
        waves,
        spicules,
    )
    return replace(lesion, box=_truth_box(lesion, (depth, len(outline.edge_H), outline.width)))


def _truth_box(lesion: Lesion, shape: tuple[int, int, int]) -> tuple[int, int, int, int, int, int]:
    frames = [f for f in range(shape[0]) if abs(f - lesion.centre_zyx[0]) < lesion.radii_zyx[0]]
    rows, cols = np.nonzero(lesion.mask(round(lesion.centre_zyx[0]), shape[1:]))
    ends = [_tip(lesion, angle, length) for angle, length, _ in lesion.spicules]
    all_rows = [int(rows.min()), int(rows.max()), *(row for row, _ in ends)]
    all_cols = [int(cols.min()), int(cols.max()), *(col for _, col in ends)]
    return (
        frames[0],
        max(min(all_rows), 0),
        max(min(all_cols), 0),
        frames[-1] + 1,
        min(max(all_rows) + 1, shape[1]),
        min(max(all_cols) + 1, shape[2]),
    )


def _tip(lesion: Lesion, angle: float, length: float) -> tuple[int, int]:
    _, y, x = lesion.centre_zyx
    _, tall, wide = lesion.radii_zyx
    return round(y + np.sin(angle) * length * tall), round(x + np.cos(angle) * length * wide)


def render_lesion(
    lesion: Lesion, frame: int, slice_mm: float, spacing_mm: float, frame_shape: tuple[int, int]
) -> tuple[NDArray[np.float32], Box]:
    """What the lesion adds to a frame, in units of gland over fat, and the box it adds it to.

    Every plane of the lesion shows in every frame: sharp in its own, smeared and faded in others.
    """
    z, y, x = lesion.centre_zyx
    reach = round(3.2 * max(lesion.radii_zyx[1:]))
    row0, row1 = max(int(y) - reach, 0), min(int(y) + reach + 1, frame_shape[0])
    col0, col1 = max(int(x) - reach, 0), min(int(x) + reach + 1, frame_shape[1])
    box = (row0, col0, row1, col1)
    rows, cols = np.arange(row0, row1), np.arange(col0, col1)
    distance = lesion._body_distance(rows, cols)
    spicules = _spicules(lesion, box, spacing_mm)
    softness = 0.06 if lesion.label == "benign" else 0.14
    add = np.zeros(distance.shape, dtype=np.float32)
    total = 0.0
    for plane in range(lesion.box[0], lesion.box[3]):
        scale = np.sqrt(max(1 - ((plane - z) / lesion.radii_zyx[0]) ** 2, 0.05))
        body = 1 / (1 + np.exp(np.clip((distance / scale - 1) / softness, -30, 30)))
        image = np.maximum(body, spicules * scale).astype(np.float32)
        away_mm = abs(plane - frame) * slice_mm
        weight = 1.0 if plane == frame else OUT_OF_FOCUS * float(np.exp(-away_mm / FADE_MM))
        total += (
            1.0
            if plane == round(z)
            else OUT_OF_FOCUS * float(np.exp(-abs(plane - z) * slice_mm / FADE_MM))
        )
        add += np.float32(weight) * smear(image, away_mm, spacing_mm)
    add *= np.float32(lesion.contrast / total)
    return add, box


def _spicules(lesion: Lesion, box: Box, spacing_mm: float) -> NDArray[np.float32]:
    """Tapering lines from the body outward, in [0, 0.75]."""
    row0, col0, row1, col1 = box
    canvas = np.zeros((row1 - row0, col1 - col0), dtype=np.uint8)
    _, y, x = lesion.centre_zyx
    start = np.array([x - col0, y - row0])
    origin = [int(value) for value in np.rint(start * 16)]
    for angle, length, width_mm in lesion.spicules:
        row, col = _tip(lesion, angle, length)
        along = np.array([col - col0, row - row0]) - start
        for part in (1.0, 0.9, 0.8, 0.7, 0.6, 0.5):  # fainter and thinner towards the tip
            tip = [int(value) for value in np.rint((start + along * part) * 16)]
            thickness = max(round(width_mm * (1.9 - 1.2 * part) / spacing_mm), 1)
            cv2.line(canvas, origin, tip, round(250 * (1.3 - part)), thickness, cv2.LINE_AA, 4)
    lines: NDArray[np.float32] = canvas.astype(np.float32) / np.float32(255)
    return lines
