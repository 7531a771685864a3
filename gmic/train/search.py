"""Random search over hyper-parameters (paper, V-D.6): forty trials, the five best are kept.

A trial's values depend on the search's seed and the trial's number alone, and each trial has a folder
of its own, so a search that was killed goes on where it stood. `search.json` lists the trials so far.
"""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

from gmic.config import GMIC3DConfig
from gmic.errors import ConfigError, DivergedError
from gmic.model import GMIC3D
from gmic.train.checkpoint import write_atomically
from gmic.train.data import ImageSet
from gmic.train.distributed import Group
from gmic.train.initialise import initialise
from gmic.train.pretrain import Pretrainer, transfer
from gmic.train.settings import TrainConfig
from gmic.train.task import Watcher
from gmic.train.trainer import train

TABLE = "search.json"


@dataclass(frozen=True)
class Ranges:
    """Where trials are drawn from; pairs are lowest and highest.

    Attributes:
        learning_rate: Log-uniform.
        omega: Log-uniform: constant of the saliency layer.
        top_t_fraction: Uniform: t, as a fraction of one slice's cells.
        num_patches: K, all equally likely.
        beta: Log-uniform.
    """

    learning_rate: tuple[float, float] = (10**-5.5, 10**-4.5)
    omega: tuple[float, float] = (1e-3, 1e-2)
    top_t_fraction: tuple[float, float] = (0.1097, 2.7425)
    num_patches: tuple[int, ...] = (8, 12, 16)
    beta: tuple[float, float] = (10**-6.54, 10**-4.54)

    def __post_init__(self) -> None:
        """Raise ConfigError for a range that nothing can be drawn from; names it."""
        for name in ("learning_rate", "omega", "top_t_fraction", "beta"):
            pair: object = getattr(self, name)
            if not (_numbers(pair) and len(pair) == 2):
                raise ConfigError(
                    f"{name} is drawn from {pair!r}; give a lowest and a highest number"
                )
            low, high = pair
            if not 0 < low <= high < math.inf:
                raise ConfigError(
                    f"{name} is drawn from {low} to {high}; give 0 < lowest <= highest"
                )
        if not self.num_patches:
            raise ConfigError("num_patches is drawn from nothing; give at least one number")
        if not (
            _numbers(self.num_patches) and all(k % 1 == 0 and k >= 1 for k in self.num_patches)
        ):
            raise ConfigError(
                f"num_patches is drawn from {self.num_patches!r}; give whole numbers above 0"
            )


def _numbers(values: object) -> TypeGuard[tuple[float, ...]]:
    """Whether these are numbers, as a JSON file may not have given them."""
    return isinstance(values, tuple | list) and all(
        isinstance(value, int | float) and not isinstance(value, bool) for value in values
    )


RANGES_3D = Ranges()
"""The paper's for tomosynthesis."""

RANGES_2D = Ranges(top_t_fraction=(0.01, 0.25), num_patches=(4, 6, 8), beta=(10**-5.5, 10**-3.5))
"""The paper's for FFDM and synthesised 2D images."""


@dataclass(frozen=True)
class Trial:
    """One draw; `seed` is that of its weights and of its training."""

    number: int
    seed: int
    learning_rate: float
    omega: float
    top_t_fraction: float
    num_patches: int
    beta: float


@dataclass(frozen=True)
class SearchConfig:
    """How to search.

    Attributes:
        ranges: Where trials are drawn from.
        trials: How many.
        keep: How many of the best make the ensemble.
        seed: Of all draws.
    """

    ranges: Ranges = RANGES_3D
    trials: int = 40
    keep: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        """Raise ConfigError for a number no search can have; names it."""
        if self.trials < 1 or not 1 <= self.keep <= self.trials:
            raise ConfigError(
                f"trials is {self.trials} and keep {self.keep}; give 1 <= keep <= trials"
            )
        if self.seed < 0:
            raise ConfigError(f"seed is {self.seed}; it must be a whole number from 0")


def draw_trial(config: SearchConfig, number: int) -> Trial:
    """Trial `number`, from 0, of a search."""
    rng, ranges = np.random.default_rng([config.seed, number]), config.ranges

    def log_uniform(low: float, high: float) -> float:
        return float(10 ** rng.uniform(math.log10(low), math.log10(high)))

    return Trial(
        number=number,
        seed=int(rng.integers(2**31)),
        learning_rate=log_uniform(*ranges.learning_rate),
        omega=log_uniform(*ranges.omega),
        top_t_fraction=float(rng.uniform(*ranges.top_t_fraction)),
        num_patches=int(rng.choice(ranges.num_patches)),
        beta=log_uniform(*ranges.beta),
    )


