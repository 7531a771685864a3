"""The DICOM JSON model (PS3.18 annex F): a data set as the answer of a DICOMweb service gives it.

Pure: a data set goes in, plain dicts, lists, strings and numbers come out, fit for `json.dumps(..., allow_nan=False)`.
An element whose value cannot be read is left out, so that one bad attribute never costs the others.
"""

from __future__ import annotations

import base64
import json
import math
import re
import struct
from collections.abc import Callable, Iterable
from typing import Any, Final

import numpy as np
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from dicom_io.parse import PARSE_ERRORS, PixelElement

INLINE_LIMIT: Final = 1024  # bytes; a longer binary value is given by its address
UTF8: Final = "ISO_IR 192"

BulkUrl = Callable[[str], str]
Json = dict[str, Any]

_CHARACTER_SET: Final = 0x00080005
_PIXEL_TAGS: Final = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})
_WORDS: Final = {"OB": 1, "UN": 1, "OW": 2, "OF": 4, "OL": 4, "OD": 8, "OV": 8}  # bytes of a word
_TEXTS: Final = frozenset({"LT", "ST", "UR", "UT"})  # one value, whatever is in it
_WHOLE: Final = frozenset({"IS", "SL", "SS", "SV", "UL", "US", "UV"})
_DECIMAL: Final = frozenset({"DS", "FD", "FL"})
_EXACT: Final = (
    2**53
)  # a larger whole number is no longer exact in a reader that knows doubles only
_PATH: Final = re.compile(r"[0-9A-F]{8}(?:/[1-9][0-9]{0,5}/[0-9A-F]{8})*")


def to_json(
    dataset: Dataset,
    bulk_url: BulkUrl | None = None,
    *,
    pixels: PixelElement | None = None,
    limit: int = INLINE_LIMIT,
    big_endian: bool = False,
) -> Json:
    """A data set in the DICOM JSON model, its elements in ascending order of tags.

    File meta and group length elements are left out (F.2.2), and text is decoded: Specific Character Set, where there
    is one, becomes ISO_IR 192.

    Args:
        dataset: as `dicom_io.parse.parse` gives it, or made in memory.
        bulk_url: the address of a bulk value from its path (tags and item numbers, counted from 1, with slashes
            between: "00540016/1/00189321"); None leaves bulk values out.
        pixels: the pixel data that follows the data set; it is bulk whatever its size.
        limit: bytes; a binary value of more is bulk.
        big_endian: the byte order in which binary values lie in `dataset`; those given are little-endian (F.2.7).
    """
    writer = _Writer(bulk_url, limit, big_endian)
    model = writer.dataset(dataset, "", signed=False)
    if pixels is not None and bulk_url is not None:
        tag = f"{pixels.tag:08X}"
        model[tag] = {"vr": _pixel_vr(pixels), "BulkDataURI": bulk_url(tag)}
    return model


def dumps(models: Iterable[Json] | Json) -> bytes:
    """Models as the bytes of an answer: UTF-8, no NaN, no needless space."""
    document = models if isinstance(models, dict) else list(models)
    text = json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.encode("utf-8", "replace")


def is_bulk_path(path: str) -> bool:
    """Whether a text is the path of a bulk value, as `to_json` makes them."""
    return _PATH.fullmatch(path) is not None


def bulk_value(dataset: Dataset, path: str, *, big_endian: bool = False) -> bytes | None:
    """The binary value at a path of `to_json`, little-endian; None where there is none. Pixel data is not here."""
    if not is_bulk_path(path):
        return None
    steps = path.split("/")
    try:
        for tag, number in zip(steps[:-1:2], steps[1::2], strict=True):
            dataset = dataset[int(tag, 16)].value[int(number) - 1]
        element = dataset[int(steps[-1], 16)]
    except PARSE_ERRORS:
        return None
    if not isinstance(element.value, bytes):
        return None
    return _little(element.value, _vr(element), big_endian)


