"""3D-GMIC: every slice through a small network, a few patches through a large one (paper, V).

Shapes: C = 2 classes (benign, malignant), D slices, H and W pixels, h and w cells, K patches.
Research use only, not for clinical use.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from gmic import roi
from gmic.attention import GatedAttention
from gmic.backbone import GlobalNetwork, LocalNetwork
from gmic.config import GMIC3DConfig
from gmic.geometry import PatchBox, ReceptiveField
from gmic.saliency import SaliencyHead, top_t_pool
from gmic.volume import CheckedSlices, SliceSource


@dataclass(frozen=True)
class GMIC3DOutput:
    """Everything one forward pass finds. Classes are in the order of `gmic.config.CLASSES`."""

    y_global: Tensor
    """(2,) in [0, 1]: mean of the most salient cells (equation 3)."""
    y_local: Tensor
    """(2,) in (0, 1): what the patches say together (equation 5); NaN without a local module."""
    y_final: Tensor
    """(2,): mean of the two (V-A.3); `y_global` without a local module (VII-B)."""
    saliency_CDHW: Tensor
    """(2, D, h, w) in [0, 1): saliency of each cell; `GMIC3D.receptive_field` places the cells."""
    patch_slices: Tensor
    """(K,) int64: slice of each patch, in the order of picking; without a local module K is 0."""
    patch_corners: Tensor
    """(K, 2) int64: row and column of each patch's upper left window pixel."""
    patch_attention: Tensor
    """(K,): share of each patch in `y_local`; sums to 1."""
    patch_scores: Tensor
    """(K,) float64 in [0, 2]: mean scaled saliency of each patch's window when picked, classes added
    (Algorithm 1, A*); 0 = nothing was left to pick."""
    window_shape: tuple[int, int]
    """Rows and columns of the input (pixels)."""


class ChosenPatches(NamedTuple):
    """Where Algorithm 1 looks, in the order of picking."""

    slices_K: roi.IntArray
    corners_K2: roi.IntArray
    """Row and column of each patch's upper left binned pixel."""
    scores_K: roi.FloatArray
    """See `GMIC3DOutput.patch_scores`."""


