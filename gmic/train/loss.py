"""The training loss of 3D-GMIC (paper, V-A.4)."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def gmic_loss(
    y_local_2: Tensor | None,
    y_global_2: Tensor,
    saliency_CDHW: Tensor,
    labels_2: Tensor,
    beta: float,
) -> Tensor:
    """Equation 7 for one volume: two cross-entropies a class, and the saliency's L1 norm.

    Args:
        y_local_2: Prediction of the patches, in [0, 1]; None without a local module, which leaves
            its cross-entropy out (VII-B, global-only).
        y_global_2: Prediction of the saliency maps, in [0, 1].
        saliency_CDHW: The maps (2, D, h, w).
        labels_2: What is true, in [0, 1], in the order of `gmic.config.CLASSES`.
        beta: Weight of the L1 norm, which is a sum over all cells (equation 6).

    Returns:
        A scalar, finite with finite gradients even for predictions of exactly 0 or 1: logarithms
        stop at -100, as torch defines its cross-entropy.
    """
    local: Tensor | float = 0.0
    if y_local_2 is not None:
        local = F.binary_cross_entropy(y_local_2, labels_2, reduction="sum")
    everywhere = F.binary_cross_entropy(y_global_2, labels_2, reduction="sum")
    return local + everywhere + beta * saliency_CDHW.abs().sum()


def soften(y_2: Tensor, smoothing: float) -> Tensor:
    """y (1 - 2 s) + s: the prediction of a label that is wrong with probability s.

    Its cross-entropy against the label as it stands has gradients of at most (1 - 2 s) / s, where
    that of y itself grows without bound as y nears the wrong end.
    """
    return y_2 * (1 - 2 * smoothing) + smoothing
