"""Every transfer syntax, at every depth PS3.5 (section 8.2) allows it, in one and in several fragments a frame.

The objects are tomosynthesis of three frames. Lossless forms must give the stored values; lossy streams, which really
lose something, must stay within an error stated here. dcmtk's encoders make what no library at hand encodes, and its
decoders must agree.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import dcmread, dcmwrite
from pydicom.uid import UID

from dicom_io.dbt import open_image
from tests.support import dcmtk
from tests.support.breast_objects import encode, shared_item, view_file, with_frames

ROOT_UID = "1.2.840.10008.1.2"
SHAPE = (3, 40, 32)
Cells = NDArray[Any]


@dataclass(frozen=True)
class Depth:
    """Bits stored, and whether the values have a sign. Cells have 8 bits where 8 are stored, else 16."""

    bits: int
    signed: bool = False

    @property
    def allocated(self) -> int:
        return 8 if self.bits == 8 else 16

    @property
    def half(self) -> int:
        """What is added to signed values so that the darkest is 0 (Rescale Intercept)."""
        return 1 << (self.bits - 1) if self.signed else 0

    def __str__(self) -> str:
        return f"{'signed' if self.signed else 'unsigned'}-{self.bits}"


DEPTHS = [Depth(8), Depth(10), Depth(12), Depth(16)]
SIGNED = [Depth(8, True), Depth(12, True), Depth(16, True)]
every_depth = pytest.mark.parametrize("depth", [*DEPTHS, *SIGNED], ids=str)
in_fragments = pytest.mark.parametrize(
    ("fragments", "table"), [(1, True), (3, True), (3, False)], ids=["one", "table", "no-table"]
)


def grey(depth: Depth) -> NDArray[np.uint16]:
    """Waves over the whole range, and a corner of either end: what wraps around shows."""
    slices, rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    waves = (2 + np.sin(rows / 7 + slices) + np.cos(columns / 5)) / 4
    made = np.rint(waves * ((1 << depth.bits) - 1)).astype(np.uint16)
    made[:, :8, :8], made[:, -8:, :8] = 0, (1 << depth.bits) - 1
    return made


def stored(depth: Depth) -> Cells:
    """The values as they are stored."""
    kind = f"{'i' if depth.signed else 'u'}{depth.allocated // 8}"
    return (grey(depth).astype(np.int32) - depth.half).astype(kind)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A native tomosynthesis object that every form is made of."""
    return view_file(tmp_path_factory.mktemp("plain"), volume_DHW=np.full(SHAPE, 5, np.uint16))


def native(plain: Path, out: Path, depth: Depth, tail: str = ".1", vr: str = "") -> Path:
    """The stored values of a depth in a native syntax."""
    dataset = dcmread(plain)
    dataset.BitsAllocated, dataset.BitsStored = depth.allocated, depth.bits
    dataset.HighBit, dataset.PixelRepresentation = depth.bits - 1, int(depth.signed)
    shared_item(dataset, "PixelValueTransformationSequence").RescaleIntercept = depth.half
    cells = stored(depth)
    if tail == ".2":
        swapped = cells.view(np.uint16) if vr == "OW" and depth.allocated == 8 else cells
        cells = swapped.byteswap() if swapped.itemsize == 2 else swapped
    dataset.PixelData = cells.tobytes()
    dataset["PixelData"].VR = vr or ("OB" if depth.allocated == 8 else "OW")
    dataset.file_meta.TransferSyntaxUID = UID(ROOT_UID + tail)
    dcmwrite(out, dataset, implicit_vr=tail == "", little_endian=tail != ".2")
    return out


def frames_of(path: Path) -> NDArray[np.int32]:
    """The frames as they are stored, not turned, as 32-bit numbers, so that differences do not wrap around."""
    image = open_image(path)
    found = [image.read_frame(index) for index in range(image.number_of_frames)]
    return np.stack(found).astype(np.int32)


# --- Lossless ---


