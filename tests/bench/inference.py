"""The model beside its convolutions: `python -m tests.bench.inference SLICES` prints JSON, in a process of its own.

The floor is what the same convolutions take when nothing else is done: every call to conv2d that one slice makes
(and those of the patches) is written down, then each is run alone, in the faster of the two memory layouts.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

Call = tuple[tuple[int, ...], tuple[int, ...], Any, Any]  # input and weight shape, stride, padding
Say = Callable[[str], None]


def measure(quick: bool, say: Say) -> dict[str, Any]:
    """Run the measurement in a process of its own, so that its peak memory is the model's."""
    slices = 4 if quick else 16
    say(f"inference: {slices} slices at the full window, twice, and the convolutions alone")
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.inference", str(slices)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def main(slices: int) -> dict[str, Any]:
    """Milliseconds a slice of the model and of its floor; memory in MB."""
    import numpy as np
    import torch

    from gmic import weights
    from gmic.config import GMIC3DConfig
    from gmic.inference import Predictor

    threads = len(os.sched_getaffinity(0))
    predictor = Predictor(*weights.seeded(GMIC3DConfig(), 7), device="cpu", threads=threads)
    height, width = predictor.config.window_shape
    window_DHW = np.random.default_rng(1).standard_normal((slices, height, width), np.float32)
    calls = _calls(predictor, window_DHW[:1])
    idle = _peak_mb()
    model_ms = min(_timed(lambda: predictor.predict(window_DHW)) for _ in range(2)) / slices
    peak = _peak_mb()
    with torch.inference_mode():
        patch_floor, slice_floor, macs = 0.0, 0.0, 0
        for (shape, weight, stride, padding), count in calls.items():
            milliseconds, work = _convolution(shape, weight, stride, padding)
            if shape[0] == 1:
                slice_floor += count * milliseconds
                macs += count * work
            else:
                patch_floor += count * milliseconds
    return {
        "slices": slices,
        "threads": threads,
        "patches": predictor.config.num_patches,
        "model_ms": model_ms,
        "floor_ms": slice_floor + patch_floor / slices,
        "floor_slice_ms": slice_floor,
        "floor_patches_ms": patch_floor,
        "slice_gmac": macs / 1e9,
        "floor_gflop_s": 2 * macs / 1e6 / slice_floor,
        "peak_mb": peak,
        "above_window_mb": peak - idle,
    }


def _calls(predictor: Any, window_DHW: Any) -> Counter[Call]:
    """Every conv2d of one slice, and of the patches (more than one image a call)."""
    import torch
    from torch.overrides import TorchFunctionMode

    calls: Counter[Call] = Counter()

    class Notes(TorchFunctionMode):
        def __torch_function__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            if func in (torch.conv2d, torch.nn.functional.conv2d):
                image, weight, _, stride, padding = (*args, *(None, 1, 0)[len(args) - 2 :])[:5]
                calls[tuple(image.shape), tuple(weight.shape), stride, padding] += 1
            return func(*args, **(kwargs or {}))

    with Notes():
        predictor.predict(window_DHW)
    return calls


def _convolution(shape: Any, weight: Any, stride: Any, padding: Any) -> tuple[float, int]:
    """Milliseconds of one convolution alone, in the better layout, and its multiplications."""
    import torch

    best = float("inf")
    for layout in (torch.contiguous_format, torch.channels_last):
        x = torch.randn(shape).contiguous(memory_format=layout)
        w = torch.randn(weight).contiguous(memory_format=layout)
        alone = partial(torch.nn.functional.conv2d, x, w, None, stride, padding)
        out = alone()
        best = min(best, *(_timed(alone) for _ in range(5)))
    return best, out.numel() * weight[1] * weight[2] * weight[3]


def _timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return 1e3 * (time.perf_counter() - started)


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(int(sys.argv[1]))))
