"""Recipes of trainings by name: every setting, its default, and what a person may change (`--set name=value`).

A setting is named as in the recipe (`omega`), or as in its parts: `training.epochs`, `model.num_patches`. Settings of
the training itself need no prefix: `epochs=10` is `training.epochs=10`.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, cast

from gmic.config import GMIC3DConfig
from gmic.errors import ConfigError as ModelConfigError
from gmic.train.pretrain_step import PretrainConfig
from gmic.train.search import Ranges, SearchConfig
from gmic.train.settings import TrainConfig, replaced
from node.errors import ConfigError

STARTS = ("base", "constant", "birads", "either")
IMAGE_TYPES = ("float16", "float32")
_GIVEN = ("seed", "name", "start")  # of a TrainConfig: said by the launch, not by the recipe


_TRAINING = {f.name for f in dataclasses.fields(TrainConfig)} - set(_GIVEN)


def _whole(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


@dataclass(frozen=True)
class Recipe:
    """How a model is made from a data set.

    Attributes:
        start: "base": from the base version's weights; "constant": anew, with a constant saliency layer;
            "birads": anew, pre-trained on BI-RADS groups first; "either": from a base where one is given, else anew.
        processes: How many train together, a GPU each.
        images: Type in which prepared images are kept; float16 takes half the room.
        omega: Constant of the saliency layer, where it starts anew.
        model: Fields of `GMIC3DConfig` to replace: in the base's configuration, or in the published one.
        pretrain: What is pre-trained; for "birads" alone.
        pretraining: How.
        training: How the model is trained.
        trials: 0: one training. Else so many with settings drawn at random from `ranges`; the best one is kept.
        ranges: Where trials are drawn from.
    """

    start: str = "base"
    processes: int = 1
    images: str = "float16"
    omega: float = 0.003
    model: Mapping[str, Any] = field(default_factory=dict)
    pretrain: PretrainConfig = field(default_factory=PretrainConfig)
    pretraining: TrainConfig = field(default_factory=TrainConfig)
    training: TrainConfig = field(default_factory=TrainConfig)
    trials: int = 0
    ranges: Ranges = field(default_factory=Ranges)

    def __post_init__(self) -> None:
        """Check every value.

        Raises:
            gmic.errors.ConfigError: a value that nothing can have; names the setting and the value seen.
        """
        self._require("start", self.start in STARTS, f"one of {', '.join(STARTS)}")
        self._require("images", self.images in IMAGE_TYPES, f"one of {', '.join(IMAGE_TYPES)}")
        self._require("processes", _whole(self.processes, 1), "a whole number above 0")
        self._require("trials", _whole(self.trials, 0), "a whole number from 0")
        self._require("omega", 0 < self.omega < 1, "a number between 0 and 1")
        for config in (self.training, self.pretraining):
            config.require_shareable(self.processes)
        if self.start in ("constant", "birads"):  # else the base's configuration is changed
            self.model_of(GMIC3DConfig())

    def _require(self, name: str, holds: bool, wanted: str) -> None:
        if not holds:
            raise ModelConfigError(f"{name} is {getattr(self, name)!r}; it must be {wanted}")

    def model_of(self, config: GMIC3DConfig) -> GMIC3DConfig:
        """A model's configuration with this recipe's changes."""
        return replaced(config, self.model, "model")

    def check_base(self, base: str | None) -> None:
        """Raises ConfigError where the recipe needs a base version and there is none, or the other way round."""
        if self.start == "base" and base is None:
            raise ConfigError("this recipe starts from a model version; give --base")
        if self.start in ("constant", "birads") and base is not None:
            raise ConfigError(
                f"this recipe starts anew and takes no base; leave out --base {base}, or use fine-tune"
            )

    def search(self, seed: int) -> SearchConfig:
        """How to search, where `trials` is not 0."""
        return SearchConfig(self.ranges, self.trials, 1, seed)

    def to_config(self) -> dict[str, Any]:
        """All settings as JSON values, for the row of the training; `of_config` gives the recipe back."""
        values = asdict(self)
        for part in ("training", "pretraining"):
            values[part] = {k: v for k, v in values[part].items() if k not in _GIVEN}
        return cast(dict[str, Any], json.loads(json.dumps(values)))

    @classmethod
    def of_config(cls, config: Mapping[str, Any]) -> Recipe:
        """The recipe of a row.

        Raises:
            ConfigError: a program of another version wrote it.
        """
        try:
            return replaced(cls(), config, "recipe")
        except ModelConfigError as error:
            raise ConfigError(
                f"the training's settings cannot be used: {error}; launch it anew"
            ) from None


RECIPES: Mapping[str, Recipe] = {
    "fine-tune": Recipe(training=TrainConfig(epochs=20, patience=8)),
    "from-scratch": Recipe(start="constant"),
    "birads-pretrain": Recipe(start="birads"),
    "search": Recipe(start="either", trials=40),
}


def recipe(
    name: str,
    changes: Iterable[str] = (),
    processes: int | None = None,
    trials: int | None = None,
) -> Recipe:
    """A recipe by name with `name=value` changes.

    Raises:
        ConfigError: no such recipe or setting, or a value that it cannot have.
    """
    if name not in RECIPES:
        raise ConfigError(f"no recipe is called {name!r}; use one of {', '.join(RECIPES)}")
    made = RECIPES[name]
    given = [*changes]
    given += [f"processes={processes}"] if processes is not None else []
    given += [f"trials={trials}"] if trials is not None else []
    tree: dict[str, Any] = {}
    for change in given:
        _put(tree, change)
    try:
        return replaced(made, tree, "recipe")
    except ModelConfigError as error:
        raise ConfigError(f"recipe {name}: {error}") from None


def _put(tree: dict[str, Any], change: str) -> None:
    """One `name=value` into the nested values."""
    name, equals, value = change.partition("=")
    if not equals or not name:
        raise ConfigError(f"--set {change!r} cannot be used; give NAME=VALUE, such as epochs=10")
    parts = name.strip().split(".")
    own = {f.name for f in dataclasses.fields(Recipe)}
    if len(parts) == 1 and parts[0] not in own and parts[0] in _TRAINING:
        parts = ["training", *parts]
    if len(parts) > 2 or parts[0] not in own:
        known = ", ".join(sorted(own | _TRAINING))
        raise ConfigError(f"no setting is called {name!r}; known: {known}, PART.SETTING")
    if parts[-1] in _GIVEN and len(parts) == 2:
        raise ConfigError(f"setting {name!r} is said by the launch itself; use --seed for the seed")
    where = tree.setdefault(parts[0], {}) if len(parts) == 2 else tree
    if not isinstance(where, dict):
        raise ConfigError(f"--set names both {parts[0]!r} and {name!r}; give one of them")
    where[parts[-1]] = _value(value)


def _value(text: str) -> Any:
    """JSON where it is some, else the text itself."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text
