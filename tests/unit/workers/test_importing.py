"""Weights into the registry: ours, published checkpoints, and everything that cannot be taken."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from gmic import weights
from gmic.errors import ConfigError as ModelConfigError
from gmic.errors import WeightsError
from gmic.model import GMIC3D
from node import registry, schema
from node.blobs import BlobStore
from node.config import Settings
from node.db import Database
from node.errors import ConfigError, Conflict
from node.model_version import UNTRAINED
from tests.conftest import make_settings
from tests.support import goldens
from tests.support.shared import shared_path
from tests.support.versions import weights_file
from workers.errors import UnknownModel, WeightsGone
from workers.importing import RELEASED_PATCHES, RELEASED_TOP_T, Wanted, configurations, import_files
from workers.models import Models, load_version


@pytest.fixture
def here(tmp_path: Path) -> Settings:
    return make_settings(tmp_path / "home", threads=1)


@pytest.fixture
def base(here: Settings) -> Iterator[Database]:
    schema.upgrade(here.db_url)
    db = Database(here.db_url)
    yield db
    db.dispose()


def _blobs(settings: Settings) -> BlobStore:
    return BlobStore(settings.blob_root, settings.spool)


def _ours(path: Path, name: str | None = None) -> Wanted:
    return Wanted([path], name, "CC0")


def test_our_file_is_taken_as_it_is(here: Settings, base: Database, tmp_path: Path) -> None:
    path = weights_file(tmp_path, 3)
    row = import_files(base, here, _ours(path), "ann")
    assert (row.version, row.state, row.licence) == ("small-3", "CANDIDATE", "CC0")
    assert _blobs(here).path(row.sha256).read_bytes() == path.read_bytes()
    assert row.architecture["members"][0]["num_patches"] == 3
    assert row.preprocessing["window_shape"] == [256, 192]
    assert row.operating_points == {"segment": 0.001}
    again = import_files(base, here, _ours(path, "other-name"), "bob")
    assert (again.id, again.version, again.created_by) == (row.id, "small-3", "ann")
    identity = load_version(base, _blobs(here), here, "small-3").identity
    assert (identity.version, identity.weights_sha256) == ("small-3", row.sha256)


def test_a_name_keeps_its_meaning(here: Settings, base: Database, tmp_path: Path) -> None:
    import_files(base, here, _ours(weights_file(tmp_path, 1), "a"), "ann")
    other = weights_file(tmp_path, 2)
    with pytest.raises(Conflict, match="with other weights"):
        import_files(base, here, _ours(other, "a"), "ann")
    with pytest.raises(Conflict, match="configured weights"):
        import_files(base, here, _ours(other, UNTRAINED), "ann")
    configured = here.model_copy(update={"weights": weights_file(tmp_path, 4)})
    with pytest.raises(Conflict, match="configured weights"):
        import_files(base, configured, _ours(other, "small-4"), "ann")
    assert configured.weights is not None
    row = import_files(base, configured, _ours(configured.weights, "small-4"), "ann")
    assert row.version == "small-4"
    with base.reading() as session:
        assert len(registry.versions(session)) == 2


def test_published_checkpoints_are_converted_and_averaged(
    here: Settings, base: Database, tmp_path: Path
) -> None:
    shapes = json.loads(shared_path("goldens", "state_dict_keys.json").read_text())["shapes"]
    states = [goldens.seeded_state(shapes, seed) for seed in (1, 2)]
    paths = [tmp_path / f"model-{n}.p" for n in range(2)]
    for path, state in zip(paths, states, strict=True):
        torch.save({name: torch.from_numpy(value) for name, value in state.items()}, path)
    wanted = Wanted(paths, "released", "theirs", (1.5, 2.25), (3, 2), 0.25)
    row = import_files(base, here, wanted, "ann")
    blob = _blobs(here).path(row.sha256)
    assert not blob.read_bytes().startswith((b"PK", b"\x80")), "no pickle is kept"
    assert [m["top_t_fraction"] for m in row.architecture["members"]] == [1.5, 2.25]
    assert [m["num_patches"] for m in row.architecture["members"]] == [3, 2]
    assert row.operating_points == {"segment": 0.25}
    assert row.trained
    held = load_version(base, _blobs(here), here, "released")
    window = goldens.seeded_input(1, 2, 320, 300)
    found = held.predict(window, lambda: None)
    alone = []
    for config, state in zip(held.identity.configs, states, strict=True):
        model = GMIC3D(config)
        weights.load_published(model, state)
        with torch.no_grad():
            alone.append(model(window))
    mean = torch.stack([one.y_final for one in alone]).mean(dim=0)
    assert list(found.scores.values()) == pytest.approx(mean.tolist(), abs=1e-6)
    saliency = torch.stack([one.saliency_CDHW for one in alone]).mean(dim=0)
    assert torch.allclose(torch.from_numpy(found.saliency_CDhw), saliency, atol=1e-6)
    assert held.identity.algorithm().parameters["patches"] == "3, 2"
    assert held.identity.algorithm().parameters["members"] == "2"


def test_values_of_published_checkpoints() -> None:
    def made(count: int, top_t: tuple[float, ...] = (), patches: tuple[int, ...] = ()):  # type: ignore[no-untyped-def]
        files = [Path(f"{n}.p") for n in range(count)]
        found = configurations(Wanted(files, "a", "none", top_t, patches))
        return [(config.top_t_fraction, config.num_patches) for config in found]

    assert made(5) == list(zip(RELEASED_TOP_T, RELEASED_PATCHES, strict=True))
    assert made(1) == [(1.51, 12)]
    assert made(2, (1.0,), (8, 16)) == [(1.0, 8), (1.0, 16)]
    assert made(5, (1.0,)) == [(1.0, k) for k in RELEASED_PATCHES]
    with pytest.raises(ConfigError, match="2 files are not the five"):
        made(2)
    with pytest.raises(ConfigError, match="3 values for 2 files"):
        made(2, (1.0, 2.0, 3.0), (8,))
    with pytest.raises(ModelConfigError, match="top_t_fraction"):
        made(1, (-1.0,))


def test_what_cannot_be_taken(here: Settings, base: Database, tmp_path: Path) -> None:
    ours = weights_file(tmp_path, 1)
    code = tmp_path / "code.p"
    code.write_bytes(pickle.dumps({"a": Path}))
    foreign = tmp_path / "foreign.p"
    torch.save({"layer.weight": torch.zeros(3)}, foreign)
    cases = [
        (Wanted([code], "a", "none"), WeightsError, "could run code"),
        (Wanted([foreign], "a", "none"), WeightsError, "do not fit the model"),
        (Wanted([foreign], None, "none"), ConfigError, "give --name"),
        (Wanted([ours, foreign], "a", "none"), ConfigError, "give one file of ours"),
        (Wanted([ours], "a", "none", (1.5,)), ConfigError, "has a card"),
    ]
    for wanted, kind, words in cases:
        with pytest.raises(kind, match=words):
            import_files(base, here, wanted, "ann")
    with base.reading() as session:
        assert registry.versions(session) == []
    assert list(here.spool.iterdir()) == []


def test_a_damaged_blob_is_said_and_mended_by_importing_again(
    here: Settings, base: Database, tmp_path: Path
) -> None:
    path = weights_file(tmp_path, 1)
    row = import_files(base, here, _ours(path), "ann")
    blob = _blobs(here).path(row.sha256)
    models = Models(base, _blobs(here), here)
    blob.chmod(0o644)
    content = bytearray(blob.read_bytes())
    content[-1] ^= 1
    blob.unlink()
    blob.write_bytes(content)
    with pytest.raises(WeightsGone, match="are damaged in the blob store"):
        models.get("small-1")
    blob.unlink()
    with pytest.raises(WeightsGone, match="are not in the blob store"):
        models.get("small-1")
    blob.write_bytes(content)
    import_files(base, here, _ours(path), "ann")
    assert models.get("small-1").identity.weights_sha256 == row.sha256
    with pytest.raises(UnknownModel, match="neither in the registry nor configured"):
        models.get("nobody")


def test_two_models_are_in_memory_at_most(here: Settings, base: Database, tmp_path: Path) -> None:
    for seed in (1, 2, 3):
        import_files(base, here, _ours(weights_file(tmp_path, seed)), "ann")
    models = Models(base, _blobs(here), here)
    answers = models.get("small-1")
    trial = models.get("small-2", shadow=True)
    assert models.get("small-1") is answers
    assert models.get("small-2") is trial, "a promoted shadow is not loaded twice"
    models.get("small-3", shadow=True)
    assert models.get("small-1") is answers
    assert models.get("small-2") is not trial
    assert len(models._held) == 2