class GMIC3D(nn.Module):
    """The 3D globally-aware multiple instance classifier.

    In training mode with gradients enabled it is one plain differentiable graph over the whole
    volume (picking patches carries no gradient). Otherwise, in evaluation mode or under
    `torch.no_grad`, slices pass one at a time and nothing is kept but the saliency, so the memory
    needed does not grow with the number of slices; evaluation mode never builds a graph. Training
    proper goes through `gmic.train.step`, from the same parts: `slices_of`, `saliency_of`,
    `choose_patches` and `cut_patches`.

    With `config.binning` above 1 every slice is averaged first, and all the networks see is binned
    pixels; whatever comes out counts the pixels of the window given.

    Args:
        config: Shape of the model.
        global_network: f_g; by default made from `config`, like the following.
        saliency_head: Makes the maps from f_g's features.
        local_network: f_l.
        attention: Pools and classifies f_l's features.
    """

    def __init__(
        self,
        config: GMIC3DConfig | None = None,
        *,
        global_network: GlobalNetwork | None = None,
        saliency_head: SaliencyHead | None = None,
        local_network: LocalNetwork | None = None,
        attention: GatedAttention | None = None,
    ) -> None:
        super().__init__()
        self.config = config = config or GMIC3DConfig()
        self.global_network = global_network or GlobalNetwork(config)
        self.saliency_head = saliency_head or SaliencyHead(config.stage_channels[-1])
        self.local_network = local_network or LocalNetwork(config.local_channels)
        self.attention = attention or GatedAttention(
            config.local_channels[-1], config.attention_channels
        )

    def forward(self, volume_DHW: SliceSource) -> GMIC3DOutput:
        """Read one standardised window.

        Args:
            volume_DHW: (D, H, W), at least one slice of at least a patch; array, tensor or an
                object that gives slices. It may lie on another device than the model.

        Returns:
            Predictions, maps and patches; the same input gives the same output.

        Raises:
            InputError: Not (D, H, W), no slice, smaller than a patch, not finite, or constant.
        """
        slices = self.slices_of(volume_DHW)
        each = (slices[d][None] for d in range(slices.depth))
        with torch.set_grad_enabled(self.training and torch.is_grad_enabled()):
            batches = [torch.cat(list(each))] if torch.is_grad_enabled() else each
            saliency_CDHW = self.saliency_of(batches)
            slices.require_contrast()
            chosen = self.choose_patches(saliency_CDHW, slices.pixels)
            y_global = top_t_pool(saliency_CDHW, self.config.top_t_fraction)
            if self.config.has_local_module:
                patches_KHW = self.cut_patches(slices, chosen.slices_K, chosen.corners_K2)
                y_local, attention_K = self.attention(self.local_network(patches_KHW))
                y_final = (y_global + y_local) / 2
            else:
                y_local, attention_K = torch.full_like(y_global, torch.nan), y_global.new_zeros(0)
                y_final = y_global
            return GMIC3DOutput(
                y_global=y_global,
                y_local=y_local,
                y_final=y_final,
                saliency_CDHW=saliency_CDHW,
                patch_slices=torch.from_numpy(chosen.slices_K),
                patch_corners=torch.from_numpy(chosen.corners_K2 * self.config.binning),
                patch_attention=attention_K,
                patch_scores=torch.from_numpy(chosen.scores_K),
                window_shape=slices.window_shape,
            )

    @property
    def receptive_field(self) -> ReceptiveField:
        """Where a saliency cell lies on the window."""
        return self.global_network.receptive_field(self.config.binning)

    def patch_boxes(self, output: GMIC3DOutput) -> tuple[PatchBox, ...]:
        """The patches that were picked for their saliency, in order, as boxes of window pixels.

        Picks made when no saliency was left (see `gmic.roi.pick_windows`) are left out, so there
        may be fewer than K.
        """
        rows, cols = output.window_shape
        size = self.config.patch_extent
        found = zip(
            output.patch_slices.tolist(),
            output.patch_corners.tolist(),
            output.patch_attention.tolist(),
            output.patch_scores.tolist(),
            strict=True,
        )
        return tuple(
            PatchBox(d, row, col, min(row + size, rows), min(col + size, cols), attention, score)
            for d, (row, col), attention, score in found
            if score > 0
        )

    def slices_of(self, volume_DHW: SliceSource) -> CheckedSlices:
        """The volume's slices as the networks read them: checked, binned, on the model's device.

        Slices that are so already are taken as they are.

        Raises:
            InputError: See `CheckedSlices`.
        """
        if isinstance(volume_DHW, CheckedSlices):
            return volume_DHW
        return CheckedSlices(
            volume_DHW,
            self.config.patch_extent,
            next(self.global_network.parameters()),
            self.config.binning,
        )

    def saliency_of(self, batches: Iterable[Tensor]) -> Tensor:
        """Saliency maps (2, D, h, w) of slices that come in batches (N, H, W): equation 1."""
        maps = [self.saliency_head(self.global_network(slices[:, None])) for slices in batches]
        return torch.cat(maps).transpose(0, 1)

    def choose_patches(
        self,
        saliency_CDHW: Tensor,
        pixels: tuple[int, int],
        positions_D: roi.IntArray | None = None,
    ) -> ChosenPatches:
        """Places of the K patches (Algorithm 1 without its sampling in training).

        Without a local module there are none.

        Args:
            saliency_CDHW: Maps (2, D, h, w).
            pixels: Rows and columns of a slice (binned pixels).
            positions_D: The volume's slices the maps belong to, where they are not all of them.
        """
        if not self.config.has_local_module:
            none_02 = np.zeros((0, 2), dtype=np.int64)
            return ChosenPatches(none_02[:, 0], none_02, np.zeros(0))
        rows, cols = saliency_CDHW.shape[2:]
        window = roi.window_cells(self.config.patch_size, pixels, (rows, cols))
        combined = roi.combined_saliency(saliency_CDHW.detach().double().cpu().numpy())
        picks = roi.pick_windows(
            combined, window, self.config.num_patches, self.config.slice_margin, positions_D
        )
        slices_K = picks.slices_K if positions_D is None else positions_D[picks.slices_K]
        corners_K2 = roi.patch_corners(picks.cells_K2, pixels, (rows, cols))
        return ChosenPatches(slices_K, corners_K2, picks.scores_K)

    def cut_patches(
        self, slices: CheckedSlices, slices_K: roi.IntArray, corners_K2: roi.IntArray
    ) -> Tensor:
        """The patches (K, patch_size, patch_size); each slice that holds some is read once more."""
        patches: dict[int, Tensor] = {}
        for d in np.unique(slices_K).tolist():
            slice_HW = slices[d]
            for k in (slices_K == d).nonzero()[0].tolist():
                row, col = corners_K2[k].tolist()
                # A copy, so that the slice is not held with its patch.
                patch_HW = roi.crop_patch(slice_HW, (row, col), self.config.patch_size)
                patches[k] = patch_HW.clone()
        return torch.stack([patches[k] for k in range(len(slices_K))])
