"""Weights in and out: published checkpoints, our own files, and seeded weights without training.

A weights file is safetensors whose metadata holds one entry, `gmic`: a JSON object with the format,
the configuration and the card (name, version, trained or not, ...). It runs no code when read. One
entry, sorted keys: the same weights give the same bytes, so its SHA-256 names them.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gmic import untrained
from gmic.config import GMIC3DConfig
from gmic.errors import ConfigError, WeightsError
from gmic.model import GMIC3D
from gmic.published import published_name, read_checkpoint
from gmic.weights_file import no_card, read_file, serialised, write_file

FORMAT = "gmic3d-1"


@dataclass(frozen=True)
class WeightsInfo:
    """The card of a set of weights.

    Attributes:
        name: What to call them, for example on a report.
        version: Version of these weights.
        sha256: Digest of the weights file, or of the file `save` would write; empty while unknown.
        trained: False for weights that never saw a training image; then no score means anything.
        description: A sentence for a reader.
        segment_threshold: Saliency from which a cell counts as part of a finding, in (0, 1).
        config: The model they belong to.
        caveat: A sentence that must stand beside every score, such as that they never saw a patient;
            empty where there is none.
    """

    name: str
    version: str
    sha256: str
    trained: bool
    description: str
    segment_threshold: float
    config: GMIC3DConfig
    caveat: str = ""

    def __post_init__(self) -> None:
        """Check the threshold.

        Raises:
            WeightsError: A threshold that is not a number between 0 and 1.
        """
        threshold: object = self.segment_threshold
        if not isinstance(threshold, float) or not 0 < threshold < 1:
            raise WeightsError(
                f"segment_threshold is {threshold!r}; it must be a number between 0 and 1"
            )


def load_published(model: GMIC3D, source: str | Path | Mapping[str, Any]) -> None:
    """Fill `model` from a checkpoint with the published tensor names and set evaluation mode.

    Nothing is changed unless everything fits. Checkpoints saved by a wrapper that puts the same
    prefix, such as `module.`, before every name are read too, and so is a state dict kept under
    `state_dict`, `model_state_dict` or `model`.

    Args:
        model: The model to fill; its configuration must fit the checkpoint.
        source: A pickled checkpoint (read without running code), a safetensors file, or a state
            dict of tensors or arrays.

    Raises:
        WeightsError: Not readable, or names, shapes or values that do not fit (the first few named).
    """
    found = read_checkpoint(source)
    targets = {published_name(name): name for name in model.state_dict()}
    _fill(model, {targets.get(name, name): value for name, value in found.items()}, targets)
    model.eval()


def save(model: GMIC3D, path: str | Path, info: WeightsInfo) -> WeightsInfo:
    """Write `model`'s weights with `info` as their card; returns `info` with the file's digest.

    `info.config` is replaced by the model's own. The file appears whole or not at all.

    Raises:
        OSError: It could not be written.
    """
    digest = write_file(Path(path), _serialise(model, info))
    return dataclasses.replace(info, config=model.config, sha256=digest)


def load(path: str | Path) -> tuple[GMIC3D, WeightsInfo]:
    """Read a file that `save` wrote: the model, in evaluation mode, and the card.

    Raises:
        WeightsError: The file cannot be read, is damaged, is foreign, or does not fit its own
            configuration.
    """
    tensors, card, digest = read_file(Path(path))
    if card.get("format") != FORMAT:
        raise WeightsError(f"weights file {path} has format {card.get('format')!r}, not {FORMAT}")
    info = info_of(card, digest, card.get("config"), Path(path))
    return filled(info.config, tensors), info


def info_of(card: Mapping[str, Any], digest: str, config: Any, path: Path) -> WeightsInfo:
    """What a card says of weights whose configuration has these values.

    Raises:
        WeightsError: Something is missing in it, or no model can have these values.
    """
    try:
        return WeightsInfo(
            name=str(card["name"]),
            version=str(card["version"]),
            sha256=digest,
            trained=bool(card["trained"]),
            description=str(card["description"]),
            caveat=str(card.get("caveat", "")),
            segment_threshold=card["segment_threshold"],
            config=GMIC3DConfig.from_dict(config),
        )
    except ConfigError as error:
        raise WeightsError(f"weights file {path} has a bad configuration: {error}") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise no_card(path) from error


def filled(config: GMIC3DConfig, tensors: Mapping[str, Any]) -> GMIC3D:
    """A model with these weights, by its own names, in evaluation mode.

    Raises:
        WeightsError: Names, shapes or values that do not fit.
    """
    model = _empty_model(config)
    _fill(model, tensors, {name: name for name in model.state_dict()})
    return model.eval()


def seeded(config: GMIC3DConfig, seed: int) -> tuple[GMIC3D, WeightsInfo]:
    """A model with weights drawn from `seed`, in evaluation mode: untrained, for trying a pipeline.

    The same seed gives the same weights, and the same digest, on every machine. A breast lights a
    few cells in a hundred; what it lights means nothing.

    Raises:
        ConfigError: A negative seed.
    """
    if seed < 0:
        raise ConfigError(f"seed is {seed}; it must be a whole number from 0")
    model = _empty_model(config)
    untrained.fill(model, seed)
    info = WeightsInfo(
        name=f"untrained-seed-{seed}",
        version="1",
        sha256="",
        trained=False,
        description="Random weights that never saw a training image; scores mean nothing.",
        segment_threshold=untrained.SEGMENT_THRESHOLD,
        config=config,
    )
    digest = hashlib.sha256(_serialise(model, info)).hexdigest()
    return model, dataclasses.replace(info, sha256=digest)


def _fill(model: GMIC3D, values: Mapping[str, Any], shown: Mapping[str, str]) -> None:
    """Copy `values` into the model after checking all of them.

    Args:
        model: The model to fill.
        values: Tensor or array of each of the model's own names.
        shown: {name to use in a message: the model's own name}.
    """
    label = {ours: name for name, ours in shown.items()}
    state = model.state_dict()
    # Counters of training steps, unused in evaluation; older checkpoints lack them.
    required = {name for name in state if not name.endswith("num_batches_tracked")}
    missing = [label[name] for name in state if name in required and name not in values]
    unknown = [str(name) for name in values if name not in state]
    if missing or unknown:
        problems = [
            f"{len(names)} {kind} ({_few(names)})"
            for kind, names in (("missing", missing), ("unknown", unknown))
            if names
        ]
        raise WeightsError(f"the weights do not fit the model: tensors {' and '.join(problems)}")
    tensors = {name: _as_tensor(label[name], value) for name, value in values.items()}
    wrong = [
        f"{label[name]} is {list(tensor.shape)}, not {list(state[name].shape)}"
        for name, tensor in tensors.items()
        if tensor.shape != state[name].shape
    ]
    if wrong:
        raise WeightsError(f"the weights do not fit the model: {_few(wrong)}; check the config")
    bad = [label[name] for name, tensor in tensors.items() if not bool(tensor.isfinite().all())]
    if bad:
        raise WeightsError(f"the weights hold NaN or infinity in {_few(bad)}; make them again")
    with torch.no_grad():
        for name, target in state.items():
            if name in tensors:
                target.copy_(tensors[name])
            else:
                target.zero_()


def _as_tensor(name: str, value: Any) -> Tensor:
    """`value` as a real tensor."""
    try:
        tensor = torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise WeightsError(f"{name} is a {type(value).__name__}, not a tensor") from error
    if tensor.is_complex():
        raise WeightsError(f"{name} holds {tensor.dtype}; give real numbers")
    return tensor


def _few(names: Iterable[str], shown: int = 3) -> str:
    """The first few names, and how many more there are."""
    names = list(names)
    more = f", and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more


def _serialise(model: GMIC3D, info: WeightsInfo) -> bytes:
    """The bytes of a weights file: a function of the weights, the configuration and the card."""
    return serialised(model.state_dict(), {**card_of(info), "config": model.config.to_dict()})


def card_of(info: WeightsInfo) -> dict[str, Any]:
    """What a file's card says of the weights, without their configuration."""
    return {
        "format": FORMAT,
        "name": info.name,
        "version": info.version,
        "trained": info.trained,
        "description": info.description,
        **({"caveat": info.caveat} if info.caveat else {}),
        "segment_threshold": info.segment_threshold,
    }


def _empty_model(config: GMIC3DConfig) -> GMIC3D:
    """A model whose weights are about to be filled: no random numbers are drawn."""
    with torch.device("meta"):
        model = GMIC3D(config)
    return model.to_empty(device="cpu")
