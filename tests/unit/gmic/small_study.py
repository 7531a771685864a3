"""A study small enough to run in seconds; its figures mean nothing."""

from __future__ import annotations

from gmic.config import GMIC3DConfig
from gmic.study.cohort import ImageSettings
from gmic.study.settings import Stage, StudySettings, Variant
from gmic.train.settings import TrainConfig

IMAGES = ImageSettings(shape=(4, 98, 76), window_shape=(84, 54), spacing_mm=2.5, slice_mm=6.0)
_TRAIN = TrainConfig(epochs=1, batch=4, slice_step=2, metric="mean", learning_rate=1e-3)
SETTINGS = StudySettings(
    name="small",
    breasts={"train": 10, "valid": 8, "test": 6},
    stages=(Stage(2.0, 1.0, 10, _TRAIN),),
    training=_TRAIN,
    seeds=(0,),
    variants=(Variant("projection", "on the projection", projection=True),),
    images=IMAGES,
    network=GMIC3DConfig(
        window_shape=IMAGES.window_shape,
        patch_size=16,
        num_patches=2,
        top_t_fraction=0.1,
        slice_margin=1,
        stem_channels=8,
        stage_channels=(8, 16),
        stage_strides=(1, 2),
        attention_channels=8,
        local_channels=(8, 8, 8, 8),
    ),
)