@every_depth
@pytest.mark.parametrize("tail", ["", ".1", ".1.99", ".2"])
def test_native_forms(plain: Path, tmp_path: Path, tail: str, depth: Depth) -> None:
    np.testing.assert_array_equal(
        frames_of(native(plain, tmp_path / "x.dcm", depth, tail)), grey(depth)
    )


@pytest.mark.parametrize("depth", [Depth(8), Depth(8, True)], ids=str)
def test_bytes_in_big_endian_words(plain: Path, tmp_path: Path, depth: Depth) -> None:
    path = native(plain, tmp_path / "x.dcm", depth, ".2", "OW")
    np.testing.assert_array_equal(frames_of(path), grey(depth))


def masked(frame: Cells, depth: Depth) -> Cells:
    """Two's complement of the bits stored, as JPEG and JPEG-LS carry values with a sign."""
    cells = frame.view(f"u{frame.itemsize}")
    return cells & cells.dtype.type((1 << depth.bits) - 1)


LOSSLESS: dict[str, Callable[[Cells, Depth], Any]] = {
    ".4.57": lambda f, d: imagecodecs.jpeg8_encode(
        masked(f, d), lossless=True, predictor=6, bitspersample=d.bits
    ),
    ".4.70": lambda f, d: imagecodecs.ljpeg_encode(masked(f, d), bitspersample=d.bits),
    ".4.80": lambda f, d: imagecodecs.jpegls_encode(masked(f, d)),
    ".4.90": lambda f, d: imagecodecs.jpeg2k_encode(
        f, level=0, codecformat="j2k", reversible=True, bitspersample=d.bits
    ),
    ".4.201": lambda f, d: imagecodecs.htj2k_encode(f),
    ".4.202": lambda f, d: imagecodecs.htj2k_encode(f, resolutions=3, tlm=True),
}


@every_depth
@in_fragments
@pytest.mark.parametrize("tail", LOSSLESS)
def test_lossless_forms(
    plain: Path, tmp_path: Path, tail: str, fragments: int, table: bool, depth: Depth
) -> None:
    path = native(plain, tmp_path / "x.dcm", depth)
    frames = [bytes(LOSSLESS[tail](frame, depth)) for frame in stored(depth)]
    with_frames(path, frames, ROOT_UID + tail, fragments, table)
    np.testing.assert_array_equal(frames_of(path), grey(depth))


@every_depth
@pytest.mark.parametrize("tail", [".5", ".1.98"])
def test_forms_of_one_fragment_a_frame(
    plain: Path, tmp_path: Path, tail: str, depth: Depth
) -> None:
    path = native(plain, tmp_path / "x.dcm", depth)
    cells = stored(depth).view(f"u{depth.allocated // 8}")
    frames = [encode(f, ROOT_UID + tail) if tail == ".5" else f.tobytes() for f in cells]
    with_frames(path, frames, ROOT_UID + tail)
    np.testing.assert_array_equal(frames_of(path), grey(depth))


# --- With loss: the largest error, as a share of the range or in grey values ---


@dataclass(frozen=True)
class Lossy:
    encode: Callable[[Cells, Depth], Any]
    share: float = 0.0
    levels: int = 0

    def bound(self, depth: Depth) -> float:
        levels = self.levels * (2 if depth.signed else 1)  # see `near_lossless`
        return levels + self.share * ((1 << depth.bits) - 1)


def irreversible(frame: Cells, depth: Depth) -> Any:
    return imagecodecs.jpeg2k_encode(
        frame, level=45, codecformat="j2k", reversible=False, bitspersample=depth.bits
    )


def near_lossless(frame: Cells, depth: Depth) -> Any:
    """JPEG-LS knows no sign: an end of the signed range, changed by 3, would be the other end, so nobody encodes it."""
    if depth.signed:
        frame = frame.clip(3 - depth.half, depth.half - 1 - 3)
    return imagecodecs.jpegls_encode(frame.view(f"u{frame.itemsize}"), 3)


