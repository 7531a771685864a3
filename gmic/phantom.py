"""Voxel phantoms of tomosynthesis breasts: known lesions in made-up tissue, and nothing of a patient.

A phantom is described by a `PhantomSpec`, from which `make_phantom` makes the voxels. All chance
comes from PCG64 streams of the seed, one a purpose, so one part can change without moving another;
size and density of the breasts are the same in all views of one seed. Geometry and truth are the
same on every machine; voxels too, but for the last bit of a machine's floating point.

The tissue is simple: it tests plumbing, geometry and whether a model can learn at all. It is no
ground for claims about detection performance. Shapes: D slices, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from gmic.errors import InputError
from gmic.phantom_lesion import KINDS, Lesion, LesionSpec, place_lesion, scatter_distractors
from gmic.phantom_render import Relief, relief
from gmic.phantom_tissue import Outline, Tissue, draw_outline, draw_tissue

VIEWS = ("L-CC", "L-MLO", "R-CC", "R-MLO")
SIZE_STREAM, OUTLINE_STREAM, TISSUE_STREAM, LESION_STREAM, NOISE_STREAM, PLACE_STREAM = range(6)
DISTRACTOR_STREAM = 6

ADIPOSE, GLAND, MUSCLE, SKIN, NOISE, LEAST = 0.22, 0.42, 0.46, 0.40, 0.012, 0.06
"""Voxel values, and the noise's deviation, as fractions of the largest the stored bits hold.
The noise is that of pixels of `NOISE_MM`; larger ones average it. `LEAST` keeps tissue above the
published crop threshold of 100 from 11 bits on."""
NOISE_MM = 0.1
DENSER = 1.05
"""Contrast of a malignant lesion over that of a benign one in the same study."""
RADII = (0.020, 0.034)
"""Least and greatest radius of a lesion, in parts of the frame: 4 to 7 mm in a full one."""


@dataclass(frozen=True)
class PhantomSpec:
    """Everything that decides a phantom.

    Attributes:
        seed: Any whole number from 0; views of one study share it.
        laterality: "L" or "R"; R has its chest wall at the right edge of the frames.
        view: "CC" or "MLO"; MLO shows the pectoral muscle.
        shape: (D, H, W).
        spacing_mm: Distance of rows and of columns (mm).
        slice_mm: Distance of slices (mm).
        lesions: What to put in.
        distractor_factor: What the contrast of things that resemble lesions (islands of gland, knots, specks) is
            multiplied with; 0 for none of them.
        bits: Bits stored, 10 to 16.
    """

    seed: int
    laterality: str
    view: str
    shape: tuple[int, int, int]
    spacing_mm: float = 0.1
    slice_mm: float = 1.0
    lesions: tuple[LesionSpec, ...] = ()
    distractor_factor: float = 1.0
    bits: int = 12

    def __post_init__(self) -> None:
        """Raise InputError for a value that describes no phantom; names it."""
        checks = {
            "seed": self.seed >= 0,
            "laterality": self.laterality in ("L", "R"),
            "view": self.view in ("CC", "MLO"),
            "shape": len(self.shape) == 3 and self.shape[0] >= 1 and min(self.shape[1:]) >= 32,
            "spacing_mm": self.spacing_mm > 0,
            "slice_mm": self.slice_mm > 0,
            "distractor_factor": self.distractor_factor >= 0,
            "bits": 10 <= self.bits <= 16,
        }
        for name, holds in checks.items():
            if not holds:
                raise InputError(f"{name} of a phantom is {getattr(self, name)!r}, which cannot be")


@dataclass(frozen=True)
class Phantom:
    """A made volume, uint16 (D, H, W), background exactly 0, and the truth about it.

    `distractors` only resemble lesions and are no part of the truth.
    """

    spec: PhantomSpec
    volume_DHW: NDArray[np.uint16]
    lesions: tuple[Lesion, ...]
    distractors: tuple[Lesion, ...] = ()


def study_plan(
    seed: int,
    shape: tuple[int, int, int],
    views: Sequence[str] = VIEWS,
    *,
    lesion_breast: str | None = None,
    kind: str = "malignant",
    contrast: float = 1.0,
    spacing_mm: float = 0.1,
    slice_mm: float = 1.0,
) -> tuple[PhantomSpec, ...]:
    """Specifications of one study's views, with a lesion at one place of one breast, or of none.

    Args:
        seed: Of the study; decides the lesion's place and size too.
        shape: (D, H, W) of every view.
        views: Like "L-CC", "R-MLO".
        lesion_breast: "L", "R" or None for a study without a lesion.
        kind: "malignant", "benign" or "both": one of either at different places.
        contrast: Benign lesion over surroundings, in units of gland over fat; malignant ones have `DENSER` times it.
        spacing_mm: Distance of rows and of columns (mm).
        slice_mm: Distance of slices (mm).

    Raises:
        InputError: An unknown view, breast or kind, or sizes that cannot be.
    """
    if lesion_breast not in (None, "L", "R"):
        raise InputError(f"lesion_breast is {lesion_breast!r}; give 'L', 'R' or None")
    rng = _stream(seed, PLACE_STREAM)
    radii_mm = lesion_radii_mm(shape, spacing_mm)
    lesions = []
    lateral, superior = rng.uniform(-0.8, 0.8, 2)
    for one_kind in KINDS if kind == "both" else (kind,):
        anterior, radius_mm = rng.uniform(0.25, 0.75), rng.uniform(*radii_mm)
        place = (float(lateral), float(superior), float(anterior))
        own = contrast * (DENSER if one_kind == "malignant" else 1.0)
        lesions.append(LesionSpec(one_kind, float(radius_mm), own, place))
        # A second one lies on the other side in both views.
        lateral, superior = (-np.sign(v) * rng.uniform(0.3, 0.8) for v in (lateral, superior))
    specs = []
    for name in views:
        laterality, _, view = name.partition("-")
        here = tuple(lesions) if laterality == lesion_breast else ()
        specs.append(PhantomSpec(seed, laterality, view, shape, spacing_mm, slice_mm, here))
    return tuple(specs)


def lesion_radii_mm(shape: tuple[int, int, int], spacing_mm: float) -> tuple[float, float]:
    """Least and greatest radius of a lesion: that of patients' masses, less in a smaller frame."""
    scale_mm = min(shape[1] * spacing_mm, shape[2] * spacing_mm * 1.3, 200.0)
    return RADII[0] * scale_mm, RADII[1] * scale_mm


