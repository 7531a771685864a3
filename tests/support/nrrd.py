"""NRRD files as ITK writes them: voxels and where they lie in the patient."""

from __future__ import annotations

import gzip
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_TYPES = {
    "unsigned char": "u1",
    "uint8": "u1",
    "short": "<i2",
    "int16": "<i2",
    "unsigned short": "<u2",
    "uint16": "<u2",
    "float": "<f4",
    "double": "<f8",
}


@dataclass(frozen=True)
class Volume:
    """Voxels (k, j, i); `steps` are the rows x, y, z in mm of one step of i, j and k; `origin` is the first voxel's
    centre. Left, posterior and superior are positive, as in DICOM."""

    values_kji: NDArray[Any]
    origin: NDArray[np.float64]
    steps: NDArray[np.float64]

    def at(self, points: NDArray[np.float64]) -> NDArray[Any]:
        """The values of the voxels whose centres are these points (N, 3) in mm; fails where a point is no centre."""
        ijk = np.linalg.solve(self.steps.T, (points - self.origin).T).T
        whole = np.rint(ijk).astype(int)
        assert np.abs(ijk - whole).max() < 0.02, "a point lies beside the centres of the voxels"
        assert (whole >= 0).all()
        assert (whole < self.values_kji.shape[::-1]).all(), "a point lies outside"
        found: NDArray[Any] = self.values_kji[whole[:, 2], whole[:, 1], whole[:, 0]]
        return found


def read(path: Path) -> Volume:
    """A file of three dimensions in the frame of the patient."""
    head, _, body = path.read_bytes().partition(b"\n\n")
    lines = (line.split(":", 1) for line in head.decode().splitlines()[1:] if ":" in line)
    fields = {name: value.lstrip("= ").strip() for name, value in lines}
    assert fields["space"] == "left-posterior-superior"
    content = gzip.decompress(body) if fields["encoding"] == "gzip" else body
    sizes = [int(size) for size in fields["sizes"].split()]
    values = np.frombuffer(content, _TYPES[fields["type"]]).reshape(sizes[::-1])
    return Volume(values, _vectors(fields["space origin"])[0], _vectors(fields["space directions"]))


def _vectors(text: str) -> NDArray[np.float64]:
    return np.array([v.split(",") for v in re.findall(r"\(([^)]*)\)", text)], dtype=np.float64)
