"""Outputs of the published code, and the seeded models and volumes they belong to."""

from __future__ import annotations

import importlib.util
import json
from types import ModuleType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gmic.config import GMIC3DConfig
from gmic.model import GMIC3D
from gmic.weights import load_published
from tests.support.shared import shared_path, shared_root

KNOWN = ["a_d1_700x500_k8_t0.3", "d_d20_700x500_k12_t2.29", "g_d1_512x384_k16_t1.0_exhaust"]
FOUND = [path.stem for path in (shared_root() / "goldens").glob("?_d*.npz")]
NAMES = sorted({*KNOWN, *(name for name in FOUND if not name.endswith("_nan"))})
NAN = "h_d1_700x500_k8_t0.3_nan"
"""A class is constant here: the published code divides 0 by 0."""


class Golden(NamedTuple):
    """One case."""

    model: GMIC3D
    volume_DHW: NDArray[np.float32]
    published: dict[str, NDArray[np.float64]]
    """What the published code made of it."""


def golden(name: str) -> Golden:
    """The case of that name; skips the calling test where the reference data is not there."""
    with np.load(shared_path("goldens", f"{name}.npz")) as file:
        published = {key: file[key] for key in file.files}
    seeded, seed = _seeded(), int(published["seed"])
    shapes = json.loads(shared_path("goldens", "state_dict_keys.json").read_text())["shapes"]
    model = GMIC3D(
        GMIC3DConfig(
            num_patches=int(published["K"]),
            top_t_fraction=float(published["percent_t"]),
            slice_margin=10,
        )
    )
    load_published(model, seeded.fill(shapes, seed))
    volume_DHW = seeded.input(seed, *(int(published[n]) for n in "DHW"))
    return Golden(model, volume_DHW, published)


def seeded_state(shapes: dict[str, list[int]], seed: int) -> dict[str, NDArray[np.float32]]:
    """A state dict with these names and shapes, drawn from a seed; skips where the reference data is not there."""
    state: dict[str, NDArray[np.float32]] = _seeded().fill(shapes, seed)
    return state


def seeded_input(seed: int, depth: int, rows: int, cols: int) -> NDArray[np.float32]:
    """A standardised window (D, H, W), drawn from a seed."""
    window_DHW: NDArray[np.float32] = _seeded().input(seed, depth, rows, cols)
    return window_DHW


def _seeded() -> ModuleType:
    spec = importlib.util.spec_from_file_location("seeded", shared_path("goldens", "seeded.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
