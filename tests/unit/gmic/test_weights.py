"""Weights: published checkpoints, files of our own, and every way they can be wrong."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor

from gmic.config import GMIC3DConfig
from gmic.errors import WeightsError
from gmic.model import GMIC3D
from gmic.published import published_name
from gmic.weights import load, load_published, save, seeded
from tests.support.shared import shared_path
from tests.unit.gmic.small import CONFIG, volume


def _published(model: GMIC3D) -> dict[str, Tensor]:
    return {published_name(k): v.clone() for k, v in model.state_dict().items()}


def _equal(one: GMIC3D, other: GMIC3D) -> bool:
    theirs = other.state_dict()
    return all(torch.equal(value, theirs[name]) for name, value in one.state_dict().items())


@pytest.fixture(scope="module")
def filled() -> GMIC3D:
    return seeded(CONFIG, 5)[0]


@pytest.fixture
def empty() -> GMIC3D:
    return GMIC3D(CONFIG)


def test_names_and_shapes_are_the_published_ones() -> None:
    published = json.loads(shared_path("goldens", "state_dict_keys.json").read_text())
    with torch.device("meta"):
        model = GMIC3D()
    ours = {published_name(k): list(v.shape) for k, v in model.state_dict().items()}
    assert ours == published["shapes"]


def test_a_state_dict_fills_the_model_and_ends_training_mode(filled: GMIC3D, empty: GMIC3D) -> None:
    load_published(empty, _published(filled))
    assert _equal(empty, filled)
    assert not empty.training


@pytest.mark.parametrize(
    "dress",
    [
        lambda d: {f"module.{k}": v for k, v in d.items()},
        lambda d: {f"model.module.{k}": v for k, v in d.items()},
        lambda d: {"state_dict": d, "epoch": 3},
        lambda d: {"model": {f"module.{k}": v for k, v in d.items()}},
        lambda d: {k: v.numpy() for k, v in d.items()},
        lambda d: {k: v for k, v in d.items() if not k.endswith("num_batches_tracked")},
    ],
    ids=["module", "two prefixes", "state_dict", "model+module", "arrays", "no counters"],
)
def test_common_wrappings_are_read(filled: GMIC3D, empty: GMIC3D, dress: Any) -> None:
    load_published(empty, dress(_published(filled)))
    assert _equal(empty, filled)


@pytest.mark.parametrize("suffix", [".pt", ".p", ".safetensors"])
def test_checkpoint_files_are_read(
    filled: GMIC3D, empty: GMIC3D, tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"sample{suffix}"
    if suffix == ".safetensors":
        safetensors.torch.save_file(_published(filled), path)
    else:
        torch.save(_published(filled), path, _use_new_zipfile_serialization=suffix == ".pt")
    load_published(empty, path)
    assert _equal(empty, filled)


def _without(d: dict[str, Tensor], *parts: str) -> dict[str, Any]:
    return {k: v for k, v in d.items() if not any(part in k for part in parts)}


STEM = "ds_net.first_conv.weight"


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda d: _without(d, "mil_attn_V"), r"1 missing \(mil_attn_V.weight\)"),
        (lambda d: _without(d, STEM), rf"1 missing \({STEM}\)"),
        (lambda d: _without(d, "dn_resnet"), r"dn_resnet.conv1.weight, .*, and \d+ more"),
        (lambda d: d | {"fusion.weight": torch.ones(2)}, r"1 unknown \(fusion.weight\)"),
        (lambda d: {"a": torch.ones(1)}, r"missing \(.*unknown \(a\)"),
        (lambda d: {}, "missing"),
        (lambda d: d | {STEM: torch.ones(16, 1, 7, 7)}, r"\[16, 1, 7, 7\], not \[8, 1, 7, 7\]"),
        (lambda d: d | {STEM: d[STEM] * float("nan")}, f"NaN or infinity in {STEM}"),
        (lambda d: d | {STEM: "text"}, f"{STEM} is a str, not a tensor"),
        (lambda d: d | {STEM: d[STEM].to(torch.complex64)}, "complex64"),
        (lambda d: {f"a.{k}": v for k, v in d.items()} | {f"b.{STEM}": d[STEM]}, "unknown"),
    ],
)
def test_what_does_not_fit_is_named_and_changes_nothing(
    filled: GMIC3D, empty: GMIC3D, spoil: Any, says: str
) -> None:
    before = {k: v.clone() for k, v in empty.state_dict().items()}
    with pytest.raises(WeightsError, match=says) as caught:
        load_published(empty, spoil(_published(filled)))
    assert "\n" not in str(caught.value)
    assert all(torch.equal(v, before[k]) for k, v in empty.state_dict().items())


class _Trap:
    """Makes a file when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_a_pickle_with_code_is_refused_unrun(empty: GMIC3D, tmp_path: Path) -> None:
    path, sprung = tmp_path / "trap.p", tmp_path / "sprung"
    torch.save({STEM: torch.ones(1), "x": _Trap(sprung)}, path)
    with pytest.raises(WeightsError, match="could run code"):
        load_published(empty, path)
    assert not sprung.exists()


@pytest.mark.parametrize(
    "data",
    [b"", b"PK\x03\x04 cut off", b"not a checkpoint", pickle.dumps([1, 2]), b"\x80\x02}q\x00"],
)
@pytest.mark.parametrize("name", ["x.p", "x.safetensors"])
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_foreign_checkpoints_are_refused(
    empty: GMIC3D, tmp_path: Path, data: bytes, name: str
) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(WeightsError, match=name):
        load_published(empty, tmp_path / name)


