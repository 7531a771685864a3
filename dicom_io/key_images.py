"""Key images: the picture of a key slice as a Secondary Capture object (PS3.3 A.8.1), for viewers that draw no SEG.

The picture is the one of `overlay`: the research notice and the caveat of the weights are part of its pixels, in a bar
below the breast, and no patient attribute is.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import SecondaryCaptureImageStorage

from dicom_io.errors import InvalidFindings
from dicom_io.findings import ImageFindings, KeyImageRef, RunContext, SourceRef
from dicom_io.modules import (
    copy_lossy_compression,
    disclaimer,
    reference_item,
    series_description,
    start_object,
)
from dicom_io.overlay import MAX_HEIGHT, key_slice_rgb, slice_title
from dicom_io.result_codes import SIDES, SOURCE_IMAGE, caveat_of, code_item, image_title
from dicom_io.uids import derive_uid

_SERIES_NUMBER = 9003


def build_key_image(
    findings: ImageFindings,
    frame: int,
    frame_HW: NDArray[np.uint16],
    run: RunContext,
    *,
    number: int = 1,
    window: tuple[float, float] | None = None,
) -> Dataset:
    """The picture of one frame with everything marked on it; also of a frame without a mark.

    Args:
        findings: of the image; masks and regions of this frame are drawn.
        frame: 0-based, as stored.
        frame_HW: its grey values, bright is dense (MONOCHROME2).
        run: the run; the same run gives the same bytes.
        number: instance number among the key images of this source image, which are one series.
        window: (centre, width) of the grey values; None takes them from the breast itself.

    Raises InvalidFindings where the source has no such frame or its shape is another one.
    """
    source = findings.source
    if not 0 <= frame < source.frame_count:
        raise InvalidFindings(
            f"a key image of frame index {frame}; the source has {source.frame_count} frames"
        )
    if frame_HW.shape != source.shape:
        raise InvalidFindings(
            f"a frame to draw has shape {frame_HW.shape}; the source's is {source.shape}"
        )
    picture_HWC = key_slice_rgb(
        frame_HW,
        {s.label: s.frames[frame] for s in findings.segments if frame in s.frames},
        [region for region in findings.regions if region.key_frame == frame],
        slice_title(source, frame),
        caveat=caveat_of(run.algorithm),
        window=window,
    )
    image = start_object(
        source.header,
        run,
        sop_class_uid=SecondaryCaptureImageStorage,
        sop_instance_uid=derive_uid(
            run.run_id, "key-image", source.sop_instance_uid, str(frame + 1)
        ),
        # A series has one side (PS3.3 C.7.3.1), so each source image has its own.
        series_instance_uid=derive_uid(run.run_id, "key-image-series", source.sop_instance_uid),
    )
    _add_series(image, source, number, run)
    _add_source(image, source, frame, run)
    _add_pixels(image, picture_HWC)
    return image


def reference(image: Dataset, source: SourceRef, frame: int) -> KeyImageRef:
    """What a document says of an image made by `build_key_image`."""
    return KeyImageRef(
        source_sop_instance_uid=source.sop_instance_uid,
        frame=frame,
        series_instance_uid=str(image.SeriesInstanceUID),
        sop_class_uid=str(image.SOPClassUID),
        sop_instance_uid=str(image.SOPInstanceUID),
    )


def _add_series(image: Dataset, source: SourceRef, number: int, run: RunContext) -> None:
    """General Series, SC Equipment and SC Image modules (PS3.3 C.7.3.1, C.8.6.1, C.8.6.2)."""
    # Not MG: a workstation must not hang a picture in the place of a mammogram.
    image.Modality = "OT"
    image.ConversionType = "WSD"
    image.SeriesNumber = _SERIES_NUMBER
    image.InstanceNumber = number
    title = image_title(source.laterality, source.view)
    image.SeriesDescription = series_description(f"{title} key images", run)
    image.Laterality = source.laterality if source.laterality in SIDES else None
    image.DateOfSecondaryCapture = image.ContentDate
    image.TimeOfSecondaryCapture = image.ContentTime


def _add_source(image: Dataset, source: SourceRef, frame: int, run: RunContext) -> None:
    """What it is a picture of (General Image and General Reference modules, PS3.3 C.7.6.1, C.12.4)."""
    image.ImageType = ["DERIVED", "SECONDARY"]
    image.PatientOrientation = None  # the picture has captions; it claims no direction
    algorithm = run.algorithm
    image.DerivationDescription = (
        f"{slice_title(source, frame)}: grey values windowed, at most {MAX_HEIGHT} rows, regions of model "
        f"{algorithm.name} {algorithm.version} (weights sha256 {algorithm.weights_sha256}, operating point "
        f"{run.operating_point:g}) and notices drawn in"
    )
    image.ImageComments = disclaimer(run)
    place = source.frame_reference(frame)
    reference = reference_item(place.sop_class_uid, place.sop_instance_uid)
    if place.frame is not None:
        reference.ReferencedFrameNumber = place.frame + 1
    reference.SpatialLocationsPreserved = "NO"
    reference.PurposeOfReferenceCodeSequence = [code_item(SOURCE_IMAGE)]
    image.SourceImageSequence = [reference]
    # It says whether identity is in the pixels (PS3.3 C.7.6.1): notices and scores are, a patient is not.
    image.BurnedInAnnotation = "NO"
    copy_lossy_compression(source.header, image)


def _add_pixels(image: Dataset, picture_HWC: NDArray[np.uint8]) -> None:
    """Image Pixel module (PS3.3 C.7.6.3): RGB, 8 bit, colours by pixel."""
    image.SamplesPerPixel = 3
    image.PhotometricInterpretation = "RGB"
    image.PlanarConfiguration = 0
    image.Rows, image.Columns = picture_HWC.shape[:2]
    image.BitsAllocated = image.BitsStored = 8
    image.HighBit = 7
    image.PixelRepresentation = 0
    pixels = np.ascontiguousarray(picture_HWC).tobytes()
    image.PixelData = pixels + b"\0" * (len(pixels) % 2)
    image["PixelData"].VR = "OB"
