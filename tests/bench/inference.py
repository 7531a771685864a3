"""The model beside its convolutions: `python -m tests.bench.inference ENGINE SLICES` prints JSON.

The floor is what the same convolutions take in float32 when nothing else is done: every call to conv2d that one
slice makes (and those of the patches) is written down, then each is run alone, in the faster of the two memory layouts.
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

from tests.bench import drift

Call = tuple[tuple[int, ...], tuple[int, ...], Any, Any]  # input and weight shape, stride, padding
Say = Callable[[str], None]

RATIO_LIMITS = {"exact": 2.6, "bfloat16": 1.5}
"""Most that an engine may take, to the floor in float32."""
MEMORY_LIMIT_GIB = 0.8
"""Most memory besides the window, libraries and weights included."""


def measure(quick: bool, say: Say) -> dict[str, Any]:
    """Each engine in a process of its own, so that its peak memory is the model's; and how they differ."""
    slices = 4 if quick else 96
    engines = {}
    for engine in RATIO_LIMITS:
        say(
            f"inference: {engine}, {slices} slices at the full window, twice, and the convolutions alone"
        )
        command = [sys.executable, "-m", "tests.bench.inference", engine, str(slices)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode == 0:
            engines[engine] = json.loads(done.stdout)
        else:
            engines[engine] = {"left_out": "it failed or this processor cannot run it; see above"}
    say("inference: how far the engines differ")
    return {"slices": slices, "engines": engines, "drift": drift.measure(quick)}


def main(engine: str, slices: int) -> dict[str, Any]:
    """Milliseconds a slice of the model and of its floor; memory in MB."""
    import numpy as np

    from gmic import weights
    from gmic.config import GMIC3DConfig
    from gmic.inference import Predictor

    model, info = weights.seeded(GMIC3DConfig(), 7)
    predictor = Predictor(model, info, device="cpu", threads=threads(), engine=engine)
    height, width = predictor.config.window_shape
    window_DHW = np.random.default_rng(1).standard_normal((slices, height, width), np.float32)
    calls = calls_of(model, window_DHW[:1])
    floors = [floor(calls)]
    readings = [timed(lambda: predictor.predict(window_DHW)) for _ in range(2)]
    peak = peak_mb()
    floors.append(floor(calls))
    # The floor of the calmer moment: both are the best of several readings.
    slice_ms, patch_ms, macs = min(floors)
    return {
        "slices": slices,
        "threads": threads(),
        "patches": predictor.config.num_patches,
        "model_ms": min(readings) / slices,
        "floor_ms": slice_ms + patch_ms / slices,
        "floor_slice_ms": slice_ms,
        "floor_patches_ms": patch_ms,
        "slice_gmac": macs / 1e9,
        "floor_gflop_s": 2 * macs / 1e6 / slice_ms,
        "peak_mb": peak,
        "window_gib": window_DHW.nbytes / 2**30,
        "above_window_gib": (peak * 1e6 - window_DHW.nbytes) / 2**30,
        "ratio_limit": RATIO_LIMITS[engine],
        "memory_limit_gib": MEMORY_LIMIT_GIB,
    }


def floor_alone() -> tuple[float, float, int]:
    """See `floor`, of the published configuration."""
    import torch

    from gmic import weights
    from gmic.config import GMIC3DConfig

    torch.set_num_threads(threads())
    model, _ = weights.seeded(GMIC3DConfig(), 7)
    return floor(calls_of(model, torch.randn(1, *model.config.window_shape)))


def threads() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0))


def floor(calls: Counter[Call]) -> tuple[float, float, int]:
    """Milliseconds of one slice's convolutions and of the patches', each alone; multiplications of the slice's."""
    import torch

    patch_ms, slice_ms, macs = 0.0, 0.0, 0
    with torch.inference_mode():
        for (shape, weight, stride, padding), count in calls.items():
            milliseconds, work = _convolution(shape, weight, stride, padding)
            if shape[0] == 1:
                slice_ms += count * milliseconds
                macs += count * work
            else:
                patch_ms += count * milliseconds
    return slice_ms, patch_ms, macs


def calls_of(model: Any, window_DHW: Any) -> Counter[Call]:
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
        model(window_DHW)
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
        best = min(best, *(timed(alone) for _ in range(5)))
    return best, out.numel() * weight[1] * weight[2] * weight[3]


def timed(work: Callable[[], object]) -> float:
    """Milliseconds."""
    started = time.perf_counter()
    work()
    return 1e3 * (time.perf_counter() - started)


def peak_mb() -> float:
    """Most memory this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


if __name__ == "__main__":
    what = sys.argv[1]
    sys.stdout.write(json.dumps(floor_alone() if what == "floor" else main(what, int(sys.argv[2]))))
