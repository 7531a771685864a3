"""Bring in a file of labels: one transaction that reads, decides and writes, and a report with a row a row.

A dry run decides the same in a reading transaction. What can be taken is taken; the rest is reported and left alone.
The same file again writes nothing, unless studies it names have come since.
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import InstrumentedAttribute, Session

from node.db import Database, now
from node.labels.judging import Breast, Change, Decision, Said, Verdict, decide
from node.labels.matching import Catalogue, KnownStudy, Located, Outcome, Rules, locate
from node.labels.revisions import CHUNK, chunks, line_of, lock
from node.labels.rule import dicom_date
from node.labels.store import finding, sides_of
from node.labels.table import LabelTable, Row, read_table
from node.labels.values import Finding, name_of
from node.learning_models import Assessment, LabelImport, Pathology
from node.models import Base, Study, TimelineEvent


@dataclass(frozen=True)
class Wishes:
    """How to import: `source` is what to call the file, `author` who answers for it."""

    source: str
    author: str
    dry_run: bool = False
    match_days: int = Rules.match_days
    encoding: str | None = None


@dataclass(frozen=True)
class Report:
    """What became of a file; `import_id` is None where nothing was written."""

    import_id: uuid.UUID | None
    source: str
    sha256: str
    dry_run: bool
    encoding: str
    delimiter: str
    ignored_columns: tuple[str, ...]
    counts: dict[str, int]
    rows: tuple[Verdict, ...]


def import_labels(db: Database, content: bytes, wishes: Wishes) -> Report:
    """Import a file of labels (its columns are `node.labels.table.COLUMNS`).

    Raises:
        InvalidLabel: the file as a whole cannot be used; nothing was written.
        ConfigError: no encoding has this name.
        DatabaseUnavailable: no connection; nothing was written.
    """
    name_of("source", wishes.source)
    name_of("author", wishes.author)
    table = read_table(content, wishes.encoding)
    digest = sha256(content).hexdigest()
    import_id = None
    with db.reading() if wishes.dry_run else db.transaction() as session:
        at = now(session)
        decision = _decide(session, table, Rules(at.date(), wishes.match_days), not wishes.dry_run)
        counts = {one.value: 0 for one in Outcome} | Counter(
            verdict.outcome.value for verdict in decision.verdicts
        )
        if not wishes.dry_run:
            import_id = _write(session, decision.changes, digest, counts, wishes, at)
    return Report(
        import_id=import_id,
        source=wishes.source,
        sha256=digest,
        dry_run=wishes.dry_run,
        encoding=table.encoding,
        delimiter=table.delimiter,
        ignored_columns=table.ignored,
        counts=counts,
        rows=tuple(decision.verdicts),
    )


def _decide(session: Session, table: LabelTable, rules: Rules, writing: bool) -> Decision:
    catalogue = _catalogue(session, table.rows)
    located = [locate(row, catalogue, rules) for row in table.rows]
    ids = {place.study.id for place in located if isinstance(place, Located)}
    if writing:
        lock(session, ids)
    return decide(table, located, _said(session, ids))


def _catalogue(session: Session, rows: Sequence[Row]) -> Catalogue:
    found = [
        *_studies(session, Study.study_uid, {row.study_uid for row in rows}),
        *_studies(session, Study.accession_number, {row.accession_number for row in rows}),
        *_studies(session, Study.patient_id, {row.patient_id for row in rows}),
    ]
    studies = {study.id: study for study in found}
    sides = sides_of(session, studies)
    return Catalogue(
        KnownStudy(
            id=study.id,
            study_uid=study.study_uid,
            accession_number=study.accession_number,
            patient_id=study.patient_id,
            study_date=dicom_date(study.study_date),
            sides=sides.get(study.id, frozenset()),
        )
        for study in studies.values()
    )


def _studies(
    session: Session, column: InstrumentedAttribute[Any], wanted: set[str | None]
) -> Iterator[Study]:
    values = sorted(wanted - {None}, key=str)
    for start in range(0, len(values), CHUNK):
        query = select(Study).where(column.in_(values[start : start + CHUNK]))
        yield from session.execute(query).scalars()


def _said(session: Session, study_ids: Iterable[uuid.UUID]) -> dict[Breast, Said]:
    findings: dict[Breast, list[Finding]] = {}
    categories: dict[Breast, list[int]] = {}
    for chunk in chunks(study_ids):
        proven = select(Pathology).where(Pathology.study_id.in_(chunk))
        for row in session.execute(proven.order_by(Pathology.revision)).scalars():
            findings.setdefault((row.study_id, row.laterality), []).append(finding(row))
        read = select(Assessment).where(Assessment.study_id.in_(chunk))
        for one in session.execute(read.order_by(Assessment.revision)).scalars():
            categories.setdefault((one.study_id, one.laterality), []).append(one.category)
    return {
        breast: Said(tuple(findings.get(breast, ())), tuple(categories.get(breast, ())))
        for breast in findings.keys() | categories.keys()
    }


def _write(
    session: Session,
    changes: Sequence[Change],
    digest: str,
    counts: dict[str, int],
    wishes: Wishes,
    at: datetime,
) -> uuid.UUID | None:
    """Write what changes, and the import itself the first time a file comes."""
    before = select(LabelImport.id).where(LabelImport.sha256 == digest).limit(1)
    if not changes and session.execute(before).first() is not None:
        return None
    import_id = uuid.uuid4()
    session.add(
        LabelImport(
            id=import_id,
            source=name_of("source", wishes.source),
            sha256=digest,
            author=name_of("author", wishes.author),
            created_at=at,
            counts=counts,
        )
    )
    session.flush()
    for change in changes:
        session.add_all(_rows(change, import_id, wishes, at))
    return import_id


def _rows(change: Change, import_id: uuid.UUID, wishes: Wishes, at: datetime) -> tuple[Base, Base]:
    """The revision, and its line in the study's history."""
    row, value = change.row, change.value
    shared = {
        "study_id": change.study_id,
        "laterality": row.laterality,
        "revision": change.revision,
        "source": row.source or name_of("source", wishes.source),
        "author": name_of("author", wishes.author),
        "import_id": import_id,
        "created_at": at,
    }
    label: Base
    if isinstance(value, Finding):
        label, what = Pathology(**shared, **vars(value)), f"pathology {value.word}"
    else:
        label, what = Assessment(**shared, category=value), f"BI-RADS {value}"
    line = line_of(row.laterality, change.revision, what)
    return label, TimelineEvent(study_id=change.study_id, at=at, kind="label", message=line)
