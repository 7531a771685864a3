"""Files of other people: the reference data, and pydicom's own; each is whatever its makers made of it."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from pydicom import data as pydicom_data

from tests.support.shared import shared_root

_LARGEST = 12 << 20  # bytes


def corpus() -> list[Path]:
    """Every file, in order: pydicom's, those of `pydicom-data`, and the reference data, where they are present."""
    roots = [Path(pydicom_data.__file__).parent, shared_root() / "data"]
    more = importlib.util.find_spec("data_store")  # the package `pydicom-data`
    if more is not None and more.origin is not None:
        roots.insert(1, Path(more.origin).parent / "data")
    found = (path for root in roots for path in sorted(root.rglob("*")) if path.is_file())
    return [path for path in found if _is_dicom(path)]


def name_of(path: Path) -> str:
    """A name for messages."""
    return f"{path.parent.name}/{path.name}"


def _is_dicom(path: Path) -> bool:
    """By what it is, not by its name: a prefix, or groups of a bare data set at the start."""
    if path.stat().st_size > _LARGEST or path.suffix in (".py", ".pyc", ".json", ".zip"):
        return False
    with path.open("rb") as file:
        head = file.read(132)
    return head[128:] == b"DICM" or head[:2] in (b"\x02\x00", b"\x08\x00", b"\x00\x08")
