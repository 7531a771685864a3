"""Training 3D-GMIC, or GMIC for 2D images, which are volumes of one slice (paper, V-D)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gmic.config import CLASSES
from gmic.errors import DivergedError
from gmic.evaluate.roc import auc
from gmic.model import GMIC3D
from gmic.train import augment, loop
from gmic.train.data import Example, ImageSet, require_both, require_disjoint
from gmic.train.distributed import Group, synchronise_norms
from gmic.train.settings import AUTOCAST, TrainConfig
from gmic.train.step import train_step
from gmic.train.task import Watcher
from gmic.volume import SliceSource
from gmic.weights import WeightsInfo, load, save

__all__ = ["TrainConfig", "TrainResult", "train"]

SEGMENT_THRESHOLD = 0.5
"""Put on the card of new weights; choose a better one by an evaluation."""


@dataclass(frozen=True)
class TrainResult:
    """How a training ended.

    Attributes:
        weights: File with the weights of the best epoch, for `gmic.weights.load`.
        info: Their card.
        best_epoch: The epoch, from 1.
        best_metric: Its validation AUC.
        history: Figures of each epoch, as in `metrics.jsonl`.
        stopped_early: Whether the goal was reached or patience ran out before the epochs did.
    """

    weights: Path
    info: WeightsInfo
    best_epoch: int
    best_metric: float
    history: tuple[Mapping[str, float], ...]
    stopped_early: bool


def train(
    model: GMIC3D,
    train_set: ImageSet,
    valid_set: ImageSet,
    config: TrainConfig,
    out_dir: str | Path,
    *,
    resume: bool = False,
    group: Group | None = None,
    on_progress: Watcher | None = None,
    omega: float | None = None,
) -> TrainResult:
    """Train `model`, in place and on its device, and keep the weights of the best epoch.

    Args:
        model: Filled already (`gmic.train.initialise`, or transferred); ends with the last epoch's
            weights.
        train_set: Images to learn from.
        valid_set: Images of other patients, on which the best epoch is chosen.
        config: How to go about it.
        out_dir: Folder for the training's files (`gmic.train.loop`).
        resume: Go on from the folder's checkpoint, if there is one; the model's own weights then
            do not matter.
        group: The processes of a data-parallel training (`gmic.train.distributed.joined`).
        on_progress: Told after each step and each epoch; what it raises ends the training, which
            can then be resumed: after `gmic.errors.Interrupted` from where it stood, else from the
            last checkpoint.
        omega: Constant that the saliency layer was filled with, where it was: with another one it is
            another training, which cannot be resumed as this one.

    Raises:
        DataError: A set from which a class cannot be learned or measured, or shared patients.
        GmicError: See `gmic.train.loop.run` and `gmic.train.step.train_step`.
    """
    task = _Task(model, train_set, valid_set, config, omega)
    group = group or Group()
    synchronise_norms(model.local_network, group)
    done = loop.run(
        task, config, Path(out_dir), resume=resume, group=group, on_progress=on_progress
    )
    weights = Path(out_dir) / loop.BEST
    return TrainResult(weights=weights, info=load(weights)[1], **vars(done))


def moved(
    images: ImageSet, index: int, config: TrainConfig, rng: np.random.Generator
) -> tuple[SliceSource, NDArray[np.int64] | None]:
    """A training image, augmented, and which of its slices to read (None: all)."""
    volume: SliceSource = images.volume(index)
    if config.augment:
        volume = augment.apply(volume, augment.draw(rng, volume.shape))
    step = min(config.slice_step, volume.shape[0])
    if step == 1:
        return volume, None
    return volume, np.arange(int(rng.integers(step)), volume.shape[0], step)


def digest(examples: Sequence[Example]) -> str:
    """Names a set of examples by ids and labels, without telling them."""
    rows = [[e.image_id, e.breast_id, e.patient_id, e.labels, e.birads] for e in examples]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def label_metrics(
    examples: Sequence[Example], scores_N2: NDArray[np.float64], metric: str
) -> dict[str, float]:
    """Image-wise AUC of each class there are both kinds of, and the `metric` that is wanted.

    Raises:
        DivergedError: A score is not finite.
    """
    if not np.isfinite(scores_N2).all():
        raise DivergedError("validation scores are NaN or infinite; lower the learning rate")
    labels_N2 = np.array([example.labels for example in examples])
    found = {f"auc_{c}": auc(labels_N2[:, i], scores_N2[:, i]) for i, c in enumerate(CLASSES)}
    figures = {name: value for name, value in found.items() if value is not None}
    wanted = [figures[f"auc_{CLASSES[i]}"] for i in metric_classes(metric)]
    return {**figures, "metric": float(np.mean(wanted))}


def metric_classes(metric: str) -> tuple[int, ...]:
    """Places in `CLASSES` that a metric is made of."""
    return (0, 1) if metric == "mean" else (CLASSES.index(metric),)


class _Task:
    """3D-GMIC as the loop sees it."""

    width = len(CLASSES)

    def __init__(
        self,
        model: GMIC3D,
        train_set: ImageSet,
        valid_set: ImageSet,
        config: TrainConfig,
        omega: float | None,
    ) -> None:
        for images, name in ((train_set, "training"), (valid_set, "validation")):
            require_both(images, metric_classes(config.metric), name)
        require_disjoint(train_set, valid_set)
        self.module, self.config, self.omega = model, config, omega
        self.train_set, self.valid_set = train_set, valid_set
        self.sizes = (len(train_set.examples), len(valid_set.examples))

    def identity(self) -> dict[str, Any]:
        """What makes this training another one."""
        return {
            "kind": "gmic3d",
            "model": self.module.config.to_dict(),
            "training images": digest(self.train_set.examples),
            "validation images": digest(self.valid_set.examples),
            **({} if self.omega is None else {"omega": self.omega}),
        }

    def step(self, indices: Sequence[int], rng: np.random.Generator, scale: float) -> float:
        """One constant-memory step on these images."""
        config = self.config
        images = [moved(self.train_set, index, config, rng) for index in indices]
        labels_B2 = torch.tensor([self.train_set.examples[i].labels for i in indices])
        return train_step(
            self.module,
            [volume for volume, _ in images],
            labels_B2,
            config.beta,
            rng,
            autocast_dtype=AUTOCAST[config.autocast],
            scale=scale,
            target_smoothing=config.target_smoothing,
            slice_choice=[slices for _, slices in images],
        ).loss

    def score(self, index: int) -> Sequence[float]:
        """y_final of a validation image."""
        scores: list[float] = self.module(self.valid_set.volume(index)).y_final.tolist()
        return scores

    def measure(self, scores_NS: NDArray[np.float64]) -> dict[str, float]:
        """AUC of each class."""
        return label_metrics(self.valid_set.examples, scores_NS, self.config.metric)

    def save(self, path: Path, epoch: int, metric: float) -> None:
        """The weights with their card."""
        start = f"Started from {self.config.start}. " if self.config.start else ""
        local = self.module.config.has_local_module
        parts = "" if local else "Global module alone, y_final is y_global. "
        patients = len({example.patient_id for example in self.train_set.examples})
        info = WeightsInfo(
            name=self.config.name,
            version="1",
            sha256="",
            trained=True,
            description=(
                f"Trained on {self.sizes[0]} images of {patients} patients; epoch {epoch}, "
                f"{self.config.metric} AUC {metric:.3f} on {self.sizes[1]} validation images. "
                f"{parts}{start}Research use only, not for clinical use."
            ),
            segment_threshold=SEGMENT_THRESHOLD,
            config=self.module.config,
        )
        save(self.module, path, info)