def test_a_truncated_checkpoint_is_refused(filled: GMIC3D, empty: GMIC3D, tmp_path: Path) -> None:
    path = tmp_path / "cut.pt"
    torch.save(_published(filled), path)
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(WeightsError, match="damaged"):
        load_published(empty, path)


def test_a_missing_file_is_refused(empty: GMIC3D, tmp_path: Path) -> None:
    for call in (lambda p: load_published(empty, p), load):
        with pytest.raises(WeightsError, match="No such file"):
            call(tmp_path / "none.safetensors")


def test_save_and_load_give_the_same_model_and_card(tmp_path: Path) -> None:
    model, info = seeded(CONFIG, 5)
    path = tmp_path / "w.safetensors"
    saved = save(model, path, info)
    again, read = load(path)
    assert _equal(model, again)
    assert not again.training
    assert saved == info == read
    assert read.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert torch.equal(again(volume()).y_final, model(volume()).y_final)


def test_the_card_is_part_of_the_digest(tmp_path: Path) -> None:
    model, info = seeded(CONFIG, 5)
    other = save(model, tmp_path / "w", dataclasses.replace(info, segment_threshold=0.4))
    assert other.sha256 != info.sha256
    assert load(tmp_path / "w")[1].segment_threshold == 0.4


def _resave(path: Path, **changes: Any) -> None:
    """Write `path` again with other metadata."""
    data = path.read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    card = json.loads(header["__metadata__"]["gmic"])
    metadata = {"gmic": json.dumps(card | changes)} if changes else {"made by": "another"}
    path.write_bytes(safetensors.torch.save(safetensors.torch.load(data), metadata))


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda p: p.write_bytes(p.read_bytes()[:-100]), "damaged"),
        (lambda p: p.write_bytes(p.read_bytes()[:4]), "damaged"),
        (lambda p: p.write_bytes(b"PK\x03\x04" * 100), "damaged"),
        (lambda p: _resave(p), "no gmic card"),
        (lambda p: p.write_bytes(safetensors.torch.save({"a": torch.ones(1)})), "no gmic card"),
        (lambda p: _resave(p, format="gmic3d-99"), "gmic3d-99"),
        (lambda p: _resave(p, config={"num_patches": 0}), "num_patches is 0"),
        (lambda p: _resave(p, config=CONFIG.to_dict() | {"stem_channels": 16}), "not fit"),
        (lambda p: _resave(p, config=7), "no gmic card"),
        (lambda p: _resave(p, segment_threshold="high"), "segment_threshold"),
        (lambda p: _resave(p, segment_threshold=1.5), "segment_threshold"),
    ],
)
def test_damaged_and_foreign_files_are_refused(tmp_path: Path, spoil: Any, says: str) -> None:
    model, info = seeded(CONFIG, 5)
    path = tmp_path / "w.safetensors"
    save(model, path, info)
    spoil(path)
    with pytest.raises(WeightsError, match=says) as caught:
        load(path)
    assert "\n" not in str(caught.value)


def test_a_failed_write_leaves_nothing_behind(tmp_path: Path) -> None:
    model, info = seeded(CONFIG, 5)
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError, match="directory"):
        save(model, tmp_path / "taken", info)
    assert [p.name for p in tmp_path.iterdir()] == ["taken"]


def test_a_seed_gives_the_same_weights_whatever_the_threads() -> None:
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one, info_one = seeded(CONFIG, 11)
        torch.manual_seed(1)
        torch.set_num_threads(2)
        two, info_two = seeded(CONFIG, 11)
    finally:
        torch.set_num_threads(threads)
    assert _equal(one, two)
    assert info_one == info_two
    assert info_one.name == "untrained-seed-11"
    assert not info_one.trained
    assert seeded(CONFIG, 12)[1].sha256 != info_one.sha256


def test_seeded_weights_do_not_disturb_the_global_generator() -> None:
    torch.manual_seed(4)
    wanted = torch.rand(3)
    torch.manual_seed(4)
    seeded(CONFIG, 1)
    assert torch.equal(torch.rand(3), wanted)


def test_seeded_weights_of_the_smallest_map_are_finite() -> None:
    tiny = dataclasses.replace(CONFIG, window_shape=(16, 16), patch_size=16, num_patches=1)
    model, _ = seeded(tiny, 0)
    assert all(bool(value.isfinite().all()) for value in model.state_dict().values())


@pytest.mark.parametrize("seed", [0, 7])
def test_seeded_weights_light_a_few_cells_of_a_full_window(seed: int) -> None:
    """On a slice unlike the one they were scaled on: other waves, spots and outline."""
    model, info = seeded(GMIC3DConfig(), seed)
    output = model(_breast())
    lit = (output.saliency_CDHW >= info.segment_threshold).double().mean(dim=(1, 2, 3))
    assert bool(((lit >= 0.0005) & (lit <= 0.05)).all()), lit
    assert bool(((output.y_final > 0.01) & (output.y_final < 0.99)).all())


def _breast() -> np.ndarray[Any, Any]:
    rng = np.random.default_rng(3)
    y, x = np.mgrid[0:1:2116j, 0:1:1339j]
    image = 2 + 0.3 * np.sin(25 * y + 9 * x) * np.cos(31 * x - 6 * y)
    image += np.kron(rng.normal(0, 0.25, (133, 84)), np.ones((16, 16)))[:2116, :1339]
    for row, col, radius in rng.uniform((0.3, 0.05, 0.01), (0.7, 0.5, 0.03), (6, 3)):
        image += 2 * np.exp(-((y - row) ** 2 + (0.63 * (x - col)) ** 2) / radius**2)
    image *= ((y - 0.5) / 0.4) ** 2 + (x / 0.75) ** 2 < 1
    return ((image - image.mean()) / image.std())[None].astype(np.float32)
