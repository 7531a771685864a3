"""Weights files of one model and of several."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from gmic import bundle, weights, weights_file
from gmic.config import GMIC3DConfig
from gmic.engine.ensemble import Ensemble
from gmic.errors import ConfigError, WeightsError
from gmic.inference import Predictor
from gmic.model import GMIC3D
from gmic.published import published_name
from gmic.weights import seeded
from tests.unit.gmic.small import CONFIG, volume

OTHER = dataclasses.replace(CONFIG, num_patches=2, top_t_fraction=2.06)


def _saved(folder: Path, *configs: GMIC3DConfig) -> Path:
    path = folder / f"{len(configs)}.safetensors"
    models = [seeded(config, seed)[0] for seed, config in enumerate(configs)]
    bundle.save(models, path, seeded(CONFIG, 0)[1])
    return path


def test_an_ensemble_comes_back_as_it_was(tmp_path: Path) -> None:
    path = _saved(tmp_path, CONFIG, OTHER, CONFIG)
    found = bundle.load(path)
    assert found.configs == (CONFIG, OTHER, CONFIG)
    assert found.info.config == CONFIG
    for seed, (model, config) in enumerate(zip(found.models, found.configs, strict=True)):
        wanted = seeded(config, seed)[0].state_dict()
        assert not model.training
        assert all(torch.equal(value, wanted[n]) for n, value in model.state_dict().items())
    readers = [Predictor(model, found.info, device="cpu") for model in found.models]
    alone = [reader.predict(volume()).y_final for reader in readers]
    output = Ensemble(readers).predict(volume())
    assert torch.allclose(output.y_final, torch.stack(alone).mean(dim=0))
    assert output.saliency_CDHW is not None


def test_the_same_ensemble_gives_the_same_bytes(tmp_path: Path) -> None:
    one = _saved(tmp_path, CONFIG, OTHER).read_bytes()
    assert _saved(tmp_path, CONFIG, OTHER).read_bytes() == one
    assert bundle.load(tmp_path / "2.safetensors").info.sha256


def test_one_model_is_the_file_that_weights_writes(tmp_path: Path) -> None:
    model, info = seeded(CONFIG, 0)
    weights.save(model, tmp_path / "plain.safetensors", info)
    path = _saved(tmp_path, CONFIG)
    assert path.read_bytes() == (tmp_path / "plain.safetensors").read_bytes()
    assert bundle.load(path).configs == (CONFIG,)


def test_members_must_share_their_cells(tmp_path: Path) -> None:
    finer = dataclasses.replace(CONFIG, stage_strides=(1, 1))
    wider = dataclasses.replace(CONFIG, window_shape=(256, 256))
    for config in (finer, wider):
        with pytest.raises(WeightsError, match="different windows"):
            _saved(tmp_path, CONFIG, config)
    with pytest.raises(ConfigError, match="no model"):
        _saved(tmp_path)


def test_a_member_that_lacks_tensors_is_refused(tmp_path: Path) -> None:
    path = _saved(tmp_path, CONFIG, CONFIG)
    tensors, card, _ = weights_file.read_file(path)
    kept = {name: value for name, value in tensors.items() if not name.startswith("1.global")}
    path.write_bytes(weights_file.serialised(kept, card))
    with pytest.raises(WeightsError, match="missing"):
        bundle.load(path)
    path.write_bytes(weights_file.serialised(tensors, {**card, "members": []}))
    with pytest.raises(WeightsError, match="without members"):
        bundle.load(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(WeightsError, match="damaged"):
        bundle.load(path)


def test_files_of_ours_are_known_by_their_header(tmp_path: Path) -> None:
    assert bundle.is_ours(_saved(tmp_path, CONFIG))
    assert bundle.is_ours(_saved(tmp_path, CONFIG, OTHER))
    pickled = tmp_path / "model.p"
    torch.save({"a": torch.zeros(2)}, pickled)
    text = tmp_path / "notes.txt"
    text.write_text("no weights")
    empty = tmp_path / "empty"
    empty.touch()
    assert not any(map(bundle.is_ours, (pickled, text, empty)))
    with pytest.raises(WeightsError, match="cannot read"):
        bundle.is_ours(tmp_path / "absent")


def test_published_checkpoints_become_models(tmp_path: Path) -> None:
    paths = []
    for seed, config in enumerate((CONFIG, OTHER)):
        state = seeded(config, seed)[0].state_dict()
        paths.append(tmp_path / f"{seed}.p")
        torch.save({published_name(name): value for name, value in state.items()}, paths[-1])
    models = bundle.from_published(paths, (CONFIG, OTHER))
    assert [model.config for model in models] == [CONFIG, OTHER]
    assert _equal(models[1], seeded(OTHER, 1)[0])
    with pytest.raises(ConfigError, match="1 configurations for 2 files"):
        bundle.from_published(paths, [CONFIG])


def test_a_checkpoint_in_place_of_a_weights_file_is_named_as_what_it_is(tmp_path: Path) -> None:
    state = {"a": torch.zeros(2)}
    torch.save(state, tmp_path / "new.p")
    torch.save(state, tmp_path / "old.p", _use_new_zipfile_serialization=False)
    for name in ("new.p", "old.p"):
        for read in (bundle.load, weights.load):
            with pytest.raises(
                WeightsError, match=f"{name} is a PyTorch checkpoint.*`tomonode model import FILE"
            ):
                read(tmp_path / name)


def test_files_of_one_kind_are_read_together(tmp_path: Path) -> None:
    ours, theirs = _saved(tmp_path, CONFIG, OTHER), tmp_path / "theirs.p"
    state = seeded(OTHER, 3)[0].state_dict()
    torch.save({published_name(name): value for name, value in state.items()}, theirs)
    (found,) = bundle.load_all([theirs], lambda: [OTHER])
    assert _equal(found.models[0], seeded(OTHER, 3)[0])
    assert bundle.called([found]) == f"theirs.p t=2.06 K=2 ({found.info.sha256[:12]})"
    several = bundle.load_all([ours, ours], lambda: [])
    assert [len(one.models) for one in several] == [2, 2]
    with pytest.raises(WeightsError, match=r"theirs\.p is no weights file of this program"):
        bundle.load_all([ours, theirs], lambda: [CONFIG, CONFIG])


def _equal(one: GMIC3D, other: GMIC3D) -> bool:
    theirs = other.state_dict()
    return all(torch.equal(value, theirs[name]) for name, value in one.state_dict().items())
