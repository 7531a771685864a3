"""What a label can say, and how people write it: the same for the file, the command line, REST and the form.

Messages name the field and what to write. They repeat what was written only where it cannot be somebody's name or
number: a file with a column too many puts those anywhere.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date, timedelta

from node.errors import InvalidLabel
from node.labels.rule import BEFORE_DAYS, dicom_date

LATERALITIES = ("L", "R")
SIDE = {"L": "left", "R": "right"}
MAX_TEXT = 128
MAX_NOTE = 2000

_LATERALITY = {"l": "L", "left": "L", "r": "R", "right": "R"}
_FLAGS = {"1": True, "true": True, "yes": True, "y": True}
_FLAGS |= {"0": False, "false": False, "no": False, "n": False}
_CATEGORY = re.compile(r"([0-6])|(4)[abcABC]")
_UID = re.compile(r"[0-9]+(\.[0-9]+)+")
_HARMLESS = re.compile(r".|\d{4}-\d{2}-\d{2}")


@dataclass(frozen=True)
class Finding:
    """What pathology proved in one breast: benign, malignant, both, or neither after all."""

    benign: bool
    malignant: bool
    found_on: date

    @property
    def word(self) -> str:
        """What was found, without the day."""
        return finding_word(self.benign, self.malignant)


@dataclass(frozen=True)
class Box:
    """A rectangle on one stored frame: frame, row, column from 0, half-open, in pixels as stored."""

    frame: int
    row: int
    col: int
    height: int
    width: int


FINDINGS = {
    "malignant": (False, True),
    "benign": (True, False),
    "both": (True, True),
    "neither": (False, False),
}
"""The four things that pathology can say, as (benign, malignant)."""


def finding_word(benign: bool, malignant: bool) -> str:
    """The key of `FINDINGS`."""
    return next(word for word, flags in FINDINGS.items() if flags == (benign, malignant))


def shown(text: str) -> str:
    """A value as a message may repeat it: one sign or a date, else only how long it is."""
    if not text:
        return "empty"
    return repr(text) if _HARMLESS.fullmatch(text) else f"a value of {len(text)} characters"


def laterality_of(text: str) -> str:
    """ "L" or "R".

    Raises:
        InvalidLabel: it is neither.
    """
    side = _LATERALITY.get(text.strip().lower())
    if side is None:
        raise InvalidLabel(
            f"laterality is {shown(text.strip())}; give L or R, one breast at a time"
        )
    return side


def flag_of(name: str, text: str) -> bool:
    """A yes or no. Raises InvalidLabel where it is neither."""
    flag = _FLAGS.get(text.strip().lower())
    if flag is None:
        raise InvalidLabel(f"{name} is {shown(text.strip())}; give 1 or 0")
    return flag


def day_of(name: str, text: str) -> date:
    """A day, written YYYY-MM-DD or YYYYMMDD. Raises InvalidLabel where it is none."""
    written = text.strip()
    compact = written.replace("-", "") if re.fullmatch(r"\d{4}-\d{2}-\d{2}", written) else written
    day = dicom_date(compact)
    if day is None:
        raise InvalidLabel(f"{name} is {shown(written)}, which is no day; give YYYY-MM-DD")
    return day


def category_of(text: str) -> int:
    """A BI-RADS category, 0 to 6; 4A, 4B and 4C count as 4. Raises InvalidLabel where it is none."""
    found = _CATEGORY.fullmatch(text.strip())
    if found is None:
        raise InvalidLabel(f"BI-RADS category is {shown(text.strip())}; give 0 to 6")
    return int(found[1] or found[2])


def finding_of(word: str, found_on: date) -> Finding:
    """A finding by its word. Raises InvalidLabel for another word."""
    flags = FINDINGS.get(word.strip().lower())
    if flags is None:
        raise InvalidLabel(f"finding is {word.strip()!r}; give one of {', '.join(FINDINGS)}")
    return Finding(*flags, found_on=found_on)


def uid_of(text: str) -> str:
    """A Study Instance UID as written. Raises InvalidLabel where it is none."""
    if len(text) > 64 or not _UID.fullmatch(text):
        raise InvalidLabel(f"study_uid is {shown(text)}, which is no UID; give digits and dots")
    return text


def name_of(name: str, text: str) -> str:
    """The name of a source or of a person: one line, not empty.

    Raises:
        InvalidLabel: it is empty, too long, or holds control characters.
    """
    written = text.strip()
    if not written or len(written) > MAX_TEXT or not written.isprintable():
        raise InvalidLabel(
            f"{name} has {len(written)} characters; give one line of 1 to {MAX_TEXT}"
        )
    return written


def note_of(text: str | None) -> str | None:
    """A note as it is kept: free text, None for none.

    Raises:
        InvalidLabel: it is too long, or holds control characters.
    """
    written = (text or "").strip()
    if len(written) > MAX_NOTE or not all(sign.isprintable() or sign in "\n\t" for sign in written):
        raise InvalidLabel(
            f"note has {len(written)} characters; give plain text of at most {MAX_NOTE}"
        )
    return written or None


def reason_and_todo(message: object) -> tuple[str, str]:
    """A message of ours in its two parts: what is wrong, and what to do."""
    reason, divided, todo = str(message).rpartition("; ")
    return (reason, todo) if divided else (str(message), "")


def check_day(found_on: date, study_date: date | None, today: date) -> None:
    """Refuse a finding from the future, or from long before the study.

    `today` is a UTC day, and calendars east of Greenwich are ahead of it, so tomorrow is let pass.

    Raises:
        InvalidLabel: the day cannot be.
    """
    if found_on > today + timedelta(days=1):
        raise InvalidLabel(f"found_on is {found_on}, in the future; give the day of the biopsy")
    if study_date is not None and found_on < study_date - timedelta(days=BEFORE_DAYS):
        raise InvalidLabel(
            f"found_on is {found_on}, {(study_date - found_on).days} days before the study, and at most {BEFORE_DAYS}"
            " are allowed; give the study that came before this pathology"
        )


def missing_side(laterality: str, sides: frozenset[str | None]) -> str | None:
    """Why a label of this breast does not fit a study with images of these sides; None where it does.

    An image that does not say its side may be of any; "B" is both; a study without images is not judged.
    """
    if not sides or sides & {laterality, "B", None}:
        return None
    other = SIDE["R" if laterality == "L" else "L"]
    return (
        f"the study has images of the {other} breast only, and the label is of the {SIDE[laterality]} one:"
        " left and right may be swapped"
    )
