"""Small breasts with one bright voxel, written as DICOM: the least that the reader and the crop accept."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pydicom
from numpy.typing import NDArray

from dicom_io.phantom import PhantomView, write_study

BRIGHT = 4000


def breast(laterality: str, shape: tuple[int, int, int], seed: int = 0) -> NDArray[np.uint16]:
    """Half an ellipse of noise at the chest wall's side, background 0: uint16 (D, H, W)."""
    _, height, width = shape
    rows = (np.arange(height)[:, None] - height / 2) / (0.42 * height)
    cols = np.arange(width)[None, :] / (0.8 * width)
    noise = np.random.default_rng(seed).integers(600, 1400, shape, dtype=np.uint16)
    volume = noise * (rows**2 + cols**2 < 1).astype(np.uint16)
    return volume if laterality == "L" else np.ascontiguousarray(volume[:, :, ::-1])


def write_marked(
    folder: Path,
    laterality: Literal["L", "R"],
    view: str,
    shape: tuple[int, int, int],
    mark: tuple[int, int, int],
    *,
    turned: bool = False,
    seed: int = 1,
) -> Path:
    """A DICOM file whose stored frame, row and column `mark` is the brightest; `turned` stores it by half a turn."""
    volume = breast(laterality, shape)
    if turned:
        volume = np.ascontiguousarray(volume[:, ::-1, ::-1])
    volume[mark] = BRIGHT
    study = write_study(folder, [PhantomView(laterality, view, volume, (0.1, 0.1))], seed=seed)
    return study.files[0]


def shuffle_frames(path: Path) -> None:
    """Give every frame another's place in the stack, so that four frames are not stored in their order."""
    dataset = pydicom.dcmread(path)
    groups = dataset.PerFrameFunctionalGroupsSequence
    dataset.PerFrameFunctionalGroupsSequence = [groups[place] for place in (2, 0, 3, 1)]
    dataset.save_as(path)
