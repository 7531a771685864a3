"""Pre-training: the training around `gmic.train.pretrain_step`, its files, and the transfer onwards."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import nn

from gmic.config import GMIC3DConfig
from gmic.errors import DataError, DivergedError, WeightsError
from gmic.evaluate.roc import auc
from gmic.model import GMIC3D
from gmic.train import loop
from gmic.train.checkpoint import write_atomically
from gmic.train.data import ImageSet, require_both, require_disjoint
from gmic.train.distributed import Group
from gmic.train.pretrain_step import PretrainConfig, Pretrainer, birads_group, pretrain_step
from gmic.train.settings import AUTOCAST, TrainConfig
from gmic.train.task import Watcher
from gmic.train.trainer import digest, label_metrics, metric_classes, moved

__all__ = [
    "PretrainConfig",
    "PretrainResult",
    "Pretrainer",
    "birads_group",
    "load_pretrained",
    "pretrain",
    "pretrain_step",
    "save_pretrained",
    "transfer",
]

FORMAT = "gmic-pretrained-1"


@dataclass(frozen=True)
class PretrainResult:
    """How a pre-training ended; fields as in `gmic.train.trainer.TrainResult`."""

    weights: Path
    best_epoch: int
    best_metric: float
    history: tuple[Mapping[str, float], ...]
    stopped_early: bool


def pretrain(
    net: Pretrainer,
    train_set: ImageSet,
    valid_set: ImageSet,
    config: TrainConfig,
    out_dir: str | Path,
    *,
    resume: bool = False,
    group: Group | None = None,
    on_progress: Watcher | None = None,
) -> PretrainResult:
    """Pre-train `net`, in place and on its device; arguments and files as for `gmic.train.trainer.train`.

    The best epoch is that with the highest validation AUC: for BI-RADS the mean over the groups of
    one against the others, for labels `config.metric`.

    Raises:
        DataError: Images without a target, all alike, or patients in both sets.
        GmicError: See `gmic.train.loop.run`.
    """
    task = _Task(net, train_set, valid_set, config)
    done = loop.run(
        task, config, Path(out_dir), resume=resume, group=group, on_progress=on_progress
    )
    return PretrainResult(weights=Path(out_dir) / loop.BEST, **vars(done))


def save_pretrained(net: Pretrainer, path: Path) -> None:
    """Write `net` as safetensors with its configuration; the same weights give the same bytes."""
    card = {"format": FORMAT, "model": net.model_config.to_dict(), "pretrain": vars(net.config)}
    tensors = {k: v.detach().cpu().contiguous() for k, v in net.state_dict().items()}
    metadata = {"gmic": json.dumps(card, sort_keys=True)}
    write_atomically(path, safetensors.torch.save(tensors, metadata))


def load_pretrained(path: str | Path) -> Pretrainer:
    """Read what `save_pretrained` wrote.

    Raises:
        WeightsError: The file cannot be read, is damaged or foreign.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
        tensors = safetensors.torch.load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        card = json.loads(header["__metadata__"]["gmic"])
        if card["format"] != FORMAT:
            raise WeightsError(f"{path} has format {card['format']!r}, not {FORMAT}")
        net = Pretrainer(GMIC3DConfig.from_dict(card["model"]), PretrainConfig(**card["pretrain"]))
        net.load_state_dict(tensors)
    except OSError as error:
        raise WeightsError(f"cannot read weights file {path}: {error.strerror}") from error
    except WeightsError:
        raise
    except (
        SafetensorError, LookupError, TypeError, ValueError, ArithmeticError, AttributeError, RuntimeError
    ) as error:  # fmt: skip
        raise WeightsError(f"{path} holds no pre-trained network, or is damaged") from error
    return net


