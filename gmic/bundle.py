"""A weights file with one model or several: what a registry keeps under one digest.

An ensemble is one safetensors file: the tensors of member n are called `n.` and their own name, and the card in the
metadata's entry `gmic` lists a configuration a member in place of one. Its members read the same window, and their
cells lie at the same places, so that their maps can be averaged (`gmic.engine.ensemble`).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from gmic import weights
from gmic.config import GMIC3DConfig
from gmic.errors import ConfigError, WeightsError
from gmic.model import GMIC3D
from gmic.weights import WeightsInfo
from gmic.weights_file import read_file, serialised, write_file

FORMAT = "gmic3d-ensemble-1"
_HEADER_LIMIT = 100 * 2**20


@dataclass(frozen=True)
class Bundle:
    """Models that answer together, in evaluation mode, and their card; `info.config` is the first one's."""

    models: tuple[GMIC3D, ...]
    info: WeightsInfo

    @property
    def configs(self) -> tuple[GMIC3DConfig, ...]:
        """The configuration of each."""
        return tuple(model.config for model in self.models)


def is_ours(path: Path) -> bool:
    """Whether a file is a weights file of this package, by its header; False for anything else.

    Raises:
        WeightsError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= _HEADER_LIMIT:
                return False
            header = json.loads(file.read(length))
    except OSError as error:
        raise WeightsError(f"cannot read weights file {path}: {error.strerror}") from error
    except ValueError:
        return False
    metadata = header.get("__metadata__") if isinstance(header, dict) else None
    return isinstance(metadata, dict) and "gmic" in metadata


def load(path: Path) -> Bundle:
    """Read a file that `gmic.weights.save` or `encode` wrote.

    Raises:
        WeightsError: it cannot be read, is damaged, is foreign, or does not fit its own configuration.
    """
    tensors, card, digest = read_file(path)
    if card.get("format") != FORMAT:
        model, info = weights.load(path)
        return Bundle((model,), info)
    members = card.get("members")
    if not isinstance(members, list) or not members:
        raise WeightsError(f"weights file {path} is an ensemble without members; import it again")
    infos = [weights.info_of(card, digest, values, path) for values in members]
    models = tuple(weights.filled(info.config, _member(tensors, n)) for n, info in enumerate(infos))
    _require_one_grid(models)
    return Bundle(models, infos[0])


def save(models: Sequence[GMIC3D], path: Path, info: WeightsInfo) -> WeightsInfo:
    """Write a model's file (`gmic.weights.save`), or an ensemble's; returns `info` with the digest.

    The same weights, configurations and card give the same bytes. The file appears whole or not at all.

    Raises:
        ConfigError: no model.
        WeightsError: members whose windows or cells do not lie at the same places.
        OSError: it could not be written.
    """
    if not models:
        raise ConfigError("the ensemble has no model; give at least one")
    if len(models) == 1:
        return weights.save(models[0], path, info)
    _require_one_grid(models)
    card = {
        **weights.card_of(info),
        "format": FORMAT,
        "members": [model.config.to_dict() for model in models],
    }
    tensors = {
        f"{n}.{name}": value
        for n, model in enumerate(models)
        for name, value in model.state_dict().items()
    }
    digest = write_file(path, serialised(tensors, card))
    return dataclasses.replace(info, config=models[0].config, sha256=digest)


def from_published(paths: Sequence[Path], configs: Sequence[GMIC3DConfig]) -> tuple[GMIC3D, ...]:
    """The models of published checkpoints, in evaluation mode, a configuration a file.

    Raises:
        ConfigError: another number of configurations than files.
        WeightsError: a file that cannot be read or does not fit (see `gmic.weights.load_published`).
    """
    if len(paths) != len(configs):
        raise ConfigError(f"{len(configs)} configurations for {len(paths)} files; give one a file")
    models = []
    for path, config in zip(paths, configs, strict=True):
        model = GMIC3D(config)
        weights.load_published(model, path)
        models.append(model)
    return tuple(models)


def load_all(
    paths: Sequence[Path], published: Callable[[], Sequence[GMIC3DConfig]]
) -> list[Bundle]:
    """Read files that `save` wrote, or published checkpoints, one bundle a file.

    A published checkpoint gets a card with its file's name and digest, and as version the t and K it is read with, for
    scores depend on them and the file does not say them.

    Args:
        paths: All of one kind.
        published: Gives the configurations of published checkpoints, one a file; not called for others.

    Raises:
        WeightsError: both kinds together, or see `load` and `gmic.weights.load_published`.
        ConfigError: see `from_published`, and what `published` raises.
    """
    ours = [is_ours(path) for path in paths]
    if all(ours):
        return [load(path) for path in paths]
    if any(ours):
        raise WeightsError(
            f"{paths[ours.index(False)]} is no weights file of this program and others are; give files of one kind"
        )
    models = from_published(paths, published())
    return [Bundle((m,), _card(path, m.config)) for path, m in zip(paths, models, strict=True)]


def _card(path: Path, config: GMIC3DConfig) -> WeightsInfo:
    return WeightsInfo(
        name=path.name,
        version=f"t={config.top_t_fraction:g} K={config.num_patches}",
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        trained=True,
        description="A published checkpoint. What it learned from is not known here.",
        segment_threshold=0.5,
        config=config,
    )


def called(found: Sequence[Bundle]) -> str:
    """What a report calls models that answer together."""
    names = []
    for one in found:
        several = f", {len(one.models)} models" if len(one.models) > 1 else ""
        names.append(f"{one.info.name} {one.info.version} ({one.info.sha256[:12]}{several})")
    return " + ".join(names)


def _member(tensors: Mapping[str, Tensor], n: int) -> dict[str, Tensor]:
    prefix = f"{n}."
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _require_one_grid(models: Sequence[GMIC3D]) -> None:
    grids = {(model.config.window_shape, model.receptive_field) for model in models}
    if len(grids) > 1:
        raise WeightsError(
            "the members of the ensemble read different windows or have their cells at different places;"
            " give models of one window and one global network"
        )
