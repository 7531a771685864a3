"""What the study does: how many breasts, which network, how it is trained, which runs there are."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gmic.config import GMIC3DConfig
from gmic.errors import ConfigError
from gmic.study.against import LOWER, SAME
from gmic.study.cohort import ImageSettings
from gmic.train.settings import TrainConfig

BINNING = 8
"""Pixels of 0.1 mm averaged into one that the networks see: the study works at that spacing."""

NETWORK = GMIC3DConfig(
    window_shape=(264, 167),
    patch_size=48,
    num_patches=6,
    top_t_fraction=0.05,
    slice_margin=2,
    stem_channels=16,
    stage_channels=(16, 32, 64),
    stage_strides=(1, 2, 2),
    blocks_per_stage=2,
    attention_channels=64,
    local_channels=(32, 64, 128, 128),
)
"""A cell every 16 pixels (12.8 mm) that sees 211: what two cores can train. With one block a stage (99 pixels) the
malignant lesions were not learned: their AUC stayed at 0.8."""


@dataclass(frozen=True)
class Variant:
    """One way to build and train the model; all but one setting as in the main one.

    Attributes:
        name: Of the variant, in folders and tables.
        about: What differs, for the report.
        paper: What the paper says of it.
        expected: What malignant AUC does then beside the main run (`gmic.study.against`); empty where
            the paper does not say.
        model: Fields of the model's configuration that differ.
        saliency: "relu-tanh" (V-B.5) or "sigmoid".
        constant: Whether the saliency layer starts constant (V-B.4) or at random.
        top_t_of: Cells counted as a share of one "slice" (V-B.3) or of the whole "volume" read.
        projection: Read the mean over the slices, a 2D image, in place of the volume.
    """

    name: str
    about: str
    model: Mapping[str, Any] = field(default_factory=dict)
    saliency: str = "relu-tanh"
    constant: bool = True
    top_t_of: str = "slice"
    projection: bool = False
    paper: str = ""
    expected: tuple[str, ...] = ()


MAIN = Variant("main", "the method as published, narrow")
_K8 = "With K = 8 DBT does as well as with the tuned K (Table IV against II)"
_ZETA = "0, 10 and infinity cannot be told apart, 5 is best (Table V)"
ABLATIONS = (
    Variant(
        "projection",
        "the same network on the mean over the slices",
        projection=True,
        paper="DBT does best, within the intervals (Tables II, IV)",
        expected=(LOWER, SAME),
    ),
    Variant("patches-1", "K = 1", {"num_patches": 1}, paper="not tried"),
    Variant("patches-12", "K = 12", {"num_patches": 12}, paper=_K8, expected=(SAME,)),
    Variant("zeta-0", "zeta = 0", {"slice_margin": 0}, paper=_ZETA, expected=(SAME,)),
    Variant("zeta-all", "zeta = infinity", {"slice_margin": 100}, paper=_ZETA, expected=(SAME,)),
    Variant(
        "top-t-volume",
        "t as a share of the volume",
        top_t_of="volume",
        paper="y_global should not depend on the number of slices (V-B.3); no figure",
        expected=(LOWER, SAME),
    ),
    Variant(
        "sigmoid",
        "sigmoid in place of ReLU(tanh)",
        saliency="sigmoid",
        paper="no ideal choice with a constant start (V-B.5); no figure",
        expected=(LOWER,),
    ),
    Variant(
        "random",
        "saliency layer started at random",
        constant=False,
        paper="lesions may start below the background and stay there (V-B.4, Fig. 3); no figure",
        expected=(LOWER,),
    ),
)


@dataclass(frozen=True)
class Stage:
    """A part of the pre-training.

    Attributes:
        lesion_factor: Contrast of lesions, in multiples of the test's.
        distractor_factor: Contrast of what resembles them, in multiples of the test's.
        breasts: To learn from.
        training: How it goes.
    """

    lesion_factor: float
    distractor_factor: float
    breasts: int
    training: TrainConfig


@dataclass(frozen=True)
class StudySettings:
    """A whole study.

    Attributes:
        name: "quick" or "full".
        breasts: Number of breasts in each split.
        stages: Pre-training with the maximum over cells and slices, one after the other.
        training: Of the whole model, after that.
        omega: First value of the saliency layer's weights.
        seeds: Of the main runs.
        variants: Compared with the main run of the first seed.
        images: The phantoms, as they are tested.
        network: The model's configuration.
    """

    name: str
    breasts: Mapping[str, int]
    stages: tuple[Stage, ...]
    training: TrainConfig
    omega: float = 0.01
    seeds: tuple[int, ...] = (0, 1, 2)
    variants: tuple[Variant, ...] = ()
    images: ImageSettings = field(default_factory=ImageSettings)
    network: GMIC3DConfig = NETWORK

    def runs(self) -> list[tuple[Variant, int]]:
        """The independent runs, most important first."""
        ablated = [(variant, self.seeds[0]) for variant in self.variants]
        return [(MAIN, seed) for seed in self.seeds] + ablated


def model_config(settings: StudySettings, variant: Variant) -> GMIC3DConfig:
    """The model's configuration in one variant."""
    return dataclasses.replace(settings.network, **variant.model)


