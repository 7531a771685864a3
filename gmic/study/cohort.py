"""Breasts of the study: who has what, and the images, made when first asked for and kept on disk.

Benign and malignant lesions are drawn independently of each other: neither label tells the other, or a
model would learn "not benign" in place of malignant. One view's image never depends on another's.
Shapes: D slices, H rows, W columns of the window.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gmic.phantom import PhantomSpec, lesion_radii_mm, locate_lesions, make_phantom, study_plan
from gmic.phantom_lesion import Lesion
from gmic.preprocess import preprocess
from gmic.train.data import Example
from gmic.window import WindowTransform

VERSION = 6
"""Of the phantom's look; a change makes kept images unusable."""
SPLIT_SEEDS = {"train": 1_000_000, "valid": 2_000_000, "test": 6_000_000}
"""First seed of each split; a split never has a million breasts, so they share none. Breasts of 3 to 5 million were
looked at while settings were chosen, so no test may use them."""


@dataclass(frozen=True)
class ImageSettings:
    """How the study's phantoms are made.

    Attributes:
        shape: (D, H, W) of the detector's frame.
        window_shape: Rows and columns of the window that is cut from it.
        spacing_mm: Distance of pixels: that of the full-resolution frame times the model's binning.
        slice_mm: Distance of slices.
        views: Of each breast.
        contrast: Least and greatest contrast of a benign lesion, drawn for each breast; of a malignant one it is
            `gmic.phantom.DENSER` times that.
        lesion_factor: What the contrast of lesions is multiplied with.
        distractor_factor: What that of things that resemble them is multiplied with.
        prevalence: Share of breasts with a benign lesion, and of those with a malignant one.
    """

    shape: tuple[int, int, int] = (24, 307, 236)
    window_shape: tuple[int, int] = (264, 167)
    spacing_mm: float = 0.8
    slice_mm: float = 2.0
    views: tuple[str, ...] = ("CC", "MLO")
    contrast: tuple[float, float] = (0.9, 1.3)
    prevalence: float = 0.45
    lesion_factor: float = 1.0
    distractor_factor: float = 1.0

    @property
    def mean_radius_px(self) -> float:
        """Mean radius of a lesion's body (pixels)."""
        return sum(lesion_radii_mm(self.shape, self.spacing_mm)) / 2 / self.spacing_mm


def breast_plan(settings: ImageSettings, seed: int) -> tuple[tuple[int, int], list[PhantomSpec]]:
    """Labels (benign, malignant) of one breast and the specification of each of its views."""
    rng = np.random.default_rng([seed, VERSION])
    benign, malignant = (int(value < settings.prevalence) for value in rng.random(2))
    contrast = settings.lesion_factor * float(rng.uniform(*settings.contrast))
    side = "LR"[int(rng.integers(2))]
    kind = "both" if benign and malignant else "malignant" if malignant else "benign"
    specs = study_plan(
        seed,
        settings.shape,
        [f"{side}-{view}" for view in settings.views],
        lesion_breast=side if benign or malignant else None,
        kind=kind,
        contrast=contrast,
        spacing_mm=settings.spacing_mm,
        slice_mm=settings.slice_mm,
    )
    factor = settings.distractor_factor
    return (benign, malignant), [replace(spec, distractor_factor=factor) for spec in specs]


class PhantomSet:
    """Images of some breasts: an image set for training and testing, with the truth beside it.

    Args:
        settings: How the phantoms are made.
        split: "train", "valid" or "test"; splits share no breast.
        breasts: Number of breasts.
        folder: Where made windows are kept (float16); it may be deleted at any time.
        first: Breasts of the split to leave out at its beginning.
    """

    def __init__(
        self, settings: ImageSettings, split: str, breasts: int, folder: Path, first: int = 0
    ) -> None:
        self.settings = settings
        examples, self.specs = [], []
        for seed in range(SPLIT_SEEDS[split] + first, SPLIT_SEEDS[split] + first + breasts):
            labels, specs = breast_plan(settings, seed)
            for spec in specs:
                name = f"{seed}-{spec.laterality}-{spec.view}"
                examples.append(Example(name, str(seed), str(seed), labels))
                self.specs.append(spec)
        self.examples: Sequence[Example] = tuple(examples)
        key = json.dumps([VERSION, asdict(settings)])
        self._folder = folder / hashlib.sha256(key.encode()).hexdigest()[:16]
        self._folder.mkdir(parents=True, exist_ok=True)

    def volume(self, index: int) -> NDArray[np.float32]:
        """Standardised window (D, H, W) of image `index`."""
        window: NDArray[np.float32] = np.load(self._kept(index)).astype(np.float32)
        return window

    def transform(self, index: int) -> WindowTransform:
        """Where the window of image `index` lies in its frame."""
        values = json.loads(self._kept(index).with_suffix(".json").read_text())
        fields: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in values.items()
        }
        return WindowTransform(**fields)

    def lesions(self, index: int) -> tuple[Lesion, ...]:
        """The lesions of image `index`, in its window's coordinates."""
        transform = self.transform(index)
        found = []
        for lesion in locate_lesions(self.specs[index]):
            turned = lesion.mirror(transform.source_shape[2]) if transform.flipped else lesion
            z, y, x = turned.centre_zyx
            rows, cols = transform.row_offset, transform.col_offset
            f0, r0, c0, f1, r1, c1 = turned.box
            box = (f0, r0 - rows, c0 - cols, f1, r1 - rows, c1 - cols)
            found.append(replace(turned, centre_zyx=(z, y - rows, x - cols), box=box))
        return tuple(found)

    def mask(self, index: int, label: str) -> NDArray[np.bool_]:
        """Voxels of the lesions of a kind in image `index`: bool (D, H, W)."""
        depth, window = self.settings.shape[0], self.settings.window_shape
        mask_DHW = np.zeros((depth, *window), dtype=bool)
        for lesion in self.lesions(index):
            if lesion.label == label:
                for frame in range(lesion.box[0], lesion.box[3]):
                    mask_DHW[frame] |= lesion.mask(frame, window)
        return mask_DHW

    def _kept(self, index: int) -> Path:
        path = self._folder / f"{self.examples[index].image_id}.npy"
        if not path.exists():
            spec = self.specs[index]
            window_DHW, transform = preprocess(
                make_phantom(spec).volume_DHW,
                spec.laterality,
                spec.view,
                window_shape=self.settings.window_shape,
            )
            # Others may be making the same image: each writes files of its own, whole or not at all.
            partial = path.with_suffix(f".{os.getpid()}.partial")
            partial.write_text(json.dumps(asdict(transform)))
            partial.replace(path.with_suffix(".json"))
            with partial.open("wb") as file:
                np.save(file, window_DHW.astype(np.float16))
            partial.replace(path)
        return path
