"""How well saliency outlines lesions: Dice similarity and pixel average precision (paper, VI-C).

Both are taken an image with a visible finding at a time, after the maximum over the slices of both
saliency and labels, and averaged over the images. Every pixel of the window counts, padding too.

- DSC is 2 sum(A G) / (sum(A^2) + sum(G^2)) of the saliency A, not cut at a threshold, and the label
  G in {0, 1}. The paper names no threshold, so none is used here; whether its authors computed it in
  this way cannot be told from the text. It asks saliency to be near 1 on the lesion, so it also falls
  with a timid map. `dice_at` is the usual Dice of a map cut at a threshold, which is to be chosen on
  other images than it is reported on (`best_threshold`).
- PxAP is the area below precision against recall over all thresholds (Choe et al. 2020, "Evaluating
  weakly supervised object localization methods right"), an image at a time as the paper has it (Choe
  et al. pool the pixels of all images).

A pixel takes the saliency of the cell whose receptive field is centred nearest to it
(`gmic.geometry.ReceptiveField`); so cells and the number of pixels each owns say everything, and no
map is enlarged. Shapes: D slices, H, W pixels of the window, h, w cells of the map.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gmic.errors import DataError
from gmic.geometry import ReceptiveField

Mask = NDArray[np.bool_]
Map = NDArray[np.floating]


@dataclass(frozen=True)
class SegmentationScore:
    """Of one image and class, or the mean over images; both in [0, 1]."""

    dsc: float
    pxap: float


class CellLabels(NamedTuple):
    """One projected image as the figures below take it: three arrays (h, w)."""

    saliency_hw: NDArray[np.float64]
    lesion_hw: NDArray[np.float64]
    """Pixels of each cell on the lesion."""
    owned_hw: NDArray[np.float64]
    """Pixels of each cell."""


def project_masks(masks: Iterable[Mask]) -> Mask:
    """Maximum over the slices: masks (H, W), one a slice or a volume (D, H, W), to one mask.

    Raises:
        DataError: No mask, or masks of different shapes.
    """
    result: Mask | None = None
    for mask_HW in masks:
        if result is None:
            result = np.array(mask_HW, dtype=bool)
        elif mask_HW.shape != result.shape:
            raise DataError(f"a mask is of shape {mask_HW.shape}, another of {result.shape}")
        else:
            result |= mask_HW.astype(bool)
    if result is None or result.ndim != 2:
        raise DataError("no mask of rows and columns to project; give one a slice")
    return result


def cell_labels(saliency_Dhw: Map, mask_HW: Mask, field: ReceptiveField) -> CellLabels:
    """Project the saliency of one class and count the lesion's pixels in each cell.

    Args:
        saliency_Dhw: Saliency of one class, all slices.
        mask_HW: The lesions of that class, projected, in window pixels.
        field: Where the cells lie (`GMIC3D.receptive_field`).

    Raises:
        DataError: Not such arrays, or saliency that is not finite.
    """
    if saliency_Dhw.ndim != 3 or mask_HW.ndim != 2 or not saliency_Dhw.size:
        raise DataError(
            f"saliency is of shape {saliency_Dhw.shape} and mask of {mask_HW.shape}; "
            "give (D, h, w) and (H, W)"
        )
    projected_hw = saliency_Dhw.max(axis=0).astype(np.float64)
    if not np.isfinite(projected_hw).all():
        raise DataError("saliency holds NaN or infinity; give finite numbers")
    owners = [
        cell_owners(field, cells, extent)
        for cells, extent in zip(projected_hw.shape, mask_HW.shape, strict=True)
    ]
    owned_hw = np.outer(
        *(np.bincount(o, minlength=n) for o, n in zip(owners, projected_hw.shape, strict=True))
    )
    rows, cols = np.nonzero(mask_HW)
    cells = owners[0][rows] * projected_hw.shape[1] + owners[1][cols]
    lesion = np.bincount(cells, minlength=projected_hw.size).reshape(projected_hw.shape)
    return CellLabels(projected_hw, lesion.astype(np.float64), owned_hw.astype(np.float64))


def cell_owners(field: ReceptiveField, cells: int, extent: int) -> NDArray[np.int64]:
    """The cell that owns each pixel of an axis (`ReceptiveField.cell_span`): (extent,)."""
    spans = [field.cell_span(i, cells, extent) for i in range(cells)]
    return np.repeat(np.arange(cells), [stop - start for start, stop in spans])


def dice(image: CellLabels) -> float | None:
    """DSC without a threshold; None where no pixel is on a lesion."""
    saliency_hw, lesion_hw, owned_hw = image
    if not lesion_hw.any():
        return None
    both = (saliency_hw * lesion_hw).sum()
    return float(2 * both / ((saliency_hw**2 * owned_hw).sum() + lesion_hw.sum()))


def dice_at(image: CellLabels, threshold: float) -> float | None:
    """Dice of the cells from `threshold` on; None where no pixel is on a lesion."""
    saliency_hw, lesion_hw, owned_hw = image
    if not lesion_hw.any():
        return None
    found_hw = saliency_hw >= threshold
    return float(2 * lesion_hw[found_hw].sum() / (owned_hw[found_hw].sum() + lesion_hw.sum()))


def pixel_average_precision(image: CellLabels) -> float | None:
    """PxAP; None where no pixel is on a lesion."""
    from sklearn.metrics import average_precision_score

    saliency_hw, lesion_hw, owned_hw = (part.ravel() for part in image)
    if not lesion_hw.any():
        return None
    # A cell's pixels share their score: its pixels on the lesion and off it are one weight each.
    return float(
        average_precision_score(
            np.repeat([1, 0], saliency_hw.size),
            np.tile(saliency_hw, 2),
            sample_weight=np.concatenate([lesion_hw, owned_hw - lesion_hw]),
        )
    )


def segmentation_score(
    saliency_Dhw: Map, mask_HW: Mask, field: ReceptiveField
) -> SegmentationScore | None:
    """DSC and PxAP of one image and class; None where the class has no visible lesion.

    Raises:
        DataError: See `cell_labels`.
    """
    image = cell_labels(saliency_Dhw, mask_HW, field)
    dsc, pxap = dice(image), pixel_average_precision(image)
    return None if dsc is None or pxap is None else SegmentationScore(dsc, pxap)


def mean_score(scores: Iterable[SegmentationScore | None]) -> SegmentationScore | None:
    """Mean over the images with a visible lesion; None without one."""
    visible = [score for score in scores if score is not None]
    if not visible:
        return None
    return SegmentationScore(fmean(s.dsc for s in visible), fmean(s.pxap for s in visible))


def best_threshold(
    images: Sequence[CellLabels], thresholds: Sequence[float] | NDArray[np.float64] | None = None
) -> tuple[float, float]:
    """The threshold with the highest mean Dice over images, and that Dice; of equal ones the lowest.

    Args:
        images: Validation images; those without a lesion are left out.
        thresholds: To try; by default 0.01 to 0.99 by hundredths.

    Raises:
        DataError: No image with a lesion, or no threshold.
    """
    tried = np.arange(1, 100) / 100 if thresholds is None else np.asarray(thresholds, np.float64)
    visible = [image for image in images if image.lesion_hw.any()]
    if not visible or not len(tried):
        raise DataError("a threshold is chosen on at least one image with a lesion, from a list")
    means = [fmean(dice_at(image, float(t)) or 0.0 for image in visible) for t in tried]
    best = int(np.argmax(means))
    return float(tried[best]), means[best]
