"""Seeded weights without any training: they exercise everything and mean nothing.

A randomly drawn network often lights the background or nothing at all, which shows little of a
pipeline. So the two saliency rows are turned until plain background and average tissue come out at
0, and scaled until about one cell in a hundred of one synthetic slice reaches the threshold.

The same seed gives the same weights on every machine: numbers are drawn with numpy's PCG64, and
the one step that runs the network does so in float64 and rounds its result to a coarse grid.
"""

from __future__ import annotations

import copy
import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from gmic.model import GMIC3D

SEGMENT_THRESHOLD = 0.5
"""Saliency from which a cell counts as part of a finding."""

_LIT_FRACTION = 0.01
_GRID = 2.0**-16
_TINY = 1e-9
_RESIDUAL_GAIN = 0.3
"""Weight of the second norm of a local block: keeps sums over eight blocks near the input's size."""
_CLASSIFIER_GAIN = 0.3
"""Keeps the sigmoid of the local prediction clear of 0 and 1."""

FloatArray = NDArray[np.float64]


def fill(model: GMIC3D, seed: int) -> None:
    """Overwrite all weights of `model` with those of `seed` and set evaluation mode."""
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for name, tensor in sorted(model.state_dict().items()):
            tensor.copy_(torch.from_numpy(_draw(name, tuple(tensor.shape), rng)))
        rows = _calibrated(model, model.saliency_head.conv.weight.double().numpy()[:, :, 0, 0])
        model.saliency_head.conv.weight.copy_(torch.from_numpy(rows)[:, :, None, None])
    model.eval()


def _draw(name: str, shape: tuple[int, ...], rng: np.random.Generator) -> FloatArray:
    """First values of one parameter or buffer."""
    if len(shape) >= 2:
        gain = _CLASSIFIER_GAIN if "classifier" in name else 1.0  # He initialisation otherwise
        return np.asarray(gain * math.sqrt(2 / math.prod(shape[1:])) * rng.standard_normal(shape))
    if name.endswith(("running_var", "weight")):
        return np.full(shape, _RESIDUAL_GAIN if ".bn2." in name and "weight" in name else 1.0)
    return np.zeros(shape)


def _calibrated(model: GMIC3D, rows_CF: FloatArray) -> FloatArray:
    """Saliency weights that answer 0 to background and average tissue, and seldom more."""
    network = copy.deepcopy(model.global_network).double()
    slice_11HW = torch.from_numpy(synthetic_slice(model.config.window_shape))[None, None]
    features: torch.Tensor = network(F.avg_pool2d(slice_11HW, model.config.binning))
    features_FN = features[0].flatten(1).numpy()
    background = features[0, :, 0, -1].numpy()
    tissue = features_FN.mean(axis=1)
    level = math.atanh(SEGMENT_THRESHOLD)
    plain = _orthonormal([background, tissue])
    out = rows_CF.copy()
    for row in out:
        for direction in plain:
            row -= (row @ direction) * direction
        low, high = np.quantile(row @ features_FN, (_LIT_FRACTION, 1 - _LIT_FRACTION))
        peak = high if high > -low else low
        if abs(peak) > _TINY:  # a map of one cell is all background
            row *= level / peak
    return np.asarray(np.round(out / _GRID) * _GRID)


def _orthonormal(vectors: list[FloatArray]) -> list[FloatArray]:
    """Unit vectors at right angles that span what `vectors` span."""
    found: list[FloatArray] = []
    for vector in vectors:
        rest = vector - sum((vector @ unit) * unit for unit in found)
        length = float(np.linalg.norm(rest))
        if length > _TINY:
            found.append(rest / length)
    return found


def synthetic_slice(shape: tuple[int, int]) -> FloatArray:
    """A standardised breast-like slice (H, W): half an ellipse of waves and spots, chest wall left."""
    rng = np.random.default_rng(20)
    rows, cols = shape
    y, x = np.arange(rows) / rows, np.arange(cols) / cols
    image = np.full(shape, 3.0)
    for _ in range(12):
        fy, fx, py, px = rng.uniform((0.5, 0.5, 0, 0), (12, 9, 2 * np.pi, 2 * np.pi))
        image += 0.4 * np.outer(np.cos(2 * np.pi * fy * y + py), np.cos(2 * np.pi * fx * x + px))
    for _ in range(24):
        cy, cx, size, height = rng.uniform((0.15, 0.02, 0.004, 1), (0.85, 0.6, 0.03, 5))
        spot_y = np.exp(-0.5 * ((y - cy) / size) ** 2)
        image += height * np.outer(spot_y, np.exp(-0.5 * ((x - cx) * cols / rows / size) ** 2))
    ellipse = ((y[:, None] - 0.5) / 0.42) ** 2 + (x[None, :] / 0.7) ** 2
    image *= np.clip((1 - ellipse) * 12, 0, 1)
    return np.asarray((image - image.mean()) / image.std())
