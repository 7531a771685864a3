"""What can be wrong with a DICOM object, and nothing about what to do next.

    DicomIoError
    ├── UnreadableDataset      not DICOM, cut off, or without the identifiers every object must have
    ├── ImageRefused           readable, but not an image that can be analysed; carries a `RefusalCode`
    ├── InvalidPhantom         the arrays or options given to the phantom writer do not describe a study
    ├── InvalidFindings        the findings given to the result writers do not fit their source image or study
    └── InvalidDrawing         a segmentation that a reader drew and that cannot be used

A message names what failed and the value seen, in one line, and never holds a patient attribute.
"""

from __future__ import annotations

from enum import StrEnum


class RefusalCode(StrEnum):
    """Why an object is left out of the analysis; the value is stored, the sentence is shown."""

    sentence: str

    def __new__(cls, value: str, sentence: str) -> RefusalCode:
        """Keep the plain sentence beside the stored value."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.sentence = sentence
        return member

    NOT_A_BREAST_IMAGE = "not-a-breast-image", "This object is not a breast image."
    DOCUMENT = "document", "This object is a document or annotation, not an image."
    CT_SLICES = (
        "ct-slices",
        "CT is read only as a series of tomosynthesis slices that name breast and view.",
    )
    SECONDARY_CAPTURE = (
        "secondary-capture",
        "Secondary captures are not read; tomosynthesis must be sent as Breast Tomosynthesis Image Storage.",
    )
    PRIVATE_TOMOSYNTHESIS = (
        "private-tomosynthesis",
        "This secondary capture holds tomosynthesis in its maker's private form, which is not read; "
        "have it sent as Breast Tomosynthesis Image Storage.",
    )
    FOR_PROCESSING = (
        "for-processing",
        "Images For Processing are not analysed, only For Presentation.",
    )
    PROJECTION = "projection", "Tomosynthesis projections are not analysed, only reconstructions."
    QUALITY_CONTROL = "quality-control", "Quality control images are not analysed."
    MISSING_LATERALITY = "missing-laterality", "The image does not say left or right breast."
    MISSING_VIEW = "missing-view", "The image does not say which view it is."
    UNKNOWN_VIEW = "unknown-view", "The view is not one of those known for mammography."
    PARTIAL_VIEW = (
        "partial-view",
        "Spot compression, magnification and other views of a part of the breast are not analysed.",
    )
    SERIES_SHORT = "series-short", "The series has too few slices for a volume."
    SERIES_DIFFERS = "series-differs", "The slices of the series do not fit together."
    SERIES_POSITIONS = (
        "series-positions",
        "The slices of the series have no places in which they could be ordered.",
    )
    SERIES_GAP = "series-gap", "Slices of the series are missing."
    FRAME_COUNT = "frame-count", "The stated number of frames and the pixel data disagree."
    COLOUR = "colour", "Colour images are not analysed."
    PIXEL_FORMAT = (
        "pixel-format",
        "The pixels have a form that cannot be read as 16-bit grey values.",
    )
    NO_PIXELS = "no-pixels", "The object has no pixel data."
    UNSUPPORTED_SYNTAX = "unsupported-syntax", "There is no decoder for this transfer syntax."
    TRUNCATED = "truncated", "The object is cut off before the end of its pixel data."
    DECODE_FAILED = "decode-failed", "A frame could not be decoded."


class DicomIoError(Exception):
    """Something is wrong with a DICOM object."""


class UnreadableDataset(DicomIoError):
    """The bytes are not a readable DICOM object."""


class ImageRefused(DicomIoError):
    """The object is readable but cannot be analysed; `code` says why, the message adds the value seen."""

    def __init__(self, code: RefusalCode, detail: str = "", *, frame: int | None = None) -> None:
        """`detail` is the value seen; `frame` the 0-based stored frame where one is to blame."""
        self.code = code
        self.detail = detail
        self.frame = frame
        super().__init__(f"{code.sentence} ({detail})" if detail else code.sentence)


class InvalidPhantom(DicomIoError, ValueError):
    """The phantom's arrays or options do not describe a study."""


class InvalidFindings(DicomIoError, ValueError):
    """The findings do not fit their source image or study: a mask of another size, a frame that is not there."""


class InvalidDrawing(DicomIoError, ValueError):
    """A segmentation, or a segment of one, that cannot be used as what a reader drew."""
