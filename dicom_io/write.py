"""Writing a result as a DICOM file (PS3.10), the same bytes for the same data set."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

from pydicom import dcmwrite
from pydicom.dataset import Dataset


def to_bytes(dataset: Dataset) -> bytes:
    """The data set as the bytes of a DICOM file, with preamble and file meta information."""
    buffer = BytesIO()
    dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


def write(dataset: Dataset, path: Path) -> None:
    """Write the data set as a DICOM file; an existing file is replaced."""
    dcmwrite(path, dataset, enforce_file_format=True)
