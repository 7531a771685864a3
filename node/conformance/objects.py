"""Of the statement: the objects that runs make, private codes and attributes, character sets, queried attributes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pydicom.charset import python_encoding
from pydicom.datadict import tag_for_keyword
from pydicom.sr.coding import Code
from pydicom.uid import (
    Comprehensive3DSRStorage,
    KeyObjectSelectionDocumentStorage,
    MammographyCADSRStorage,
    ParametricMapStorage,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
)

from dicom_io import cad_codes, result_codes
from dicom_io.labelmap import LABEL_MAP_SEGMENTATION
from dicom_io.result_codes import PRIVATE_SCHEME
from node import results
from node.catalogue.attributes import ATTRIBUTES, COUNTS, LISTS, Attribute, Level
from node.conformance.markdown import name_of, table

Kind = str


@dataclass(frozen=True)
class Iod:
    """What a kind of result is: its SOP class, and the template of its content (PS3.16), "" where it has none."""

    sop_class_uid: str
    template: str = ""
    transfer_syntax: str = "Explicit VR Little Endian"


_COMPRESSED = "JPEG 2000 Image Compression (Lossless Only)"

#: A test compares each with an object that was made.
IODS: Mapping[Kind, Iod] = {
    results.SEG: Iod(SegmentationStorage),
    results.SEG_JPEG2000: Iod(SegmentationStorage, transfer_syntax=_COMPRESSED),
    results.SEG_FRACTIONAL: Iod(SegmentationStorage),
    results.SEG_LABELMAP: Iod(LABEL_MAP_SEGMENTATION),
    results.PARAMETRIC_MAP: Iod(ParametricMapStorage),
    results.KEY_IMAGE: Iod(SecondaryCaptureImageStorage),
    results.SR: Iod(Comprehensive3DSRStorage, "1500"),
    results.CAD_SR: Iod(MammographyCADSRStorage, "4000"),
    results.KEY_OBJECTS: Iod(KeyObjectSelectionDocumentStorage, "2010"),
}


def results_made() -> list[str]:
    """Every kind of result."""
    rows = []
    for kind in results.KINDS:
        iod = IODS[kind]
        usual = "usual" if kind in results.USUAL else "chosen for a peer"
        template = f"TID {iod.template}" if iod.template else "-"
        rows.append(
            (
                f"`{kind}`",
                name_of(iod.sop_class_uid),
                f"`{iod.sop_class_uid}`",
                template,
                iod.transfer_syntax,
                usual,
            )
        )
    headings = ("kind", "SOP class", "UID", "template", "transfer syntax", "sent")
    return table(headings, rows)


def private_codes() -> list[str]:
    """Every code of the private scheme that an object may hold."""
    found = {
        code.value: code.meaning for code in _codes() if code.scheme_designator == PRIVATE_SCHEME
    }
    return table(("code value", "code meaning"), ((f"`{v}`", m) for v, m in sorted(found.items())))


def _codes() -> Iterator[Code]:
    for module in (result_codes, cad_codes):
        for value in vars(module).values():
            several = value.values() if isinstance(value, dict) else (value,)
            yield from (one for one in several if isinstance(one, Code))


def character_sets() -> str:
    """The character sets that are read, as one line."""
    return ", ".join(f"`{name}`" for name in python_encoding if name.startswith(("ISO", "GB")))


def queried() -> list[str]:
    """What a query may ask for, at its level; a lower level has those of the levels above."""
    rows = [_row(keyword, one) for keyword, one in ATTRIBUTES.items()]
    rows += [
        (keyword, _tag(keyword), Level.STUDY.name, "a study that has one such object")
        for keyword in LISTS
    ]
    rows += [
        (keyword, _tag(keyword), level.name, "not matched") for keyword, level in COUNTS.items()
    ]
    return table(("attribute", "tag", "level", "matched as"), rows)


def _row(keyword: str, one: Attribute) -> tuple[str, str, str, str]:
    return keyword, _tag(keyword), one.level.name, one.kind.name.lower()


def _tag(keyword: str) -> str:
    tag = tag_for_keyword(keyword)
    assert tag is not None, keyword
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"
