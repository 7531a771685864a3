"""What the training loop asks of a task, and what it tells whoever watches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import nn


class Task(Protocol):
    """What is trained: the loop knows nothing of models and images beyond this."""

    @property
    def module(self) -> nn.Module:
        """Holds every parameter and buffer."""
        ...

    @property
    def sizes(self) -> tuple[int, int]:
        """Images to train on and to validate with."""
        ...

    @property
    def width(self) -> int:
        """Scores of an image."""
        ...

    def identity(self) -> dict[str, Any]:
        """What makes this training another one, as JSON values."""
        ...

    def step(self, indices: Sequence[int], rng: np.random.Generator, scale: float) -> float:
        """Add gradients of the mean loss of these training images, times `scale`; returns the loss."""
        ...

    def score(self, index: int) -> Sequence[float]:
        """The `width` scores of a validation image."""
        ...

    def measure(self, scores_NS: NDArray[np.float64]) -> dict[str, float]:
        """Figures of all validation scores; `metric` chooses the best epoch, higher is better."""
        ...

    def save(self, path: Path, epoch: int, metric: float) -> None:
        """Write the weights; the same weights give the same bytes."""
        ...


@dataclass(frozen=True)
class Progress:
    """Where a training stands, after each step and each epoch.

    Attributes:
        epoch: From 1.
        step: Steps done in this epoch.
        steps: Steps of an epoch.
        loss: Of the last step; mean of the epoch where `metrics` are given.
        metrics: Validation figures, at the end of an epoch alone.
        seconds: Since the training was started or resumed.
    """

    epoch: int
    step: int
    steps: int
    loss: float
    metrics: Mapping[str, float] | None
    seconds: float


Watcher = Callable[[Progress], None]
