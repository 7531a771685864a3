"""A 3D-GMIC that trains in milliseconds, images it can learn from, and folders of them."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from gmic.config import GMIC3DConfig
from gmic.model import GMIC3D
from gmic.train.data import Example, MemorySet
from gmic.train.initialise import initialise
from gmic.train.settings import TrainConfig

TINY = GMIC3DConfig(
    window_shape=(96, 64),
    patch_size=16,
    num_patches=2,
    top_t_fraction=0.1,
    slice_margin=1,
    stem_channels=8,
    stage_channels=(8, 8),
    stage_strides=(1, 2),
    blocks_per_stage=1,
    norm_groups=4,
    attention_channels=8,
    local_channels=(8, 8, 8, 8),
)

SHORT = TrainConfig(learning_rate=1e-3, epochs=3, batch=4, seed=3, checkpoint_every=2)


def tiny_model(seed: int = 1) -> GMIC3D:
    """Weights from a seed, ready to train."""
    model = GMIC3D(TINY)
    initialise(model, seed, omega=0.05)
    return model


def images(count: int, first: int = 0, depth: int = 3) -> MemorySet:
    """Noise (D, 96, 64); malignant ones hold a bright square in one slice, benign ones a dark one.

    Image n is of patient n; every fourth is malignant, every fourth benign, and so on.
    """
    examples, volumes = [], []
    for n in range(first, first + count):
        rng = np.random.default_rng([7, n])
        volume = rng.standard_normal((depth, 96, 64)).astype(np.float32)
        row, col, d = rng.integers((4, 4, 0), (76, 44, depth))
        labels = (int(n % 4 == 2), int(n % 4 == 0))
        volume[d, row : row + 16, col : col + 16] += 6 * (labels[1] - labels[0])
        examples.append(Example(f"i{n}", f"b{n}", f"p{n}", labels, birads=sum(labels) + labels[1]))
        volumes.append(volume)
    return MemorySet(examples, volumes)


def write_folder(folder: Path, train: int = 12, valid: int = 8, depth: int = 3) -> Path:
    """Put images and their index in a folder, as `gmic.train.data.FolderSet` reads it."""
    folder.mkdir(parents=True)
    every = images(train + valid, depth=depth)
    with (folder / "index.csv").open("w", newline="") as file:
        out = csv.writer(file)
        names = "file image_id breast_id patient_id benign malignant birads split"
        out.writerow(names.split())
        for n, e in enumerate(every.examples):
            np.save(folder / f"{e.image_id}.npy", every.volume(n))
            split = "train" if n < train else "valid"
            ids = (f"{e.image_id}.npy", e.image_id, e.breast_id, e.patient_id)
            out.writerow([*ids, *e.labels, e.birads, split])
    return folder
