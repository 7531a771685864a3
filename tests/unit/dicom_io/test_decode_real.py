"""Real compressed files, read by us and by another decoder: dcmtk's programs, pydicom with its libraries, OpenJPH."""

from __future__ import annotations

from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.encaps import generate_frames

from dicom_io.dbt import MammogramImage, open_image
from tests.support import dcmtk
from tests.support.breast_objects import encode, view_file, volume, with_frames
from tests.support.shared import shared_path
from tests.unit.dicom_io.test_pixels import as_mammogram

ODD = "odd"
BY_DCMTK = {  # transfer syntax -> files
    ".50": [
        "cornerstone3D__CTImage.dcm_JPEGProcess1TransferSyntax_1.2.840.10008.1.2.4.50.dcm",
        "pylibjpeg-data__JPEGBaseline_1s_1f_u_08_08.dcm",
    ],
    ".51": [
        "cornerstone3D__CTImage.dcm_JPEGProcess2_4TransferSyntax_1.2.840.10008.1.2.4.51.dcm",
        "cornerstone3D__CT0012.fragmented_no_bot_jpeg_baseline.51.dcm",
        "JPGExtended.dcm",
    ],
    ".53": ["cornerstone3D__CTImage.dcm_JPEGProcess6_8TransferSyntax_1.2.840.10008.1.2.4.53.dcm"],
    ".55": ["cornerstone3D__CTImage.dcm_JPEGProcess10_12TransferSyntax_1.2.840.10008.1.2.4.55.dcm"],
    ".57": ["dicomParser__CT0012.fragmented_no_bot_jpeg_lossless.57.dcm"],
    ".70": [
        "dicomParser__CT0012.fragmented_no_bot_jpeg_lossless.70.dcm",
        "dcmjs__sample-op.dcm",
        "real/ge_senographe_mlo.dcm",
    ],
    ".80": ["dicomParser__CT0012.fragmented_no_bot_jpeg_ls.80.dcm"],
    ".81": ["dicomParser__CT0012.fragmented_no_bot_jpeg_ls.81.dcm"],
    ".5": ["MR_small_RLE.dcm"],
}
BY_PYDICOM = [
    "image_dfl.dcm",
    "MR_small.dcm",
    "MR_small_implicit.dcm",
    "MR_small_bigendian.dcm",
    "MR_small_RLE.dcm",
    "MR_small_jpeg_ls_lossless.dcm",
    "MR_small_jp2klossless.dcm",
    "J2K_pixelrep_mismatch.dcm",  # the code stream has no sign, its values have
    "693_J2KI.dcm",
    "JPEG2000.dcm",
    "dcmjs-dimse__ebe.dcm",
    "dicomParser__CT1_UNC.fragmented_bot_jpeg_ls.80.dcm",
    "dicomParser__CT1_UNC.fragmented_no_bot_jpeg_ls.80.dcm",
    "dicomParser__CT1_UNC.not_fragmented_bot_jpeg_ls.80.dcm",
    "dicomParser__CT0012.fragmented_no_bot_jpeg_ls.81.dcm",
    "pylibjpeg-data__ELSCINT1_JP2vsJ2K.dcm",
    "pylibjpeg-data__OsirixFake16BitsStoredFakeSpacing.dcm",
    "real/hologic_bto_header.dcm",
]


def real_file(name: str) -> Path:
    """A file of pydicom's own, which come with it, or of the reference data."""
    if "/" in name:
        return shared_path("data", *name.split("/"))
    own = get_testdata_file(name, download=False)
    return Path(str(own)) if own else shared_path("data", ODD, name)


def frames_of(image: MammogramImage) -> NDArray[np.int32]:
    found = [image.read_frame(index) for index in range(image.number_of_frames)]
    return np.stack(found).astype(np.int32)


@pytest.mark.system
@pytest.mark.parametrize(
    ("tail", "name"), [(tail, name) for tail in BY_DCMTK for name in BY_DCMTK[tail]]
)
def test_dcmtk_decodes_to_the_same_values(tmp_path: Path, tail: str, name: str) -> None:
    path = as_mammogram(real_file(name), tmp_path / "x.dcm")
    program = {".5": "dcmdrle", ".80": "dcmdjpls", ".81": "dcmdjpls"}.get(tail, "dcmdjpeg")
    done = dcmtk.run(program, path, tmp_path / "back.dcm")
    assert done.returncode == 0, done.stdout
    image = open_image(path)
    assert image.header.transfer_syntax_uid.endswith(tail)
    found = frames_of(image)
    assert found.std() > 1
    np.testing.assert_array_equal(found, frames_of(open_image(tmp_path / "back.dcm")))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", BY_PYDICOM)
def test_pydicom_decodes_to_the_same_values(tmp_path: Path, name: str) -> None:
    source = real_file(name)
    image = open_image(as_mammogram(source, tmp_path / "x.dcm"))
    (slope, intercept), *more = image.form.rescale
    assert not more
    stored = dcmread(source).pixel_array.reshape(-1, image.rows, image.columns)
    expected = np.clip(np.rint(stored * slope + intercept), 0, 65535)
    found = frames_of(image)
    assert found.std() > 1
    np.testing.assert_array_equal(found, expected)


def test_one_image_in_five_forms_has_the_same_values(tmp_path: Path) -> None:
    tails = ["", "_RLE", "_bigendian", "_jp2klossless", "_jpeg_ls_lossless"]
    first, *others = [
        frames_of(open_image(as_mammogram(real_file(f"MR_small{tail}.dcm"), tmp_path / "x.dcm")))
        for tail in tails
    ]
    for other in others:
        np.testing.assert_array_equal(other, first)


@pytest.mark.parametrize("tail", [".4.201", ".4.202", ".4.203"])
def test_another_decoder_of_high_throughput_streams_agrees(tmp_path: Path, tail: str) -> None:
    """No real file is at hand; the streams are OpenJPH's, which also decodes them, and OpenJPEG reads them here."""
    syntax = f"1.2.840.10008.1.2{tail}"
    frames = [
        encode(frame, "1.2.840.10008.1.2.4.201")
        if tail != ".4.203"
        else bytes(imagecodecs.htj2k_encode(frame, 0.0005, reversible=False))
        for frame in volume()
    ]
    path = with_frames(view_file(tmp_path), frames, syntax)
    other = np.stack(
        [
            imagecodecs.htj2k_decode(frame)
            for frame in generate_frames(dcmread(path).PixelData, number_of_frames=5)
        ]
    )
    found = frames_of(open_image(path))
    assert np.abs(found - other).max() <= (1 if tail == ".4.203" else 0)
