"""Images of a study that were not read, as far as a report names them: with their headers, where those can be read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydicom.dataset import Dataset

from dicom_io import accept
from dicom_io.dbt import VALUE_LIMIT
from dicom_io.errors import DicomIoError, ImageRefused
from dicom_io.findings import Excluded, SourceRef
from dicom_io.header import InstanceHeader, header_from_dataset
from dicom_io.parse import parse
from dicom_io.recognise import is_breast_image


def left_out(
    paths: Sequence[Path], sop_instance_uid: str, sop_class_uid: str, reason: str
) -> Excluded:
    """An image that could not be read, and why. Raises OSError from the disk.

    Args:
        paths: its file, or one a slice.
        sop_instance_uid: of the object, or of one of the slices; what it is named by.
        sop_class_uid: of the same.
        reason: a plain sentence.
    """
    if len(paths) > 1:
        reason = f"a series of {len(paths)} slices: {reason}"
    try:
        read = [_read(path) for path in paths]
    except DicomIoError:
        return Excluded(sop_instance_uid, sop_class_uid, reason)
    header, dataset = read[0]
    if not is_breast_image(header):
        return Excluded(sop_instance_uid, sop_class_uid, reason)
    slices = tuple(each for _, each in read) if len(read) > 1 else ()
    frames = len(slices) or header.number_of_frames or 1
    source = SourceRef(dataset, frames, header.laterality, header.view, slices)
    return Excluded(sop_instance_uid, sop_class_uid, reason, header.series_instance_uid, source)


def not_for_reading(path: Path, sop_instance_uid: str, sop_class_uid: str) -> Excluded | None:
    """An image of a kind that no model is asked to read; None for what is no image of a breast. Raises OSError."""
    try:
        header, dataset = _read(path)
        accept.check_class(header, dataset)
    except ImageRefused as error:
        found = left_out([path], sop_instance_uid, sop_class_uid, str(error))
        return found if found.source is not None else None
    except DicomIoError:
        return None
    return None


def _read(path: Path) -> tuple[InstanceHeader, Dataset]:
    with path.open("rb") as file:
        parsed = parse(file, limit=VALUE_LIMIT)
    return header_from_dataset(parsed.dataset, parsed.transfer_syntax_uid), parsed.dataset
