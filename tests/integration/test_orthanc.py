"""Orthanc as destination, by C-STORE and by STOW-RS, and as sender."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.loopback import loopback
from tests.support.shared import ROOT


@pytest.mark.system
def test_orthanc_both_ways(tmp_path: Path) -> None:
    if shutil.which("Orthanc") is None:
        pytest.skip("Orthanc is not installed; apt-get install orthanc orthanc-dicomweb")
    program = [sys.executable, "-m", "tests.support.orthanc", str(tmp_path / "work")]
    with loopback() as network:
        done = subprocess.run(
            [*network.command, *program], capture_output=True, text=True, cwd=ROOT
        )
    assert done.returncode == 0, done.stderr
    taken = [[True, "0x0000"]] * 6
    assert json.loads(done.stdout.splitlines()[-1]) == {
        "echoes": 2,
        "answers": taken,
        "again": taken,
        "in_orthanc": True,
        "failed": 0,
        "in_node": True,
    }
