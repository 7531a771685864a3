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
from gmic.errors import DataError
from gmic.evaluate.duke import DukeTables
from gmic.evaluate.duke_reader import VolumeReader
from gmic.evaluate.duke_run import DukeOutcome, evaluate_duke
from gmic.inference import Predictor
from node.config import Settings
from node.errors import ConfigError


@dataclass(frozen=True)
class DukePlan:
    """What to evaluate.

    `weights` are the members of an ensemble, or one file; none: the configured ones. `draws` random augmentations are
    averaged for each image (the paper takes ten). `limit` reads so many images now and leaves the rest for the next
    call. `pictures` shows the worst cases, which are read once more for it.
    """

    tables: DukeTables
    weights: Sequence[Path] = ()
    draws: int = 0
    limit: int | None = None
    pictures: bool = True


def run_duke(
    plan: DukePlan, out_dir: Path, settings: Settings, say: Callable[[str], None]
) -> DukeOutcome:
    """Read the set, or what is left of it, and report: scores, predictions, report.json and report.html in a folder.

    Raises:
        ConfigError: no weights, or a device that is not there.
        WeightsError: weights that cannot be used.
        DataError: bad tables, another run's folder, or no image that could be read.
        OSError: a table cannot be read or a result not be written.
    """
    paths = list(plan.weights) or ([settings.weights] if settings.weights else [])
    if not paths:
        raise ConfigError("no weights to evaluate; give some, or set TOMONODE_WEIGHTS")
    device = None if settings.device == "auto" else settings.device
    predictors = [
        Predictor.from_file(path, device=device, threads=settings.threads or None) for path in paths
    ]
    names = [f"{p.info.name} {p.info.version} ({p.info.sha256[:12]})" for p in predictors]
    model = " + ".join(names) + (f", {plan.draws} draws" if plan.draws else "")
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
