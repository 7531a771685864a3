"""The command behind the paper's external evaluation: DICOM files of the public Duke set, read by trained weights.

Everything but opening files and loading weights is in `gmic.evaluate.duke_run`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dicom_io.dbt import open_image
from dicom_io.errors import DicomIoError
from gmic import bundle
from gmic.bundle import Bundle
from gmic.errors import DataError
from gmic.evaluate.duke import DukeTables
from gmic.evaluate.duke_reader import VolumeReader
from gmic.evaluate.duke_run import DukeOutcome, evaluate_duke
from node.config import Settings
from node.errors import ConfigError
from workers.importing import Wanted, configurations
from workers.predictor import in_memory


@dataclass(frozen=True)
class DukePlan:
    """What to evaluate.

    `weights` are files of ours, of one model or an ensemble each, or published checkpoints; all their models are
    averaged; none: the configured ones. `top_t` and `patches` are t and K of published checkpoints, one for all or one
    a file (none: see `workers.importing.Wanted`). `draws` random augmentations are averaged for each image (the paper
    takes ten). `limit` reads so many images now and leaves the rest for the next call. `pictures` shows images with
    lesions and the worst cases, which are read once more for it.
    """

    tables: DukeTables
    weights: Sequence[Path] = ()
    draws: int = 0
    limit: int | None = None
    pictures: bool = True
    top_t: Sequence[float] = ()
    patches: Sequence[int] = ()


def run_duke(
    plan: DukePlan, out_dir: Path, settings: Settings, say: Callable[[str], None]
) -> DukeOutcome:
    """Read the set, or what is left of it, and report: scores, predictions, report.json and report.html in a folder.

    Raises:
        ConfigError: no weights, options that do not fit them, a device that is not there, an engine that cannot run.
        WeightsError: weights that cannot be used.
        DataError: bad tables, another run's folder, or no image that could be read.
        OSError: a table cannot be read or a result not be written.
    """
    paths = list(plan.weights) or ([settings.weights] if settings.weights else [])
    if not paths:
        raise ConfigError("no weights to evaluate; give some, or set TOMONODE_WEIGHTS")
    found = _bundles(paths, plan)
    predictors = in_memory([(m, one.info) for one in found for m in one.models], settings)
    model = bundle.called(found) + (f", {plan.draws} draws" if plan.draws else "")
    if settings.engine != "exact":
        model += f", engine {settings.engine}"
    say(f"model {model}")
    return evaluate_duke(
        plan.tables,
        stored_volume,
        VolumeReader(predictors, draws=plan.draws),
        out_dir,
        model=model,
        limit=plan.limit,
        pictures=plan.pictures,
        say=say,
    )


def _bundles(paths: Sequence[Path], plan: DukePlan) -> list[Bundle]:
    """What the files hold: ours by their cards, published checkpoints with t and K."""
    if (plan.top_t or plan.patches) and all(map(bundle.is_ours, paths)):
        raise ConfigError(
            f"{paths[0].name} has a card with its own values; leave out --percent-t and --num-patches"
        )
    wanted = Wanted(paths, None, "", plan.top_t, plan.patches)
    return bundle.load_all(paths, lambda: configurations(wanted))


def stored_volume(path: Path) -> NDArray[Any]:
    """The voxels of a DICOM file (D, H, W), slices in the order they are stored in, as the set's tables count them.

    Raises:
        DataError: no image that can be analysed.
        OSError: the file cannot be read.
    """
    try:
        image = open_image(path)
        volume_DHW = image.read_volume()
    except DicomIoError as error:
        raise DataError(str(error)) from error
    order = np.argsort(image.source_frames)
    return volume_DHW if (np.diff(order) == 1).all() else volume_DHW[order]
