"""Which earlier studies of a patient a peer has, and which of them are worth fetching.

Peers are asked by Patient ID and date. What they answer is compared here once more: a Patient ID may hold a wildcard,
and numbers of two hospitals may meet.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from node.config import Settings
from node.deliveries import Destination
from node.dimse import query
from node.dimse.query import Found
from node.errors import Conflict
from node.models import Study

MODALITY = "MG"


@dataclass(frozen=True)
class Wanted:
    """Whose earlier studies, and from which days, both included."""

    study_uid: str
    patient_id: str
    birth_date: str | None
    since: date
    until: date

    @property
    def dates(self) -> str:
        """The days as a range (PS3.4 C.2.2.2.5)."""
        return f"{self.since:%Y%m%d}-{self.until:%Y%m%d}"


def wanted_of(study: Study, years: int) -> Wanted:
    """The earlier studies of a study's patient, of so many years.

    Raises:
        Conflict: the study does not say whose it is, or when it was made.
    """
    try:
        made = datetime.strptime(study.study_date or "", "%Y%m%d").date()
    except ValueError:
        raise Conflict(
            f"study {study.study_uid} has no Study Date; its priors cannot be told from later studies"
        ) from None
    if not study.patient_id:
        raise Conflict(f"study {study.study_uid} has no Patient ID; nobody can ask for its priors")
    since = date(max(1, made.year - years), made.month, min(made.day, 28))
    until = made - timedelta(days=1)
    return Wanted(study.study_uid, study.patient_id, study.patient_birth_date, since, until)


def ask(source: Destination, wanted: Wanted, settings: Settings) -> list[Found]:
    """What a peer has of them.

    Raises:
        PeerUnavailable, PeerRefused: see `query.studies_of`.
    """
    return query.studies_of(source, wanted.patient_id, wanted.dates, settings)


def choose(found: Sequence[Found], wanted: Wanted, here: Collection[str], most: int) -> list[Found]:
    """The newest of what a peer found that are this patient's, mammography, of these days, and not here yet."""
    fitting = [one for one in found if _fits(one, wanted) and one.study_uid not in here]
    fitting.sort(key=lambda one: (one.study_date, one.study_uid), reverse=True)
    return fitting[:most]


def _fits(one: Found, wanted: Wanted) -> bool:
    other_birth = bool(one.birth_date and wanted.birth_date) and one.birth_date != wanted.birth_date
    return (
        one.patient_id == wanted.patient_id.strip()
        and not other_birth
        and one.study_uid != wanted.study_uid
        # a peer that does not say what is in a study gets the benefit of the doubt
        and (not one.modalities or MODALITY in one.modalities)
        and f"{wanted.since:%Y%m%d}" <= one.study_date <= f"{wanted.until:%Y%m%d}"
    )


def here(session: Session, study_uids: Collection[str]) -> set[str]:
    """Those of these studies of which something is here."""
    known = select(Study.study_uid).where(Study.study_uid.in_(study_uids))
    return set(session.execute(known).scalars())
