"""What a breast counts as: the paper's rule, as a pure function.

An exam that no pathology belongs to is negative (3D-GMIC, section III). Pathology comes late, so that can be said only
once the time in which it may come has passed; until then nothing is known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from itertools import takewhile

from node.learning_models import Pathology

WINDOW_DAYS = 365
"""How long after the study pathology still belongs to it. The paper names none; audits of screening count a year."""

BEFORE_DAYS = 30
"""How long before the study a finding may have been made, for biopsies done elsewhere just before the images."""


@dataclass(frozen=True)
class Truth:
    """What one breast counts as; `pathology_revision` is None where it is negative because nothing came."""

    benign: bool
    malignant: bool
    pathology_revision: int | None


@dataclass(frozen=True)
class Unknown:
    """Why nothing is known of a breast yet: a stable word, and a line for people."""

    reason_code: str
    reason: str


def within(found_on: date, study_date: date, window_days: int = WINDOW_DAYS) -> bool:
    """Whether a finding of this day belongs to the exam."""
    return -BEFORE_DAYS <= (found_on - study_date).days <= window_days


def outside(window_days: int = WINDOW_DAYS) -> str:
    """What is said of a finding that does not."""
    return f"outside the window of {window_days} days, not counted"


def passed_over(
    revisions: Sequence[Pathology], study_date: date | None, window_days: int = WINDOW_DAYS
) -> str:
    """Which revisions (given newest first) are newer than the one that counts, in words; "" where none is."""
    if study_date is None:
        return ""
    newer = takewhile(lambda one: not within(one.found_on, study_date, window_days), revisions)
    named = ", ".join(f"revision {one.revision} of {one.found_on}" for one in newer)
    return f"{named}: {outside(window_days)}" if named else ""


def truth_of(
    revisions: Sequence[Pathology],
    study_date: date | None,
    today: date,
    window_days: int = WINDOW_DAYS,
) -> Truth | Unknown:
    """What one breast of one study counts as.

    Args:
        revisions: its pathology, newest first.
        study_date: day of the exam, None where the header does not say.
        today: the day that asks; a window that ends today is still open.
        window_days: how many days after the study pathology belongs to it.

    Returns:
        The newest pathology of the window (from `BEFORE_DAYS` before the study) as it is, for one that is found
        outside of it does not undo what was found inside; negative where there is none and the window has passed;
        Unknown (`no-study-date`, `window-open`) otherwise.
    """
    if study_date is None:
        return Unknown("no-study-date", "the study has no date, so no window can be counted")
    closes = study_date + timedelta(days=window_days)
    for one in revisions:
        if within(one.found_on, study_date, window_days):
            return Truth(one.benign, one.malignant, one.revision)
    if today <= closes:
        late = passed_over(revisions, study_date, window_days)
        return Unknown(
            "window-open",
            f"no pathology yet{f' ({late})' if late else ''}, and it may come until {closes} ({window_days} days after"
            " the study)",
        )
    return Truth(benign=False, malignant=False, pathology_revision=None)


def dicom_date(text: str | None) -> date | None:
    """A DICOM date (DA, YYYYMMDD) as a day; None where it is absent or none."""
    if text is None or len(text) != 8 or not (text.isascii() and text.isdigit()):
        return None
    try:
        return datetime.strptime(text, "%Y%m%d").date()
    except ValueError:
        return None