class _Writer:
    def __init__(self, bulk_url: BulkUrl | None, limit: int, big_endian: bool) -> None:
        self._bulk_url, self._limit, self._big_endian = bulk_url, limit, big_endian

    def dataset(self, dataset: Dataset, place: str, signed: bool) -> Json:
        """The elements of a data set or item; `signed` says what an ambiguous VR means where it does not say."""
        model: Json = {}
        try:
            signed = int(dataset.get("PixelRepresentation", signed)) == 1
        except PARSE_ERRORS:
            signed = False
        for tag in sorted(dataset.keys()):
            if tag >> 16 == 2 or tag & 0xFFFF == 0:
                continue
            try:
                element = dataset[tag]
                found = self._element(element, f"{place}{int(tag):08X}", signed)
            except PARSE_ERRORS:
                continue  # a bad value costs no other
            if found is not None:
                model[f"{int(tag):08X}"] = found
        return model

    def _element(self, element: DataElement, path: str, signed: bool) -> Json | None:
        value, vr = element.value, _vr(element, signed)
        if int(element.tag) == _CHARACTER_SET:
            return {"vr": "CS", "Value": [UTF8]}
        if vr == "SQ":
            items = [
                self.dataset(item, f"{path}/{number}/", signed)
                for number, item in enumerate(value or [], 1)
            ]
            return _with({"vr": vr}, items)
        if isinstance(value, bytes):
            if vr not in _WORDS:  # a number whose VR the data set leaves open (PS3.5 annex A.1)
                order = ">" if self._big_endian else "<"
                code = "h" if vr == "SS" else "H"
                numbers = struct.unpack(f"{order}{len(value) // 2}{code}", value)
                return _with({"vr": vr}, list(numbers))
            return self._binary(value, vr, path)
        if vr in _WORDS:
            return {"vr": vr}
        return _with({"vr": vr}, _values(value, vr))

    def _binary(self, value: bytes, vr: str, path: str) -> Json | None:
        if not value:
            return {"vr": vr}
        if len(value) > self._limit or int(path[-8:], 16) in _PIXEL_TAGS:
            if self._bulk_url is None:
                return None
            return {"vr": vr, "BulkDataURI": self._bulk_url(path)}
        inline = base64.b64encode(_little(value, vr, self._big_endian)).decode("ascii")
        return {"vr": vr, "InlineBinary": inline}


def _with(model: Json, values: list[Any]) -> Json:
    """The value, where there is one: an empty element has its VR alone (F.2.5)."""
    return {**model, "Value": values} if values else model


def _values(value: Any, vr: str) -> list[Any]:
    if value is None or (isinstance(value, str) and not value):
        return []
    alone = vr in _TEXTS or not isinstance(value, MultiValue | list | tuple)
    made = [_one(entry, vr) for entry in ([value] if alone else value)]
    return made if any(entry is not None for entry in made) or len(made) > 1 else []


def _one(value: Any, vr: str) -> Any:
    """One value; None (null) where a value among several is empty or no number that JSON knows."""
    if value is None or value == "":
        return None
    if vr == "PN":
        return _name(value)
    if vr == "AT":
        return f"{int(value):08X}"
    if vr in _WHOLE:
        number = int(value)
        return number if abs(number) <= _EXACT else str(number)
    if vr in _DECIMAL:
        decimal = float(value)
        return decimal if math.isfinite(decimal) else None
    return str(value)


def _name(value: Any) -> Json | None:
    groups = {
        "Alphabetic": str(value.alphabetic),
        "Ideographic": str(value.ideographic),
        "Phonetic": str(value.phonetic),
    }
    return {name: text for name, text in groups.items() if text} or None


def _vr(element: DataElement, signed: bool = False) -> str:
    """The VR; one that implicit VR leaves open is settled as PS3.5 annex A.1 says."""
    vr = str(element.VR)
    if " or " not in vr:
        return vr
    if vr.endswith("OW"):
        return "OW"
    return "SS" if signed else "US"


def _pixel_vr(pixels: PixelElement) -> str:
    if pixels.length is None:
        return "OB"
    return pixels.vr if pixels.vr in _WORDS and pixels.vr != "UN" else "OW"


def _little(value: bytes, vr: str, big_endian: bool) -> bytes:
    """A binary value in little-endian order (PS3.18 F.2.7); an odd byte at its end stays where it is."""
    word = _WORDS.get(vr, 1)
    if not big_endian or word == 1:
        return value
    whole = len(value) // word * word
    swapped = np.frombuffer(value, f">u{word}", whole // word).astype(f"<u{word}").tobytes()
    return swapped + value[whole:]
