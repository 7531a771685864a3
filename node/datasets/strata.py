"""What an evaluation tells apart: device, site, breast thickness, age; from the header of an image, without its pixels.

Nothing here says who a patient is: ages are decades, sites are keyed digests of the institution's name.
"""

from __future__ import annotations

import re
from datetime import date
from typing import Any

from pydicom.dataset import Dataset

from dicom_io.header import item, numbers, text
from node.datasets.secret import keyed
from node.labels.rule import dicom_date

_AGE = re.compile(r"(\d{3})Y")
_OLDEST = 90  # everybody from this age on is one band: few people are that old
_SITE_DIGITS = 8


def strata(dataset: Dataset, study_date: date, key: bytes) -> dict[str, Any]:
    """Strata of one image; None where its header does not say.

    Returns:
        `manufacturer`, `model`: as in the header. `site`: a digest of Institution Name, of Station Name where there is
        none. `thickness_mm`: of the compressed breast, whole millimetres. `age`: such as "50-59".
    """
    return {
        "manufacturer": text(dataset, "Manufacturer") or None,
        "model": text(dataset, "ManufacturerModelName") or None,
        "site": _site(dataset, key),
        "thickness_mm": _thickness_mm(dataset),
        "age": age_band(dataset, study_date),
    }


def _site(dataset: Dataset, key: bytes) -> str | None:
    name = text(dataset, "InstitutionName") or text(dataset, "StationName")
    return f"site-{keyed(key, 'site', name.casefold())[:_SITE_DIGITS]}" if name else None


def _thickness_mm(dataset: Dataset) -> int | None:
    """Body Part Thickness (0018,11A0) of a mammogram, or of a tomosynthesis acquisition."""
    for source in (dataset, item(dataset, "XRay3DAcquisitionSequence")):
        found = numbers(source, "BodyPartThickness")
        if found and found[0] > 0:
            return round(found[0])
    return None


def age_band(dataset: Dataset, study_date: date) -> str | None:
    """The decade of the age at the exam: of Patient's Age, else from the birth date; None where neither can be."""
    stated = _AGE.fullmatch(text(dataset, "PatientAge"))
    years = int(stated[1]) if stated else _years(text(dataset, "PatientBirthDate"), study_date)
    if years is None or not 0 < years < 130:
        return None
    decade = years // 10 * 10
    return f"{_OLDEST}+" if years >= _OLDEST else f"{decade}-{decade + 9}"


def _years(birth_date: str, study_date: date) -> int | None:
    born = dicom_date(birth_date)
    if born is None:
        return None
    had_birthday = (study_date.month, study_date.day) >= (born.month, born.day)
    return study_date.year - born.year - (not had_birthday)
