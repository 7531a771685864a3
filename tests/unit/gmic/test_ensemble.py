"""Several models, modalities and draws: what is averaged, and over what."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from gmic.config import GMIC3DConfig
from gmic.engine.augmented import predict_augmented
from gmic.engine.ensemble import Ensemble, MultiModal
from gmic.errors import ConfigError, InputError
from gmic.inference import Predictor
from gmic.train.augment import apply
from gmic.weights import seeded
from tests.unit.gmic.small import CONFIG, volume

FINER = dataclasses.replace(CONFIG, stage_strides=(1, 1))


def _predictor(seed: int, config: GMIC3DConfig = CONFIG) -> Predictor:
    return Predictor(*seeded(config, seed), device="cpu")


@pytest.fixture(scope="module")
def five() -> list[Predictor]:
    """Five models as a search leaves them: other weights, other K and t."""
    return [
        _predictor(seed, dataclasses.replace(CONFIG, num_patches=2 + seed % 2, top_t_fraction=t))
        for seed, t in enumerate((1.5, 2.06, 0.3, 1.57, 2.29))
    ]


def test_an_ensemble_is_the_mean_of_its_models(five: list[Predictor]) -> None:
    output = Ensemble(five).predict(volume())
    alone = [predictor.predict(volume()) for predictor in five]
    wanted = np.mean([one.y_final.numpy() for one in alone], axis=0)
    np.testing.assert_allclose(output.y_final, wanted, rtol=1e-6)
    assert output.saliency_CDHW is not None
    maps = np.mean([one.saliency_CDHW.numpy() for one in alone], axis=0)
    np.testing.assert_allclose(output.saliency_CDHW, maps, rtol=1e-5, atol=1e-7)
    assert len(output.members) == 5
    for ours, theirs in zip(output.members, alone, strict=True):
        assert torch.equal(ours.y_final, theirs.y_final)


def test_one_model_is_itself(five: list[Predictor]) -> None:
    output = Ensemble(five[:1]).predict(volume())
    assert torch.equal(output.y_final, five[0].predict(volume()).y_final)


def test_maps_of_other_cells_are_not_averaged() -> None:
    output = Ensemble([_predictor(1), _predictor(2, FINER)]).predict(volume())
    shapes = [member.saliency_CDHW.shape for member in output.members]
    assert shapes[0] != shapes[1]
    assert output.saliency_CDHW is None
    assert bool(output.y_final.isfinite().all())


def test_maps_of_one_shape_at_other_places_are_not_averaged() -> None:
    """Averaging 2 x 2 pixels first lets a finer network end with as many cells, a little aside."""
    binned = dataclasses.replace(FINER, binning=2, patch_size=32, window_shape=(128, 96))
    window = np.pad(volume(), ((0, 0), (1, 1), (1, 1)), mode="edge")
    output = Ensemble([_predictor(1, CONFIG), _predictor(2, binned)]).predict(window)
    shapes = [member.saliency_CDHW.shape for member in output.members]
    assert shapes[0] == shapes[1]
    assert output.saliency_CDHW is None


def test_each_modality_counts_once(five: list[Predictor]) -> None:
    reader = MultiModal({"DBT": Ensemble(five[:3]), "FFDM": five[3]})
    image = volume(1, seed=5)
    output = reader.predict({"DBT": volume(), "FFDM": image})
    dbt = Ensemble(five[:3]).predict(volume()).y_final
    ffdm = five[3].predict(image).y_final
    np.testing.assert_allclose(output.y_final, (dbt + ffdm) / 2, rtol=1e-6)
    assert torch.equal(output.modalities["DBT"].y_final, dbt)
    assert torch.equal(output.modalities["FFDM"].y_final, ffdm)


def test_a_modality_that_is_missing_is_left_out(five: list[Predictor]) -> None:
    reader = MultiModal({"DBT": five[0], "FFDM": five[1]})
    output = reader.predict({"FFDM": volume(1)})
    assert torch.equal(output.y_final, five[1].predict(volume(1)).y_final)
    assert list(output.modalities) == ["FFDM"]


def test_what_cannot_be_averaged_is_refused(five: list[Predictor]) -> None:
    with pytest.raises(ConfigError, match="the ensemble has no model"):
        Ensemble([])
    with pytest.raises(ConfigError, match="no modality to read"):
        MultiModal({})
    reader = MultiModal({"DBT": five[0]})
    with pytest.raises(InputError, match="no model reads modality 'MR'; known: DBT"):
        reader.predict({"DBT": volume(), "MR": volume()})
    with pytest.raises(InputError, match="no window to read; give one of DBT"):
        reader.predict({})


def test_ten_draws_are_averaged_and_can_be_made_again(five: list[Predictor]) -> None:
    output = predict_augmented(five[0], volume(2), np.random.default_rng(3))
    assert len(output.draws) == len(set(output.shifts)) == 10
    again = [five[0].predict(apply(volume(2), shift)).y_final.numpy() for shift in output.shifts]
    assert len({tuple(y) for y in again}) > 1
    np.testing.assert_allclose(output.y_final, np.mean(again, axis=0), rtol=1e-6)


def test_the_same_generator_gives_every_reader_the_same_draws(five: list[Predictor]) -> None:
    one, other = (
        predict_augmented(reader, volume(1), np.random.default_rng(8), draws=3)
        for reader in (five[0], Ensemble(five[1:3]))
    )
    assert one.shifts == other.shifts


def test_no_draw_is_refused(five: list[Predictor]) -> None:
    with pytest.raises(ConfigError, match="draws is 0"):
        predict_augmented(five[0], volume(1), np.random.default_rng(0), draws=0)
