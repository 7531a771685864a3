"""The two convolutional networks: ResNet-22 for whole slices, ResNet-18 for patches (paper, V-A).

Shapes: N images, C channels, H rows, W columns of pixels, h and w of a map's cells.
ReLUs and sums write in place; nothing they overwrite is needed by the backward pass.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gmic.config import GMIC3DConfig
from gmic.geometry import ReceptiveField, SpatialLayer

BAND_ROWS = 64
"""Rows of the pooled map made at once; a full window has 528."""


class PreActivationBlock(nn.Module):
    """Two 3x3 convolutions, each after group normalisation and ReLU, added to a shortcut.

    A block that changes stride or channels starts its shortcut after the first activation.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, stride: int, groups: int, project: bool
    ) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.norm2 = nn.GroupNorm(groups, out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.shortcut = (
            nn.Conv2d(in_channels, out_channels, 1, stride, bias=False) if project else None
        )

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Features (N, C, H, W) to features at the block's stride."""
        active = F.relu_(self.norm1(x_NCHW))
        shortcut = x_NCHW if self.shortcut is None else self.shortcut(active)
        out: Tensor = self.conv1(active)
        out = self.conv2(F.relu_(self.norm2(out)))
        return out.add_(shortcut)


class GlobalNetwork(nn.Module):
    """f_g: the narrow ResNet-22 that reads every slice on its own (paper, V-A.1, V-B.1)."""

    def __init__(self, config: GMIC3DConfig) -> None:
        super().__init__()
        groups = config.norm_groups
        self.stem = nn.Conv2d(1, config.stem_channels, 7, stride=2, padding=3, bias=False)
        self.pool = nn.MaxPool2d(3, stride=2, padding=0)
        widths = pairwise((config.stem_channels, *config.stage_channels))
        stages = []
        for (width_in, width), stride in zip(widths, config.stage_strides, strict=True):
            blocks = [
                PreActivationBlock(width_in, width, stride=stride, groups=groups, project=True)
            ]
            for _ in range(config.blocks_per_stage - 1):
                blocks.append(
                    PreActivationBlock(width, width, stride=1, groups=groups, project=False)
                )
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.Sequential(*stages)
        self.norm = nn.GroupNorm(groups, config.stage_channels[-1])

    def forward(self, slices_N1HW: Tensor) -> Tensor:
        """Slices (N, 1, H, W) to features (N, C, h, w), not negative; 33 x 21 from a full window.

        Every slice is normalised alone, so slices may come one at a time or all at once.
        """
        x: Tensor
        if slices_N1HW.device.type == "cpu":
            x = torch.cat(list(self._entry_bands(slices_N1HW)), dim=2)
        else:
            x = self.pool(self.stem(slices_N1HW))
        return F.relu_(self.norm(self.stages(x)))

    def _entry_bands(self, slices_N1HW: Tensor) -> Iterator[Tensor]:
        """Stem and pooling in bands of rows: the same values, several times faster on a CPU.

        The stem's full output is the largest array of the model and is needed for nothing but its
        pooling; a band of it stays in the cache. The library's pooling is slow in this layout: without
        a graph maxima of shifted views are the fastest, with one its pooling of channels_last, which
        costs a copy and has a quick backward pass.
        """
        stem, pool = _spatial(self.stem), _spatial(self.pool)
        padded = F.pad(slices_N1HW, (stem.padding,) * 4)
        rows = (padded.shape[2] - stem.kernel) // stem.stride + 1
        pooled_rows = (rows - pool.kernel) // pool.stride + 1
        for first in range(0, pooled_rows, BAND_ROWS):
            last = min(first + BAND_ROWS, pooled_rows) - 1
            top = first * pool.stride
            bottom = last * pool.stride + pool.kernel - 1
            band = padded[:, :, top * stem.stride : bottom * stem.stride + stem.kernel]
            filtered = F.conv2d(band, self.stem.weight, None, stem.stride)
            if torch.is_grad_enabled():
                turned = filtered.contiguous(memory_format=torch.channels_last)
                yield self.pool(turned).contiguous()
            else:
                yield _max_pool(_max_pool(filtered, pool, dim=2), pool, dim=3)

    def spatial_layers(self) -> Iterator[SpatialLayer]:
        """The layers a pixel passes on the longest way to a cell, in order.

        Shortcuts are left out: they keep the centre of the 3x3 convolutions they go round.
        """
        yield _spatial(self.stem)
        yield _spatial(self.pool)
        for module in self.stages.modules():
            if isinstance(module, PreActivationBlock):
                yield _spatial(module.conv1)
                yield _spatial(module.conv2)

    def receptive_field(self, binning: int = 1) -> ReceptiveField:
        """Where the cells of the map lie on the window, whose pixels were binned before.

        Averaging b x b pixels is one more layer: a stride s becomes b s, a centre c becomes
        b c + (b - 1) / 2.
        """
        return ReceptiveField.of([SpatialLayer(binning, binning, 0), *self.spatial_layers()])


def _max_pool(x_NCHW: Tensor, pool: SpatialLayer, dim: int) -> Tensor:
    """Maximum over the windows of `pool`, without padding, along one axis."""
    count = (x_NCHW.shape[dim] - pool.kernel) // pool.stride + 1
    span = (count - 1) * pool.stride + 1
    at = [slice(None)] * x_NCHW.ndim
    shifted = []
    for start in range(pool.kernel):
        at[dim] = slice(start, start + span, pool.stride)
        shifted.append(x_NCHW[tuple(at)])
    return functools.reduce(torch.maximum, shifted)


def _spatial(layer: nn.Conv2d | nn.MaxPool2d) -> SpatialLayer:
    """Kernel, stride and padding of a square layer."""
    values = (layer.kernel_size, layer.stride, layer.padding)
    kernel, stride, padding = (v if isinstance(v, int) else int(v[0]) for v in values)
    return SpatialLayer(kernel, stride, padding)


class BasicBlock(nn.Module):
    """ResNet-18's block: two 3x3 convolutions with batch normalisation, added to a shortcut."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.downsample: nn.Sequential | None = None
        if stride != 1 or in_channels != out_channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False),
                nn.BatchNorm2d(out_channels),
            )

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Features (N, C, H, W) to features at the block's stride."""
        shortcut = x_NCHW if self.downsample is None else self.downsample(x_NCHW)
        out: Tensor = F.relu_(self.bn1(self.conv1(x_NCHW)))
        out = self.bn2(self.conv2(out))
        return F.relu_(out.add_(shortcut))


class LocalNetwork(nn.Module):
    """f_l: ResNet-18 on a patch repeated to three channels, averaged over its cells (paper, V-A.2).

    The layers carry the names that ResNet-18 checkpoints commonly use.

    Args:
        channels: Widths of the four layers; the last is the number of features.
    """

    def __init__(self, channels: tuple[int, int, int, int] = (64, 128, 256, 512)) -> None:
        super().__init__()
        first, second, third, fourth = channels
        self.conv1 = nn.Conv2d(3, first, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(first)
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = nn.Sequential(BasicBlock(first, first, 1), BasicBlock(first, first, 1))
        self.layer2 = nn.Sequential(BasicBlock(first, second, 2), BasicBlock(second, second, 1))
        self.layer3 = nn.Sequential(BasicBlock(second, third, 2), BasicBlock(third, third, 1))
        self.layer4 = nn.Sequential(BasicBlock(third, fourth, 2), BasicBlock(fourth, fourth, 1))

    def forward(self, patches_KHW: Tensor) -> Tensor:
        """Patches (K, H, W) to features (K, S)."""
        x = patches_KHW[:, None].expand(-1, 3, -1, -1)
        x = self.pool(F.relu_(self.bn1(self.conv1(x))))
        features: Tensor = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return features.mean(dim=(2, 3))
