"""Queries of studies, series and objects (PS3.4 C.4.1 study root, PS3.18 10.6), answered from the catalogue.

A key of a level above is one of the objects' study or series; a key of a level below asks for studies or series that
have such an object.
"""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Select, exists, func, select, tuple_
from sqlalchemy.orm import Session

from node.catalogue.attributes import ATTRIBUTES, COUNTS, LISTS, Level
from node.catalogue.match import BadKey, condition, read
from node.exchange_models import CatalogueRow as Row
from node.models import Study

Value = str | int | tuple[str, ...] | None
_LAST = 2**31 - 1  # what has no number comes after what has one


@dataclass(frozen=True)
class Match:
    """One study, series or object that a query found.

    `values` by keyword, in the level's and the higher levels' attributes: text as stored, None where it is not known.
    `attributes` are what else is kept of an object (of the series' first one, for a series), as DICOM JSON; {} for a
    study.
    """

    level: Level
    values: Mapping[str, Value]
    attributes: Mapping[str, Any]


@dataclass(frozen=True)
class Held:
    """One object to be given out; its bytes lie in the blob store."""

    study_uid: str
    series_uid: str
    sop_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    sha256: str
    size_bytes: int


def find(
    session: Session, level: Level, keys: Mapping[str, str], limit: int, offset: int = 0
) -> list[Match]:
    """What fulfils every key: studies newest first, then series and objects by number.

    Args:
        session: of any transaction.
        level: what to list.
        keys: values by keyword; several values of one key are separated by a backslash, "" asks for nothing.
        limit: the most to list; ask for one more than is shown to know whether there are more.
        offset: how many to leave out before them.

    Raises:
        BadKey: a value is none of its kind, or a key is not matched here (see `node.catalogue.attributes`).
    """
    where = _where(session, keys)
    if level is Level.STUDY:
        return _studies(session, where, limit, offset)
    if level is Level.SERIES:
        return _series(session, where, limit, offset)
    return _objects(session, where, limit, offset)


def held(
    session: Session,
    study_uids: Sequence[str] = (),
    series_uids: Sequence[str] = (),
    sop_uids: Sequence[str] = (),
) -> list[Held]:
    """The objects that are in one of these studies, in one of these series and have one of these UIDs; by series and
    number.

    An empty list narrows nothing. Three of them give nothing, so that a key that was left out never gives everything.
    """
    named = ((Study.study_uid, study_uids), (Row.series_uid, series_uids), (Row.sop_uid, sop_uids))
    narrowed = [column.in_(uids) for column, uids in named if uids]
    if not narrowed:
        return []
    query = select(Study.study_uid, Row).join(Study).where(*narrowed).order_by(*_in_order())
    return [
        Held(
            study_uid, row.series_uid, row.sop_uid, row.sop_class_uid, row.transfer_syntax_uid,
            row.sha256, row.size_bytes,
        )
        for study_uid, row in session.execute(query)
    ]  # fmt: skip


@dataclass(frozen=True)
class _Where:
    """What keys ask of the study, of one object in it, and of any other object in it."""

    study: tuple[ColumnElement[bool], ...]
    row: tuple[ColumnElement[bool], ...]


def _where(session: Session, keys: Mapping[str, str]) -> _Where:
    dialect = session.get_bind().dialect.name
    of_study: list[ColumnElement[bool]] = []
    of_row: list[ColumnElement[bool]] = []
    for keyword, value in keys.items():
        attribute = ATTRIBUTES.get(keyword) or LISTS.get(keyword)
        if attribute is None and keyword not in COUNTS:
            raise BadKey(f"{keyword} is not matched here")
        terms = read(attribute.kind, value) if attribute else ()
        if not attribute or not terms:
            continue
        wanted = condition(attribute.compared, attribute.kind, terms, dialect)
        if keyword in LISTS:
            of_study.append(exists().where(Row.study_id == Study.id, wanted).correlate(Study))
        else:
            (of_study if attribute.level is Level.STUDY else of_row).append(wanted)
    return _Where(tuple(of_study), tuple(of_row))


def _studies(session: Session, where: _Where, limit: int, offset: int) -> list[Match]:
    has = exists().where(Row.study_id == Study.id, *where.row)
    query = select(Study).where(has, *where.study).order_by(*_newest_first())
    page = session.execute(query.limit(limit).offset(offset)).scalars().all()
    summaries = _summaries(session, {study.id for study in page})
    return [Match(Level.STUDY, {**_of_study(study), **summaries[study.id]}, {}) for study in page]


