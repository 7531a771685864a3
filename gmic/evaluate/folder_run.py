"""A model, or several, measured on a folder of standardised windows: scores, and the report as JSON and as a page.

The folder is one that models are trained from (`gmic.train.data.FolderSet`), so nothing here reads DICOM.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np
from PIL import Image

from gmic.config import CLASSES
from gmic.engine.augmented import predict_augmented
from gmic.engine.ensemble import Ensemble
from gmic.errors import ConfigError, DataError, WeightsError
from gmic.evaluate import report
from gmic.evaluate.pictures import Reading, saliency_sheet
from gmic.evaluate.scores import ImageScore, check_scores, write_scores
from gmic.inference import Predictor
from gmic.train.data import FolderSet

Say = Callable[[str], None]
_SEED = 0


@dataclass(frozen=True)
class FolderPlan:
    """What to evaluate.

    Attributes:
        data: Folder with an index and windows (see `gmic.train.data`).
        split: Its rows that are read.
        draws: Random augmentations averaged for each image (the paper takes ten); 0 reads each once as it is.
        trust_data: Do not read every voxel before the first model does.
        pictures: Show saliency: of images with a finding, and of the worst cases. They are read once more for it.
    """

    data: Path
    split: str
    draws: int = 0
    trust_data: bool = False
    pictures: bool = True


def evaluate_folder(
    plan: FolderPlan,
    predictors: Sequence[Predictor],
    out: Path,
    *,
    model: str,
    say: Say = lambda _line: None,
) -> tuple[Path, Path]:
    """Read every image of a split and write scores.csv, report.json and report.html into a folder.

    Args:
        plan: What to read, and how.
        predictors: One, or the members of an ensemble, whose scores are averaged.
        out: Folder of the results, made where it is missing.
        model: What the report calls the models.
        say: Takes a line for people now and then.

    Returns:
        report.json and report.html.

    Raises:
        ConfigError: No predictor, or a negative number of draws.
        WeightsError: Models that do not read the same window.
        DataError: An index or image that cannot be used, or labels that contradict each other.
        DeviceMemoryError: The device ran out of memory.
        OSError: A result cannot be written.
    """
    ensemble = Ensemble(predictors)
    if plan.draws < 0:
        raise ConfigError(f"draws is {plan.draws}; it must be at least 0")
    images = FolderSet(plan.data, plan.split, _window(predictors))
    _require_usable(images, plan)
    out.mkdir(parents=True, exist_ok=True)
    scores = _read(images, ensemble, plan, say)
    write_scores(out / "scores.csv", scores)
    picture_of = cache(partial(_picture, images, ensemble))
    ids = _with_findings(scores)
    extras = report.Extras(
        title=f"3D-GMIC on the {plan.split} split of {plan.data.resolve().name}",
        about=(f"Model {model}. {len(scores)} images.",),
        gallery=report.gallery_of(ids, picture_of) if plan.pictures else (),
        picture_of=picture_of if plan.pictures else lambda _id: None,
    )
    return report.write_report(out, report.evaluate({"3D-GMIC": scores}), extras)


def _window(predictors: Sequence[Predictor]) -> tuple[int, int]:
    shapes = {predictor.config.window_shape for predictor in predictors}
    if len(shapes) > 1:
        raise WeightsError(f"the models read windows of {sorted(shapes)}; give models of one")
    return shapes.pop()


def _require_usable(images: FolderSet, plan: FolderPlan) -> None:
    """Say what is wrong before hours of reading."""
    blank = [_scored(images, n, (0.0, 0.0)) for n in range(len(images.examples))]
    problems = check_scores(blank) or ([] if plan.trust_data else images.problems())
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise DataError(f"{plan.data}: {problems[0]}{more}")


def _read(images: FolderSet, ensemble: Ensemble, plan: FolderPlan, say: Say) -> list[ImageScore]:
    found, count = [], len(images.examples)
    for n in range(count):
        window_DHW = images.volume(n)
        if plan.draws:
            # Every image gets the same draws, in whatever order images come.
            rng = np.random.default_rng(_SEED)
            y_final = predict_augmented(ensemble, window_DHW, rng, plan.draws).y_final
        else:
            y_final = ensemble.predict(window_DHW).y_final
        benign, malignant = y_final.tolist()
        found.append(_scored(images, n, (benign, malignant)))
        if (n + 1) % 10 == 0 or n + 1 == count:
            say(f"{n + 1} of {count} read")
    return found


def _scored(images: FolderSet, index: int, scores: tuple[float, float]) -> ImageScore:
    one = images.examples[index]
    return ImageScore(one.image_id, one.breast_id, one.patient_id, one.labels, scores)


def _with_findings(scores: Sequence[ImageScore]) -> list[tuple[str, str]]:
    """Captions and ids of some images with a finding."""
    ids = {name: [s.image_id for s in scores if s.labels[c]] for c, name in enumerate(CLASSES)}
    by_id = {score.image_id: score for score in scores}
    shown = []
    for image_id in report.some_of_each(ids):
        one = by_id[image_id]
        proven = [name for c, name in reversed(list(enumerate(CLASSES))) if one.labels[c]]
        benign, malignant = one.scores
        scored = f"scores {malignant:.3f} malignant, {benign:.3f} benign"
        shown.append((f"{image_id}: proven {', '.join(proven)}; {scored}", image_id))
    return shown


def _picture(images: FolderSet, ensemble: Ensemble, image_id: str) -> Image.Image:
    """What the first model saw in an image, which is read once more, as it is."""
    index = next(n for n, e in enumerate(images.examples) if e.image_id == image_id)
    window_DHW, predictor = images.volume(index), ensemble.predictors[0]
    output = predictor.predict(window_DHW)
    model = predictor.model
    saliency_CDhw = output.saliency_CDHW.float().numpy()
    seen = Reading(window_DHW, saliency_CDhw, model.receptive_field, model.patch_boxes(output))
    return saliency_sheet(seen, height=240, most=4)
