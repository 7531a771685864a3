"""Published 3D-GMIC checkpoints: what their tensors are called, and how to read them safely."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from gmic.errors import WeightsError

_PUBLISHED_PREFIXES = {
    "global_network.stem.": "ds_net.first_conv.",
    "global_network.stages.": "ds_net.layer_list.",
    "global_network.norm.": "ds_net.final_bn.",
    "saliency_head.conv.": "left_postprocess_net.gn_conv_last.",
    "local_network.": "dn_resnet.",
    "attention.value.": "mil_attn_V.",
    "attention.gate.": "mil_attn_U.",
    "attention.score.": "mil_attn_w.",
    "attention.classifier.": "classifier_linear.",
}
_PUBLISHED_PARTS = {".norm1.": ".bn1.", ".norm2.": ".bn2.", ".shortcut.": ".downsample.0."}


def published_name(name: str) -> str:
    """The name a parameter or buffer of `GMIC3D` has in published 3D-GMIC checkpoints."""
    for ours, theirs in _PUBLISHED_PREFIXES.items():
        if name.startswith(ours):
            name = theirs + name.removeprefix(ours)
            break
    if name.startswith("ds_net."):
        for ours, theirs in _PUBLISHED_PARTS.items():
            name = name.replace(ours, theirs)
    return name


def read_checkpoint(source: str | Path | Mapping[str, Any]) -> dict[str, Any]:
    """The state dict in a checkpoint, without wrappings; neither names nor values are checked.

    Taken off are a prefix such as `module.` before every name, and a mapping around the state dict
    under `state_dict`, `model_state_dict` or `model`.

    Args:
        source: A pickle, read without running code, a safetensors file, or a mapping.

    Raises:
        WeightsError: The file cannot be read, is damaged, or holds more than tensors.
    """
    found = source if isinstance(source, Mapping) else _read(Path(source))
    for key in ("state_dict", "model_state_dict", "model"):
        inner = found.get(key)
        if isinstance(inner, Mapping):
            found = inner
            break
    return _without_prefix(found)


def _read(path: Path) -> Mapping[str, Any]:
    """The mapping in a checkpoint file; nothing but tensors and plain containers is unpickled."""
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load(path.read_bytes())
        found = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise WeightsError(f"cannot read checkpoint {path}: {error.strerror or error}") from error
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"checkpoint {path} is no pickle of tensors alone and was not opened, "
            "for it could run code; save its state dict"
        ) from error
    except Exception as error:  # a damaged pickle makes torch.load fail in every way there is
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise WeightsError(f"checkpoint {path} is damaged or foreign ({reason})") from error
    if not isinstance(found, Mapping):
        raise WeightsError(f"checkpoint {path} holds a {type(found).__name__}; give a state dict")
    return found


def _without_prefix(found: Mapping[str, Any]) -> dict[str, Any]:
    """`found` without what stands before the name of the first layer, if that is there once."""
    landmark = _PUBLISHED_PREFIXES["global_network.stem."] + "weight"
    prefixes = [str(key).removesuffix(landmark) for key in found if str(key).endswith(landmark)]
    prefix = prefixes[0] if len(prefixes) == 1 else ""
    return {str(key).removeprefix(prefix): value for key, value in found.items()}
