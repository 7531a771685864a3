"""The report's Image Library (PS3.16 TID 1600 to 1603): each input with what a reader needs to know it by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from highdicom import sr
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from dicom_io import result_codes as names
from dicom_io.findings import SourceRef
from dicom_io.header import text

_ACQUIRED = sr.RelationshipTypeValues.HAS_ACQ_CONTEXT
_CONTAINS = sr.RelationshipTypeValues.CONTAINS
_PIXELS = Code("{pixels}", "UCUM", "Pixels")
_MAMMOGRAPHY = Code("MG", "DCM", "Mammography")


def image_library(sources: Sequence[SourceRef]) -> Any:
    """The Image Library container: one group that holds every image, in the order given."""
    group = sr.ContainerContentItem(codes.DCM.ImageLibraryGroup, relationship_type=_CONTAINS)
    group.ContentSequence = sr.ContentSequence([_entry(source) for source in sources])
    library = sr.ContainerContentItem(codes.DCM.ImageLibrary, relationship_type=_CONTAINS)
    library.ContentSequence = sr.ContentSequence([group])
    return library


def _entry(source: SourceRef) -> Any:
    """TID 1601 with the descriptors of TID 1602; those the source does not have are left out."""
    image = sr.ImageContentItem(
        Code("260753009", "SCT", "Source"),
        source.sop_class_uid,
        source.sop_instance_uid,
        relationship_type=_CONTAINS,
    )
    rows, columns = source.shape
    descriptors = [sr.CodeContentItem(codes.DCM.Modality, _MAMMOGRAPHY, _ACQUIRED)]
    descriptors.append(sr.CodeContentItem(codes.DCM.TargetRegion, names.BREAST, _ACQUIRED))
    if source.laterality in names.SIDES:
        descriptors.append(
            sr.CodeContentItem(codes.DCM.ImageLaterality, names.SIDES[source.laterality], _ACQUIRED)
        )
    if source.view in names.VIEWS:
        descriptors.append(
            sr.CodeContentItem(codes.DCM.ImageView, names.VIEWS[source.view], _ACQUIRED)
        )
    frame_of_reference = text(source.header, "FrameOfReferenceUID")
    if frame_of_reference:
        descriptors.append(
            sr.UIDRefContentItem(codes.DCM.FrameOfReferenceUID, frame_of_reference, _ACQUIRED)
        )
    descriptors += [
        sr.NumContentItem(codes.DCM.PixelDataRows, rows, _PIXELS, relationship_type=_ACQUIRED),
        sr.NumContentItem(
            codes.DCM.PixelDataColumns, columns, _PIXELS, relationship_type=_ACQUIRED
        ),
    ]
    image.ContentSequence = sr.ContentSequence(descriptors)
    return image
