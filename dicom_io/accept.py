"""What is analysed and what is refused, from the header alone: one rule a function, each with its reason."""

from __future__ import annotations

from typing import Final

from pydicom.dataset import Dataset
from pydicom.uid import UID

from dicom_io import codes, syntaxes
from dicom_io.decode import decoder_for
from dicom_io.errors import ImageRefused, RefusalCode
from dicom_io.header import InstanceHeader, integer, item, items, numbers, text
from dicom_io.orientation import Side
from dicom_io.parse import ParsedDataset
from dicom_io.pixels import PixelFormat
from dicom_io.recognise import Kind, kind_of

_READ: Final = (syntaxes.BREAST_TOMOSYNTHESIS, syntaxes.MAMMOGRAPHY_PRESENTATION)
_REFUSED: Final = {
    syntaxes.CT_IMAGE: RefusalCode.CT_SLICES,
    syntaxes.ENHANCED_CT: RefusalCode.CT_SLICES,
    **dict.fromkeys(syntaxes.SECONDARY_CAPTURES, RefusalCode.SECONDARY_CAPTURE),
    syntaxes.MAMMOGRAPHY_PROCESSING: RefusalCode.FOR_PROCESSING,
    syntaxes.BREAST_PROJECTION_PRESENTATION: RefusalCode.PROJECTION,
    syntaxes.BREAST_PROJECTION_PROCESSING: RefusalCode.PROJECTION,
}
# Presentation states, registrations and segmentations, structured reports, encapsulated documents.
_DOCUMENTS: Final = tuple(
    f"1.2.840.10008.5.1.4.1.1.{branch}" for branch in ("11.", "66", "67", "88.", "91.", "104.")
)
_MAX_FRAME_PIXELS: Final = 1 << 26  # twice the largest detector; a larger frame is a damaged header


def check_class(header: InstanceHeader, dataset: Dataset) -> None:
    """Refuse every storage class but Breast Tomosynthesis and Digital Mammography For Presentation."""
    uid = header.sop_class_uid
    if kind_of(header) is Kind.PRIVATE_TOMO:
        raise ImageRefused(RefusalCode.PRIVATE_TOMOSYNTHESIS, _name(uid))
    if uid in _REFUSED:
        raise ImageRefused(_REFUSED[uid], _name(uid))
    if uid.startswith(_DOCUMENTS):
        raise ImageRefused(RefusalCode.DOCUMENT, _name(uid))
    if uid not in _READ:
        raise ImageRefused(RefusalCode.NOT_A_BREAST_IMAGE, _name(uid))
    check_use(header, dataset)


def check_use(header: InstanceHeader, dataset: Dataset) -> None:
    """Refuse images For Processing and of quality control, whatever their class."""
    if header.presentation_intent == "FOR PROCESSING":
        raise ImageRefused(RefusalCode.FOR_PROCESSING)
    if text(dataset, "QualityControlImage").upper() == "YES":
        raise ImageRefused(RefusalCode.QUALITY_CONTROL)


def side_of(header: InstanceHeader) -> Side:
    """The stated laterality; refuses an image without one, or of both breasts."""
    if header.laterality == "L":
        return "L"
    if header.laterality == "R":
        return "R"
    detail = "it says both" if header.laterality == "B" else ""
    raise ImageRefused(RefusalCode.MISSING_LATERALITY, detail)


def view_of(header: InstanceHeader, dataset: Dataset) -> codes.View:
    """The view; refuses an image without one, an unknown one, and views of a part of the breast."""
    view = codes.view_from_name(header.view or "")
    if view is None:
        stated = text(item(dataset, "ViewCodeSequence"), "CodeValue") or text(
            dataset, "ViewPosition"
        )
        raise ImageRefused(RefusalCode.UNKNOWN_VIEW if stated else RefusalCode.MISSING_VIEW, stated)
    partial = [
        m.name
        for m in codes.VIEW_MODIFIERS
        if m.name in header.view_modifiers and not m.whole_breast
    ]
    if partial:
        raise ImageRefused(RefusalCode.PARTIAL_VIEW, ", ".join(partial))
    return view


