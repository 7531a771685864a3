"""The report's Image Library (PS3.16 TID 1600 to 1603): each image of the study, read or not, with what a reader needs
to know it by.

Images of one object stand in one group, each with its descriptors; slices of one volume stand in a group of their own,
which carries what they share. What was not read says so, and why, in a comment: the templates have no code for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from highdicom import sr
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from dicom_io import result_codes as names
from dicom_io.findings import Excluded, SourceRef
from dicom_io.header import integer, text
from dicom_io.recognise import two_d_form

_ACQUIRED = sr.RelationshipTypeValues.HAS_ACQ_CONTEXT
_CONTAINS = sr.RelationshipTypeValues.CONTAINS
_PIXELS = Code("{pixels}", "UCUM", "Pixels")
_MAMMOGRAPHY = Code("MG", "DCM", "Mammography")
_MODALITIES = {"CT": Code("CT", "DCM", "Computed Tomography")}

Entry = tuple[SourceRef, str]
"""An image, and why it was not read ("" where it was)."""


def image_library(read: Sequence[SourceRef], unread: Iterable[Excluded] = ()) -> Any | None:
    """The Image Library container, images in the order given, those read first; None where no image is known."""
    entries = [(source, "") for source in read]
    entries += [(item.source, item.reason) for item in unread if item.source is not None]
    single = [entry for entry in entries if not entry[0].slices]
    groups = [_group([], [_image(entry) for entry in single])] if single else []
    for source, reason in entries:
        if source.slices:
            shared = list(_descriptors((source, reason)))
            groups.append(_group(shared, [_reference(*one) for one in source.instances]))
    if not groups:
        return None
    library = sr.ContainerContentItem(codes.DCM.ImageLibrary, relationship_type=_CONTAINS)
    library.ContentSequence = sr.ContentSequence(groups)
    return library


def _group(shared: Sequence[Any], images: Sequence[Any]) -> Any:
    group = sr.ContainerContentItem(codes.DCM.ImageLibraryGroup, relationship_type=_CONTAINS)
    group.ContentSequence = sr.ContentSequence([*shared, *images])
    return group


def _image(entry: Entry) -> Any:
    """TID 1601 with the descriptors of TID 1602."""
    source, _ = entry
    image = _reference(source.sop_class_uid, source.sop_instance_uid)
    image.ContentSequence = sr.ContentSequence(list(_descriptors(entry)))
    return image


def _reference(sop_class_uid: str, sop_instance_uid: str) -> Any:
    return sr.ImageContentItem(
        Code("260753009", "SCT", "Source"),
        sop_class_uid,
        sop_instance_uid,
        relationship_type=_CONTAINS,
    )


def _descriptors(entry: Entry) -> Iterator[Any]:
    """TID 1602; those the source does not have are left out."""
    source, reason = entry
    header = source.header
    modality = _MODALITIES.get(text(header, "Modality"), _MAMMOGRAPHY)
    yield sr.CodeContentItem(codes.DCM.Modality, modality, _ACQUIRED)
    yield sr.CodeContentItem(codes.DCM.TargetRegion, names.BREAST, _ACQUIRED)
    if source.laterality in names.SIDES:
        side = names.SIDES[source.laterality]
        yield sr.CodeContentItem(codes.DCM.ImageLaterality, side, _ACQUIRED)
    if source.view in names.VIEWS:
        yield sr.CodeContentItem(codes.DCM.ImageView, names.VIEWS[source.view], _ACQUIRED)
    frame_of_reference = text(header, "FrameOfReferenceUID")
    if frame_of_reference:
        name = codes.DCM.FrameOfReferenceUID
        yield sr.UIDRefContentItem(name, frame_of_reference, _ACQUIRED)
    for name, keyword in (
        (codes.DCM.PixelDataRows, "Rows"),
        (codes.DCM.PixelDataColumns, "Columns"),
    ):
        if count := integer(header, keyword):
            yield sr.NumContentItem(name, count, _PIXELS, relationship_type=_ACQUIRED)
    for comment in (two_d_form(header), f"not read: {reason}" if reason else ""):
        if comment:
            yield sr.TextContentItem(codes.DCM.Comment, comment, _ACQUIRED)
