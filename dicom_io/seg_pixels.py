"""Pixel data written frame by frame, so that memory holds one frame whatever their number."""

from __future__ import annotations

import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000Lossless


class PixelWriter:
    """Takes frames, then gives a data set its Pixel Data element.

    Native frames go to a temporary file without a name, which the element keeps open and is copied from when the data
    set is written; it is gone with the data set. With `jpeg2000` each frame is one lossless code stream of `bits` bits
    a pixel, and the streams, small for maps of few values, stay in memory. 32 bits are those of a floating point
    number (Float Pixel Data, PS3.3 C.7.6.24), native alone.
    """

    def __init__(self, *, jpeg2000: bool, bits: int, scratch: Path | None = None) -> None:
        """`scratch` is the folder for the temporary file; None: the system's, which may lie in memory."""
        self._bits = bits
        self._streams: list[bytes] = []
        self._file: Any = None if jpeg2000 else tempfile.TemporaryFile(dir=scratch)  # noqa: SIM115

    def __enter__(self) -> PixelWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        """After an error nothing is left behind; the file of an attached element stays open."""
        if error is not None and self._file is not None:
            self._file.close()

    def add(self, frame_HW: NDArray[Any]) -> None:
        """One frame of unsigned whole numbers, or of floating point ones, stored after those before it."""
        if self._file is not None:
            little = frame_HW.astype(frame_HW.dtype.newbyteorder("<"), copy=False)
            self._file.write(np.ascontiguousarray(little).data)
            return
        # The encoder has no wavelet for one bit: such a frame is coded at its own resolution alone.
        resolutions = 1 if self._bits == 1 else None
        stream = imagecodecs.jpeg2k_encode(
            np.ascontiguousarray(frame_HW),
            level=0,
            codecformat="J2K",
            reversible=True,
            bitspersample=self._bits,
            resolutions=resolutions,
        )
        self._streams.append(bytes(stream))

    def attach(self, dataset: Dataset) -> None:
        """Set Pixel Data, and the transfer syntax where frames are compressed (PS3.5 A.4)."""
        if self._file is None:
            dataset.PixelData = encapsulate(self._streams)
            dataset["PixelData"].VR = "OB"
            dataset["PixelData"].is_undefined_length = True
            dataset.file_meta.TransferSyntaxUID = JPEG2000Lossless
            return
        if self._file.tell() % 2:
            self._file.write(b"\0")
        self._file.seek(0)
        if self._bits == 32:
            dataset.FloatPixelData = self._file
            return
        dataset.PixelData = self._file
        dataset["PixelData"].VR = "OW" if self._bits > 8 else "OB"
