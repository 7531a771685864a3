"""What a trained model does on unseen breasts: scores, where it looks, how well it outlines."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gmic.config import CLASSES
from gmic.evaluate.localisation import LesionBox, find_peak, patch_on_lesion, peak_on_lesion
from gmic.evaluate.roc import bootstrap_auc
from gmic.evaluate.scores import ImageScore, by_breast, columns_of
from gmic.evaluate.segmentation import (
    SegmentationScore,
    mean_score,
    project_masks,
    segmentation_score,
)
from gmic.model import GMIC3D, GMIC3DOutput
from gmic.study.build import StudyImages
from gmic.study.cohort import PhantomSet
from gmic.train.data import Example

SLICE_MARGIN = 1
"""Slices beside a lesion's own that count as the right ones: there it is blurred, but shows."""
COVERED = 0.75
"""Share of a lesion's body that a patch must cover to show it."""


@dataclass(frozen=True)
class ImageFinding:
    """One test image, one class that it has.

    Attributes:
        breast_id: Its breast.
        label: The class.
        peak_value: Saliency of the most salient cell of the class.
        peak_hit: Whether this cell lies on the lesion, in its slices.
        alone: Whether the image has no lesion of another class.
        patch_hit: Whether the first patch covers the lesion, in its slices. Patches serve both classes
            at once, so where an image has both, one of the first two patches.
        any_patch_hit: Whether one of the K patches does.
        segmentation: DSC and PxAP after the maximum over the slices.
    """

    breast_id: str
    label: str
    peak_value: float
    alone: bool
    peak_hit: bool
    patch_hit: bool
    any_patch_hit: bool
    segmentation: SegmentationScore | None


@torch.no_grad()
def examine(
    model: GMIC3D, images: StudyImages, truth: PhantomSet
) -> tuple[list[ImageScore], list[ImageFinding]]:
    """Run a model, in evaluation mode, over all images; the truth is that of their volumes."""
    scores, findings = [], []
    for index, example in enumerate(images.examples):
        output = model(images.volume(index))
        benign, malignant = output.y_final.tolist()
        scores.append(
            ImageScore(
                example.image_id,
                example.breast_id,
                example.patient_id,
                example.labels,
                (benign, malignant),
            )
        )
        for place, label in enumerate(CLASSES):
            if example.labels[place]:
                findings.append(find(model, output, truth.mask(index, label), place, example))
    return scores, findings


def find(
    model: GMIC3D, output: GMIC3DOutput, mask_DHW: NDArray[np.bool_], place: int, example: Example
) -> ImageFinding:
    """Compare what a model made of an image with the lesions of one class that it has.

    Args:
        model: The model.
        output: Of the image.
        mask_DHW: Voxels of the lesions, not empty.
        place: The class, in the order of `gmic.config.CLASSES`.
        example: The image.
    """
    saliency_Dhw = output.saliency_CDHW[place].numpy()
    flat_HW = project_masks(mask_DHW)
    # A projection has one slice, which shows every lesion.
    lesion = LesionBox.around(flat_HW[None] if len(saliency_Dhw) == 1 else mask_DHW)
    field = model.receptive_field
    peak = find_peak(saliency_Dhw, field, output.window_shape)
    patches = model.patch_boxes(output)
    hits = [patch_on_lesion(patch, [lesion], SLICE_MARGIN, COVERED) for patch in patches]
    return ImageFinding(
        example.breast_id,
        CLASSES[place],
        peak.value if peak else 0.0,
        sum(example.labels) == 1,
        peak_on_lesion(peak, [lesion], SLICE_MARGIN),
        any(hits[: sum(example.labels)]),
        any(hits),
        segmentation_score(saliency_Dhw, flat_HW, field),
    )


def summarise(scores: list[ImageScore], findings: list[ImageFinding]) -> dict[str, Any]:
    """The figures of one run, JSON-ready: breast-wise AUC with interval, hits, DSC, PxAP.

    A breast's hit is that of its image with the higher peak.
    """
    breasts = by_breast(scores)
    summary: dict[str, Any] = {"breasts": len(breasts), "images": len(scores)}
    for place, label in enumerate(CLASSES):
        labels_N, scores_N, breasts_N = columns_of(breasts, place)
        estimate = bootstrap_auc(labels_N, scores_N, breasts_N)
        own = [finding for finding in findings if finding.label == label]
        best: dict[str, ImageFinding] = {}
        for finding in own:
            held = best.get(finding.breast_id)
            if held is None or finding.peak_value > held.peak_value:
                best[finding.breast_id] = finding
        mean = mean_score(finding.segmentation for finding in own)
        summary[label] = {
            "auc": estimate.value if estimate else None,
            "auc_low": estimate.low if estimate else None,
            "auc_high": estimate.high if estimate else None,
            "positives": int(labels_N.sum()),
            "peak_on_lesion": _share([f.peak_hit for f in best.values()]),
            "first_patch_on_lesion": _share([f.patch_hit for f in best.values()]),
            "first_patch_on_lesion_alone": _share([f.patch_hit for f in best.values() if f.alone]),
            "any_patch_on_lesion": _share([f.any_patch_hit for f in best.values()]),
            "peak_on_lesion_images": _share([f.peak_hit for f in own]),
            "dsc": mean.dsc if mean else None,
            "pxap": mean.pxap if mean else None,
        }
    return summary


def _share(hits: list[bool]) -> float | None:
    return fmean(hits) if hits else None


def mean_and_spread(
    summaries: Sequence[Mapping[str, Any]], label: str, figure: str
) -> tuple[float, float]:
    """Mean over the seeds of a figure, and its standard deviation (0 with one seed)."""
    values = [float(summary[label][figure]) for summary in summaries]
    mean = fmean(values)
    spread = math.sqrt(fmean((value - mean) ** 2 for value in values))
    return mean, spread