def pixel_format(parsed: ParsedDataset, header: InstanceHeader) -> PixelFormat:
    """The form of the stored values; refuses colour, odd bit depths, and syntaxes without a decoder."""
    dataset, syntax = parsed.dataset, parsed.transfer_syntax_uid
    if parsed.pixels is None:
        raise ImageRefused(RefusalCode.NO_PIXELS)
    if parsed.pixels.tag != 0x7FE00010:
        raise ImageRefused(RefusalCode.PIXEL_FORMAT, "floating point pixels")
    if header.samples_per_pixel not in (None, 1) or header.photometric not in (
        "MONOCHROME1",
        "MONOCHROME2",
    ):
        raise ImageRefused(
            RefusalCode.COLOUR, header.photometric or "no photometric interpretation"
        )
    rows, columns = header.rows or 0, header.columns or 0
    allocated = header.bits_allocated or 0
    stored = header.bits_stored or allocated
    high = integer(dataset, "HighBit")
    high = stored - 1 if high is None else high
    if not 0 < rows * columns <= _MAX_FRAME_PIXELS:
        raise ImageRefused(RefusalCode.PIXEL_FORMAT, f"{rows} rows, {columns} columns")
    if allocated not in (8, 16) or not 1 <= stored <= high + 1 <= allocated:
        raise ImageRefused(
            RefusalCode.PIXEL_FORMAT,
            f"bits allocated {allocated}, stored {stored}, high bit {high}",
        )
    form = PixelFormat(
        rows=rows,
        columns=columns,
        bits_allocated=allocated,
        bits_stored=stored,
        high_bit=high,
        signed=integer(dataset, "PixelRepresentation") == 1,
        inverted=header.photometric == "MONOCHROME1",
        padding=_padding(dataset),
        rescale=_rescale(dataset),
        transfer_syntax_uid=syntax,
        word_swapped=syntax == syntaxes.EXPLICIT_BIG
        and allocated == 8
        and parsed.pixels.vr != "OB",
    )
    _check_syntax(form, parsed.pixels.length is None)
    return form


def _check_syntax(form: PixelFormat, encapsulated: bool) -> None:
    syntax = form.transfer_syntax_uid
    native = syntax in syntaxes.NATIVE_SYNTAXES
    raw = native or syntax == syntaxes.ENCAPSULATED_UNCOMPRESSED
    if not raw and decoder_for(syntax, (form.rows, form.columns), form.cell) is None:
        raise ImageRefused(RefusalCode.UNSUPPORTED_SYNTAX, _name(syntax))
    if native == encapsulated:
        raise ImageRefused(
            RefusalCode.PIXEL_FORMAT, f"pixel data does not have the form of {_name(syntax)}"
        )
    if form.word_swapped and form.frame_bytes % 2:
        raise ImageRefused(
            RefusalCode.PIXEL_FORMAT, "frames of odd length, 8 bits in big-endian words"
        )


def _padding(dataset: Dataset) -> tuple[int, int] | None:
    """The stored values of Pixel Padding (PS3.3 C.7.5.1.1.2), lowest first."""
    value = integer(dataset, "PixelPaddingValue")
    if value is None:
        return None
    limit = integer(dataset, "PixelPaddingRangeLimit")
    limit = value if limit is None else limit
    return min(value, limit), max(value, limit)


def _rescale(dataset: Dataset) -> tuple[tuple[float, float], ...]:
    """(slope, intercept) of every frame, or of all: shared groups, per-frame groups, data set, identity."""
    shared = item(
        item(dataset, "SharedFunctionalGroupsSequence"), "PixelValueTransformationSequence"
    )
    frames = [
        item(group, "PixelValueTransformationSequence")
        for group in items(dataset, "PerFrameFunctionalGroupsSequence")
    ]
    for sources in ([shared], frames, [dataset]):
        found = [
            (numbers(source, "RescaleSlope"), numbers(source, "RescaleIntercept"))
            for source in sources
        ]
        if found and all(slope and intercept for slope, intercept in found):
            pairs = tuple((slope[0], intercept[0]) for slope, intercept in found)
            if any(slope <= 0 for slope, _ in pairs):
                raise ImageRefused(RefusalCode.PIXEL_FORMAT, f"rescale slope {min(pairs)[0]}")
            return pairs[:1] if len(set(pairs)) == 1 else pairs
    return ((1.0, 0.0),)


def _name(uid: str) -> str:
    return str(UID(uid).name)
