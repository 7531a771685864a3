"""What the demonstration's segmentations say of the phantom's lesions, whose places are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workers.readback import SegmentationRead


@dataclass(frozen=True)
class Overlap:
    """A segment beside the lesion of its label.

    Attributes:
        hit: Whether it marks a pixel of the lesion's body, on one of its frames.
        dice: Of both after the maximum over the frames, in [0, 1].
    """

    hit: bool
    dice: float


def truth_of(truth: Mapping[str, Any] | None, uid: str) -> Mapping[str, Any] | None:
    """What truth.json says of an image; None where there is no truth."""
    if truth is None:
        return None
    return next((e for e in truth["files"] if e["sop_instance_uid"] == uid), None)


def overlap(seg: SegmentationRead | None, entry: Mapping[str, Any]) -> Overlap | None:
    """The segment of the first lesion's label beside that lesion; None for an image without a lesion."""
    lesions: Sequence[Mapping[str, Any]] = entry["lesions"]
    if not lesions:
        return None
    lesion = lesions[0]
    frames, masks_NHW = seg.segment(lesion["label"]) if seg else ((), None)
    if masks_NHW is None or not frames:
        return Overlap(False, 0.0)
    shape = (int(entry["rows"]), int(entry["cols"]))
    hit = any(
        (mask_HW & body(lesion, frame, shape)).any()
        for frame, mask_HW in zip(frames, masks_NHW, strict=True)
    )
    marked_HW, lesion_HW = masks_NHW.any(axis=0), body(lesion, lesion["center_zyx"][0], shape)
    both = int((marked_HW & lesion_HW).sum())
    return Overlap(bool(hit), 2 * both / (int(marked_HW.sum()) + int(lesion_HW.sum())))


def body(lesion: Mapping[str, Any], frame: float, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """The lesion's body, an ellipsoid, on a frame (from 1): bool (H, W), empty off its frames."""
    (z, y, x), (rz, ry, rx) = lesion["center_zyx"], lesion["radii_zyx"]
    level = 1 - ((frame - z) / rz) ** 2
    rows, cols = np.ogrid[: shape[0], : shape[1]]
    inside: NDArray[np.bool_] = ((rows - y) / ry) ** 2 + ((cols - x) / rx) ** 2 <= level
    return inside


def breasts(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Mean scores over the views of each breast, and its lesion where the truth is known, by laterality."""
    found: dict[str, dict[str, Any]] = {}
    for side in sorted({row["view"][0] for row in rows}):
        own = [row for row in rows if row["view"][0] == side]
        lesions = {row["lesion"] for row in own} - {None}
        found[side] = {
            "malignant": fmean(row["malignant"] for row in own),
            "benign": fmean(row["benign"] for row in own),
            "lesion": ", ".join(sorted(lesions - {"none"}) or lesions) or None,
        }
    return found
