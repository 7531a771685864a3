"""What a data set is asked to be: the range of exams, the kind of image, how long pathology may take."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from typing import Any

from dicom_io.syntaxes import BREAST_TOMOSYNTHESIS, MAMMOGRAPHY_PRESENTATION
from node.errors import ConfigError
from node.labels.rule import BEFORE_DAYS, WINDOW_DAYS

SHARES = {"train": 80, "valid": 10, "test": 10}
"""Patients by split, in percent; the order is that of time."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class Kind(StrEnum):
    """Kind of image: tomosynthesis, or mammography For Presentation (full-field and synthesized)."""

    DBT = "dbt"
    TWO_D = "2d"

    @property
    def sop_class_uid(self) -> str:
        """The storage class of its images."""
        return BREAST_TOMOSYNTHESIS if self is Kind.DBT else MAMMOGRAPHY_PRESENTATION


@dataclass(frozen=True)
class Rule:
    """Exams from `since` to `until`, both included, by study date; pathology belongs to an exam for `window_days`."""

    since: date
    until: date
    kind: Kind = Kind.DBT
    window_days: int = WINDOW_DAYS

    def __post_init__(self) -> None:
        """Raise ConfigError for a rule that no exam can meet."""
        if self.until < self.since:
            raise ConfigError(
                f"--until {self.until} is before --since {self.since}; give the days in order"
            )
        if self.window_days < 0:
            raise ConfigError(f"--window-days is {self.window_days}; give 0 or more")

    def as_json(self) -> dict[str, Any]:
        """The rule as a data set keeps it; part of its content hash."""
        return {
            "since": self.since.isoformat(),
            "until": self.until.isoformat(),
            "kind": self.kind.value,
            "window_days": self.window_days,
            "before_days": BEFORE_DAYS,
            "shares": SHARES,
            "split_by": "patient, day of the last exam",
        }


def check_name(name: str) -> str:
    """The name of a data set, as commands and files can use it.

    Raises:
        ConfigError: it cannot be one.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"data set name is {name!r}; give 1 to 64 letters, digits, dots, dashes or underscores"
        )
    return name
