"""Decoding: MB/s of decoded pixels from a file to a volume in memory, with one thread and with two.

The same tomosynthesis frames in every transfer syntax that something here can write.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from dicom_io.dbt import open_image
from gmic.phantom import make_phantom, study_plan
from tests.support.breast_objects import BITS, edited, encode, view_file, with_frames, with_syntax

Say = Callable[[str], None]
Frames = NDArray[np.uint16]
_ROOT = "1.2.840.10008.1.2"
_LOSS = 0.01  # of the range: most that lossy values differ on average


@dataclass(frozen=True)
class Form:
    """A transfer syntax: how a frame is written in it (None: as a native one), and whether values stay the same."""

    name: str
    tail: str
    encode: Callable[[NDArray[Any]], bytes] | None = None
    exact: bool = True
    bits: int = BITS

    @property
    def syntax(self) -> str:
        return _ROOT + self.tail


def _irreversible(frame: NDArray[Any]) -> bytes:
    return bytes(
        imagecodecs.jpeg2k_encode(
            frame, level=45, codecformat="j2k", reversible=False, bitspersample=BITS
        )
    )


def _same(tail: str) -> Callable[[NDArray[Any]], bytes]:
    return partial(encode, syntax=_ROOT + tail)


FORMS = (
    Form("Explicit VR Little Endian", ".1"),
    Form("Implicit VR Little Endian", ""),
    Form("Explicit VR Big Endian", ".2"),
    Form("Encapsulated Uncompressed", ".1.98"),
    Form("Deflated", ".1.99"),
    Form("RLE Lossless", ".5", _same(".5")),
    Form("JPEG Baseline, 8 bits", ".4.50", _same(".4.50"), exact=False, bits=8),
    Form("JPEG Extended, 12 bits", ".4.51", _same(".4.51"), exact=False),
    Form("JPEG Lossless", ".4.57", _same(".4.57")),
    Form("JPEG Lossless, first order", ".4.70", _same(".4.70")),
    Form("JPEG-LS Lossless", ".4.80", _same(".4.80")),
    Form(
        "JPEG-LS Near-lossless",
        ".4.81",
        lambda frame: bytes(imagecodecs.jpegls_encode(frame, level=2)),
        exact=False,
    ),
    Form("JPEG 2000 Lossless", ".4.90", _same(".4.90")),
    Form("JPEG 2000", ".4.91", _irreversible, exact=False),
    Form("HTJ2K Lossless", ".4.201", _same(".4.201")),
)


def measure(folder: Path, quick: bool, say: Say) -> dict[str, Any]:
    """A phantom's frames in each transfer syntax; the best of two readings."""
    frames = 2 if quick else 8
    [spec] = study_plan(
        2, (frames, 2457, 1890), ["L-CC"], lesion_breast=None, kind="malignant", spacing_mm=0.1, slice_mm=1.0
    )  # fmt: skip
    volume_DHW = make_phantom(spec).volume_DHW
    volume_DHW >>= max(0, int(volume_DHW.max()).bit_length() - BITS)
    rows: dict[str, dict[str, Any]] = {}
    for form in FORMS:
        say(f"decode: {form.name}, {frames} frames")
        path = _written(folder / f"decode{form.tail}", form, volume_DHW)
        rows[form.name] = {"syntax": form.syntax, **_read(path, form, volume_DHW)}
        path.unlink()
    return {"frames": frames, "decoded_mb": volume_DHW.nbytes / 1e6, "rows": rows}


def _written(folder: Path, form: Form, volume_DHW: Frames) -> Path:
    path = view_file(folder, volume_DHW=volume_DHW)
    if form.bits == 8:
        edited(path, _eight_bits)
    if form.encode is None:
        return with_syntax(path, form.syntax) if form.tail != ".1" else path
    return with_frames(
        path, [form.encode(frame) for frame in _values(form, volume_DHW)], form.syntax
    )


def _values(form: Form, volume_DHW: Frames) -> NDArray[Any]:
    return (volume_DHW >> (BITS - 8)).astype(np.uint8) if form.bits == 8 else volume_DHW


def _eight_bits(dataset: Dataset) -> None:
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit = 7


def _read(path: Path, form: Form, volume_DHW: Frames) -> dict[str, float]:
    """MB of the file, and MB/s of what its values take in it, by threads."""
    image, values_DHW = open_image(path), _values(form, volume_DHW)
    found = {"file_mb": path.stat().st_size / 1e6, "decoded_mb": values_DHW.nbytes / 1e6}
    for threads in (1, 2):
        seconds = []
        for _ in range(2):
            started = time.perf_counter()
            decoded_DHW = image.read_volume(threads)
            seconds.append(time.perf_counter() - started)
            _check(form, decoded_DHW, values_DHW)
        found[f"threads_{threads}"] = values_DHW.nbytes / 1e6 / min(seconds)
    return found


def _check(form: Form, decoded_DHW: Frames, values_DHW: NDArray[Any]) -> None:
    if form.exact:
        assert np.array_equal(decoded_DHW, values_DHW), form.name
        return
    difference = np.abs(decoded_DHW[0].astype(int) - values_DHW[0].astype(int)).mean()
    assert difference < _LOSS * (1 << form.bits), f"{form.name}: {difference}"
