"""From prepared images to weights: the stages of a recipe, in this process alone or as one of several.

    RUN/data, RUN/groups    indexes of the images (`workers.train_images`)
    RUN/out/pretrain        pre-training on BI-RADS groups, where the recipe begins with it
    RUN/out/fit             the training, or
    RUN/out/search          a folder for each trial

Each stage goes on from its checkpoint, and one that had ended is read back: the same plan ends with the same weights.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from gmic import bundle
from gmic.config import GMIC3DConfig
from gmic.errors import ConfigError, WeightsError
from gmic.inference import choose_device
from gmic.model import GMIC3D
from gmic.train import loop
from gmic.train.data import FolderSet, Volume
from gmic.train.distributed import Group, local_device
from gmic.train.initialise import initialise
from gmic.train.pretrain import Pretrainer, load_pretrained, pretrain, transfer
from gmic.train.search import Subject, search
from gmic.train.settings import TrainConfig
from gmic.train.task import Watcher
from gmic.train.trainer import train
from workers.recipes import Recipe


@dataclass(frozen=True)
class Plan:
    """All that a process must know, as JSON values.

    Attributes:
        config: Of the recipe (`Recipe.to_config`).
        seed: Of every random number.
        name: What to call the weights.
        base: The version to start from; None: anew.
        base_file: Its weights.
        run: Folder of the training.
        device: As torch names it; None: a GPU where there is one.
        threads: CPU threads of each process.
    """

    config: Mapping[str, Any]
    seed: int
    name: str
    base: str | None
    base_file: str | None
    run: str
    device: str | None
    threads: int

    @property
    def recipe(self) -> Recipe:
        """The recipe."""
        return Recipe.of_config(self.config)

    @property
    def out(self) -> Path:
        """Folder of the stages."""
        return Path(self.run) / "out"


class CheckedSet(FolderSet):
    """Images of a folder; before each one it is asked whether there is still a reason to go on."""

    def __init__(
        self, folder: Path, split: str, window: tuple[int, int], check: Callable[[], None]
    ) -> None:
        super().__init__(folder, split, window)
        self._check = check

    def volume(self, index: int) -> Volume:
        """Image `index`: (D, H, W)."""
        self._check()
        return super().volume(index)


def base_model(version: str, path: Path) -> GMIC3D:
    """The model of a version to start from.

    Raises:
        WeightsError: it is an ensemble, or the file cannot be used.
    """
    models = bundle.load(path).models
    if len(models) > 1:
        raise WeightsError(
            f"model {version} is an ensemble of {len(models)}; a training starts from one model: import a member alone"
        )
    return models[0]


def model_config(recipe: Recipe, version: str | None, config: GMIC3DConfig | None) -> GMIC3DConfig:
    """The configuration of the model that will be trained.

    Raises:
        ConfigError: the recipe asks for one that cannot hold the base's weights.
    """
    wanted = recipe.model_of(config or GMIC3DConfig())
    if config is not None and _shapes(wanted) != _shapes(config):
        changed = ", ".join(k for k, v in wanted.to_dict().items() if v != config.to_dict().get(k))
        raise ConfigError(
            f"model {version} is of another architecture than the recipe asks for ({changed}); leave the model's"
            " settings as they are, or train from scratch"
        )
    return wanted


def _shapes(config: GMIC3DConfig) -> list[tuple[str, torch.Size]]:
    with torch.device("meta"):
        return [(name, value.shape) for name, value in GMIC3D(config).state_dict().items()]


def run_plan(plan: Plan, group: Group, watch: Watcher, check: Callable[[], None]) -> Path:
    """Train to the end; the file with the weights.

    Args:
        plan: What to do.
        group: The processes that train together.
        watch: Told after each step and epoch.
        check: Called before each image of the validation. `gmic.errors.Interrupted`, raised by it or by `watch`, ends
            the training at a checkpoint.

    Raises:
        GmicError: see `gmic.train.trainer.train`.
    """
    torch.set_num_threads(plan.threads)
    recipe, device = plan.recipe, str(choose_device(local_device(plan.device)))
    start, said = _base(plan)
    config = model_config(recipe, plan.base, start.config if start else None)
    how: Any = {"resume": True, "group": group, "on_progress": watch}

    def sets(folder: str) -> tuple[FolderSet, FolderSet]:
        place, window = Path(plan.run) / folder, config.window_shape
        return FolderSet(place, "train", window), CheckedSet(place, "valid", window, check)

    first: GMIC3D | Pretrainer | None = start
    if recipe.start == "birads":
        net = Pretrainer(config, recipe.pretrain)
        net.initialise(plan.seed)
        pretraining = _settings(recipe.pretraining, plan, "")
        pretrained = pretrain(
            net.to(device), *sets("groups"), pretraining, plan.out / "pretrain", **how
        )
        first, said = load_pretrained(pretrained.weights), _named("pretrain", pretrained.weights)
    training = _settings(recipe.training, plan, said)
    if recipe.trials:
        subject = Subject(config, *sets("data"), training, first, device)
        return search(subject, recipe.search(plan.seed), plan.out / "search", **how)[0]
    model = GMIC3D(config)
    initialise(model, plan.seed, recipe.omega)
    if first is not None:
        transfer(first, model)
    return train(model.to(device), *sets("data"), training, plan.out / "fit", **how).weights


def _base(plan: Plan) -> tuple[GMIC3D | None, str]:
    """The model to start from, and what to call it."""
    if plan.base is None or plan.base_file is None:
        return None, ""
    path = Path(plan.base_file)
    return base_model(plan.base, path), _named(plan.base, path)


def _settings(config: TrainConfig, plan: Plan, start: str) -> TrainConfig:
    return dataclasses.replace(config, seed=plan.seed, name=plan.name, start=start)


def _named(name: str, path: Path) -> str:
    """A start by name and content, so that one on top of another start is noticed."""
    return f"{name} {hashlib.sha256(path.read_bytes()).hexdigest()[:16]}"


def stages(out: Path) -> Iterator[tuple[str, Path]]:
    """The stages that ended an epoch so far: their names, and their tables of epochs."""
    for path in sorted(out.rglob(loop.METRICS)):
        yield path.parent.name, path
