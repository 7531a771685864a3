"""The identifiers of queries and retrievals (PS3.4 C.4.1.1.3, C.4.2.1.4, C.4.3.1.3), read with suspicion.

The rules of the study root model without relational queries: a level needs the one unique key of every level above it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydicom.datadict import keyword_for_tag, tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence as DicomSequence
from pynetdicom.dsutils import decode

from dicom_io.parse import PARSE_ERRORS
from node.catalogue.attributes import Level
from node.dimse.serving import Request
from node.errors import Permanent

DOES_NOT_MATCH = 0xA900  # PS3.4 tables C.4-1 to C.4-3: the identifier does not match the SOP class
UNABLE = 0xC000
#: The unique key of each level (PS3.4 C.6.2.1).
UNIQUE: Mapping[Level, str] = {
    Level.STUDY: "StudyInstanceUID",
    Level.SERIES: "SeriesInstanceUID",
    Level.IMAGE: "SOPInstanceUID",
}
_UID = re.compile(r"[0-9.]{1,64}")
_MOST_UIDS = 10_000  # of one retrieval


class Refused(Permanent):
    """A request that is answered by a failure status; the message is its Error Comment, never a value of a key."""

    def __init__(self, status: int, comment: str, offending: Sequence[int] = ()) -> None:
        super().__init__(comment)
        self.status = status
        self.offending = list(offending)

    def tell(self, request: Request) -> None:
        """Send it as the request's last response."""
        more = {"OffendingElement": self.offending} if self.offending else {}
        request.respond(self.status, comment=str(self), parameters=more)


@dataclass(frozen=True)
class Identifier:
    """What a request asks for: its level, and the text of every element by tag, several values with backslashes."""

    level: Level
    texts: Mapping[int, str]

    def uids(self) -> tuple[list[str], list[str], list[str]]:
        """Study, series and SOP Instance UIDs of a retrieval; empty below the level. Raises Refused."""
        found: dict[Level, list[str]] = {level: [] for level in Level}
        for level in Level:
            if level <= self.level:
                found[level] = self._list(level)
        return found[Level.STUDY], found[Level.SERIES], found[Level.IMAGE]

    def require_upper(self) -> None:
        """Check that the levels above are given by one UID each. Raises Refused."""
        for level in Level:
            if level < self.level and len(self._list(level)) != 1:
                raise self._refused(level, "one")

    def _list(self, level: Level) -> list[str]:
        text = self.texts.get(_tag(UNIQUE[level]), "")
        uids = [part.strip(" \0") for part in text.split("\\")]
        several = level is self.level
        if not all(_UID.fullmatch(uid) for uid in uids) or not (several or len(uids) == 1):
            raise self._refused(level, "at least one" if several else "one")
        if len(uids) > _MOST_UIDS:
            raise Refused(DOES_NOT_MATCH, f"more than {_MOST_UIDS} UIDs; ask several times")
        return list(dict.fromkeys(uids))

    def _refused(self, level: Level, number: str) -> Refused:
        keyword = UNIQUE[level]
        comment = f"level {self.level.name} needs {number} {keyword}"
        return Refused(DOES_NOT_MATCH, comment, [_tag(keyword)])


def read(request: Request) -> Identifier:
    """The identifier of a request.

    Raises:
        Refused: there is none, it is no data set, it has no level of the model, or a value that cannot be read.
    """
    stream = request.message.Identifier
    if stream is None:
        raise Refused(DOES_NOT_MATCH, "the request came without an identifier")
    syntax = request.context.transfer_syntax[0]
    try:
        dataset = decode(stream, syntax.is_implicit_VR, syntax.is_little_endian)
    except (*PARSE_ERRORS, OSError):
        raise Refused(UNABLE, "the identifier is no data set") from None
    texts = {int(tag): _text(dataset, int(tag)) for tag in sorted(dataset.keys())}
    tag = _tag("QueryRetrieveLevel")
    level = next((one for one in Level if one.name == texts.get(tag, "").strip(" \0")), None)
    if level is None:
        names = ", ".join(one.name for one in Level)
        raise Refused(DOES_NOT_MATCH, f"Query/Retrieve Level must be one of {names}", [tag])
    return Identifier(level, texts)


def name_of(tag: int) -> str:
    """The keyword of a tag, or its number."""
    return keyword_for_tag(tag) or f"({tag >> 16:04X},{tag & 0xFFFF:04X})"


def _text(dataset: Dataset, tag: int) -> str:
    try:
        value = dataset[tag].value
        if value is None or (isinstance(value, DicomSequence | bytes) and not value):
            return ""
        if isinstance(value, DicomSequence):
            # an item without elements, or of empty ones, asks for the whole sequence
            filled = any(str(element.value or "") for item in value for element in item)
            return "filled" if filled else ""
        if isinstance(value, MultiValue | list):
            return "\\".join(str(one) for one in value)
        return str(value)
    except (*PARSE_ERRORS, OSError):
        comment = f"cannot read the value of {name_of(tag)}"
        raise Refused(DOES_NOT_MATCH, comment, [tag]) from None


def _tag(keyword: str) -> int:
    tag = tag_for_keyword(keyword)
    assert tag is not None, keyword
    return int(tag)
