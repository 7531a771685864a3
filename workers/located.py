"""How well versions find the lesions that readers drew on a test split: pure, from looks to figures and tables.

- Masks: DSC and PxAP (`gmic.evaluate.segmentation`) an image and class, after the maximum over the slices, in the
  window that the version read; the mean over the images. A mask that lies outside of the window altogether counts as 0.
- Boxes: FROC (`gmic.evaluate.froc`) of the version's patches, scored by the saliency in them. A mask is there by the
  box on its largest frame. Images with a proven finding that nobody drew are left out: a find there is not false.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dicom_io.findings import LABELS
from gmic.evaluate import charts
from gmic.evaluate.froc import RATES, TIE_RATE, FrocResult, Prediction, TrueBox, Volume, froc
from gmic.evaluate.report import Table, some_of_each
from gmic.evaluate.segmentation import SegmentationScore, mean_score, segmentation_score
from node.learning_models import DatasetItem
from workers.lesions import Lesion, Lesions, volume_box, window_mask
from workers.looks import Look, Saliency

NOTHING_DRAWN = (
    "No image of the test split has a mask or a box: where the models look was not measured"
    " (`tomonode label mask`, `tomonode label box`)."
)


@dataclass(frozen=True)
class Located:
    """Figures for the summary, JSON-ready, and what the page shows of them."""

    summary: dict[str, Any] = field(
        default_factory=lambda: {"annotations": None, "segmentation": [], "detection": []}
    )
    tables: tuple[Table, ...] = ()
    charts: tuple[tuple[str, str], ...] = ()
    lines: tuple[str, ...] = (NOTHING_DRAWN,)
    gallery: tuple[tuple[str, str], ...] = ()
    """Captions and SOP Instance UIDs of some images with lesions."""


@dataclass(frozen=True)
class Read:
    """The images of a test split as every version read them."""

    items: Sequence[DatasetItem]
    looks: Mapping[str, Mapping[str, Look]]
    """By version and SOP Instance UID."""
    saliency: Callable[[str, DatasetItem], Saliency]
    """Of a version, for an image with a mask."""


def locate(versions: Sequence[str], read: Read, lesions: Lesions) -> Located:
    """Compare what versions found with what was drawn; the figures of nothing where no image has a lesion."""
    here = {item.sop_uid: lesions[item.sop_uid] for item in read.items if item.sop_uid in lesions}
    if not here:
        return Located()
    drawn = [lesion for each in here.values() for lesion in each]
    masks = sum(lesion.outline is not None for lesion in drawn)
    segmentation = list(_segmentation(versions, read, here)) if masks else []
    detection = {version: _detection(read, read.looks[version], here) for version in versions}
    curves = [(version, found.with_lesions) for version, found in detection.items()]
    return Located(
        {
            "annotations": {"images": len(here), "lesions": len(drawn), "masks": masks},
            "segmentation": segmentation,
            "detection": [_detection_json(v, found) for v, found in detection.items()],
        },
        (*([_segmentation_table(segmentation)] if masks else []), _detection_table(detection)),
        (("Detection, images with lesions", charts.froc_chart(curves)),),
        (
            f"Readers drew {len(drawn)} lesions on {len(here)} images of the split, {masks} of them as masks; no model"
            " learned from them.",
        ),
        tuple(_gallery(versions[0], read, here)),
    )


def _gallery(version: str, read: Read, lesions: Lesions) -> Iterator[tuple[str, str]]:
    """Some of the images that were drawn on, with what a version says of them."""
    items = {item.sop_uid: item for item in read.items if item.sop_uid in lesions}
    labels = {uid: {lesion.label for lesion in lesions[uid]} for uid in items}
    ids: dict[str, list[str]] = {
        name: [uid for uid in items if name in labels[uid]] for name in LABELS
    }
    for uid in some_of_each(ids):
        benign, malignant = read.looks[version][uid].scores
        drawn = ", ".join(sorted(labels[uid], reverse=True))
        where = f"{items[uid].laterality} {items[uid].view}"
        yield (
            f"{where}, drawn: {drawn}; {version} scores {malignant:.3f} malignant, {benign:.3f} benign",
            uid,
        )


def _segmentation(
    versions: Sequence[str], read: Read, lesions: Lesions
) -> Iterator[dict[str, Any]]:
    for c, label in reversed(list(enumerate(LABELS))):
        for version in versions:
            scores = []
            for item in read.items:
                look = read.looks[version][item.sop_uid]
                mask_hw = window_mask(lesions.get(item.sop_uid, ()), label, look)
                if mask_hw is not None:
                    saliency_Dhw = read.saliency(version, item)[c]
                    score = segmentation_score(saliency_Dhw, mask_hw, look.field)
                    scores.append(score or SegmentationScore(0.0, 0.0))
            mean = mean_score(scores)
            if mean is not None:
                yield {
                    "class": label,
                    "version": version,
                    "images": len(scores),
                    "dsc": mean.dsc,
                    "pxap": mean.pxap,
                }


def _detection(read: Read, looks: Mapping[str, Look], lesions: Lesions) -> FrocResult:
    predictions: list[Prediction] = []
    truth: list[TrueBox] = []
    volumes: set[Volume] = set()
    for item in read.items:
        drawn, look = lesions.get(item.sop_uid, ()), looks[item.sop_uid]
        if not drawn and (item.benign or item.malignant):
            continue
        volume = Volume(item.patient, item.study_uid, item.sop_uid)
        volumes.add(volume)
        predictions += [box.prediction(volume) for box in look.boxes]
        truth += [_true_box(volume, lesion, look) for lesion in drawn]
    return froc(predictions, truth, volumes)


def _true_box(volume: Volume, lesion: Lesion, look: Look) -> TrueBox:
    box = volume_box(lesion, look)
    # The middle of the slice, as a prediction's z + depth / 2 is: in an image of one slice half a slice would miss.
    return TrueBox(
        volume,
        x=box.col0,
        y=box.row0,
        width=box.col1 - box.col0,
        height=box.row1 - box.row0,
        slice_index=box.slice0 + 0.5,
        slices=len(look.frames),
    )


def _detection_json(version: str, found: FrocResult) -> dict[str, Any]:
    return {
        "version": version,
        "lesions": found.with_lesions.lesions,
        "images_with_lesions": found.with_lesions.volumes,
        "images": found.all_volumes.volumes,
        "mean_sensitivity": found.mean_sensitivity,
        "sensitivity": {f"{rate:g}": found.with_lesions.at(rate) for rate in RATES},
        f"sensitivity_all_at_{TIE_RATE:g}": found.sensitivity_all,
    }


def _segmentation_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    header = ("class", "model", "images", "DSC", "PxAP")
    shown = [
        (r["class"], r["version"], str(r["images"]), f"{r['dsc']:.3f}", f"{r['pxap']:.3f}")
        for r in rows
    ]
    note = (
        "Means over the images with a mask of the class, after the maximum over slices, in the window the model reads."
        " DSC has no threshold and falls with a timid map; PxAP is average precision over pixels. Few images prove"
        " little: there are no intervals."
    )
    return Table("Outlines of lesions", header, tuple(shown), note)


def _detection_table(detection: Mapping[str, FrocResult]) -> Table:
    header = (
        "model",
        "lesions",
        "images",
        *(f"at {rate:g}" for rate in RATES),
        "mean",
        "all images",
    )
    rows = []
    for version, found in detection.items():
        curve = found.with_lesions
        figures = [f"{curve.at(rate):.3f}" for rate in RATES]
        last = (f"{found.mean_sensitivity:.3f}", f"{found.sensitivity_all:.3f}")
        rows.append((version, str(curve.lesions), str(curve.volumes), *figures, *last))
    note = (
        "Share of lesions found at so many false boxes an image, in images with lesions, by the rule of the open"
        f" benchmark; last at {TIE_RATE:g} in all images that are free of findings or drawn on."
    )
    return Table("Detection of lesions", header, tuple(rows), note)