def transfer(source: Pretrainer | GMIC3D, target: Pretrainer | GMIC3D) -> None:
    """Copy the global network; everything, where both are models, or pre-trainings of one kind.

    Raises:
        WeightsError: The networks have other shapes.
    """
    have: nn.Module = source.global_network
    want: nn.Module = target.global_network
    models = isinstance(source, GMIC3D) and isinstance(target, GMIC3D)
    if models or _kind(source) == _kind(target) is not None:
        have, want = source, target
    try:
        want.load_state_dict(have.state_dict())
    except RuntimeError as error:
        raise WeightsError(
            "the weights to start from belong to a network of other channels than the model; "
            "give both the same"
        ) from error


def _kind(network: Pretrainer | GMIC3D) -> PretrainConfig | None:
    return network.config if isinstance(network, Pretrainer) else None


class _Task:
    """Pre-training as the loop sees it."""

    def __init__(
        self, net: Pretrainer, train_set: ImageSet, valid_set: ImageSet, config: TrainConfig
    ) -> None:
        self.module, self.config = net, config
        self.train_set, self.valid_set = train_set, valid_set
        self.width = net.config.outputs
        self.sizes = (len(train_set.examples), len(valid_set.examples))
        for images, name in ((train_set, "training"), (valid_set, "validation")):
            if net.config.target == "labels":
                require_both(images, metric_classes(config.metric), name)
            else:
                _require_groups(images, net.config.birads_classes, name)
        require_disjoint(train_set, valid_set)

    def identity(self) -> dict[str, Any]:
        """What makes this training another one."""
        return {
            "kind": "pretrain",
            "model": self.module.model_config.to_dict(),
            "pretrain": vars(self.module.config),
            "training images": digest(self.train_set.examples),
            "validation images": digest(self.valid_set.examples),
        }

    def step(self, indices: Sequence[int], rng: np.random.Generator, scale: float) -> float:
        """One constant-memory step on these images."""
        images = [moved(self.train_set, index, self.config, rng) for index in indices]
        return pretrain_step(
            self.module,
            [volume for volume, _ in images],
            [self._target(self.train_set, index) for index in indices],
            slice_choice=[slices for _, slices in images],
            autocast_dtype=AUTOCAST[self.config.autocast],
            scale=scale,
            target_smoothing=self.config.target_smoothing,
        )

    def score(self, index: int) -> Sequence[float]:
        """Probabilities of a validation image."""
        with torch.no_grad():
            logits = self.module(self.valid_set.volume(index)).double()
        labels = self.module.config.target == "labels"
        scores: list[float] = (torch.sigmoid(logits) if labels else logits.softmax(0)).tolist()
        return scores

    def measure(self, scores_NS: NDArray[np.float64]) -> dict[str, float]:
        """AUC of each class."""
        if self.module.config.target == "labels":
            return label_metrics(self.valid_set.examples, scores_NS, self.config.metric)
        if not np.isfinite(scores_NS).all():
            raise DivergedError("validation scores are NaN or infinite; lower the learning rate")
        groups_N = np.array([example.birads for example in self.valid_set.examples])
        found = [auc((groups_N == g).astype(int), scores_NS[:, g]) for g in range(self.width)]
        figures = {f"auc_group_{g}": value for g, value in enumerate(found) if value is not None}
        return {**figures, "metric": float(np.mean(list(figures.values())))}

    def save(self, path: Path, epoch: int, metric: float) -> None:
        """The network with its head."""
        save_pretrained(self.module, path)

    def _target(self, images: ImageSet, index: int) -> int | tuple[int, int]:
        example = images.examples[index]
        if self.module.config.target == "labels" or example.birads is None:
            return example.labels
        return example.birads


def _require_groups(images: ImageSet, classes: int, name: str) -> None:
    """Every image has a group, and there are at least two."""
    groups = [example.birads for example in images.examples]
    for example, group in zip(images.examples, groups, strict=True):
        if group is None or group >= classes:
            raise DataError(
                f"image {example.image_id} of the {name} set has BI-RADS group {group}; "
                f"give 0 to {classes - 1}"
            )
    if len(set(groups)) < 2:
        raise DataError(f"the {name} set has {len(set(groups))} BI-RADS groups; give at least two")
