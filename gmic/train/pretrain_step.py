"""Pre-training of the global network on labels of whole images (paper, V-D.1), at constant memory.

Every slice passes the global network and becomes one vector; the slices' vectors become one for the
image, and a linear layer with bias classifies it. Two ways to pool:

    attention   mean over a slice's cells, then gated attention over slices (the paper's; with one
                slice, a 2D image, the attention is 1 and this is average pooling)
    max         maximum over all cells and slices, channel by channel: a small lesion is not diluted

and two targets: groups of BI-RADS categories (one of several, softmax), or the benign and malignant
labels (both, either or none, sigmoid).

The memory of a step does not grow with the number of slices, as in `gmic.train.step`: pass one makes
all vectors without a graph, then the loss with a graph of vectors alone; pass two makes the vector of
one slice after the other again, with a graph, and sends the vector's gradient back through it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from gmic.backbone import GlobalNetwork
from gmic.config import CLASSES, GMIC3DConfig
from gmic.errors import ConfigError, DataError
from gmic.train.initialise import initialise_network
from gmic.train.step import slices_at_once
from gmic.volume import CheckedSlices, SliceSource


@dataclass(frozen=True)
class PretrainConfig:
    """What is pre-trained.

    Attributes:
        pooling: "attention" or "max".
        target: "birads", or "labels" (benign, malignant).
        birads_classes: Groups of BI-RADS categories; the paper's three are 0: incomplete or
            suspicious (categories 0, 4, 5), 1: normal (1), 2: benign (2, 3). See `birads_group`.
    """

    pooling: str = "attention"
    target: str = "birads"
    birads_classes: int = 3

    def __post_init__(self) -> None:
        """Raise ConfigError for a value that describes no pre-training; names it."""
        for name, known in (("pooling", ("attention", "max")), ("target", ("birads", "labels"))):
            if getattr(self, name) not in known:
                raise ConfigError(
                    f"{name} is {getattr(self, name)!r}; it must be one of {', '.join(known)}"
                )
        if not isinstance(self.birads_classes, int) or self.birads_classes < 2:
            raise ConfigError(f"birads_classes is {self.birads_classes!r}; it must be at least 2")

    @property
    def outputs(self) -> int:
        """Numbers the head gives out."""
        return len(CLASSES) if self.target == "labels" else self.birads_classes


def birads_group(category: int) -> int:
    """The paper's group of a BI-RADS category (III-A).

    Raises:
        DataError: A category other than 0 to 5.
    """
    groups = {0: 0, 4: 0, 5: 0, 1: 1, 2: 2, 3: 2}
    if category not in groups:
        raise DataError(f"BI-RADS category is {category!r}; the groups know 0 to 5")
    return groups[category]


class Pretrainer(nn.Module):
    """The global network with a head on top; makes logits of whole images."""

    def __init__(self, model: GMIC3DConfig, config: PretrainConfig) -> None:
        super().__init__()
        self.model_config, self.config = model, config
        features, hidden = model.stage_channels[-1], model.attention_channels
        self.global_network = GlobalNetwork(model)
        if config.pooling == "attention":
            self.value = nn.Linear(features, hidden, bias=False)
            self.gate = nn.Linear(features, hidden, bias=False)
            self.weight = nn.Linear(hidden, 1, bias=False)
        self.classifier = nn.Linear(features, config.outputs)

    def initialise(self, seed: int) -> None:
        """First values, in place; the head starts at 0, so that all classes are alike."""
        rng = np.random.default_rng(seed)
        initialise_network(self.global_network, rng)
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                if not name.startswith("global_network."):
                    drawn = rng.standard_normal(tuple(parameter.shape))
                    scale = 0.0 if name.startswith("classifier.") else parameter.shape[-1] ** -0.5
                    parameter.copy_(torch.from_numpy(drawn * scale))

    def slices_of(self, volume_DHW: SliceSource) -> CheckedSlices:
        """The volume's slices as the network reads them: checked, binned, on its device."""
        config, weight = self.model_config, self.classifier.weight
        return CheckedSlices(volume_DHW, config.patch_extent, weight, config.binning)

    def vectors(self, slices_NHW: Tensor) -> Tensor:
        """Slices (N, H, W) to their features (N, C)."""
        features_NChw: Tensor = self.global_network(slices_NHW[:, None])
        if self.config.pooling == "max":
            return features_NChw.amax((2, 3))
        return features_NChw.mean((2, 3))

    def head(self, vectors_DC: Tensor) -> Tensor:
        """The vectors of an image's slices (D, C) to its logits."""
        if self.config.pooling == "max":
            pooled_C = vectors_DC.amax(0)
        else:
            gated = torch.tanh(self.value(vectors_DC)) * torch.sigmoid(self.gate(vectors_DC))
            pooled_C = torch.softmax(self.weight(gated)[:, 0], dim=0) @ vectors_DC
        logits: Tensor = self.classifier(pooled_C)
        return logits

    def forward(self, volume_DHW: SliceSource) -> Tensor:
        """Logits of one image, slice by slice; with a graph only where gradients are enabled.

        Raises:
            InputError: See `gmic.volume.CheckedSlices`.
        """
        slices = self.slices_of(volume_DHW)
        logits = self.head(torch.cat([self.vectors(slices[d][None]) for d in range(slices.depth)]))
        slices.require_contrast()
        return logits

    def loss(self, logits: Tensor, target: int | tuple[int, int], smoothing: float) -> Tensor:
        """Cross-entropy of one image's logits."""
        if isinstance(target, int):
            wanted = torch.tensor(target, device=logits.device)
            return F.cross_entropy(logits, wanted, label_smoothing=smoothing)
        wanted = torch.tensor(target, device=logits.device, dtype=logits.dtype)
        wanted = wanted * (1 - 2 * smoothing) + smoothing
        return F.binary_cross_entropy_with_logits(logits, wanted)


