"""What the evaluation on the public Duke set reports."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

from gmic.config import CLASSES
from gmic.evaluate import charts, report
from gmic.evaluate.duke import DukeImage, LeftOut, counted
from gmic.evaluate.froc import RATES, TIE_RATE, FrocResult, froc, read_predictions
from gmic.evaluate.scores import ImageScore

PAPER = (
    "The paper reports image-wise AUCs of 0.848 (0.798–0.896) malignant and 0.741 (0.697–0.785) "
    "benign on 19,148 images of this set."
)


def write_duke_report(
    out: Path,
    model: str,
    images: Sequence[DukeImage],
    scores: Sequence[ImageScore],
    left_out: Sequence[LeftOut],
    picture_of: report.Picture,
) -> tuple[Path, Path]:
    """Write the report on all images that have scores; their boxes are in predictions.csv.

    Returns:
        report.json and report.html.

    Raises:
        DataError, OSError: A file of the run that cannot be read or written.
    """
    names = {score.image_id for score in scores}
    found = _detection(out, [image for image in images if image.image_id in names])
    picture_of = cache(picture_of)  # a case can be among the worst of both classes
    reasons = ", ".join(f"{n} {kind}" for kind, n in counted(left_out).items())
    extras = report.Extras(
        title="3D-GMIC on the public Duke set (BCS-DBT)",
        about=(
            f"Model {model}. {len(scores)} images were read, {len(left_out)} left out"
            + (f": {reasons}." if reasons else "."),
            "An image is malignant or benign where a biopsy proved such a lesion in it.",
            PAPER,
        ),
        tables=(
            *([_detection_table(found)] if found else []),
            *([_left_out_table(left_out)] if left_out else []),
        ),
        charts=_detection_charts(found),
        gallery=report.gallery_of(_with_lesions(images, scores), picture_of),
        picture_of=picture_of,
    )
    evaluation = report.evaluate({"3D-GMIC": scores}, breasts_agree=False)
    return report.write_report(out, evaluation, extras)


def _with_lesions(
    images: Sequence[DukeImage], scores: Sequence[ImageScore]
) -> list[tuple[str, str]]:
    """Captions and ids of some images that were read and have boxes."""
    said = {score.image_id: score.scores for score in scores}
    ids: dict[str, list[str]] = {name: [] for name in CLASSES}
    for image in images:
        if image.image_id in said:
            for label in {box.label for box in image.boxes}:
                ids[label].append(image.image_id)
    boxes = {image.image_id: image.boxes for image in images}
    shown = []
    for name in report.some_of_each(ids):
        benign, malignant = said[name]
        lesions = ", ".join(sorted({box.label for box in boxes[name]}, reverse=True))
        scored = f"scores {malignant:.3f} malignant, {benign:.3f} benign"
        shown.append((f"{name}: proven {lesions}; {scored}", name))
    return shown


def _detection(out: Path, read: Sequence[DukeImage]) -> FrocResult | None:
    lesions = [box.lesion for image in read for box in image.boxes]
    volumes = {image.volume for image in read}
    predictions = [p for p in read_predictions(out / "predictions.csv") if p.volume in volumes]
    return froc(predictions, lesions, volumes) if lesions else None


def _detection_charts(found: FrocResult | None) -> tuple[tuple[str, str], ...]:
    if found is None:
        return ()
    curves = [("volumes with lesions", found.with_lesions), ("all volumes", found.all_volumes)]
    return (("Detection (DBTex)", charts.froc_chart(curves)),)


def _detection_table(found: FrocResult) -> report.Table:
    header = ("volumes", *(f"at {rate:g}" for rate in RATES), "mean", "lesions", "images")
    rows = []
    for name, curve in (("with lesions", found.with_lesions), ("all", found.all_volumes)):
        values = [curve.at(rate) for rate in RATES]
        figures = [f"{value:.3f}" for value in (*values, sum(values) / len(values))]
        rows.append((name, *figures, str(curve.lesions), str(curve.volumes)))
    note = (
        "Sensitivity at false positives a volume. The benchmark ranks by the mean over volumes "
        f"with lesions, then by the sensitivity at {TIE_RATE:g} over all."
    )
    return report.Table("Detection (DBTex)", header, tuple(rows), note)


def _left_out_table(left_out: Sequence[LeftOut], most: int = 20) -> report.Table:
    rows = [(each.name, each.kind, each.detail) for each in left_out[:most]]
    note = f"{len(left_out)} altogether; all of them are in left_out.csv."
    return report.Table("Images left out", ("image", "why", "detail"), tuple(rows), note)
