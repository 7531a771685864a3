"""A stored frame as a picture for people: window and level applied, PNG or JPEG (PS3.18 8.3.5, 10.4.1.1.3).

For looking on only: nothing is measured on these pictures, and the model never sees them.
"""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset

from dicom_io.errors import ImageRefused, RefusalCode
from dicom_io.frames import Frames, bits_of
from dicom_io.header import integer, item, items, numbers, text

PNG: Final = "image/png"
JPEG: Final = "image/jpeg"
THUMBNAIL: Final = 200  # pixels of the longer side
MAX_SIDE: Final = 8192

Function = Literal["LINEAR", "LINEAR_EXACT", "SIGMOID"]
FUNCTIONS: Final[tuple[Function, ...]] = ("LINEAR", "LINEAR_EXACT", "SIGMOID")


@dataclass(frozen=True)
class Window:
    """A VOI window on values after rescaling (PS3.3 C.11.2.1.2); `width` is above 0, at least 1 for LINEAR."""

    centre: float
    width: float
    function: Function = "LINEAR"


def render(
    frames: Frames,
    index: int,
    media_type: str = PNG,
    *,
    window: Window | None = None,
    size: tuple[int, int] | None = None,
    quality: int = 90,
) -> bytes:
    """Frame `index`, counted from 0, as a picture.

    Args:
        frames: the object's.
        index: of the stored frame.
        media_type: `PNG` or `JPEG`.
        window: None takes the object's own, and where it has none the values' own range.
        size: (width, height) in pixels that the picture has to fit in, its shape kept; never enlarged.
        quality: of JPEG, 1 to 100.

    Raises ImageRefused where the frame cannot be decoded or is of a form that is not drawn (palettes, compressed
    colour), IndexError where there is no such frame.
    """
    if frames.samples > 1:
        picture = Image.fromarray(_colour(frames, index))
    else:
        picture = Image.fromarray(_grey(frames, index, window))
    if size is not None:
        width, height = (max(1, min(side, MAX_SIDE)) for side in size)
        picture.thumbnail((width, height))
    out = BytesIO()
    if media_type == JPEG:
        picture.save(out, "JPEG", quality=max(1, min(100, quality)))
    else:
        picture.save(out, "PNG", compress_level=1)
    return out.getvalue()


