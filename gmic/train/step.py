"""One training step: exact gradients, in memory that does not grow with the number of slices.

The loss touches the slices only through their saliency maps A: y_global is the mean of the top cells,
the L1 norm a sum over all, and picking patches carries no gradient. So dL/dA is known before any
slice's graph is: pass one reads all slices without a graph, keeps their maps, and does everything
above them (patches, local network, loss) with a graph of K patches; pass two takes slices one after the
other, computes their maps again, this time with a graph, and sends dL/dA back through it at once.

Shapes: B volumes, C = 2 classes, D slices, H and W pixels, h and w cells, K patches, N slices at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypedDict, Unpack

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gmic.config import CLASSES
from gmic.errors import ConfigError, DivergedError, InputError
from gmic.model import GMIC3D
from gmic.saliency import top_t_pool
from gmic.train.jitter import jitter_slices
from gmic.train.loss import gmic_loss, soften
from gmic.volume import CheckedSlices, SliceSource

IntArray = NDArray[np.int64]

SLICES_AT_ONCE = 8
PIXELS_AT_ONCE = {"cpu": 1 << 18, "cuda": SLICES_AT_ONCE * 2116 * 1339}
"""Most slices in one batch, and most pixels, by kind of device: a CPU works fastest on what fits its
cache. A full window is a batch of its own there; small ones come several at once."""


class StepOptions(TypedDict, total=False):
    """What a step can be told besides its batch; everything has a default."""

    autocast_dtype: torch.dtype | None
    """Compute the convolutions in this type, `torch.bfloat16` or `torch.float16`; by default the
    model's own. Saliency (from the tanh on), attention, predictions and loss keep at least float32."""
    scale: float
    """Gradients come multiplied by this (default 1), so that small ones survive float16. The reported
    loss does not."""
    target_smoothing: float
    """s in [0, 0.5) (default 0): y_global's labels are taken to be wrong with probability s
    (`gmic.train.loss.soften`), which bounds its gradients."""
    slice_choice: Sequence[IntArray | None] | None
    """For each volume the slices to read, rising, or None for all (the default). Distances between
    slices, zeta among them, are still counted in the volume's, and a patch drawn from a slice
    nearby may come from one that was not chosen."""


@dataclass(frozen=True)
class StepResult:
    """What a step computed on the way, without graphs."""

    loss: float
    """Mean of equation 7 over the batch."""
    y_global_B2: Tensor
    """(B, 2) on the model's device; not softened."""
    y_local_B2: Tensor
    """(B, 2) on the model's device; NaN without a local module."""


def train_step(
    model: GMIC3D,
    volumes: Sequence[SliceSource],
    labels_B2: Tensor,
    beta: float,
    rng: np.random.Generator | None,
    **options: Unpack[StepOptions],
) -> StepResult:
    """Add the gradients of the batch's mean loss to every parameter's `.grad`.

    In training mode the local network's batch normalisation sees all B * K patches at once, once;
    in evaluation mode it uses and keeps its running statistics. Every slice read is asked for twice,
    and once more for its patches. Slices on which the loss does not depend (no cell above 0 there)
    are left out of pass two.

    A model of the global module alone (`GMIC3DConfig.parts`) has no local term in its loss: no patch is
    cut, `rng` is left as it is, and the local network and the attention get no gradient.

    Args:
        model: The model; parameters that want no gradient get none.
        volumes: B standardised windows (D, H, W); D may differ.
        labels_B2: What is true of each, in [0, 1], in the order of `gmic.config.CLASSES`.
        beta: Weight of the saliency's L1 norm.
        rng: Draws the slice each patch comes from (Algorithm 1, line 12), volume after volume; None
            takes them where they were picked.
        options: See `StepOptions`.

    Raises:
        InputError: No volume, a volume the model cannot read, or labels or slices that do not fit.
        ConfigError: `target_smoothing` out of range.
        DivergedError: The model's predictions are not finite.
    """
    batch = _prepare(model, volumes, labels_B2, options)
    with torch.no_grad(), batch.autocast():
        maps = [
            model.saliency_of(
                v.batches(v.chosen_D, slices_at_once(v.slices, batch.labels_B2.device))
            )
            for v in batch.views
        ]
    # Leaves: the backward pass of everything above them ends here, with dL/dA.
    leaves = [saliency_CDHW.requires_grad_() for saliency_CDHW in maps]
    result = _backward_from_maps(model, batch, leaves, beta, rng)
    if any(parameter.requires_grad for parameter in _map_parameters(model)):
        for view, leaf_CDHW in zip(batch.views, leaves, strict=True):
            _backward_through_slices(model, batch, view, leaf_CDHW)
    return result


