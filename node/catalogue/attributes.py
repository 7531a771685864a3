"""The attributes that queries match and return, by level (PS3.4 C.6.2.1, PS3.18 10.6.3)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from sqlalchemy.orm import InstrumentedAttribute

from node.catalogue.match import Kind
from node.exchange_models import CatalogueRow as Row
from node.models import Study


class Level(IntEnum):
    """What a query lists; the lower, the larger."""

    STUDY = 1
    SERIES = 2
    IMAGE = 3


@dataclass(frozen=True)
class Attribute:
    """One attribute that a query may ask for."""

    level: Level
    kind: Kind
    column: InstrumentedAttribute[Any]
    compared: InstrumentedAttribute[Any]  # the same, but for names


def _attribute(
    level: Level,
    kind: Kind,
    column: InstrumentedAttribute[Any],
    compared: InstrumentedAttribute[Any] | None = None,
) -> Attribute:
    return Attribute(level, kind, column, column if compared is None else compared)


#: Every attribute that is matched and returned, by keyword.
ATTRIBUTES: Mapping[str, Attribute] = {
    "StudyInstanceUID": _attribute(Level.STUDY, Kind.UID, Study.study_uid),
    "PatientName": _attribute(
        Level.STUDY, Kind.NAME, Study.patient_name, Study.patient_name_folded
    ),
    "PatientID": _attribute(Level.STUDY, Kind.TEXT, Study.patient_id),
    "PatientBirthDate": _attribute(Level.STUDY, Kind.DATE, Study.patient_birth_date),
    "PatientSex": _attribute(Level.STUDY, Kind.TEXT, Study.patient_sex),
    "StudyDate": _attribute(Level.STUDY, Kind.DATE, Study.study_date),
    "StudyTime": _attribute(Level.STUDY, Kind.TIME, Study.study_time),
    "AccessionNumber": _attribute(Level.STUDY, Kind.TEXT, Study.accession_number),
    "StudyID": _attribute(Level.STUDY, Kind.TEXT, Study.study_id),
    "StudyDescription": _attribute(Level.STUDY, Kind.TEXT, Study.study_description),
    "ReferringPhysicianName": _attribute(
        Level.STUDY, Kind.NAME, Study.referring_physician, Study.referring_physician_folded
    ),
    "SeriesInstanceUID": _attribute(Level.SERIES, Kind.UID, Row.series_uid),
    "Modality": _attribute(Level.SERIES, Kind.TEXT, Row.modality),
    "SeriesNumber": _attribute(Level.SERIES, Kind.NUMBER, Row.series_number),
    "SeriesDescription": _attribute(Level.SERIES, Kind.TEXT, Row.series_description),
    "SeriesDate": _attribute(Level.SERIES, Kind.DATE, Row.series_date),
    "SeriesTime": _attribute(Level.SERIES, Kind.TIME, Row.series_time),
    "BodyPartExamined": _attribute(Level.SERIES, Kind.TEXT, Row.body_part),
    "Laterality": _attribute(Level.SERIES, Kind.TEXT, Row.laterality),
    "SOPInstanceUID": _attribute(Level.IMAGE, Kind.UID, Row.sop_uid),
    "SOPClassUID": _attribute(Level.IMAGE, Kind.UID, Row.sop_class_uid),
    "AvailableTransferSyntaxUID": _attribute(Level.IMAGE, Kind.UID, Row.transfer_syntax_uid),
    "InstanceNumber": _attribute(Level.IMAGE, Kind.NUMBER, Row.instance_number),
    "ImageLaterality": _attribute(Level.IMAGE, Kind.TEXT, Row.laterality),
    "NumberOfFrames": _attribute(Level.IMAGE, Kind.NUMBER, Row.frames),
    "Rows": _attribute(Level.IMAGE, Kind.NUMBER, Row.rows),
    "Columns": _attribute(Level.IMAGE, Kind.NUMBER, Row.columns),
}
#: Lists of a study; a key asks for studies that have at least one object of it.
LISTS: Mapping[str, Attribute] = {
    "ModalitiesInStudy": ATTRIBUTES["Modality"],
    "SOPClassesInStudy": ATTRIBUTES["SOPClassUID"],
}
#: Counts, by the level they are given at; returned, never matched.
COUNTS: Mapping[str, Level] = {
    "NumberOfStudyRelatedSeries": Level.STUDY,
    "NumberOfStudyRelatedInstances": Level.STUDY,
    "NumberOfSeriesRelatedInstances": Level.SERIES,
}