def thumbnail(frames: Frames) -> bytes:
    """A small JPEG of the middle frame, `THUMBNAIL` pixels at most."""
    return render(frames, frames.count // 2, JPEG, size=(THUMBNAIL, THUMBNAIL), quality=80)


def window_of(dataset: Dataset, index: int) -> Window | None:
    """The first window that the object gives for a frame: its own group, the shared groups, the data set."""
    for place in _places(dataset, index, "FrameVOILUTSequence"):
        centre, width = numbers(place, "WindowCenter"), numbers(place, "WindowWidth")
        if centre and width:
            stated = text(place, "VOILUTFunction").upper()
            function = next((known for known in FUNCTIONS if known == stated), FUNCTIONS[0])
            if width[0] >= 1 or (width[0] > 0 and function != "LINEAR"):
                return Window(centre[0], width[0], function)
    return None


def apply(values_HW: NDArray[np.float32], window: Window) -> NDArray[np.uint8]:
    """Values (H, W) as levels 0..255 (PS3.3 C.11.2.1.2, C.11.2.1.3)."""
    centre, width = window.centre, window.width
    if window.function == "SIGMOID":
        exponent = np.clip(-4 * (values_HW - centre) / width, -50, 50)
        level = 1 / (1 + np.exp(exponent))
    elif window.function == "LINEAR_EXACT":
        level = (values_HW - centre) / width + 0.5
    else:
        # A width of 1 is a threshold: everything above centre - 0.5 is white.
        level = (values_HW - (centre - 0.5)) / max(width - 1, 1e-6) + 0.5
    levels: NDArray[np.uint8] = np.rint(np.clip(level, 0, 1) * 255).astype(np.uint8)
    return levels


def _grey(frames: Frames, index: int, window: Window | None) -> NDArray[np.uint8]:
    photometric = text(frames.dataset, "PhotometricInterpretation")
    if photometric not in ("MONOCHROME1", "MONOCHROME2", ""):
        raise ImageRefused(RefusalCode.COLOUR, photometric)
    values_HW = _rescaled(frames, index)
    chosen = window or window_of(frames.dataset, index) or _own_range(values_HW)
    levels = apply(values_HW, chosen)
    return 255 - levels if photometric == "MONOCHROME1" else levels


def _rescaled(frames: Frames, index: int) -> NDArray[np.float32]:
    """Values (H, W) of a frame after slope and intercept."""
    values_HW = _stored_values(frames, index).astype(np.float32)
    for place in _places(frames.dataset, index, "PixelValueTransformationSequence"):
        slope, intercept = numbers(place, "RescaleSlope"), numbers(place, "RescaleIntercept")
        if slope and intercept:
            return values_HW * np.float32(slope[0]) + np.float32(intercept[0])
    return values_HW


def _stored_values(frames: Frames, index: int) -> NDArray[Any]:
    """The stored bits of a frame (H, W) as numbers, sign and all."""
    data, shape = frames.decoded(index), (frames.rows, frames.columns)
    if len(data) * 8 < frames.bits:
        raise ImageRefused(RefusalCode.TRUNCATED, f"frame {index + 1}", frame=index)
    if frames.bits_allocated == 1:
        bits = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")
        return bits[: frames.bits].reshape(shape)
    if frames.pixels.tag != 0x7FE00010:
        cell = np.dtype("<f4" if frames.bits_allocated == 32 else "<f8")
        values = np.frombuffer(data, cell, frames.rows * frames.columns)
        return np.nan_to_num(values.astype(np.float32)).reshape(shape)
    cells = np.frombuffer(data, f"<u{frames.bits_allocated // 8}", frames.rows * frames.columns)
    stored, high = bits_of(frames.dataset, frames.bits_allocated)
    shift = high + 1 - stored
    values = (cells.astype(np.int64) >> shift) & ((1 << stored) - 1)
    if frames.signed:
        values -= (values >> (stored - 1)) << stored
    return values.reshape(shape)


def _own_range(values_HW: NDArray[np.float32]) -> Window:
    """All that is not background: the middle 99 % of values above the smallest."""
    sample = values_HW[:: max(1, values_HW.shape[0] // 512), :: max(1, values_HW.shape[1] // 512)]
    above = sample[sample > sample.min()]
    if above.size == 0:
        return Window(float(sample.min()) + 0.5, 1.0, "LINEAR_EXACT")
    low, high = (float(value) for value in np.percentile(above, (0.5, 99.5)))
    low = float(sample.min()) if low == high else low
    return Window((low + high) / 2, max(high - low, 1e-3), "LINEAR_EXACT")


def _colour(frames: Frames, index: int) -> NDArray[np.uint8]:
    """An uncompressed RGB frame (H, W, 3)."""
    photometric = text(frames.dataset, "PhotometricInterpretation")
    if photometric != "RGB" or frames.samples != 3 or frames.bits_allocated != 8:
        detail = f"{photometric}, {frames.samples} samples of {frames.bits_allocated} bits"
        raise ImageRefused(RefusalCode.COLOUR, detail)
    data = frames.decoded(index)
    if len(data) * 8 < frames.bits:
        raise ImageRefused(RefusalCode.TRUNCATED, f"frame {index + 1}", frame=index)
    cells = np.frombuffer(data, np.uint8, frames.rows * frames.columns * 3)
    if integer(frames.dataset, "PlanarConfiguration") == 1:
        planes = cells.reshape(3, frames.rows, frames.columns)
        return np.ascontiguousarray(planes.transpose(1, 2, 0))
    return cells.reshape(frames.rows, frames.columns, 3)


def _places(dataset: Dataset, index: int, group: str) -> list[Dataset]:
    """Where an attribute of a frame may stand, nearest first."""
    of_frames = items(dataset, "PerFrameFunctionalGroupsSequence")
    own = item(of_frames[index], group) if index < len(of_frames) else Dataset()
    return [own, item(item(dataset, "SharedFunctionalGroupsSequence"), group), dataset]
