"""Recipes: what may be changed, what is refused with one line, and that a row gives the recipe back."""

from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gmic.errors import ConfigError as ModelConfigError
from node.errors import ConfigError
from tests.unit.gmic.training import TINY
from workers.recipes import RECIPES, Recipe, recipe
from workers.train_stages import model_config


@pytest.mark.parametrize("name", RECIPES)
def test_a_row_gives_the_recipe_back(name: str) -> None:
    made = recipe(name, ("epochs=7", "model.num_patches=3"))
    config = json.loads(json.dumps(made.to_config()))
    assert Recipe.of_config(config) == made
    assert "seed" not in config["training"]


@given(
    epochs=st.integers(1, 1000),
    rate=st.floats(1e-8, 1.0),
    augment=st.booleans(),
    schedule=st.sampled_from(["constant", "cosine"]),
    clip=st.none() | st.floats(0.1, 100),
)
def test_settings_come_through_as_they_were_given(
    epochs: int, rate: float, augment: bool, schedule: str, clip: float | None
) -> None:
    changes = [f"epochs={epochs}", f"training.learning_rate={rate!r}", f"schedule={schedule}"]
    changes += [f"augment={json.dumps(augment)}", f"clip_norm={json.dumps(clip)}"]
    made = recipe("fine-tune", changes)
    training = Recipe.of_config(json.loads(json.dumps(made.to_config()))).training
    assert (training.epochs, training.learning_rate, training.augment) == (epochs, rate, augment)
    assert (training.schedule, training.clip_norm) == (schedule, clip)
    untouched = dataclasses.replace(
        training,
        **{
            n: getattr(RECIPES["fine-tune"].training, n)
            for n in ("epochs", "learning_rate", "augment")
        },
        schedule="constant",
        clip_norm=None,
    )
    assert untouched == RECIPES["fine-tune"].training


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["epochs"], "give NAME=VALUE"),
        (["=3"], "give NAME=VALUE"),
        (["epoch=3"], "no setting is called 'epoch'"),
        (["training.epoch=3"], "no field 'epoch'"),
        (["a.b.c=3"], "no setting is called 'a.b.c'"),
        (["epochs=many"], "epochs is 'many'"),
        (["epochs=0"], "epochs is 0; it must be a whole number above 0"),
        (["learning_rate=-1"], "learning_rate is -1"),
        (["seed=4"], "no setting is called 'seed'"),
        (["training.seed=4"], "use --seed"),
        (["start=nowhere"], "start is 'nowhere'"),
        (["images=int8"], "images is 'int8'"),
        (["omega=0"], "omega is 0"),
        (["model.num_patches=0"], "num_patches is 0"),
        (["model.layers=3"], "no field 'layers'"),
        (["model={}", "model.num_patches=4"], None),
        (["model=7", "model.num_patches=4"], "names both"),
        (["processes=3"], "3 processes can only share a multiple of 3"),
        (["trials=-1"], "trials is -1"),
    ],
)
def test_what_cannot_be_used_is_one_line(changes: list[str], words: str | None) -> None:
    if words is None:
        assert recipe("fine-tune", changes).model == {"num_patches": 4}
        return
    with pytest.raises(ConfigError) as caught:
        recipe("from-scratch", changes)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_recipe_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="use one of fine-tune, from-scratch"):
        recipe("finetune")


def test_options_of_the_command_are_settings() -> None:
    made = recipe("fine-tune", ["batch=4"], processes=2, trials=40)
    assert (made.processes, made.trials, made.start) == (2, 40, "base")
    assert recipe("search").search(5).trials == 40


@pytest.mark.parametrize(
    ("name", "base", "words"),
    [
        ("fine-tune", None, "give --base"),
        ("from-scratch", "m-1", "leave out --base m-1"),
        ("birads-pretrain", "m-1", "leave out --base m-1"),
        ("fine-tune", "m-1", None),
        ("from-scratch", None, None),
        ("search", None, None),
        ("search", "m-1", None),
    ],
)
def test_a_recipe_knows_whether_it_takes_a_base(
    name: str, base: str | None, words: str | None
) -> None:
    if words is None:
        recipe(name).check_base(base)
        return
    with pytest.raises(ConfigError, match=words):
        recipe(name).check_base(base)


def test_a_base_of_another_architecture_is_refused() -> None:
    made = recipe("fine-tune", ["model.stem_channels=16", "model.num_patches=4"])
    with pytest.raises(ModelConfigError, match="m-1 is of another architecture") as caught:
        model_config(made, "m-1", TINY)
    assert "stem_channels" in str(caught.value)
    assert "\n" not in str(caught.value)
    fits = recipe("fine-tune", ["model.num_patches=4", "model.top_t_fraction=0.2"])
    assert model_config(fits, "m-1", TINY).num_patches == 4