@dataclass(frozen=True)
class Subject:
    """What is searched for: a model, images, and how to train.

    Attributes:
        model: Configuration; a trial replaces t and K.
        train_set: See `gmic.train.trainer.train`.
        valid_set: The same.
        training: A trial replaces learning rate, beta and seed.
        start: Pre-trained global network, a model of the same channels, or None to start from scratch.
        device: Where to train, as torch names it.
    """

    model: GMIC3DConfig
    train_set: ImageSet
    valid_set: ImageSet
    training: TrainConfig
    start: Pretrainer | GMIC3D | None = None
    device: str = "cpu"


def search(
    subject: Subject,
    config: SearchConfig,
    out_dir: str | Path,
    *,
    resume: bool = False,
    group: Group | None = None,
    on_progress: Watcher | None = None,
) -> list[Path]:
    """Train every trial; the weights of the best by validation metric, best first.

    A trial that diverges is listed with the reason and left behind. A search that goes on may have
    more trials, or fewer, and keep more of them than before; its draws must be the same.

    Raises:
        ConfigError: `resume`, and the folder's search drew from other ranges or another seed.
        DivergedError: Every trial diverged.
        GmicError: See `gmic.train.trainer.train`.
    """
    out_dir, group = Path(out_dir), group or Group()
    if resume:
        _require_same_draws(config, out_dir / TABLE, group)
    rows: list[dict[str, Any]] = []
    best: list[dict[str, Any]] = []
    for number in range(config.trials):
        trial = draw_trial(config, number)
        folder = out_dir / f"trial-{number:03d}"
        try:
            result = train(
                _model(subject, trial),
                subject.train_set,
                subject.valid_set,
                _training(subject, trial),
                folder,
                resume=resume,
                group=group,
                on_progress=on_progress,
                omega=None if isinstance(subject.start, GMIC3D) else trial.omega,
            )
        except DivergedError as error:
            rows.append({**asdict(trial), "failed": str(error)})
        else:
            figures = {"metric": result.best_metric, "epoch": result.best_epoch}
            file = {"weights": f"{folder.name}/{result.weights.name}", "sha256": result.info.sha256}
            rows.append({**asdict(trial), **figures, **file})
            best = sorted([*best, rows[-1]], key=lambda row: -row["metric"])[: config.keep]
        if group.leads:
            table = {"search": asdict(config), "best": [r["weights"] for r in best], "trials": rows}
            write_atomically(out_dir / TABLE, json.dumps(table, indent=1).encode())
    if not best:
        raise DivergedError(f"all {config.trials} trials diverged; lower the learning rates")
    return [out_dir / row["weights"] for row in best]


def _require_same_draws(config: SearchConfig, path: Path, group: Group) -> None:
    """Refuse to go on with a search whose table says that it drew its trials otherwise."""
    data = group.from_leader(path.read_bytes() if group.leads and path.is_file() else None)
    if data is None:
        return
    try:
        kept = json.loads(data)["search"]
        before = {**kept["ranges"], "seed": kept["seed"]}
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path} is damaged; remove it to go on with its search") from error
    after = json.loads(json.dumps({**asdict(config.ranges), "seed": config.seed}))
    for name, value in after.items():
        if before.get(name) != value:
            raise ConfigError(
                f"{path} is of another search: {name} was {before.get(name)!r}, now it is {value!r}; "
                "search in another folder, or as before"
            )


def _training(subject: Subject, trial: Trial) -> TrainConfig:
    """How a trial is trained."""
    return dataclasses.replace(
        subject.training,
        learning_rate=trial.learning_rate,
        beta=trial.beta,
        seed=trial.seed,
        name=f"{subject.training.name}-{trial.number:03d}",
    )


def _model(subject: Subject, trial: Trial) -> GMIC3D:
    """The model a trial starts from."""
    config = dataclasses.replace(
        subject.model, top_t_fraction=trial.top_t_fraction, num_patches=trial.num_patches
    )
    model = GMIC3D(config)
    initialise(model, trial.seed, trial.omega)
    if subject.start is not None:
        transfer(subject.start, model)
    return model.to(subject.device)
