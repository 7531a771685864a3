"""Segmentations as a reader's workstation writes them: by highdicom, on images of a phantom."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from highdicom.seg import Segmentation, SegmentDescription
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code
from pydicom.uid import generate_uid

from dicom_io import result_codes as names

Masks = Mapping[int, NDArray[np.floating] | NDArray[np.bool_]]
"""By source frame, from 0: (H, W), for a fractional one in [0, 1]."""


def rectangle(
    shape: tuple[int, int], row: int, col: int, height: int, width: int
) -> NDArray[np.bool_]:
    """A mask."""
    mask = np.zeros(shape, dtype=bool)
    mask[row : row + height, col : col + width] = True
    return mask


def draw(
    path: Path,
    image: Path,
    *segments: tuple[str | None, Masks],
    kind: str = "BINARY",
    algorithm: str = "MANUAL",
    edit: Callable[[Dataset], None] = lambda _seg: None,
) -> Path:
    """Write a SEG with a segment each of (what its property's modifier says, masks)."""
    source = dcmread(image)
    shape = (int(source.get("NumberOfFrames", 1)), int(source.Rows), int(source.Columns))
    pixels = np.zeros((*shape, len(segments)), dtype=np.float32)
    described = []
    for n, (label, masks) in enumerate(segments):
        for frame, mask in masks.items():
            pixels[frame, :, :, n] = mask
        described.append(_described(n + 1, label, algorithm))
    seg = Segmentation(
        source_images=[source],
        pixel_array=pixels if kind == "FRACTIONAL" else pixels.astype(np.uint8),
        segmentation_type=kind,
        segment_descriptions=described,
        series_instance_uid=generate_uid(),
        series_number=7,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="A workstation",
        manufacturer_model_name="M",
        software_versions="1",
        device_serial_number="1",
        content_creator_name="Secret^Reader",
    )
    edit(seg)
    seg.save_as(path)
    return path


def _described(number: int, label: str | None, algorithm: str) -> SegmentDescription:
    found = SegmentDescription(
        segment_number=number,
        segment_label=f"Lesion {number}",
        segmented_property_category=names.ABNORMAL_STRUCTURE,
        segmented_property_type=names.LESION,
        algorithm_type="MANUAL",
    )
    found.SegmentAlgorithmType = algorithm
    if label is not None:
        code = names.CLASSES.get(label) or Code(label, "99TEST", "Something")  # type: ignore[call-overload]
        found.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = [
            names.code_item(code)
        ]
    return found
