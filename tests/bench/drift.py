"""How far the bfloat16 engine is from the exact one: on the goldens and on seeded full windows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gmic.config import GMIC3DConfig
from gmic.engine.reduced import in_bfloat16
from gmic.model import GMIC3D, GMIC3DOutput
from gmic.untrained import synthetic_slice
from gmic.weights import seeded
from tests.support.goldens import NAMES, golden
from tests.support.shared import shared_root

SEEDS = (7, 11, 23)
Case = tuple[str, GMIC3D, NDArray[np.float32]]


def measure(quick: bool) -> list[dict[str, Any]]:
    """One row a case; the goldens are left out where the reference data is not there."""
    rows = []
    for name, model, volume_DHW in _cases(quick):
        rows.append({"case": name, **drift(model(volume_DHW), in_bfloat16(model)(volume_DHW))})
    return rows


def drift(exact: GMIC3DOutput, other: GMIC3DOutput) -> dict[str, float]:
    """What differs; patches count that are at the same slice and corner."""
    here, there = _picks(exact), _picks(other)
    return {
        "saliency_max": _furthest(exact.saliency_CDHW, other.saliency_CDHW),
        "saliency_mean": (exact.saliency_CDHW - other.saliency_CDHW).abs().mean().item(),
        "global": _furthest(exact.y_global, other.y_global),
        "local": _furthest(exact.y_local, other.y_local),
        "final": _furthest(exact.y_final, other.y_final),
        "patches": len(here),
        "same_patches": len(set(here) & set(there)),
        "same_order": sum(one == two for one, two in zip(here, there, strict=False)),
    }


def _cases(quick: bool) -> Iterator[Case]:
    if (shared_root() / "goldens").exists():
        for name in NAMES:
            case = golden(name)
            yield f"golden {name}", case.model, case.volume_DHW
    for seed in SEEDS[: 1 if quick else None]:
        model, _ = seeded(GMIC3DConfig(), seed)
        slices = 2 if quick else 8
        yield f"seed {seed}, {slices} slices", model, _window(model.config, slices, seed)


def _window(config: GMIC3DConfig, slices: int, seed: int) -> NDArray[np.float32]:
    """A breast-like slice that moves from slice to slice, with noise, standardised."""
    rng = np.random.default_rng(seed)
    plain_HW = synthetic_slice(config.window_shape).astype(np.float32)
    shape = (slices, *config.window_shape)
    window_DHW = 0.2 * rng.standard_normal(shape, np.float32)
    for d in range(slices):
        window_DHW[d] += np.roll(plain_HW, 40 * d, axis=0)
    standardised: NDArray[np.float32] = (window_DHW - window_DHW.mean()) / window_DHW.std()
    return standardised


def _furthest(one: torch.Tensor, other: torch.Tensor) -> float:
    return (one - other).abs().max().item()


def _picks(output: GMIC3DOutput) -> list[tuple[int, ...]]:
    """Slice, row and column of the patches that were picked for their saliency, in order."""
    found = zip(
        output.patch_slices.tolist(),
        output.patch_corners.tolist(),
        output.patch_scores.tolist(),
        strict=True,
    )
    return [(d, *corner) for d, corner, score in found if score > 0]
