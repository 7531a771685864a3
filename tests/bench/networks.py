"""The networks of Table I that are not ours, and one training step of each.

ResNets are MONAI's. The 2D ones read slices as a batch and average what they say; the 3D ones are those of Hara et al.
(first convolution 7x7 in the plane, stride 2 there and 1 across slices, then pooling by 2) with a first kernel of three
slices, which comes nearest to the paper's figures. All have three input channels, which repeat the slice.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CHANNELS, CLASSES = 3, 2
PLAIN, CONSTANT = "3D-GMIC, plain autograd", "3D-GMIC"
OURS = (PLAIN, CONSTANT)
"""Our model with one graph over the whole volume, and with the step of `gmic.train.step`."""


class SliceMean(nn.Module):
    """A 2D network over the slices of a volume, its answers averaged."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, volume_CDHW: Tensor) -> Tensor:
        """(C, D, H, W) to (1, 2)."""
        answers: Tensor = self.network(volume_CDHW.transpose(0, 1))
        return answers.mean(dim=0, keepdim=True)


class WholeVolume(nn.Module):
    """A 3D network over a volume."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, volume_CDHW: Tensor) -> Tensor:
        """(C, D, H, W) to (1, 2)."""
        answer: Tensor = self.network(volume_CDHW[None])
        return answer


def _two(depth: int) -> nn.Module:
    return SliceMean(_resnet(depth, spatial_dims=2, conv1_t_stride=2))


def _three(depth: int) -> nn.Module:
    network = _resnet(depth, spatial_dims=3, conv1_t_size=(3, 7, 7), conv1_t_stride=(1, 2, 2))
    return WholeVolume(network)


def _resnet(depth: int, **shape: Any) -> nn.Module:
    from monai.networks.nets import resnet

    make: Callable[..., nn.Module] = {18: resnet.resnet18, 34: resnet.resnet34}[depth]
    return make(n_input_channels=CHANNELS, num_classes=CLASSES, **shape)


BASELINES: dict[str, Callable[[], nn.Module]] = {
    "ResNet-18": lambda: _two(18),
    "ResNet-34": lambda: _two(34),
    "3D ResNet-18": lambda: _three(18),
    "3D ResNet-34": lambda: _three(34),
}


def volume(slices: int, window: tuple[int, int], device: str) -> Tensor:
    """A volume (C, D, H, W) whose channels are one and the same memory."""
    return torch.ones(1, slices, *window, device=device).expand(CHANNELS, -1, -1, -1)


def train_once(network: nn.Module, volume_CDHW: Tensor) -> None:
    """Forward, loss, backward."""
    answer = network(volume_CDHW)
    loss = F.binary_cross_entropy_with_logits(answer, torch.zeros_like(answer))
    torch.autograd.backward(loss)