def _series(session: Session, where: _Where, limit: int, offset: int) -> list[Match]:
    query = (
        select(Study, Row.series_uid)
        .join(Row, Row.study_id == Study.id)
        .where(*where.row, *where.study)
        .group_by(Study.id, Row.series_uid)
        .order_by(
            *_newest_first(), func.coalesce(func.min(Row.series_number), _LAST), Row.series_uid
        )
    )
    page = session.execute(query.limit(limit).offset(offset)).all()
    summaries = _summaries(session, {study.id for study, _ in page})
    found = _series_values(session, [(study.id, uid) for study, uid in page])
    matches = []
    for study, uid in page:
        values, attributes = found[study.id, uid]
        known = {**_of_study(study), **summaries[study.id], **values}
        matches.append(Match(Level.SERIES, known, attributes))
    return matches


def _objects(session: Session, where: _Where, limit: int, offset: int) -> list[Match]:
    query: Select[Study, Row] = (
        select(Study, Row)
        .join(Row, Row.study_id == Study.id)
        .where(*where.row, *where.study)
        .order_by(*_newest_first(), *_in_order())
    )
    page = session.execute(query.limit(limit).offset(offset)).all()
    summaries = _summaries(session, {study.id for study, _ in page})
    return [
        Match(
            Level.IMAGE,
            {**_of_study(study), **summaries[study.id], **_values(row, Level.SERIES, Level.IMAGE)},
            row.attributes,
        )
        for study, row in page
    ]


def _newest_first() -> tuple[ColumnElement[Any], ...]:
    day, time = func.coalesce(Study.study_date, ""), func.coalesce(Study.study_time, "")
    return day.desc(), time.desc(), Study.study_uid.expression


def _in_order() -> tuple[ColumnElement[Any], ...]:
    return (
        func.coalesce(Row.series_number, _LAST),
        Row.series_uid.expression,
        func.coalesce(Row.instance_number, _LAST),
        Row.sop_uid.expression,
    )


def _of_study(study: Study) -> dict[str, Value]:
    return _values(study, Level.STUDY)


def _values(source: Study | Row, *levels: Level) -> dict[str, Value]:
    return {
        keyword: getattr(source, attribute.column.key)
        for keyword, attribute in ATTRIBUTES.items()
        if attribute.level in levels
    }


def _summaries(session: Session, study_ids: set[uuid.UUID]) -> dict[uuid.UUID, dict[str, Value]]:
    """Counts and lists of studies, of everything they have: what was asked for does not narrow them."""
    kinds = session.execute(
        select(
            Row.study_id, Row.series_uid, Row.modality, Row.sop_class_uid, func.count().label("n")
        )
        .where(Row.study_id.in_(study_ids))
        .group_by(Row.study_id, Row.series_uid, Row.modality, Row.sop_class_uid)
    )
    series, modalities, classes = (defaultdict[uuid.UUID, set[str]](set) for _ in range(3))
    counts = defaultdict[uuid.UUID, int](int)
    for one in kinds:
        series[one.study_id].add(one.series_uid)
        classes[one.study_id].add(one.sop_class_uid)
        modalities[one.study_id].update([one.modality] if one.modality else [])
        counts[one.study_id] += one.n
    return {
        study_id: {
            "ModalitiesInStudy": tuple(sorted(modalities[study_id])),
            "SOPClassesInStudy": tuple(sorted(classes[study_id])),
            "NumberOfStudyRelatedSeries": len(series[study_id]),
            "NumberOfStudyRelatedInstances": counts[study_id],
        }
        for study_id in study_ids
    }


def _series_values(
    session: Session, wanted: Sequence[tuple[uuid.UUID, str]]
) -> dict[tuple[uuid.UUID, str], tuple[dict[str, Value], Mapping[str, Any]]]:
    """What is known of series: the first object's word, a side only where all objects agree on it."""
    if not wanted:
        return {}
    key = tuple_(Row.study_id, Row.series_uid)
    number = func.row_number().over(
        partition_by=(Row.study_id, Row.series_uid),
        order_by=(func.coalesce(Row.instance_number, _LAST), Row.sop_uid),
    )
    firsts = (
        select(Row.sop_uid.label("sop_uid"), number.label("place"))
        .where(key.in_(wanted))
        .subquery()
    )
    rows = session.execute(
        select(Row).join(firsts, firsts.c.sop_uid == Row.sop_uid).where(firsts.c.place == 1)
    ).scalars()
    first = {(row.study_id, row.series_uid): row for row in rows}
    summaries = session.execute(
        select(
            Row.study_id,
            Row.series_uid,
            func.count().label("n"),
            (func.count(Row.laterality.distinct()) == 1).label("one_side"),
            func.min(Row.laterality).label("side"),
        )
        .where(key.in_(wanted))
        .group_by(Row.study_id, Row.series_uid)
    )
    found: dict[tuple[uuid.UUID, str], tuple[dict[str, Value], Mapping[str, Any]]] = {}
    for one in summaries:
        row = first[one.study_id, one.series_uid]
        values = _values(row, Level.SERIES)
        values["Laterality"] = one.side if one.one_side else None
        values["NumberOfSeriesRelatedInstances"] = one.n
        found[one.study_id, one.series_uid] = (values, row.attributes)
    return found
