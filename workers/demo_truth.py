"""What the demonstration's segmentations say of the phantom's lesions, whose places are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workers.readback import SegmentationRead


def truth_of(truth: Mapping[str, Any] | None, uid: str) -> Mapping[str, Any] | None:
    """What truth.json says of an image; None where there is no truth."""
    if truth is None:
        return None
    return next((e for e in truth["files"] if e["sop_instance_uid"] == uid), None)


def dice(seg: SegmentationRead | None, entry: Mapping[str, Any]) -> float | None:
    """Dice, over all voxels, of the first lesion with the segment of its label; None for an image without a lesion."""
    lesions: Sequence[Mapping[str, Any]] = entry["lesions"]
    if not lesions:
        return None
    lesion = lesions[0]
    shape = (int(entry["rows"]), int(entry["cols"]))
    bodies = {n: body(lesion, n, shape) for n in range(1, int(entry["frames"]) + 1)}
    frames, masks_NHW = seg.segment(lesion["label"]) if seg else ((), None)
    if masks_NHW is None:
        return 0.0
    both = sum(
        int((mask_HW & bodies[n]).sum()) for n, mask_HW in zip(frames, masks_NHW, strict=True)
    )
    return 2 * both / (int(masks_NHW.sum()) + sum(int(one.sum()) for one in bodies.values()))


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
