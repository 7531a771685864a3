"""Table I of the paper, live: `python -m tests.bench.table1 [--quick] [--out FILE]`. Asserts nothing.

Work and training memory for a volume of 96 slices (one image, the full window), fitted linearly to 4, 8 and 16 slices
as in the paper (VI-A). The ResNets' memory is counted, for 16 slices of them need up to 29 GB, and checked against a
training step that really runs on a sixteenth of the area; ours is what such a step of the full window adds to the
process, with 96 slices too. Where there is a GPU all of them run on it too, as far as its memory goes.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gmic.config import GMIC3DConfig
from gmic.weights import seeded
from tests.bench import counted, networks, tables

WINDOW = (2116, 1339)
SMALL_WINDOW = (529, 335)
SLICES, QUICK_SLICES, PAPER_SLICES = (4, 8, 16), (2, 4), 96
PAPER = {
    "ResNet-18": (171_031, 9_932),
    "ResNet-34": (223_235, 20_056),
    "3D ResNet-18": (100_903, 9_104),
    "3D ResNet-34": (111_650, 12_192),
    networks.CONSTANT: (22_219, 798),
}
"""MB of GPU memory and 10^9 multiply-accumulates for 96 slices (paper, Table I)."""
Say = Callable[[str], None]
Row = dict[str, Any]
Gmac = Callable[[int], float]  # of that many slices


def main() -> None:
    """Measure, print the table, write JSON."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.table1")
    parser.add_argument("--quick", action="store_true", help="2 and 4 slices, one check")
    parser.add_argument("--out", type=Path, default=Path("build/table1.json"))
    arguments = parser.parse_args()
    started = time.monotonic()

    def say(line: str) -> None:
        sys.stderr.write(f"{time.monotonic() - started:6.1f} s  {line}\n")

    found = measure(arguments.quick, say)
    found["seconds"] = time.monotonic() - started
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(found, indent=2) + "\n")
    sys.stdout.write("\n".join(tables.table1(found)) + "\n")
    say(f"done; figures in {arguments.out}")


def measure(quick: bool, say: Say) -> dict[str, Any]:
    """Every network; GMAC and MB at each number of slices, and what a line through them gives for 96."""
    slices = QUICK_SLICES if quick else SLICES
    rows = {name: _counted_row(name, slices, say) for name in networks.BASELINES}
    for name in list(rows)[: 1 if quick else None]:
        rows[name] |= _check(name, max(slices), say)
    gmac = _our_gmac(say)
    rows[networks.PLAIN] = _resident_row(networks.PLAIN, slices, gmac, say)
    # Its memory hardly grows, so a line through small volumes would tell their noise.
    most = () if quick else (PAPER_SLICES,)
    rows[networks.CONSTANT] = _resident_row(networks.CONSTANT, (*slices, *most), gmac, say)
    if torch.cuda.is_available():
        for name, row in rows.items():
            _on_gpu(row, name, slices, say)
    return {
        "quick": quick,
        "slices": slices,
        "window": WINDOW,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "rows": rows,
        "paper": PAPER,
    }


def extrapolated(by_slices: Mapping[int, float]) -> float:
    """What the straight line through the figures gives for 96 slices."""
    return float(np.polyval(np.polyfit(list(by_slices), list(by_slices.values()), 1), PAPER_SLICES))


def _counted_row(name: str, slices: tuple[int, ...], say: Say) -> Row:
    say(f"{name}: counting at {slices} slices")
    gmac, mb = {}, {}
    for count in slices:
        with torch.device("meta"):
            network = networks.BASELINES[name]()
        image = networks.volume(count, WINDOW, "meta")
        gmac[count] = counted.gmac(network, image)
        mb[count] = counted.step_mb(network, image, networks.train_once)
    return _row(gmac, mb, "counted")


def _check(name: str, slices: int, say: Say) -> Row:
    """The same step counted and really run, on a smaller window."""
    say(f"{name}: a training step on a sixteenth of the area, {slices} slices")
    with torch.device("meta"):
        network = networks.BASELINES[name]()
    image = networks.volume(slices, SMALL_WINDOW, "meta")
    mb = counted.step_mb(network, image, networks.train_once)
    return {"check_counted_mb": mb, "check_mb": _run(name, slices, SMALL_WINDOW, "cpu")["mb"]}


def _our_gmac(say: Say) -> Gmac:
    """Slices and patches cost the same wherever they are, so two small volumes tell the line."""
    say(f"{networks.CONSTANT}: counting at 1 and 2 slices")
    model, _ = seeded(GMIC3DConfig(), 7)
    one, two = (counted.gmac(model, torch.randn(count, *WINDOW)) for count in (1, 2))
    return lambda count: one + (count - 1) * (two - one)


def _resident_row(name: str, slices: tuple[int, ...], gmac: Gmac, say: Say) -> Row:
    mb = {}
    for count in slices:
        say(f"{name}: a training step on {count} slices")
        mb[count] = _run(name, count, WINDOW, "cpu")["mb"]
    return _row({count: gmac(count) for count in slices}, mb, "resident")


def _row(gmac: dict[int, float], mb: dict[int, float], how: str) -> Row:
    return {
        "memory": how,
        "gmac": gmac,
        "mb": mb,
        "gmac_96": extrapolated(gmac),
        "mb_96": mb.get(PAPER_SLICES) or extrapolated(mb),
    }


def _on_gpu(row: Row, name: str, slices: tuple[int, ...], say: Say) -> None:
    row["gpu_mb"] = {}
    for count in slices:
        say(f"{name}: a training step on {count} slices, on the GPU")
        figures = _run(name, count, WINDOW, "cuda")
        if figures["mb"] is not None:  # None: it did not fit
            row["gpu_mb"][count] = figures["mb"]
    if len(row["gpu_mb"]) > 1:
        row["gpu_mb_96"] = extrapolated(row["gpu_mb"])


def _run(name: str, slices: int, window: tuple[int, int], device: str) -> dict[str, Any]:
    """One training step in a process of its own; see `tests.bench.step`."""
    arguments = [name, str(slices), *map(str, window), device]
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.step", *arguments],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


if __name__ == "__main__":
    main()
