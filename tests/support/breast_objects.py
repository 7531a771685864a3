"""Small breast objects, and the same object in another form: transfer syntax, fragments, attributes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread, dcmwrite
from pydicom.dataset import Dataset, FileDataset
from pydicom.encaps import itemize_fragment
from pydicom.pixels.encoders import RLELosslessEncoder
from pydicom.uid import UID

from dicom_io.phantom import PhantomView, write_study

BITS = 10
Frames = NDArray[Any]


def volume(
    laterality: str = "L", shape: tuple[int, int, int] = (5, 60, 40), seed: int = 0
) -> NDArray[np.uint16]:
    """A textured block of tissue at the chest wall's side, 10 bits, background 0; every slice differs."""
    rng = np.random.default_rng(seed)
    depth, height, width = shape
    volume_DHW = np.zeros(shape, np.uint16)
    tissue = (depth, height - 2 * (height // 8), width * 2 // 3)
    volume_DHW[:, height // 8 : height - height // 8, : tissue[2]] = rng.integers(200, 900, tissue)
    return volume_DHW if laterality == "L" else np.ascontiguousarray(volume_DHW[:, :, ::-1])


def view_file(folder: Path, laterality: str = "L", view: str = "CC", **options: Any) -> Path:
    """One tomosynthesis object of `volume(laterality)`, or of `volume_DHW=`, as a file."""
    volume_DHW = options.pop("volume_DHW", None)
    made = PhantomView(
        laterality,  # type: ignore[arg-type]
        view,
        volume(laterality) if volume_DHW is None else volume_DHW,
        options.pop("spacing_mm", (0.1, 0.1)),
        kind=options.pop("kind", "tomosynthesis"),
    )
    return write_study(folder, [made], seed=1, **options).files[0]


def edited(path: Path, edit: Callable[[FileDataset], None]) -> Path:
    """The file with its data set changed in place."""
    dataset = dcmread(path)
    edit(dataset)
    dataset.save_as(path)
    return path


def shared_item(dataset: Dataset, group: str) -> Dataset:
    """The item of a shared functional group."""
    found: Dataset = dataset.SharedFunctionalGroupsSequence[0][group].value[0]
    return found


def with_frames(
    path: Path, frames: Sequence[bytes], syntax: str, fragments: int = 1, table: bool = True
) -> Path:
    """The file with encapsulated pixel data made of `frames`, each in so many fragments."""
    dataset = dcmread(path)
    pixels = _fragmented(frames, fragments, table)
    return _saved(path, dataset, pixels, syntax)


def _fragmented(frames: Sequence[bytes], fragments: int, table: bool) -> bytes:
    body, offsets = b"", []
    for frame in frames:
        offsets.append(len(body))
        size = -(-len(frame) // fragments)
        size += size % 2
        for start in range(0, len(frame), size):
            piece = frame[start : start + size]
            body += itemize_fragment(piece + b"\0" * (len(piece) % 2))
    first = np.array(offsets, "<u4").tobytes() if table else b""
    return bytes(itemize_fragment(first) + body)


def _saved(path: Path, dataset: FileDataset, pixels: bytes, syntax: str) -> Path:
    dataset.PixelData = pixels
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    dcmwrite(path, dataset, implicit_vr=False, little_endian=True)
    return path


def with_syntax(path: Path, syntax: str) -> Path:
    """A native file rewritten as implicit, big endian, deflated, or encapsulated uncompressed."""
    dataset = dcmread(path)
    cells = np.frombuffer(dataset.PixelData, "<u2").reshape(-1, dataset.Rows, dataset.Columns)
    if syntax == "1.2.840.10008.1.2.1.98":
        return with_frames(path, [frame.tobytes() for frame in cells], syntax)
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    if syntax == "1.2.840.10008.1.2.2":
        dataset.PixelData = cells.astype(">u2").tobytes()
        dcmwrite(path, dataset, implicit_vr=False, little_endian=False)
    elif syntax.startswith("1.2.840.10008.1.2.1"):
        dcmwrite(path, dataset)
    else:
        dcmwrite(path, dataset, implicit_vr=True, little_endian=True)
    return path


def bare(path: Path, syntax: str = "1.2.840.10008.1.2") -> Path:
    """The data set alone, without preamble and meta group."""
    dataset = dcmread(path)
    buffer = BytesIO()
    del dataset.file_meta
    dcmwrite(buffer, dataset, implicit_vr=syntax == "1.2.840.10008.1.2", little_endian=True)
    path.write_bytes(buffer.getvalue())
    return path


def encode(frame_HW: Frames, syntax: str) -> bytes:
    """One frame in a lossless transfer syntax, or in lossy JPEG at 8 or 12 bits."""
    tail = syntax.rsplit(".", 1)[1]
    if tail == "5":
        return _rle(frame_HW)
    if tail in ("50", "51"):
        bits = 8 if tail == "50" else 12
        return bytes(imagecodecs.jpeg8_encode(frame_HW, 95, bitspersample=bits))
    encoder: Callable[[Frames], Any] = {
        "57": lambda frame: imagecodecs.jpeg8_encode(
            frame, lossless=True, predictor=6, bitspersample=BITS
        ),
        "70": lambda frame: imagecodecs.ljpeg_encode(frame, bitspersample=BITS),
        "80": imagecodecs.jpegls_encode,
        "90": lambda frame: imagecodecs.jpeg2k_encode(
            frame, level=0, codecformat="j2k", reversible=True, bitspersample=BITS
        ),
        "201": imagecodecs.htj2k_encode,
    }[tail]
    return bytes(encoder(frame_HW))


def _rle(frame_HW: Frames) -> bytes:
    return bytes(
        RLELosslessEncoder.encode(
            frame_HW,
            rows=frame_HW.shape[0],
            columns=frame_HW.shape[1],
            number_of_frames=1,
            samples_per_pixel=1,
            bits_allocated=frame_HW.dtype.itemsize * 8,
            bits_stored=frame_HW.dtype.itemsize * 8,
            pixel_representation=0,
            photometric_interpretation="MONOCHROME2",
            encoding_plugin="pydicom",  # where gdcm is installed too, its encoder may end the process
        )
    )
