"""Where tests find reference data that is not part of the repository.

`shared_path("goldens", "x.npz")` gives the path, or skips the calling test with the reason. The folder is `../shared`
beside the checkout, or whatever `TOMONODE_SHARED` names.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ABSENT = "reference data "
"""How the reason of every skip for want of reference data begins."""
ROOT = Path(__file__).resolve().parents[2]


def shared_root() -> Path:
    """The folder of reference data; it may not exist."""
    return Path(os.environ.get("TOMONODE_SHARED", ROOT.parent / "shared"))


def shared_path(*parts: str) -> Path:
    """Path of a reference file or folder; skips the test when it is not there."""
    path = shared_root().joinpath(*parts)
    if not path.exists():
        pytest.skip(
            f"{ABSENT}{'/'.join(parts)} is not here; set TOMONODE_SHARED to the folder that holds it"
        )
    return path
