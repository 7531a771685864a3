"""In training a patch may come from a slice beside the one it was picked on (Algorithm 1, 11-13)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def jitter_slices(
    slices_K: NDArray[np.int64], depth: int, slice_margin: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """For each pick a slice drawn uniformly from those at most zeta away, itself among them.

    Rows and columns stay. What a pick clears on the map is not the drawn slice's business: line 15
    speaks of l*, the place that was picked.

    Args:
        slices_K: Slices picked, in [0, depth).
        depth: Slices of the volume; the neighbourhood ends with it.
        slice_margin: zeta.
        rng: Drawn from once, for all K; left alone where the volume is a single slice (line 11).

    Returns:
        (K,): slices to cut from.
    """
    if depth == 1:
        return slices_K
    low_K = np.maximum(slices_K - slice_margin, 0)
    high_K = np.minimum(slices_K + slice_margin, depth - 1)
    return rng.integers(low_K, high_K, endpoint=True)
