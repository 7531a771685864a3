"""How long the fuzzers look: the same few examples in CI, ever new ones in `make fuzz` (tests/fuzz/__main__.py)."""

from __future__ import annotations

import os
from pathlib import Path

import hypothesis
from hypothesis.database import DirectoryBasedExampleDatabase

#: Set by `make fuzz`: random seeds, and so many times the examples.
FACTOR = int(os.environ.get("TOMONODE_FUZZ_FACTOR", "0"))
#: Examples that failed; they are tried first the next time.
FOUND = Path(__file__).resolve().parents[2] / ".hypothesis" / "found"


def budget(examples: int) -> hypothesis.settings:
    """The settings of one fuzzer: so many examples, always the same ones, unless `make fuzz` asks for more."""
    return hypothesis.settings(
        max_examples=examples * max(1, FACTOR),
        derandomize=not FACTOR,
        database=DirectoryBasedExampleDatabase(FOUND) if FACTOR else None,
        print_blob=True,
        deadline=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