def pretrain_step(
    net: Pretrainer,
    volumes: Sequence[SliceSource],
    targets: Sequence[int | tuple[int, int]],
    *,
    slice_choice: Sequence[NDArray[np.int64] | None] | None = None,
    autocast_dtype: torch.dtype | None = None,
    scale: float = 1.0,
    target_smoothing: float = 0.0,
) -> float:
    """Add the gradients of the batch's mean loss, times `scale`, to `.grad`; returns the loss.

    Args:
        net: The network with its head.
        volumes: Standardised windows (D, H, W).
        targets: A group for each with target "birads", else benign and malignant.
        slice_choice: For each volume the slices to read; None reads all.
        autocast_dtype: Type of the convolutions; None keeps the network's own.
        scale: See above.
        target_smoothing: Share of the target that is spread over the classes.

    Raises:
        InputError: A volume that cannot be read.
    """
    device = net.classifier.weight.device
    total = 0.0
    choices = slice_choice or [None] * len(volumes)
    for volume, target, choice in zip(volumes, targets, choices, strict=True):
        slices = net.slices_of(volume)
        chosen = list(range(slices.depth)) if choice is None else choice.tolist()
        at_once = slices_at_once(slices, device)
        cast = torch.autocast(device.type, autocast_dtype, enabled=autocast_dtype is not None)
        with torch.no_grad(), cast:
            parts = [chosen[i : i + at_once] for i in range(0, len(chosen), at_once)]
            vectors_DC = torch.cat([net.vectors(_stacked(slices, part)) for part in parts])
        slices.require_contrast()
        vectors_DC = vectors_DC.to(net.classifier.weight.dtype).requires_grad_()
        loss = net.loss(net.head(vectors_DC), target, target_smoothing) / len(volumes)
        torch.autograd.backward(loss * scale)
        total += loss.item()
        if vectors_DC.grad is None:
            continue
        needed = vectors_DC.grad.ne(0).any(1).nonzero()[:, 0].tolist()
        for first in range(0, len(needed), at_once):
            part = needed[first : first + at_once]
            with cast:
                again_NC = net.vectors(_stacked(slices, [chosen[i] for i in part]))
            torch.autograd.backward(again_NC, vectors_DC.grad[part].to(again_NC.dtype))
    return total


def _stacked(slices: CheckedSlices, chosen: Sequence[int]) -> Tensor:
    """Some slices of a volume: (N, H, W)."""
    return torch.stack([slices[d] for d in chosen])
