"""Decoding: MB/s of decoded pixels from a file to a volume in memory, with one thread and with two."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from dicom_io.dbt import open_image
from gmic.phantom import make_phantom, study_plan
from tests.support.breast_objects import BITS, encode, view_file, with_frames

SYNTAXES = {
    "JPEG 2000": "1.2.840.10008.1.2.4.90",
    "JPEG-LS": "1.2.840.10008.1.2.4.80",
    "JPEG lossless": "1.2.840.10008.1.2.4.70",
    "uncompressed": "",
}
Say = Callable[[str], None]


def measure(folder: Path, quick: bool, say: Say) -> dict[str, Any]:
    """A phantom's frames in each transfer syntax; the best of two readings."""
    frames = 4 if quick else 8
    [spec] = study_plan(
        2, (frames, 2457, 1890), ["L-CC"], lesion_breast=None, kind="malignant", spacing_mm=0.1, slice_mm=1.0
    )  # fmt: skip
    volume_DHW = make_phantom(spec).volume_DHW
    volume_DHW >>= max(0, int(volume_DHW.max()).bit_length() - BITS)
    rows: dict[str, dict[str, float]] = {}
    for name, syntax in SYNTAXES.items():
        say(f"decode: {name}, {frames} frames")
        path = view_file(folder / name.replace(" ", "-"), volume_DHW=volume_DHW)
        if syntax:
            with_frames(path, [encode(frame, syntax) for frame in volume_DHW], syntax)
        image = open_image(path)
        rows[name] = {"file_mb": path.stat().st_size / 1e6}
        for threads in (1, 2):
            seconds = []
            for _ in range(2):
                started = time.perf_counter()
                decoded_DHW = image.read_volume(threads)
                seconds.append(time.perf_counter() - started)
                assert np.array_equal(decoded_DHW, volume_DHW)
            rows[name][f"threads_{threads}"] = volume_DHW.nbytes / 1e6 / min(seconds)
    return {"frames": frames, "decoded_mb": volume_DHW.nbytes / 1e6, "rows": rows}
