"""QIDO-RS (PS3.18 10.6): from the parameters of a request to keys of the catalogue, and from its rows to DICOM JSON.

Everything that is known of a match is returned whatever `includefield` asks for: it is little.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pydicom.config
from pydicom.datadict import dictionary_VR, keyword_for_tag, tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

from dicom_io.json_model import UTF8, Json, to_json
from node.catalogue.attributes import ATTRIBUTES, COUNTS, LISTS, Level
from node.catalogue.query import Match
from node.dicomweb.errors import BadRequest

MAX_MATCHES: Final = 1000  # of one answer; a client asks for the next ones by `offset`
_MAX_OFFSET: Final = 10**9
_NOT_KEYS: Final = frozenset({"accept", "charset", "includefield"})
_TAG: Final = re.compile(r"[0-9A-Fa-f]{8}")
_FIELD: Final = re.compile(r"[A-Za-z0-9.]{1,200}")
_FUZZY: Final = '299 tomonode "fuzzymatching is not done; names match whatever case and accents"'


@dataclass(frozen=True)
class Search:
    """What a request asks for; `warnings` are values of the Warning header (RFC 7234 5.5)."""

    keys: dict[str, str]
    limit: int
    offset: int
    warnings: tuple[str, ...]


def search_of(parameters: Iterable[tuple[str, str]]) -> Search:
    """Read the parameters of a search.

    A DICOM attribute that is not matched here is left out of the search with a warning (8.3.4). Raises BadRequest for
    a name that is no attribute, and for a `limit` or `offset` that is no number.
    """
    keys: dict[str, str] = {}
    warnings: list[str] = []
    limit, offset = MAX_MATCHES, 0
    for name, value in parameters:
        if name == "limit":
            limit = min(_number(name, value), MAX_MATCHES)
        elif name == "offset":
            offset = _number(name, value)
        elif name == "fuzzymatching":
            warnings += [_FUZZY] if value.lower() == "true" else []
        elif name not in _NOT_KEYS:
            keyword = _keyword(name)
            if keyword in ATTRIBUTES or keyword in LISTS or keyword in COUNTS:
                keys[keyword] = f"{keys[keyword]}\\{value}" if keyword in keys else value
            else:
                warnings.append(f'299 tomonode "{name} is not matched here and was left out"')
    return Search(keys, limit, offset, tuple(warnings))


def model_of(match: Match, base: str) -> Json:
    """A match in the DICOM JSON model. `base` is the address of the service, without a slash at its end."""
    dataset = Dataset()
    _add(dataset, "SpecificCharacterSet", UTF8)
    _add(dataset, "InstanceAvailability", "ONLINE")
    _add(dataset, "RetrieveURL", base + _path(match))
    for keyword, value in match.values.items():
        if value is not None or _own(keyword, match.level):
            _add(dataset, keyword, list(value) if isinstance(value, tuple) else value)
    model = {**match.attributes, **to_json(dataset)}
    return dict(sorted(model.items()))


def _path(match: Match) -> str:
    values = match.values
    path = f"/studies/{values['StudyInstanceUID']}"
    if match.level >= Level.SERIES:
        path += f"/series/{values['SeriesInstanceUID']}"
    if match.level >= Level.IMAGE:
        path += f"/instances/{values['SOPInstanceUID']}"
    return path


def _own(keyword: str, level: Level) -> bool:
    """Whether an attribute is one of the level's own, which are there even where nothing is known (10.6.3.3)."""
    attribute = ATTRIBUTES.get(keyword)
    return attribute is not None and attribute.level == level and level is not Level.IMAGE


def _add(dataset: Dataset, keyword: str, value: Any) -> None:
    tag = tag_for_keyword(keyword)
    assert tag is not None, keyword
    vr = dictionary_VR(tag)
    # unchecked: pydicom's warnings would quote what a patient's name has in excess
    ignore = pydicom.config.IGNORE
    dataset[tag] = DataElement(tag, vr, value, validation_mode=ignore)


def _keyword(name: str) -> str:
    """The keyword of an attribute given by keyword or tag; of an attribute within a sequence, the name as it is."""
    if not _FIELD.fullmatch(name):
        raise BadRequest("a parameter is neither one of the service's nor a DICOM attribute")
    parts = [keyword_for_tag(int(p, 16)) if _TAG.fullmatch(p) else p for p in name.split(".")]
    if not all(part and tag_for_keyword(part) is not None for part in parts):
        raise BadRequest(f"{name} is neither a parameter of this service nor a DICOM attribute")
    return ".".join(parts)


def _number(name: str, value: str) -> int:
    if not (value.isascii() and value.isdigit()) or len(value) > 10 or int(value) > _MAX_OFFSET:
        raise BadRequest(f"{name} must be a whole number of at most {_MAX_OFFSET}")
    return int(value)


def more_warning(found: Sequence[Match], limit: int) -> tuple[str, ...]:
    """The warning that there are more matches than were asked for (10.6.3.4.1), where there are."""
    if len(found) <= limit:
        return ()
    return ('299 tomonode "there are additional results; ask again with a larger offset"',)