def make_phantom(spec: PhantomSpec) -> Phantom:
    """Make the voxels of a phantom.

    Memory: the volume, the layers of tissue (a few frames) and a few frames more.

    Raises:
        InputError: The lesion does not fit into the breast.
    """
    outline = _outline(spec)
    tissue = draw_tissue(outline, _view_stream(spec, TISSUE_STREAM))
    lesions, distractors = _place(spec, outline), _distract(spec, outline)
    reliefs = [
        relief(lesion, spec.slice_mm, spec.spacing_mm, spec.shape[1:])
        for lesion in (*lesions, *distractors)
    ]
    noise_rng = _view_stream(spec, NOISE_STREAM)
    volume_DHW = np.empty(spec.shape, dtype=np.uint16)
    for frame in range(spec.shape[0]):
        slice_hw = _slice(spec, outline, tissue, reliefs, frame, noise_rng)
        volume_DHW[frame] = slice_hw if spec.laterality == "L" else slice_hw[:, ::-1]
    return Phantom(spec, volume_DHW, _stored(spec, lesions), _stored(spec, distractors))


def locate_lesions(spec: PhantomSpec) -> tuple[Lesion, ...]:
    """The lesions `make_phantom` would put in, without making the voxels.

    Raises:
        InputError: A lesion does not fit into the breast.
    """
    return _stored(spec, _place(spec, _outline(spec)))


def _outline(spec: PhantomSpec) -> Outline:
    return draw_outline(
        spec.view,
        spec.shape[1:],
        spec.shape[0] * spec.slice_mm,
        spec.spacing_mm,
        _stream(spec.seed, SIZE_STREAM),
        _view_stream(spec, OUTLINE_STREAM),
    )


def _place(spec: PhantomSpec, outline: Outline) -> tuple[Lesion, ...]:
    rng = _view_stream(spec, LESION_STREAM)
    depth, slice_mm = spec.shape[0], spec.slice_mm
    return tuple(place_lesion(lesion, outline, depth, slice_mm, rng) for lesion in spec.lesions)


def _distract(spec: PhantomSpec, outline: Outline) -> tuple[Lesion, ...]:
    if not spec.distractor_factor:
        return ()
    radii_mm = lesion_radii_mm(spec.shape, spec.spacing_mm)
    rng = _view_stream(spec, DISTRACTOR_STREAM)
    grid = (spec.shape[0], spec.slice_mm)
    return scatter_distractors(outline, grid, radii_mm, spec.distractor_factor, rng)


def _stored(spec: PhantomSpec, lesions: tuple[Lesion, ...]) -> tuple[Lesion, ...]:
    """Lesions drawn with the chest wall at the left, as they lie in the stored frames."""
    mirrored = tuple(lesion.mirror(spec.shape[2]) for lesion in lesions)
    return lesions if spec.laterality == "L" else mirrored


def _view_stream(spec: PhantomSpec, purpose: int) -> np.random.Generator:
    side, view = "LR".index(spec.laterality), ("CC", "MLO").index(spec.view)
    return _stream(spec.seed, purpose, side, view)


def _stream(seed: int, *key: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, *key])))


def _slice(
    spec: PhantomSpec,
    outline: Outline,
    tissue: Tissue,
    reliefs: Sequence[Relief],
    frame: int,
    noise_rng: np.random.Generator,
) -> NDArray[np.uint16]:
    """One slice with its chest wall at the left, in stored values."""
    depth, height, width = spec.shape
    height_mm = (frame - (depth - 1) / 2) * spec.slice_mm
    gland, muscle, skin = tissue.slice_at(height_mm)
    shade = ADIPOSE + (GLAND - ADIPOSE) * gland
    # The muscle is dense, yet what lies over and under it shines through.
    shade += (MUSCLE - shade) * (np.float32(0.75) * muscle)
    shade += (SKIN - shade) * skin
    slice_hw = cv2.resize(shade, (width, height), interpolation=cv2.INTER_LINEAR)
    for shown in reliefs:
        shown.add_to(slice_hw, frame, (spec.slice_mm, spec.spacing_mm), GLAND - ADIPOSE)
    noise = noise_rng.standard_normal((height, width), dtype=np.float32)
    # Tissue scatters less light on the detector where it is dense: more noise there.
    np.maximum(slice_hw, LEAST, out=slice_hw)
    deviation = np.float32(NOISE * min(NOISE_MM / spec.spacing_mm, 1.0))
    slice_hw += noise * deviation * np.sqrt(slice_hw * np.float32(1 / ADIPOSE))
    np.clip(slice_hw, LEAST, 1.0, out=slice_hw)
    slice_hw[np.arange(width) >= outline.edge_at(height_mm)[:, None]] = 0.0
    stored: NDArray[np.uint16] = np.rint(slice_hw * (2**spec.bits - 1)).astype(np.uint16)
    return stored
