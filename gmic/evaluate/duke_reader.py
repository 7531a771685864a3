"""From a volume as it is stored to what one model, or several, say of it: scores and boxes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gmic.engine.augmented import predict_augmented
from gmic.engine.ensemble import Ensemble
from gmic.errors import DataError
from gmic.evaluate.froc import LEAST_REACH, SLICE_SHARE
from gmic.evaluate.localisation import LesionBox
from gmic.evaluate.pictures import Reading, saliency_sheet
from gmic.geometry import PatchBox, ReceptiveField
from gmic.inference import Predictor
from gmic.preprocess import Preprocessed, preprocess
from gmic.window import WindowTransform


class FoundBox(NamedTuple):
    """A suspicious place in one slice: half-open, in the rows and columns of the volume."""

    slice_index: int
    row0: int
    col0: int
    row1: int
    col1: int
    score: float
    """Highest saliency of either class in the box, in [0, 1)."""


@dataclass(frozen=True)
class VolumeReading:
    """What was said of one volume."""

    scores: tuple[float, float]
    """Benign, malignant."""
    boxes: tuple[FoundBox, ...]


class VolumeReader:
    """Reads whole volumes: window, models, boxes. The scores of several models are averaged.

    Args:
        predictors: One, or the members of an ensemble; all with one window shape.
        draws: Random augmentations to average at test time (the paper takes ten); 0 reads the
            window once, as it is. Every volume gets the same draws, whatever the order.
        seed: Of the draws.

    Raises:
        ConfigError: No predictor.
        DataError: Different window shapes, or a negative number of draws.
    """

    def __init__(self, predictors: Sequence[Predictor], *, draws: int = 0, seed: int = 0) -> None:
        self._ensemble = Ensemble(predictors)
        shapes = {predictor.config.window_shape for predictor in predictors}
        if len(shapes) > 1:
            raise DataError(f"the models have windows of {sorted(shapes)}; give models with one")
        if draws < 0:
            raise DataError(f"draws is {draws}; it must be at least 0")
        (self._window_shape,) = shapes
        self._draws, self._seed = draws, seed

    def __call__(self, volume_DHW: NDArray[Any], laterality: str, view: str) -> VolumeReading:
        """Read a volume in its right orientation.

        Raises:
            InputError: See `gmic.preprocess.preprocess` and `gmic.model.GMIC3D.forward`.
            DeviceMemoryError: The device ran out of memory.
        """
        window_DHW, transform = self._window(volume_DHW, laterality, view)
        plain = self._ensemble.predict(window_DHW)
        y_final = plain.y_final
        if self._draws:
            rng = np.random.default_rng(self._seed)
            y_final = predict_augmented(self._ensemble, window_DHW, rng, self._draws).y_final
        found: list[FoundBox] = []
        for predictor, output in zip(self._ensemble.predictors, plain.members, strict=True):
            model = predictor.model
            saliency = output.saliency_CDHW.float().numpy()
            patches = model.patch_boxes(output)
            found += boxes_of(patches, saliency, model.receptive_field, transform)
        benign, malignant = y_final.tolist()
        return VolumeReading((benign, malignant), strongest(found, len(volume_DHW)))

    def picture(
        self,
        volume_DHW: NDArray[Any],
        laterality: str,
        view: str,
        lesions: Sequence[tuple[str, LesionBox]] = (),
        title: str = "",
    ) -> Image.Image:
        """The saliency of the first model, over slices; `lesions` in the volume's rows and columns.

        Raises:
            InputError, DeviceMemoryError: As above.
        """
        window_DHW, transform = self._window(volume_DHW, laterality, view)
        predictor = self._ensemble.predictors[0]
        output = predictor.predict(window_DHW)
        model = predictor.model
        reading = Reading(
            window_DHW,
            output.saliency_CDHW.float().numpy(),
            model.receptive_field,
            model.patch_boxes(output),
            tuple((name, to_window(box, transform)) for name, box in lesions),
            title,
        )
        return saliency_sheet(reading, height=240, most=4)

    def _window(self, volume_DHW: NDArray[Any], laterality: str, view: str) -> Preprocessed:
        return preprocess(volume_DHW, laterality, view, window_shape=self._window_shape)


def boxes_of(
    patches: Sequence[PatchBox],
    saliency_CDhw: NDArray[np.floating],
    field: ReceptiveField,
    transform: WindowTransform,
) -> list[FoundBox]:
    """The patches as boxes of the volume, each with the highest saliency of the cells centred in it.

    A patch without a cell's centre, or in the padding altogether, gives no box.
    """
    rows = np.array(field.cell_centres(saliency_CDhw.shape[2]))
    cols = np.array(field.cell_centres(saliency_CDhw.shape[3]))
    found = []
    for patch in patches:
        inside_rows = (rows >= patch.row0) & (rows < patch.row1)
        inside_cols = (cols >= patch.col0) & (cols < patch.col1)
        cells = saliency_CDhw[:, patch.slice_index][:, inside_rows][:, :, inside_cols]
        box = transform.box_to_source(patch.row0, patch.col0, patch.row1, patch.col1)
        if cells.size and box[0] < box[2] and box[1] < box[3]:
            found.append(FoundBox(patch.slice_index, *box, score=float(cells.max())))
    return found


def strongest(found: Sequence[FoundBox], slices: int) -> tuple[FoundBox, ...]:
    """Boxes by score, without those whose centre lies near that of a higher one.

    Near is what the benchmark calls the same place: `LEAST_REACH` pixels and a quarter of the slices.
    """
    kept: list[FoundBox] = []
    for box in sorted(found, key=lambda each: -each.score):
        if not any(
            _apart(box, other) <= LEAST_REACH
            and abs(box.slice_index - other.slice_index) <= slices * SLICE_SHARE
            for other in kept
        ):
            kept.append(box)
    return tuple(kept)


def _apart(one: FoundBox, other: FoundBox) -> float:
    down = one.row0 + one.row1 - other.row0 - other.row1
    across = one.col0 + one.col1 - other.col0 - other.col1
    return math.hypot(down, across) / 2


def to_window(box: LesionBox, transform: WindowTransform) -> LesionBox:
    """A half-open box of the volume in window pixels; it may leave the window."""
    row0, col0 = transform.to_window(box.row0, box.col0)
    row1, col1 = transform.to_window(box.row1 - 1, box.col1 - 1)
    col0, col1 = min(col0, col1), max(col0, col1)
    return LesionBox(box.slice0, row0, col0, box.slice1, row1 + 1, col1 + 1)
