"""What a version said of a stored image, kept on disk: a kill costs one image, and no image is read twice.

It depends on the image's bytes, the weights' bytes and the program alone, and is kept in files named by all three,
under `scores` in the node's home, which may be deleted at any time: `<image>.json` for each image, and its saliency,
`<image>.npy`, where somebody asked for it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from gmic.evaluate.found import FoundBox
from gmic.geometry import ReceptiveField
from gmic.window import WindowTransform
from workers.models import CODE_VERSION

Scores = tuple[float, float]
"""Benign and malignant, in [0, 1]."""
Saliency = NDArray[np.float32]
"""(2, D, h, w) in [0, 1]: classes, slices of the volume, cells."""


@dataclass(frozen=True)
class Look:
    """Scores of one image, the boxes found in it, and how its window lies in the stored frames.

    `boxes` and `transform` are of the volume (`dicom_io.dbt`): `frames` has the stored frame of each of its slices, and
    where it was `turned`, its rows and columns run against the stored ones.
    """

    scores: Scores
    frames: tuple[int, ...]
    turned: bool
    transform: WindowTransform
    field: ReceptiveField
    boxes: tuple[FoundBox, ...]

    @classmethod
    def of_json(cls, found: dict[str, Any]) -> Look:
        """From what `json` made of `dataclasses.asdict`. Raises KeyError, TypeError, ValueError where it is not."""
        benign, malignant = found["scores"]
        placed = found["transform"]
        shapes = {name: tuple(placed[name]) for name in ("source_shape", "window_shape", "content")}
        return cls(
            (float(benign), float(malignant)),
            tuple(found["frames"]),
            bool(found["turned"]),
            WindowTransform(**{**placed, **shapes}),
            ReceptiveField(**found["field"]),
            tuple(FoundBox(*box) for box in found["boxes"]),
        )


class LookCache:
    """Looks and saliency on disk; a file that cannot be read counts as none."""

    def __init__(self, home: Path) -> None:
        self._folder = home / "scores"

    def _path(self, weights_sha256: str, sha256: str, kind: str) -> Path:
        return self._folder / CODE_VERSION / weights_sha256 / sha256[:2] / f"{sha256}.{kind}"

    def get(self, weights_sha256: str, sha256: str) -> Look | None:
        """What these weights said of this image before; None if they were not asked."""
        try:
            return Look.of_json(json.loads(self._path(weights_sha256, sha256, "json").read_text()))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def put(self, weights_sha256: str, sha256: str, look: Look) -> None:
        """Keep it, whole or not at all."""
        content = json.dumps(asdict(look)).encode()
        _write(self._path(weights_sha256, sha256, "json"), lambda file: file.write(content))

    def saliency(self, weights_sha256: str, sha256: str) -> Saliency | None:
        """The saliency that goes with the look; None if nobody asked for it."""
        try:
            found: Saliency = np.load(self._path(weights_sha256, sha256, "npy"), allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return None
        return found

    def put_saliency(self, weights_sha256: str, sha256: str, saliency_CDhw: Saliency) -> None:
        """Keep it, whole or not at all."""
        path = self._path(weights_sha256, sha256, "npy")
        _write(path, lambda file: np.save(file, saliency_CDhw))


def _write(path: Path, fill: Callable[[BinaryIO], object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}")
    with partial.open("wb") as file:
        fill(file)
    partial.replace(path)
