"""`python -m tests.bench [--quick] [--out FILE]`: measure, print tables, write JSON."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.bench import decode, inference, journey, receive, tables, training, wado


def main() -> None:
    """Run every part and show what it found."""
    arguments = _arguments()
    started = time.monotonic()

    def say(line: str) -> None:
        sys.stderr.write(f"{time.monotonic() - started:6.1f} s  {line}\n")

    quick: bool = arguments.quick
    # The name is not "tomonode-...": folders of that name are the embedded Redis's.
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        parts: dict[str, Callable[[], dict[str, Any]]] = {
            "receive": lambda: receive.measure(folder, quick, say),
            "journey": lambda: journey.measure(folder, quick, say),
            "inference": lambda: inference.measure(quick, say),
            "training": lambda: training.measure(quick, say),
            "decode": lambda: decode.measure(folder, quick, say),
            "wado": lambda: wado.measure(folder, quick, say),
        }
        found = {"machine": _machine(), "quick": quick}
        for part in arguments.only or parts:
            found[part] = parts[part]()
    found["seconds"] = time.monotonic() - started
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(found, indent=2) + "\n")
    sys.stdout.write(tables.as_text(found))
    say(f"done; figures in {arguments.out}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer slices, objects and rounds")
    parser.add_argument(
        "--out", type=Path, default=Path("build/bench.json"), help="file for the figures"
    )
    parts = ("receive", "journey", "inference", "training", "decode", "wado")
    parser.add_argument("--only", action="append", choices=parts)
    return parser.parse_args()


def _machine() -> dict[str, Any]:
    processor = platform.machine()
    listed = Path("/proc/cpuinfo")
    if listed.exists():
        names = [line for line in listed.read_text().splitlines() if line.startswith("model name")]
        processor = names[0].split(":", 1)[1].strip() if names else processor
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "processor": processor,
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(pages / 2**30),
        "python": platform.python_version(),
        "load_at_start": os.getloadavg()[0],
    }


if __name__ == "__main__":
    main()
