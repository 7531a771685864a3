"""The global network in bfloat16: faster than the exact engine, and close to it (docs/benchmarks.md).

Only f_g is reduced, which is nearly all of the work. Weights stay float32 and are rounded as they are
used, sums and the statistics of group normalisation are kept in float32; the saliency head, the
patches' network, attention and pooling are the exact engine's.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gmic.backbone import GlobalNetwork
from gmic.errors import ConfigError
from gmic.model import GMIC3D

_CPU_FLAGS = ("avx512_bf16", "amx_bf16", "bf16")
"""Processors without one of these compute bfloat16 through float32, slower than float32 itself."""


class Bfloat16Network(GlobalNetwork):
    """f_g under autocast; its convolutions are fastest with the channels innermost."""

    def forward(self, slices_N1HW: Tensor) -> Tensor:
        """Slices (N, 1, H, W), float32, to features (N, C, h, w), float32."""
        with torch.autocast(slices_N1HW.device.type, torch.bfloat16):
            features_NChw = super().forward(slices_N1HW)
        return features_NChw.float()


def in_bfloat16(model: GMIC3D) -> GMIC3D:
    """A model like `model`, in evaluation mode, whose global network computes in bfloat16.

    The other parts are `model`'s own, and `model` itself is not changed.
    """
    with torch.device("meta"):
        network = Bfloat16Network(model.config)
    arranged = {
        name: value.contiguous(memory_format=torch.channels_last) if value.ndim == 4 else value
        for name, value in model.global_network.state_dict().items()
    }
    network.load_state_dict(arranged, assign=True)
    return GMIC3D(
        model.config,
        global_network=network,
        saliency_head=model.saliency_head,
        local_network=model.local_network,
        attention=model.attention,
    ).eval()


def require_bfloat16(device: torch.device) -> None:
    """Refuse a device that has no arithmetic of its own for bfloat16.

    Raises:
        ConfigError: The engine would be slower there than the exact one.
    """
    if device.type == "cuda":
        with torch.cuda.device(device):
            fit = torch.cuda.is_bf16_supported(including_emulation=False)
        name = torch.cuda.get_device_name(device)
    else:
        able = torch.cpu.get_capabilities()
        fit = any(able.get(flag) for flag in _CPU_FLAGS)
        name = f"this processor ({able.get('cpu_name', able.get('architecture', 'unknown'))})"
    if not fit:
        raise ConfigError(
            f"engine 'bfloat16' would be slower than 'exact' here: {name} "
            "has no bfloat16 arithmetic; use engine 'exact'"
        )
