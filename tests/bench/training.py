"""The training step at the full window beside its floor, and whether its memory grows with the slices."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from tests.bench import inference, networks

SLICES, QUICK_SLICES = (8, 96), (2, 8)
RATIO_LIMIT = 6.0
"""Most that a step may take, to three forwards of its convolutions alone."""
GROWTH_LIMIT = 1.3
"""Most that the larger volume may need, to the smaller."""
Say = Callable[[str], None]


def measure(quick: bool, say: Say) -> dict[str, Any]:
    """The floor before and after, so that it is of the same moment; the steps in processes of their own."""
    few, many = QUICK_SLICES if quick else SLICES
    floors = [_floor(say)]
    say(f"training: a step on {few} slices")
    small = _step(few)
    say(f"training: a step on {many} slices")
    large = _step(many)
    floors.append(_floor(say))
    slice_ms, patch_ms = min(floors)
    return {
        "slices": (few, many),
        "threads": inference.threads(),
        "ms": large["ms"] / many,
        "floor_ms": 3 * (slice_ms + patch_ms / many),
        "mb_few": small["mb"],
        "mb_many": large["mb"],
        "ratio_limit": RATIO_LIMIT,
        "growth_limit": GROWTH_LIMIT,
    }


def _step(slices: int) -> dict[str, Any]:
    """One step on a volume that is never held, in a process of its own."""
    window = ("2116", "1339")
    command = [sys.executable, "-m", "tests.bench.step", networks.CONSTANT, str(slices), *window]
    done = subprocess.run(
        [*command, "cpu", "streamed"], stdout=subprocess.PIPE, text=True, check=True
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _floor(say: Say) -> tuple[float, float]:
    say("training: the convolutions alone")
    command = [sys.executable, "-m", "tests.bench.inference", "floor"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    slice_ms, patch_ms, _ = json.loads(done.stdout)
    return slice_ms, patch_ms
