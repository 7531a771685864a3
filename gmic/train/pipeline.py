"""From BI-RADS labels to the three models, step by step (paper, Fig. 5 and V-D).

    1  birads-ffdm              pre-train on FFDM
    2  birads-dbt, birads-s2d   from 1, pre-train on tomosynthesis and on synthesised 2D images
    3  ffdm                     from 1, GMIC on FFDM
    4  dbt, s2d                 from 2, 3D-GMIC on tomosynthesis, GMIC on synthesised 2D images

Each stage is a training in a folder of its own, and one that was killed goes on where it stood.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gmic.config import GMIC3DConfig
from gmic.errors import ConfigError
from gmic.model import GMIC3D
from gmic.train.data import ImageSet
from gmic.train.distributed import Group
from gmic.train.initialise import initialise
from gmic.train.pretrain import PretrainConfig, Pretrainer, load_pretrained, pretrain, transfer
from gmic.train.settings import TrainConfig
from gmic.train.task import Progress
from gmic.train.trainer import train


@dataclass(frozen=True)
class Stage:
    """One training of the pipeline.

    Attributes:
        name: Of its folder.
        pretrains: Whether it is a pre-training; else it makes a model.
        modality: Whose images it learns from.
        start: The pre-training it goes on from, or None.
    """

    name: str
    pretrains: bool
    modality: str
    start: str | None


FIGURE_5 = (
    Stage("birads-ffdm", pretrains=True, modality="ffdm", start=None),
    Stage("birads-dbt", pretrains=True, modality="dbt", start="birads-ffdm"),
    Stage("birads-s2d", pretrains=True, modality="s2d", start="birads-ffdm"),
    Stage("ffdm", pretrains=False, modality="ffdm", start="birads-ffdm"),
    Stage("dbt", pretrains=False, modality="dbt", start="birads-dbt"),
    Stage("s2d", pretrains=False, modality="s2d", start="birads-s2d"),
)


@dataclass(frozen=True)
class Recipe:
    """How the models of one modality are made; the defaults are for tomosynthesis.

    Attributes:
        model: The model.
        omega: Constant of its saliency layer (V-B.4).
        pretrain: What is pre-trained.
        pretraining: How.
        training: How the model is trained.
    """

    model: GMIC3DConfig = field(default_factory=GMIC3DConfig)
    omega: float = 0.003
    pretrain: PretrainConfig = field(default_factory=PretrainConfig)
    pretraining: TrainConfig = field(default_factory=lambda: TrainConfig(name="pretrained"))
    training: TrainConfig = field(default_factory=TrainConfig)


_2D = TrainConfig(name="gmic-2d", beta=3e-5)
RECIPES: Mapping[str, Recipe] = {
    "dbt": Recipe(),
    "s2d": Recipe(model=GMIC3DConfig(num_patches=6, top_t_fraction=0.13), training=_2D),
    "ffdm": Recipe(
        model=GMIC3DConfig(window_shape=(2866, 1814), num_patches=6, top_t_fraction=0.13),
        training=_2D,
    ),
}
"""The middles of the paper's ranges (V-D.6); `gmic.train.search` finds better ones."""

Sets = tuple[ImageSet, ImageSet]
"""Training and validation images."""

StageWatcher = Callable[[Stage, Progress], None]


def stages_for(modalities: Collection[str], stages: Sequence[Stage] = FIGURE_5) -> list[Stage]:
    """The stages that can be run with images of these modalities, in order.

    Raises:
        ConfigError: No stage can, or one needs a stage whose images are missing.
    """
    chosen = [stage for stage in stages if stage.modality in modalities]
    names = {stage.name for stage in chosen}
    for stage in chosen:
        if stage.start is not None and stage.start not in names:
            needed = next(s.modality for s in stages if s.name == stage.start)
            raise ConfigError(
                f"stage {stage.name} starts from {stage.start}, which needs {needed} images; give them"
            )
    if not chosen:
        known = ", ".join(sorted({stage.modality for stage in stages}))
        raise ConfigError(f"no images of any modality; give some of {known}")
    return chosen


def run_pipeline(
    data: Mapping[str, Sets],
    recipes: Mapping[str, Recipe],
    out_dir: str | Path,
    *,
    device: str = "cpu",
    resume: bool = False,
    group: Group | None = None,
    on_progress: StageWatcher | None = None,
) -> dict[str, Path]:
    """Run every stage that `data` has images for; weights of each, by its name.

    Args:
        data: Images of each modality.
        recipes: How to train for each modality.
        out_dir: Gets a folder for each stage.
        device: Where to train, as torch names it.
        resume: Read ended stages back and go on with the others.
        group: The processes of a data-parallel training.
        on_progress: Told after each step and each epoch of each stage.

    Raises:
        ConfigError: See `stages_for`.
        GmicError: See `gmic.train.trainer.train`.
    """
    found: dict[str, Path] = {}
    for stage in stages_for(data):
        start = found[stage.start] if stage.start else None
        recipe, sets = recipes[stage.modality], data[stage.modality]
        folder = Path(out_dir) / stage.name
        watch = _watcher(stage, on_progress)
        if stage.pretrains:
            settings = _from(recipe.pretraining, start)
            net = _network(recipe, settings.seed, start).to(device)
            found[stage.name] = pretrain(
                net, *sets, settings, folder, resume=resume, group=group, on_progress=watch
            ).weights
        else:
            settings = _from(recipe.training, start)
            model = _model(recipe, settings.seed, start).to(device)
            found[stage.name] = train(
                model,
                *sets,
                settings,
                folder,
                resume=resume,
                group=group,
                on_progress=watch,
                omega=recipe.omega,
            ).weights
    return found


def _from(settings: TrainConfig, start: Path | None) -> TrainConfig:
    """Settings that name the file they start from, so that a stage on top of another start is noticed."""
    if start is None:
        return settings
    digest = hashlib.sha256(start.read_bytes()).hexdigest()
    return dataclasses.replace(settings, start=f"{start.parent.name} {digest[:16]}")


def _network(recipe: Recipe, seed: int, start: Path | None) -> Pretrainer:
    net = Pretrainer(recipe.model, recipe.pretrain)
    net.initialise(seed)
    if start is not None:
        transfer(load_pretrained(start), net)
    return net


def _model(recipe: Recipe, seed: int, start: Path | None) -> GMIC3D:
    model = GMIC3D(recipe.model)
    initialise(model, seed, recipe.omega)
    if start is not None:
        transfer(load_pretrained(start), model)
    return model


def _watcher(stage: Stage, on_progress: StageWatcher | None) -> Callable[[Progress], None] | None:
    if on_progress is None:
        return None
    tell = on_progress
    return lambda progress: tell(stage, progress)
