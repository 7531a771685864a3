"""`make fuzz`: the fuzzers of this folder with random seeds, again and again, until the time is over or one fails.

What failed is printed with the example, and saved in `.hypothesis/found`, where the next call begins.
"""

from __future__ import annotations

import argparse
import os
import secrets
import subprocess
import sys
import time
from pathlib import Path

from tests.fuzz.budget import FOUND


def main() -> int:
    """Run until the minutes are over; the exit code of the first round that fails, else 0."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument(
        "--factor", type=int, default=20, help="examples of a round, in those of CI"
    )
    parser.add_argument("pytest", nargs="*", help="more for pytest, such as -k objects")
    options = parser.parse_args()
    end = time.monotonic() + options.minutes * 60
    rounds = 0
    while rounds == 0 or time.monotonic() < end:
        rounds += 1
        seed = secrets.randbelow(2**32)
        print(f"round {rounds}, seed {seed}", flush=True)  # noqa: T201 - a program for people
        done = subprocess.run(
            [
                *(sys.executable, "-m", "pytest", "-q", "-x", "-n", "0", "--timeout", "0"),
                *(f"--hypothesis-seed={seed}", str(Path(__file__).parent), *options.pytest),
            ],
            env={**os.environ, "TOMONODE_FUZZ_FACTOR": str(options.factor)},
            check=False,
        )
        if done.returncode:
            print(f"failed; examples are in {FOUND}, seed {seed}", flush=True)  # noqa: T201
            return done.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main())