def shipped_config(config: GMIC3DConfig) -> GMIC3DConfig:
    """The same model for windows of full resolution, which it averages itself."""
    return dataclasses.replace(config, window_shape=(2116, 1339), binning=BINNING)


def study_settings(name: str) -> StudySettings:
    """The settings of a study by its name.

    Raises:
        ConfigError: An unknown name.
    """
    studies = {study.name: study for study in (QUICK, FULL)}
    if name not in studies:
        raise ConfigError(f"study {name!r}; give one of {', '.join(studies)}")
    return studies[name]


BETA = 3e-3
"""Weight of the saliency's L1 norm, a sum over cells, of which there are few here. With a tenth of it, and
more epochs, the maps spread over thirty cells and their peak moved beside the lesion, although the AUC rose."""

_PRETRAIN = TrainConfig(
    learning_rate=1e-3,
    batch=8,
    patience=100,
    schedule="cosine",
    slice_step=3,
    clip_norm=5.0,
    metric="mean",
    name="phantom-pretrained",
)
_TRAIN = TrainConfig(
    learning_rate=3e-4,
    beta=BETA,
    batch=4,
    patience=100,
    schedule="cosine",
    slice_step=3,
    target_smoothing=0.01,
    clip_norm=5.0,
    metric="mean",
    name="gmic3d-phantom",
)

_EASY = Stage(
    2.6, 1.0, 150, dataclasses.replace(_PRETRAIN, learning_rate=1.5e-3, epochs=16, goal=0.98)
)
"""From scratch, lesions must be brighter than all that resembles them: with the contrast of the test, or with
everything as bright as they are, nothing is learned in the first hundreds of steps. What resembles them then comes
up to them before all fades, or a model that only learned to look for what is bright has nothing left. Each stage
starts where the one before ended, with smaller steps: with 1e-3 in all, one seed of three lost malignant lesions."""
_STAGES = (
    _EASY,
    Stage(2.2, 1.5, 300, dataclasses.replace(_PRETRAIN, learning_rate=8e-4, epochs=6, goal=0.98)),
    Stage(1.7, 1.5, 300, dataclasses.replace(_PRETRAIN, learning_rate=5e-4, epochs=5, goal=0.98)),
    Stage(1.0, 1.0, 400, dataclasses.replace(_PRETRAIN, learning_rate=3e-4, epochs=6)),
)

QUICK = StudySettings(
    name="quick",
    breasts={"train": 100, "valid": 20, "test": 40},
    stages=(dataclasses.replace(_EASY, breasts=100),),
    training=dataclasses.replace(_TRAIN, epochs=3),
    seeds=(0,),
    images=ImageSettings(lesion_factor=_EASY.lesion_factor),
)
FULL = StudySettings(
    name="full",
    breasts={"train": 400, "valid": 40, "test": 200},
    stages=_STAGES,
    training=dataclasses.replace(_TRAIN, epochs=8),
    variants=ABLATIONS,
)
