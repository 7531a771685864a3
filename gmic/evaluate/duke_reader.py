"""From a volume as it is stored to what one model, or several, say of it: scores and boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gmic.engine.augmented import predict_augmented
from gmic.engine.ensemble import Ensemble
from gmic.errors import DataError
from gmic.evaluate.found import FoundBox, boxes_of, strongest, to_window
from gmic.evaluate.localisation import LesionBox
from gmic.evaluate.pictures import Reading, saliency_sheet
from gmic.inference import Predictor
from gmic.preprocess import Preprocessed, preprocess


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
