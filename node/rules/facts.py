"""What rules are held against: values of an object's header, read from its file; never its pixels."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.tag import Tag

from dicom_io.parse import PARSE_ERRORS, parse

_CHARACTER_SET = Tag("SpecificCharacterSet")
_SYNTAX = Tag("TransferSyntaxUID")
_VALUES, _CHARACTERS = 64, 1024  # of one attribute; more is not compared


def values(path: Path, tags: Collection[int]) -> dict[int, tuple[str, ...]]:
    """The values of these attributes in a file, as text; absent, empty and malformed ones are left out.

    Of an attribute with several values the whole, joined by backslashes, is one more.

    Raises:
        UnreadableDataset: no DICOM data set, or cut off.
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        parsed = parse(file, tags=[int(_CHARACTER_SET), *sorted(tags)])
    found = {tag: _values(parsed.dataset, tag) for tag in tags}
    if _SYNTAX in tags:
        found[int(_SYNTAX)] = (parsed.transfer_syntax_uid,)
    return {tag: some for tag, some in found.items() if some}


def _values(dataset: Dataset, tag: int) -> tuple[str, ...]:
    try:
        element = dataset.get(Tag(tag))
        value = None if element is None else element.value
        if value is None:
            return ()
        several = isinstance(value, MultiValue | list)
        found = [_text(one) for one in (list(value)[:_VALUES] if several else [value])]
    except PARSE_ERRORS:
        return ()
    if len(found) > 1:
        found.append("\\".join(found))
    return tuple(one[:_CHARACTERS] for one in found if one)


def _text(value: object) -> str:
    plain = value.decode("latin-1") if isinstance(value, bytes) else str(value)
    return plain.strip(" \0")
