"""How a training goes: one frozen configuration, the same for models and for pre-training."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from gmic.errors import ConfigError

AUTOCAST = {"none": None, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class TrainConfig:
    """Settings of a training; the defaults are the paper's for tomosynthesis (V-D).

    Attributes:
        learning_rate: Of Adam; the paper draws it from 10^-5.5 to 10^-4.5.
        beta: Weight of the saliency's L1 norm (equation 7); not used in pre-training.
        epochs: At most this many.
        patience: Stop after this many epochs in a row without a better `metric`.
        goal: Stop after the first epoch whose `metric` reaches it; None never does.
        batch: Images for one update, over all processes.
        seed: Of every random number.
        schedule: "constant", or "cosine" from `learning_rate` down to 0 after `epochs`.
        slice_step: Train on every n-th slice, from a random first one; validation reads all.
        target_smoothing: See `gmic.train.step.StepOptions`; in pre-training the share of the target
            that is spread over the classes.
        autocast: Type of the convolutions in training: "none", "bfloat16" or "float16".
        augment: Random shifting and resizing in training (V-D.3).
        clip_norm: Largest norm of a step's gradient; None leaves it as it is.
        metric: Chooses the best epoch: validation AUC of "malignant", or "mean" of both classes.
        checkpoint_every: Steps between checkpoints; there is one after each epoch, too.
        name: What to call the weights.
        start: What the weights were before, for their card: a name, a file's digest; "" = drawn anew.
    """

    learning_rate: float = 1e-5
    beta: float = 3e-6
    epochs: int = 40
    patience: int = 15
    goal: float | None = None
    batch: int = 4
    seed: int = 0
    schedule: str = "constant"
    slice_step: int = 1
    target_smoothing: float = 0.0
    autocast: str = "none"
    augment: bool = True
    clip_norm: float | None = None
    metric: str = "malignant"
    checkpoint_every: int = 100
    name: str = "3d-gmic"
    start: str = ""

    def __post_init__(self) -> None:
        """Check every value.

        Raises:
            ConfigError: A value no training can have; names the setting and the value seen.
        """
        for name in ("epochs", "patience", "batch", "slice_step", "checkpoint_every"):
            self._require(_whole(getattr(self, name), 1), name, "a whole number above 0")
        self._require(_whole(self.seed, 0), "seed", "a whole number from 0")
        positive = math.isfinite(self.learning_rate) and self.learning_rate > 0
        self._require(positive, "learning_rate", "a finite number above 0")
        self._require(math.isfinite(self.beta) and self.beta >= 0, "beta", "a finite number from 0")
        self._require(0 <= self.target_smoothing < 0.5, "target_smoothing", "in [0, 0.5)")
        self._require(
            self.goal is None or 0 < self.goal <= 1, "goal", "above 0 and at most 1, or left out"
        )
        clip = self.clip_norm
        self._require(clip is None or 0 < clip < math.inf, "clip_norm", "above 0, or left out")
        for name, known in (
            ("schedule", ("constant", "cosine")),
            ("autocast", tuple(AUTOCAST)),
            ("metric", ("malignant", "mean")),
        ):
            self._require(getattr(self, name) in known, name, f"one of {', '.join(known)}")

    def _require(self, holds: bool, name: str, wanted: str) -> None:
        if not holds:
            raise ConfigError(f"{name} is {getattr(self, name)!r}; it must be {wanted}")

    def require_shareable(self, processes: int) -> None:
        """Refuse a batch that `processes` cannot share alike.

        Raises:
            ConfigError: See above.
        """
        if self.batch % processes:
            raise ConfigError(
                f"batch is {self.batch}; {processes} processes can only share a multiple of {processes}"
            )

    def learning_rate_at(self, epochs_done: float) -> float:
        """The learning rate after so many epochs, parts of them included."""
        if self.schedule == "constant":
            return self.learning_rate
        return self.learning_rate * (1 + math.cos(math.pi * epochs_done / self.epochs)) / 2


T = TypeVar("T")


def replaced(default: T, values: Mapping[str, Any], where: str) -> T:
    """A frozen dataclass with some fields replaced; a nested mapping does the same one level down.

    Args:
        default: The dataclass.
        values: JSON values by the name of the field.
        where: What to call the dataclass in a message.

    Raises:
        ConfigError: No mapping, an unknown field, a value of another kind, or one that nothing can have.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(f"{where} is {values!r}; give an object of fields to replace")
    fields: Any = default
    known = {f.name: f.default for f in dataclasses.fields(fields)}
    changes: dict[str, Any] = {}
    for name, value in values.items():
        if name not in known:
            raise ConfigError(f"{where} has no field {name!r}; known: {', '.join(sorted(known))}")
        old = getattr(default, name)
        if dataclasses.is_dataclass(old) and isinstance(value, Mapping):
            changes[name] = replaced(old, value, f"{where}.{name}")
        elif value is None:
            if old is not None and known[name] is not None:
                raise ConfigError(f"{where}.{name} is null; give something like {old!r}")
            changes[name] = None
        elif old is None or _kind(value) == _kind(old):
            changes[name] = tuple(value) if isinstance(value, list) else value
        else:
            raise ConfigError(f"{where}.{name} is {value!r}; give something like {old!r}")
    try:
        made: T = dataclasses.replace(fields, **changes)
    except ConfigError:
        raise
    except (TypeError, ValueError, OverflowError) as error:
        # Checks that compare and count take the kinds for granted that JSON need not have kept to.
        raise ConfigError(f"{where} cannot have {changes!r}: {error}") from error
    return made


def _kind(value: object) -> type:
    """What JSON can tell apart."""
    kinds: tuple[tuple[type | tuple[type, ...], type], ...] = (
        (bool, bool), ((int, float), float), ((list, tuple), list), (str, str)
    )  # fmt: skip
    return next((kind for types, kind in kinds if isinstance(value, types)), type(value))


def _whole(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least
