"""Phantom studies as DICOM: breast volumes given as arrays, written as valid tomosynthesis or mammography objects.

The same arguments give the same files, byte for byte. Views are taken one by one and frames written one by one, so
memory stays at the volume the caller hands over. Synthetic data: no patient, and no ground for claims about detection.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from pydicom import dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.pixels.encoders import RLELosslessEncoder

from dicom_io.errors import InvalidPhantom
from dicom_io.phantom_dataset import PLACED_VIEWS, Placement, mammogram_dataset
from dicom_io.phantom_tomosynthesis import tomosynthesis_dataset
from dicom_io.syntaxes import EXPLICIT_LITTLE, JPEG2000_LOSSLESS, JPEG_LS_LOSSLESS, RLE_LOSSLESS
from dicom_io.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME, derive_uid

Syntax = Literal["explicit", "jpeg2000", "jpegls", "rle"]
SYNTAXES: Final[dict[Syntax, str]] = {
    "explicit": EXPLICIT_LITTLE,
    "jpeg2000": JPEG2000_LOSSLESS,
    "jpegls": JPEG_LS_LOSSLESS,
    "rle": RLE_LOSSLESS,
}
_LEAST_BITS: Final = 10
_CONVENTIONS: Final = (
    "center_zyx is (frame 1-based, row 0-based, column 0-based) at pixel centres; box rows and cols are 0-based and "
    "half-open [start, stop), box frames 1-based and half-open [first, last + 1). Coordinates are those of the stored "
    "frames."
)


@dataclass(frozen=True)
class LesionTruth:
    """A lesion in the coordinates of the volume, all 0-based; `details` goes into truth.json as it is.

    `centre_zyx` is (slice, row, column) at pixel centres, `box` the half-open (slice0, row0, col0, slice1, row1, col1).
    """

    label: str
    centre_zyx: tuple[float, float, float]
    box: tuple[int, int, int, int, int, int]
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class PhantomView:
    """One image to write: `volume_DHW` uint16 with a dark background, in stored orientation.

    A left breast has its chest wall at column 0, a right one at the last column. Slices run from the tube to the
    detector. `kind` "mammogram" takes a single slice.
    """

    laterality: Literal["L", "R"]
    view: str  # one of phantom_dataset.PLACED_VIEWS
    volume_DHW: NDArray[np.uint16]
    spacing_mm: tuple[float, float]
    slice_spacing_mm: float = 1.0
    lesions: tuple[LesionTruth, ...] = ()
    kind: Literal["tomosynthesis", "mammogram"] = "tomosynthesis"

    def __post_init__(self) -> None:
        """Raise InvalidPhantom for a value that no object can hold; names it."""
        volume = self.volume_DHW
        depth = 1 if self.kind == "mammogram" else 65535
        checks = {
            "laterality": self.laterality in ("L", "R"),
            "view": self.view in PLACED_VIEWS,
            "spacing_mm": len(self.spacing_mm) == 2 and min(self.spacing_mm) > 0,
            "slice_spacing_mm": self.slice_spacing_mm > 0,
            "kind": self.kind in ("tomosynthesis", "mammogram"),
        }
        for name, holds in checks.items():
            if not holds:
                raise InvalidPhantom(
                    f"{name} of a phantom view is {getattr(self, name)!r}, which cannot be written"
                )
        if (
            volume.dtype != np.uint16
            or volume.ndim != 3
            or not (min(volume.shape) > 0 and volume.shape[0] <= depth)
        ):
            raise InvalidPhantom(
                f"volume_DHW is {volume.dtype} {volume.shape}; give uint16 (D, H, W)"
            )


@dataclass(frozen=True)
class PhantomStudy:
    """What was written: the files in the order of the views, and truth.json."""

    study_instance_uid: str
    files: tuple[Path, ...]
    truth: Path


def write_study(
    out_dir: str | Path,
    views: Iterable[PhantomView],
    *,
    seed: int,
    syntax: Syntax = "explicit",
    patient_id: str = "",
    study_date: str = "20260101",
) -> PhantomStudy:
    """Write one study: a file a view (`L-CC.dcm`, ...) and truth.json beside them.

    UIDs follow from `seed`, `patient_id` and the place in the sequence; give another seed for another study. A
    generator as `views` keeps one volume in memory. Raises InvalidPhantom; existing files are replaced.
    """
    if syntax not in SYNTAXES:
        raise InvalidPhantom(f"syntax is {syntax!r}; give one of {', '.join(SYNTAXES)}")
    out = Path(out_dir)
    out.mkdir(parents=True, exist_ok=True)
    patient_id = patient_id or f"PHANTOM-{seed}"
    uid = partial(_uid, f"phantom {seed} {patient_id}")
    files: list[Path] = []
    entries: list[dict[str, Any]] = []
    for number, view in enumerate(views, 1):
        place = Placement(
            laterality=view.laterality,
            view=view.view,
            shape_DHW=view.volume_DHW.shape,
            spacing_mm=view.spacing_mm,
            slice_spacing_mm=view.slice_spacing_mm,
            bits_stored=_bits(view.volume_DHW, syntax),
            window=_window(view.volume_DHW),
            number=number,
            patient_id=patient_id,
            study_date=study_date,
            uid=uid,
        )
        build = mammogram_dataset if view.kind == "mammogram" else tomosynthesis_dataset
        dataset = build(place)
        path = out / f"{_file_stem(view, files)}.dcm"
        write_object(path, dataset, view.volume_DHW, syntax)
        files.append(path)
        entries.append(_truth_entry(path, dataset, view))
    truth = out / "truth.json"
    study_uid = uid("study")
    document = {
        "study_instance_uid": study_uid,
        "synthetic": True,
        "seed": seed,
        "conventions": _CONVENTIONS,
        "files": entries,
    }
    truth.write_text(json.dumps(document, indent=1) + "\n")
    return PhantomStudy(study_uid, tuple(files), truth)


def write_object(
    path: Path, dataset: Dataset, volume_DHW: NDArray[np.uint16], syntax: Syntax
) -> None:
    """Write `dataset` with `volume_DHW` (D, H, W) as its pixel data, one frame at a time, as a Part 10 file."""
    if volume_DHW.nbytes >= 1 << 32:
        raise InvalidPhantom(
            f"{volume_DHW.nbytes} bytes of pixels do not fit into one object; the limit is 4 GiB"
        )
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = SYNTAXES[syntax]
    meta.ImplementationClassUID = IMPLEMENTATION_CLASS_UID
    meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
    dataset.file_meta = meta
    with path.open("wb") as file:
        dcmwrite(file, dataset, enforce_file_format=True, implicit_vr=False, little_endian=True)
        if syntax == "explicit":
            _write_native(file, volume_DHW)
        else:
            _write_encapsulated(file, volume_DHW, _encoder(syntax, int(dataset.BitsStored)))


def _write_native(file: BinaryIO, volume_DHW: NDArray[np.uint16]) -> None:
    file.write(b"\xe0\x7f\x10\x00OW\0\0" + volume_DHW.nbytes.to_bytes(4, "little"))
    for frame_HW in volume_DHW:
        file.write(np.ascontiguousarray(frame_HW, "<u2").data)


def _write_encapsulated(
    file: BinaryIO, volume_DHW: NDArray[np.uint16], encode: Callable[[NDArray[np.uint16]], bytes]
) -> None:
    """Encapsulated pixel data (PS3.5 A.4), a fragment a frame; the offset table is filled in at the end."""
    offsets: list[int] = []
    file.write(b"\xe0\x7f\x10\x00OB\0\0\xff\xff\xff\xff")
    file.write(_item_header(4 * len(volume_DHW)))
    table = file.tell()
    file.write(bytes(4 * len(volume_DHW)))
    first = file.tell()
    for frame_HW in volume_DHW:
        data = encode(np.ascontiguousarray(frame_HW))
        data += b"\0" * (len(data) % 2)
        offsets.append(file.tell() - first)
        file.write(_item_header(len(data)) + data)
    file.write(b"\xfe\xff\xdd\xe0\0\0\0\0")
    file.seek(table)
    file.write(np.array(offsets, "<u4").tobytes())


def _item_header(length: int) -> bytes:
    return b"\xfe\xff\x00\xe0" + length.to_bytes(4, "little")


def _encoder(syntax: Syntax, bits: int) -> Callable[[NDArray[np.uint16]], bytes]:
    if syntax == "jpeg2000":
        return lambda frame_HW: bytes(
            imagecodecs.jpeg2k_encode(
                frame_HW, level=0, codecformat="j2k", reversible=True, bitspersample=bits
            )
        )
    if syntax == "jpegls":
        return lambda frame_HW: bytes(imagecodecs.jpegls_encode(frame_HW))
    return lambda frame_HW: bytes(
        RLELosslessEncoder.encode(
            frame_HW,
            rows=frame_HW.shape[0],
            columns=frame_HW.shape[1],
            number_of_frames=1,
            samples_per_pixel=1,
            bits_allocated=16,
            bits_stored=bits,
            pixel_representation=0,
            photometric_interpretation="MONOCHROME2",
            encoding_plugin="pydicom",  # the same bytes whatever else is installed
        )
    )


def _bits(volume_DHW: NDArray[np.uint16], syntax: Syntax) -> int:
    """Bits stored. The JPEG-LS encoder writes a 16-bit code stream, and the header must say the same."""
    return 16 if syntax == "jpegls" else max(_LEAST_BITS, int(volume_DHW.max()).bit_length())


def _window(volume_DHW: NDArray[np.uint16]) -> tuple[float, float]:
    """(centre, width) that shows the tissue of the middle slice, its extreme percents left out."""
    middle_HW = volume_DHW[len(volume_DHW) // 2]
    tissue = middle_HW[middle_HW > 0]
    low, high = np.percentile(tissue, (1, 99)) if tissue.size else (0.0, 1.0)
    return float(np.rint((low + high) / 2)), float(max(1.0, np.rint(high - low)))


def _file_stem(view: PhantomView, files: list[Path]) -> str:
    stem = f"{view.laterality}-{view.view}" + ("-2D" if view.kind == "mammogram" else "")
    taken = {path.stem for path in files}
    return next(
        name
        for name in (stem, *(f"{stem}-{n}" for n in range(2, len(files) + 3)))
        if name not in taken
    )


def _truth_entry(path: Path, dataset: Dataset, view: PhantomView) -> dict[str, Any]:
    depth, height, width = view.volume_DHW.shape
    return {
        "file": path.name,
        "sop_instance_uid": str(dataset.SOPInstanceUID),
        "laterality": view.laterality,
        "view": view.view,
        "frames": depth,
        "rows": height,
        "cols": width,
        "lesions": [_lesion_entry(lesion) for lesion in view.lesions],
    }


def _lesion_entry(lesion: LesionTruth) -> dict[str, Any]:
    slice_, row, column = lesion.centre_zyx
    slice0, row0, col0, slice1, row1, col1 = lesion.box
    return {
        "label": lesion.label,
        **lesion.details,
        "center_zyx": [slice_ + 1, row, column],
        "box": {"frames": [slice0 + 1, slice1 + 1], "rows": [row0, row1], "cols": [col0, col1]},
    }


def _uid(study: str, kind: str, *parts: object) -> str:
    return str(derive_uid(study, kind, *map(str, parts)))
