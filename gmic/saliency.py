"""From features to saliency maps, and from a map to one number (paper, V-A.1, V-B.3 to V-B.5)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gmic.config import CLASSES


class SaliencyHead(nn.Module):
    """1x1 convolution without bias, then ReLU(tanh(x)): equation 1."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, len(CLASSES), 1, bias=False)

    def forward(self, features_NChw: Tensor) -> Tensor:
        """Features (N, C, h, w) to saliency (N, 2, h, w) in [0, 1).

        Under autocast the nonlinearity still has at least float32: half precision would make ties
        of the highest cells.
        """
        logits_N2hw: Tensor = self.conv(features_NChw)
        precision = torch.promote_types(logits_N2hw.dtype, torch.float32)
        return torch.relu(torch.tanh(logits_N2hw.to(precision)))


def top_t_pool(saliency_CDhw: Tensor, top_t_fraction: float) -> Tensor:
    """Mean of each class's highest cells over the whole volume: equation 3.

    The number of cells is `top_t_fraction` of ONE slice's cells, whatever the number of slices
    (V-B.3), at least one, and never more than the volume has.

    Args:
        saliency_CDhw: Saliency (2, D, h, w).
        top_t_fraction: t as a fraction; above 1 it takes more cells than a slice has.

    Returns:
        (2,): one prediction a class, in [0, 1].
    """
    _, depth, rows, cols = saliency_CDhw.shape
    wanted = round(rows * cols * top_t_fraction)
    count = min(max(wanted, 1), depth * rows * cols)
    return saliency_CDhw.flatten(1).topk(count, dim=1, sorted=False).values.mean(dim=1)
