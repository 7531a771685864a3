"""The published cropping, centring and standardisation, bit for bit, for every stored golden."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gmic.breast import find_crop
from gmic.preprocess import best_centre, max_projection, preprocess
from tests.support.shared import shared_path, shared_root

GOLDENS = sorted(path.name for path in (shared_root() / "goldens").glob("prep_*.npz"))


def make_volume(golden: Any) -> np.ndarray:
    path = shared_path("goldens", "seeded.py")
    spec = importlib.util.spec_from_file_location("seeded", path)
    assert spec is not None
    assert spec.loader is not None
    seeded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(seeded)
    seed, depth, height, width = (int(golden[name]) for name in ("seed", "D", "H", "W"))
    side = str(golden["view"])[0]
    return seeded.volume(seed, depth, height, width, side, bool(golden["noise_background"]))


def sha256(array: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


@pytest.mark.skipif(not GOLDENS, reason="no published preprocessing outputs; set TOMONODE_SHARED")
@pytest.mark.parametrize("name", GOLDENS)
def test_window_is_the_published_one(name: str) -> None:
    golden = np.load(Path(shared_path("goldens", name)))
    laterality, view = str(golden["view"]).split("-")
    volume_DHW = make_volume(golden)
    assert sha256(volume_DHW) == str(golden["vol_sha256"]), "the input itself differs"

    projection = max_projection(volume_DHW)
    turned = projection[:, ::-1] if laterality == "R" else projection
    crop = find_crop(turned)
    row0, col0, row1, col1 = crop.box
    columns = (
        (col0, col1) if laterality == "L" else (turned.shape[1] - col1, turned.shape[1] - col0)
    )
    assert [row0, row1, *columns] == golden["window_location"].tolist()
    assert crop.rightmost_col == int(golden["rightmost_x"])
    assert crop.bottommost_row == int(golden["bottommost_y"])
    centre = best_centre(
        turned[row0:row1, col0:col1],
        (2116, 1339),
        reach_row=crop.bottommost_row if view == "MLO" else 0,
        reach_col=crop.rightmost_col,
    )
    assert list(centre) == golden["best_center"].tolist()

    window_DHW, transform = preprocess(volume_DHW, laterality=laterality, view=view)
    assert window_DHW.dtype == np.float32
    assert window_DHW.flags.c_contiguous
    assert window_DHW.shape == tuple(golden["out_shape"]) == transform.window_shape
    assert sha256(window_DHW) == str(golden["out_sha256"])
