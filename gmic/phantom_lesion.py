"""Lesions of a phantom breast and what resembles them: where they go, their shape, and the truth.

A malignant mass is irregular and spiculated; a benign one smooth, round and sharp with the thin dark
rim of fat around it. Distractors are made of the same parts, each with one part missing: an island
of gland has a body without spicules or rim, a knot has lines that cross without a body, a speck is
sharp and round but tiny. Brightness, size, depth and place tell none of them from a lesion.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from gmic.errors import InputError
from gmic.phantom_tissue import Outline

KINDS = ("malignant", "benign")
DISTRACTORS = ("island", "knot", "speck")


@dataclass(frozen=True)
class LesionSpec:
    """A lesion, or a distractor, to be put into a phantom.

    Attributes:
        kind: One of `KINDS` or `DISTRACTORS`.
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
        if self.kind not in KINDS + DISTRACTORS:
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
    """A lesion, or a distractor, as it lies in the volume, in stored orientation.

    Attributes:
        label: Its kind.
        centre_zyx: Frame, row and column of its centre, 0-based, pixel centres.
        box: (frame0, row0, col0, frame1, row1, col1), half-open: the frames that are in focus, and
            the body with its spicules in the slice plane, clipped to the volume.
        radii_zyx: Of the body: in frames, rows and columns.
        radius_mm: Mean radius of the body in the slice plane.
        contrast: As in the specification.
        waves: (order, height, phase) of the body's waviness around its outline.
        spicules: (angle, length in radii, width in mm) of each spicule.
        softness: Width of the body's edge, in radii.
        core: Brightness of the body, in units of `contrast`.
        rim: Darkness of the rim around the body, in units of `contrast`.
        mirrored: Angles count the other way round: the view was mirrored after drawing.
    """

    label: str
    centre_zyx: tuple[float, float, float]
    box: tuple[int, int, int, int, int, int]
    radii_zyx: tuple[float, float, float]
    radius_mm: float
    contrast: float
    waves: tuple[tuple[int, float, float], ...] = ()
    spicules: tuple[tuple[float, float, float], ...] = ()
    softness: float = 0.14
    core: float = 1.0
    rim: float = 0.0
    mirrored: bool = False

    def mask(self, frame: int, frame_shape: tuple[int, int]) -> NDArray[np.bool_]:
        """Voxels of the body, without spicules, in one frame: bool (H, W)."""
        mask = np.zeros(frame_shape, dtype=bool)
        level = 1 - ((frame - self.centre_zyx[0]) / self.radii_zyx[0]) ** 2
        if level > 0:
            distance = self.body_distance(np.arange(frame_shape[0]), np.arange(frame_shape[1]))
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

    def body_distance(
        self, rows: NDArray[np.int64], cols: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Distance from the centre in radii of the body, 1 on its outline in the middle frame."""
        _, y, x = self.centre_zyx
        down = (rows[:, None] - y) / self.radii_zyx[1]
        across = (cols - x) / self.radii_zyx[2] * (-1 if self.mirrored else 1)
        distance: NDArray[np.float64] = np.hypot(down, across)
        if self.waves:
            angle = np.arctan2(down, across)
            distance /= 1 + sum(height * np.cos(n * angle + p) for n, height, p in self.waves)
        return distance

    def tip(self, angle: float, length: float) -> tuple[int, int]:
        """Row and column `length` radii away from the centre."""
        _, y, x = self.centre_zyx
        _, tall, wide = self.radii_zyx
        return round(y + np.sin(angle) * length * tall), round(x + np.cos(angle) * length * wide)


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
    lesion = _draw(spec, (frame, row, col), (depth, outline.spacing_mm, slice_mm), rng)
    return replace(lesion, box=_truth_box(lesion, (depth, height, outline.width)))


def scatter_distractors(
    outline: Outline,
    grid: tuple[int, float],
    radius_mm: tuple[float, float],
    factor: float,
    rng: np.random.Generator,
) -> tuple[Lesion, ...]:
    """Put islands, knots and specks into a breast; those that find no room are left out.

    Args:
        outline: Of the breast, chest wall at the left.
        grid: Number of slices, and their distance (mm).
        radius_mm: Least and greatest radius of a lesion, which islands have too.
        factor: What their usual contrast is multiplied with.
        rng: Where all chance comes from.
    """
    counts = rng.integers((5, 3, 4), (9, 6, 9))
    found = []
    for kind, count in zip(DISTRACTORS, counts, strict=True):
        for _ in range(count):
            lateral, superior = rng.uniform(-0.95, 0.95, 2)
            anterior, relative = rng.uniform(0.05, 0.95), rng.uniform(0.0, 1.0)
            radius = radius_mm[0] + relative * (radius_mm[1] - radius_mm[0])
            contrast = factor * rng.uniform(1.0, 1.6)
            if kind == "speck":
                radius *= 0.22
            place = (float(lateral), float(superior), float(anterior))
            spec = LesionSpec(kind, float(radius), float(contrast), place)
            try:
                found.append(place_lesion(spec, outline, *grid, rng))
            except InputError:
                continue
    return tuple(found)


def _draw(
    spec: LesionSpec,
    centre: tuple[int, int, int],
    grid: tuple[int, float, float],
    rng: np.random.Generator,
) -> Lesion:
    """Draw the shape of a lesion; `grid` is (slices, spacing of pixels, spacing of slices)."""
    depth, spacing_mm, slice_mm = grid
    radius = spec.radius_mm / spacing_mm
    low, high = {"island": (0.75, 1.33), "benign": (0.92, 1.08)}.get(spec.kind, (0.85, 1.18))
    stretch = float(rng.uniform(low, high))
    thick = max(min(0.6 * spec.radius_mm / slice_mm, 0.3 * depth), 0.6)
    lesion = Lesion(
        spec.kind,
        (float(centre[0]), float(centre[1]), float(centre[2])),
        (0, 0, 0, 0, 0, 0),
        (thick, radius * stretch, radius / stretch),
        spec.radius_mm,
        spec.contrast,
    )
    if spec.kind == "malignant":
        return replace(lesion, waves=_waves(0.03, 0.10, rng), spicules=_star(rng))
    if spec.kind == "benign":
        return replace(lesion, softness=0.06, rim=0.45)
    if spec.kind == "island":
        softness = float(rng.uniform(0.15, 0.35))
        return replace(lesion, waves=_waves(0.05, 0.15, rng), softness=softness)
    if spec.kind == "knot":
        return replace(lesion, core=0.0, spicules=_crossing(rng))
    return replace(lesion, softness=0.1)


def _waves(
    low: float, high: float, rng: np.random.Generator
) -> tuple[tuple[int, float, float], ...]:
    phases, heights = rng.uniform(0, 2 * np.pi, 4), rng.uniform(low, high, 4)
    return tuple((n + 2, float(heights[n]), float(phases[n])) for n in range(4))


def _star(rng: np.random.Generator) -> tuple[tuple[float, float, float], ...]:
    """Spicules of a malignant mass: many, all round, of different lengths."""
    count = int(rng.integers(11, 17))
    angles = (np.arange(count) + rng.uniform(-0.35, 0.35, count)) * 2 * np.pi / count
    lengths, widths = rng.uniform(1.7, 2.7, count), rng.uniform(0.8, 1.5, count)
    drawn = zip(angles, lengths, widths, strict=True)
    return tuple((float(a), float(length), float(w)) for a, length, w in drawn)


def _crossing(rng: np.random.Generator) -> tuple[tuple[float, float, float], ...]:
    """Two or three vessels that cross."""
    lines = []
    for angle in rng.uniform(0, np.pi, int(rng.integers(2, 4))):
        width = float(rng.uniform(0.6, 1.3))
        for turn in (0.0, np.pi):
            lines.append((float(angle + turn), float(rng.uniform(1.5, 3.0)), width))
    return tuple(lines)


def _truth_box(lesion: Lesion, shape: tuple[int, int, int]) -> tuple[int, int, int, int, int, int]:
    frames = [f for f in range(shape[0]) if abs(f - lesion.centre_zyx[0]) < lesion.radii_zyx[0]]
    rows, cols = np.nonzero(lesion.mask(round(lesion.centre_zyx[0]), shape[1:]))
    ends = [lesion.tip(angle, length) for angle, length, _ in lesion.spicules]
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
