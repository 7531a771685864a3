"""C-FIND (PS3.4 C.4.1) of the study root model: what the catalogue lists, as the identifiers of responses.

docs/retrieve.md has the tables: keys, statuses, and what happens to keys that are not matched.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial
from typing import Any

import pydicom.config
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pynetdicom.dimse_primitives import C_FIND
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind
from sqlalchemy.exc import SQLAlchemyError

from dicom_io.parse import PARSE_ERRORS
from dicom_io.syntaxes import EXPLICIT_BIG, EXPLICIT_LITTLE, IMPLICIT_LITTLE
from node import log
from node.admission import Offer
from node.catalogue import query
from node.catalogue.attributes import ATTRIBUTES, COUNTS, LISTS, Level
from node.catalogue.described import KEPT_TAGS
from node.catalogue.match import BadKey
from node.catalogue.query import Match
from node.dimse import identifier
from node.dimse.identifier import DOES_NOT_MATCH, UNABLE, UNIQUE, Identifier, Refused
from node.dimse.service import Resources, Service
from node.dimse.serving import CANCELLED, PENDING, Request
from node.errors import DatabaseUnavailable

PENDING_WARNING = 0xFF01  # some keys are not supported
OUT_OF_RESOURCES = 0xA700
#: Transfer syntaxes of identifiers.
IDENTIFIERS = (IMPLICIT_LITTLE, EXPLICIT_LITTLE, EXPLICIT_BIG)
_UTF8 = "ISO_IR 192"
# What says how a request is to be read, and what every response has anyway; not keys.
_NOT_KEYS = frozenset(
    {"SpecificCharacterSet", "QueryRetrieveLevel", "RetrieveAETitle", "InstanceAvailability"}
    | {"TimezoneOffsetFromUTC"}
)


def service(resources: Resources) -> Service:
    """C-FIND, study root."""
    uid = str(StudyRootQueryRetrieveInformationModelFind)
    return Service({uid: Offer(IDENTIFIERS)}, operations={C_FIND: partial(on_find, resources)})


def on_find(resources: Resources, request: Request) -> None:
    """Answer a query: one response a match, then the last one."""
    started = time.monotonic()
    sent = 0
    with resources.logging(request.association):
        try:
            asked = identifier.read(request)
            asked.require_upper()
            matches = _matches(resources, asked)
            limit = resources.settings.query_limit
            pending = _pending_status(asked)
            for match in matches[:limit]:
                if request.cancelled or not request.alive:
                    break
                answer = answer_of(match, asked, resources.settings.ae_title)
                request.respond(pending, identifier=answer)
                sent += 1
            status, comment = _last(request, sent, len(matches), limit)
            if request.alive:
                request.respond(status, comment=comment)
        except Refused as refusal:
            status, comment = refusal.status, str(refusal)
            refusal.tell(request)
        log.get().info(
            "query answered",
            calling_ae=request.calling_ae,
            count=sent,
            status=f"0x{status:04X}",
            reason=comment,
            seconds=round(time.monotonic() - started, 3),
        )


def _last(request: Request, sent: int, found: int, limit: int) -> tuple[int, str]:
    """Status and comment of the last response after so many matches."""
    if request.cancelled and sent < found:
        return CANCELLED, ""
    if found > limit:
        return OUT_OF_RESOURCES, f"first {limit} sent, there are more; narrow the query"
    return 0x0000, ""


def _matches(resources: Resources, asked: Identifier) -> list[Match]:
    """Matches in the catalogue's order, one more than the limit where there are more. Raises Refused."""
    try:
        with resources.db.reading() as session:
            limit = resources.settings.query_limit + 1
            return query.find(session, asked.level, _keys(asked), limit)
    except BadKey as error:
        raise Refused(DOES_NOT_MATCH, str(error)) from None
    except DatabaseUnavailable:
        comment = "out of resources: database is down, try again later"
        raise Refused(OUT_OF_RESOURCES, comment) from None
    except SQLAlchemyError as error:
        log.get().error("query failed", code=type(error).__name__)
        raise Refused(UNABLE, "the query cannot be processed; see the node's log") from None


def _keys(asked: Identifier) -> dict[str, str]:
    """The keys that are matched, by keyword."""
    named = {identifier.name_of(tag): text for tag, text in asked.texts.items()}
    return {keyword: text for keyword, text in named.items() if _matched(keyword)}


def _pending_status(asked: Identifier) -> int:
    """0xFF01 where a key is not returned, or has a value and is not matched (PS3.4 C.4.1.1.4)."""
    supported = all(
        _is_returned(tag, asked.level) and (text == "" or _matched(identifier.name_of(tag)))
        for tag, text in asked.texts.items()
        if _is_key(tag)
    )
    return PENDING if supported else PENDING_WARNING


def _is_key(tag: int) -> bool:
    is_length = tag & 0xFFFF == 0  # of a group: retired, and says nothing
    return not is_length and identifier.name_of(tag) not in _NOT_KEYS


def _matched(keyword: str) -> bool:
    return keyword in ATTRIBUTES or keyword in LISTS


def _is_returned(tag: int, level: Level) -> bool:
    keyword = identifier.name_of(tag)
    if keyword in ATTRIBUTES:
        return ATTRIBUTES[keyword].level <= level
    if keyword in COUNTS:
        return COUNTS[keyword] in (Level.STUDY, level)
    return keyword in LISTS or (tag in KEPT_TAGS and level is not Level.STUDY)


def answer_of(match: Match, asked: Identifier, ae_title: str) -> Dataset:
    """The identifier of one response: what was asked for and is known, in UTF-8; empty where nothing is known."""
    dataset = Dataset()
    _add(dataset, "SpecificCharacterSet", _UTF8)
    _add(dataset, "QueryRetrieveLevel", asked.level.name)
    _add(dataset, "RetrieveAETitle", ae_title)
    _add(dataset, "InstanceAvailability", "ONLINE")
    for level in Level:
        if level <= asked.level:
            _add(dataset, UNIQUE[level], match.values[UNIQUE[level]])
    for tag in asked.texts:
        if not _is_key(tag) or not _is_returned(tag, asked.level):
            continue
        if tag in KEPT_TAGS:
            _add_kept(dataset, tag, match.attributes)
        else:
            keyword = identifier.name_of(tag)
            _add(dataset, keyword, match.values.get(keyword))
    return dataset


def _add(dataset: Dataset, keyword: str, value: Any) -> None:
    tag = tag_for_keyword(keyword)
    assert tag is not None, keyword
    values = list(value) if isinstance(value, tuple) else value
    # unchecked: pydicom's warnings would quote what a patient's name has in excess
    ignore = pydicom.config.IGNORE
    dataset[tag] = DataElement(tag, dictionary_VR(tag), values, validation_mode=ignore)


def _add_kept(dataset: Dataset, tag: int, attributes: Mapping[str, Any]) -> None:
    """One of the attributes that are kept as DICOM JSON."""
    key = f"{tag:08X}"
    dataset.add_new(tag, dictionary_VR(tag), None)
    if key in attributes:
        try:
            dataset.update(Dataset.from_json({key: attributes[key]}))
        except PARSE_ERRORS:
            return  # an object's value that is none of its kind