LOSSY = {
    ".4.50": Lossy(lambda f, d: imagecodecs.jpeg8_encode(f, 90), share=0.1),
    ".4.51": Lossy(lambda f, d: imagecodecs.jpeg8_encode(f, 90, bitspersample=d.bits), share=0.1),
    ".4.81": Lossy(near_lossless, levels=3),
    ".4.91": Lossy(irreversible, share=0.05),
    ".4.203": Lossy(
        lambda f, d: imagecodecs.htj2k_encode(f, 0.0005 if d.bits > 8 else 0.002, reversible=False),
        share=0.05,
    ),
}
DCT = {".4.50": [Depth(8)], ".4.51": [Depth(8), Depth(12)]}  # no other depth, never a sign
LOSSY_CASES = [(tail, d) for tail in LOSSY for d in DCT.get(tail, [*DEPTHS, *SIGNED])]


@in_fragments
@pytest.mark.parametrize(("tail", "depth"), LOSSY_CASES, ids=lambda value: str(value))
def test_lossy_forms_come_as_close_as_stated(
    plain: Path, tmp_path: Path, tail: str, fragments: int, table: bool, depth: Depth
) -> None:
    form = LOSSY[tail]
    path = native(plain, tmp_path / "x.dcm", depth)
    frames = [bytes(form.encode(frame, depth)) for frame in stored(depth)]
    with_frames(path, frames, ROOT_UID + tail, fragments, table)
    error = np.abs(frames_of(path) - grey(depth)).max()
    assert 0 < error <= form.bound(depth)


# --- Other people's encoders and decoders ---


DCMTK = {
    "dcmcjpeg +eb": (".4.50", [Depth(8), Depth(12)]),
    "dcmcjpeg +ee": (".4.51", [Depth(8), Depth(10), Depth(12)]),
    "dcmcjpeg +es": (".4.53", [Depth(8), Depth(12)]),
    "dcmcjpeg +ep": (".4.55", [Depth(8), Depth(12), Depth(16)]),
    "dcmcjpeg +el +sv 2": (".4.57", [Depth(8), Depth(10), Depth(16), Depth(12, True)]),
    "dcmcjpeg +e1": (".4.70", [Depth(8), Depth(10), Depth(16), Depth(16, True)]),
    "dcmcjpls +el": (".4.80", [Depth(8), Depth(10), Depth(16), Depth(12, True)]),
    "dcmcjpls +en": (".4.81", [Depth(8), Depth(12), Depth(16)]),
    "dcmcrle": (".5", [Depth(8), Depth(12), Depth(16, True)]),
}
DCMTK_DECODERS = {"dcmcjpeg": "dcmdjpeg", "dcmcjpls": "dcmdjpls", "dcmcrle": "dcmdrle"}


@pytest.mark.system
@pytest.mark.parametrize("fragmented", [False, True], ids=["one", "no-table"])
@pytest.mark.parametrize(
    ("command", "depth"), [(c, d) for c in DCMTK for d in DCMTK[c][1]], ids=lambda value: str(value)
)
def test_dcmtk_encodes_and_its_decoder_agrees(
    plain: Path, tmp_path: Path, command: str, depth: Depth, fragmented: bool
) -> None:
    source, coded, back = (tmp_path / name for name in ("source.dcm", "coded.dcm", "back.dcm"))
    native(plain, source, depth)
    program, *options = command.split()
    if fragmented and program != "dcmcrle":
        options += ["+fs", "1", "-ot"]
    for arguments in (
        [program, *options, source, coded],
        [DCMTK_DECODERS[program], coded, back],
    ):
        done = dcmtk.run(str(arguments[0]), *arguments[1:])
        assert done.returncode == 0, done.stdout
    assert open_image(coded).header.transfer_syntax_uid == ROOT_UID + DCMTK[command][0]
    found = frames_of(coded)
    np.testing.assert_array_equal(found, frames_of(back))
    # Lossy JPEG has 8 or 12 bits: dcmtk stretches other depths to one of them.
    range_of = (1 << open_image(coded).form.bits_stored) - 1
    expected = grey(depth) * (range_of / ((1 << depth.bits) - 1))
    lossy = DCMTK[command][0] in (".4.50", ".4.51", ".4.53", ".4.55", ".4.81")
    assert np.abs(found - expected).max() <= (0.1 * range_of if lossy else 0)