def plain_step(
    model: GMIC3D,
    volumes: Sequence[SliceSource],
    labels_B2: Tensor,
    beta: float,
    rng: np.random.Generator | None,
    **options: Unpack[StepOptions],
) -> StepResult:
    """The same as `train_step` by one graph over the whole batch: what it is checked against."""
    batch = _prepare(model, volumes, labels_B2, options)
    with batch.autocast():
        maps = [model.saliency_of(v.batches(v.chosen_D, v.slices.depth)) for v in batch.views]
    return _backward_from_maps(model, batch, maps, beta, rng)


def slices_at_once(slices: CheckedSlices, device: torch.device) -> int:
    """How many slices make a batch on a device."""
    rows, cols = slices.pixels
    return min(max(PIXELS_AT_ONCE.get(device.type, 0) // (rows * cols), 1), SLICES_AT_ONCE)


class _View(NamedTuple):
    """The slices of one volume that a step reads."""

    slices: CheckedSlices
    chosen_D: IntArray

    def batches(self, indices_D: IntArray, at_once: int) -> Iterator[Tensor]:
        """These slices of the volume, a few at a time: (N, H, W)."""
        for first in range(0, len(indices_D), at_once):
            some = indices_D[first : first + at_once].tolist()
            yield torch.stack([self.slices[d] for d in some])


@dataclass(frozen=True)
class _Batch:
    """What a step was asked, checked."""

    views: list[_View]
    labels_B2: Tensor
    autocast_dtype: torch.dtype | None
    scale: float
    smoothing: float

    def autocast(self) -> torch.autocast:
        """Surrounds what is computed in `autocast_dtype`."""
        return torch.autocast(
            self.labels_B2.device.type,
            dtype=self.autocast_dtype,
            enabled=self.autocast_dtype is not None,
        )


def _prepare(
    model: GMIC3D, volumes: Sequence[SliceSource], labels_B2: Tensor, options: StepOptions
) -> _Batch:
    weight = next(model.global_network.parameters())
    labels = labels_B2.to(weight.device, weight.dtype)
    if not volumes or tuple(labels.shape) != (len(volumes), len(CLASSES)):
        raise InputError(
            f"{len(volumes)} volumes come with labels of shape {tuple(labels.shape)}; "
            f"give at least one volume, and labels (volumes, {len(CLASSES)})"
        )
    if not bool(((labels >= 0) & (labels <= 1)).all()):
        raise InputError(f"labels are {labels.tolist()}; give values in [0, 1]")
    smoothing = options.get("target_smoothing", 0.0)
    if not 0 <= smoothing < 0.5:
        raise ConfigError(f"target_smoothing is {smoothing}; it must be in [0, 0.5)")
    choice = options.get("slice_choice") or [None] * len(volumes)
    if len(choice) != len(volumes):
        raise InputError(f"slice_choice is for {len(choice)} volumes, but {len(volumes)} came")
    return _Batch(
        views=[_view(model, *pair) for pair in zip(volumes, choice, strict=True)],
        labels_B2=labels,
        autocast_dtype=options.get("autocast_dtype"),
        scale=options.get("scale", 1.0),
        smoothing=smoothing,
    )


def _view(model: GMIC3D, volume_DHW: SliceSource, choice_D: IntArray | None) -> _View:
    slices = model.slices_of(volume_DHW)
    if choice_D is None:
        return _View(slices, np.arange(slices.depth))
    chosen_D = np.asarray(choice_D)
    rising = (
        chosen_D.ndim == 1 and chosen_D.dtype.kind in "iu" and bool((np.diff(chosen_D) > 0).all())
    )
    if not (rising and chosen_D.size and chosen_D[0] >= 0 and chosen_D[-1] < slices.depth):
        raise InputError(
            f"slice_choice is {chosen_D.tolist()}; give rising whole numbers from 0 to {slices.depth - 1}"
        )
    return _View(slices, chosen_D.astype(np.int64))


def _backward_from_maps(
    model: GMIC3D,
    batch: _Batch,
    maps: Sequence[Tensor],
    beta: float,
    rng: np.random.Generator | None,
) -> StepResult:
    """Everything above the saliency maps, forward and backward."""
    for view in batch.views:
        view.slices.require_contrast()
    features_KS: Tensor | None = None
    of_each: Sequence[Tensor | None] = [None] * len(maps)
    if model.config.has_local_module:
        features_KS = _patch_features(model, batch, maps, rng)
        of_each = torch.split(features_KS, model.config.num_patches)
    y_local, y_global, losses = [], [], []
    for some_KS, saliency_CDHW, labels_2 in zip(of_each, maps, batch.labels_B2, strict=True):
        local_2 = None if some_KS is None else model.attention(some_KS)[0]
        y_global.append(top_t_pool(saliency_CDHW, model.config.top_t_fraction))
        y_local.append(torch.full_like(y_global[-1], torch.nan) if local_2 is None else local_2)
        _require_numbers(local_2, y_global[-1], features_KS)
        softened_2 = soften(y_global[-1], batch.smoothing)
        losses.append(gmic_loss(local_2, softened_2, saliency_CDHW, labels_2, beta))
    loss = torch.stack(losses).mean()
    torch.autograd.backward(loss * batch.scale)
    return StepResult(loss.item(), torch.stack(y_global).detach(), torch.stack(y_local).detach())


def _patch_features(
    model: GMIC3D, batch: _Batch, maps: Sequence[Tensor], rng: np.random.Generator | None
) -> Tensor:
    """Features (B * K, S) of the patches that the maps lead to."""
    patches = []
    for view, saliency_CDHW in zip(batch.views, maps, strict=True):
        chosen = model.choose_patches(saliency_CDHW, view.slices.pixels, view.chosen_D)
        slices_K = chosen.slices_K
        if rng is not None:
            slices_K = jitter_slices(slices_K, view.slices.depth, model.config.slice_margin, rng)
        patches.append(model.cut_patches(view.slices, slices_K, chosen.corners_K2))
    with batch.autocast():
        features_KS: Tensor = model.local_network(torch.cat(patches))
    return features_KS.to(batch.labels_B2.dtype)


def _require_numbers(
    y_local_2: Tensor | None, y_global_2: Tensor, features_KS: Tensor | None
) -> None:
    """Stop before a cross-entropy of NaN, on which torch fails, and on a GPU takes the process along."""
    found = {"y_global": y_global_2} | ({} if y_local_2 is None else {"y_local": y_local_2})
    if not all(bool(torch.isfinite(y_2).all()) for y_2 in found.values()):
        # Batch norms that span processes exchange sums on the way back, too, and the others wait for ours.
        if features_KS is not None and features_KS.requires_grad:
            torch.autograd.backward(0 * features_KS.sum())
        told = " and ".join(f"{name} {y_2.tolist()}" for name, y_2 in found.items())
        raise DivergedError(f"predictions are {told}; lower the learning rate")


def _backward_through_slices(model: GMIC3D, batch: _Batch, view: _View, leaf_CDHW: Tensor) -> None:
    """Pass two over one volume: dL/dA, which the leaf holds, back through the slices' own graphs."""
    saliency_CDHW, grad_CDHW = leaf_CDHW.detach(), leaf_CDHW.grad
    if grad_CDHW is None:
        return
    # A cell of 0 lies where its nonlinearity is flat, so it passes nothing on.
    grad_DCHW = torch.where(saliency_CDHW > 0, grad_CDHW, 0).transpose(0, 1)
    needed_D = grad_DCHW.ne(0).flatten(1).any(dim=1).nonzero()[:, 0].cpu().numpy()
    at_once = slices_at_once(view.slices, leaf_CDHW.device)
    batches = view.batches(view.chosen_D[needed_D], at_once)
    for slices_NHW, first in zip(batches, range(0, len(needed_D), at_once), strict=True):
        with batch.autocast():
            again_CNHW = model.saliency_of([slices_NHW])
        known_NCHW = grad_DCHW[needed_D[first : first + at_once]]
        torch.autograd.backward(again_CNHW.transpose(0, 1), known_NCHW)


def _map_parameters(model: GMIC3D) -> Iterator[nn.Parameter]:
    yield from model.global_network.parameters()
    yield from model.saliency_head.parameters()
