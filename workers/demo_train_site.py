"""The site of the training demonstration: its patients, their phantom studies as DICOM, their pathology as CSV.

Small phantoms, pixels of 0.8 mm: what two cores can learn from in minutes. They do not look like those that the first
model learned from: lesions are fainter and the images noisier, as from other equipment. Nothing here is of a patient.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dicom_io.phantom import PhantomStudy, PhantomView, write_study
from gmic.phantom import LEAST, PhantomSpec, study_plan
from node.labels.rule import WINDOW_DAYS
from workers.phantom import phantom_views

SHAPE = (24, 307, 236)
SPACING_MM, SLICE_MM = 0.8, 2.0
CONTRAST = (0.55, 0.80)
"""Of benign lesions, malignant ones are denser (`gmic.phantom.DENSER`); the first model learned from 0.9 to 1.3."""
NOISE = 0.015
"""Deviation of the noise that this site adds, as a fraction of the largest stored value: ten times what there was."""
STRANGER = "PHANTOM-STRANGER"
"""A patient of the CSV whose study never came."""

_SIDES = ("L", "R")
_BITS = 12
_SEED = 9_000_000  # far from the seeds that the first model learned from
_KINDS: tuple[tuple[str | None, str | None], ...] = (
    ("both", None),
    ("benign", "malignant"),
    ("malignant", None),
    (None, "benign"),
    (None, None),
)
"""What the two breasts of a patient hold, patient after patient from the latest back: whatever the number of patients,
each split has breasts with and without each finding, and one finding hardly tells the other."""
_COLUMNS = (
    "study_uid", "accession_number", "patient_id", "study_date",
    "laterality", "benign", "malignant", "found_on", "source",
)  # fmt: skip


@dataclass(frozen=True)
class Patient:
    """A patient with one exam; `lesions` are what left and right breast hold: None, or a kind of `study_plan`."""

    number: int
    study_date: date
    lesions: tuple[str | None, str | None]

    @property
    def patient_id(self) -> str:
        """As the images have it; it is the accession number, too."""
        return f"PHANTOM-{self.number:04d}"


def past_patients(count: int, today: date) -> list[Patient]:
    """Patients whose pathology window has passed, a week apart, the latest last."""
    latest = today - timedelta(days=WINDOW_DAYS + 35)
    return [
        Patient(number, latest - timedelta(weeks=count - number), _lesions(count - number))
        for number in range(1, count + 1)
    ]


def recent_patient(number: int, today: date) -> Patient:
    """A patient of last month: no pathology yet, and it may still come."""
    return Patient(number, today - timedelta(days=30), ("malignant", None))


def new_patient(number: int, today: date) -> Patient:
    """A patient of yesterday."""
    return Patient(number, today - timedelta(days=1), ("malignant", None))


def _lesions(rank: int) -> tuple[str | None, str | None]:
    left, right = _KINDS[rank % len(_KINDS)]
    return (right, left) if rank // len(_KINDS) % 2 else (left, right)


def write_patient(folder: Path, patient: Patient) -> PhantomStudy:
    """Make and write the four views of a patient's exam.

    Raises:
        OSError: the folder cannot be written.
    """
    return write_study(
        folder / patient.patient_id,
        _views(patient),
        seed=_SEED + patient.number,
        patient_id=patient.patient_id,
        study_date=f"{patient.study_date:%Y%m%d}",
    )


def _views(patient: Patient) -> Iterator[PhantomView]:
    for view in phantom_views(specs_of(patient)):
        side, which = _SIDES.index(view.laterality), ("CC", "MLO").index(view.view)
        rng = np.random.default_rng([_SEED, patient.number, side, which])
        yield replace(view, volume_DHW=_noisy(view.volume_DHW, rng))


def specs_of(patient: Patient) -> list[PhantomSpec]:
    """Specifications of the four views. Each breast has a seed of its own: its lesions lie where they like."""
    specs: list[PhantomSpec] = []
    for place, (side, kind) in enumerate(zip(_SIDES, patient.lesions, strict=True)):
        seed = _SEED + 2 * patient.number + place
        contrast = float(np.random.default_rng(seed).uniform(*CONTRAST))
        specs += study_plan(
            seed,
            SHAPE,
            [f"{side}-CC", f"{side}-MLO"],
            lesion_breast=side if kind else None,
            kind=kind or "malignant",
            contrast=contrast,
            spacing_mm=SPACING_MM,
            slice_mm=SLICE_MM,
        )
    return specs


def _noisy(volume_DHW: NDArray[np.uint16], rng: np.random.Generator) -> NDArray[np.uint16]:
    """More noise in the tissue, none in the air around it."""
    top = 2**_BITS - 1
    noise_DHW = rng.standard_normal(volume_DHW.shape, dtype=np.float32) * np.float32(NOISE * top)
    noisy_DHW = np.clip(np.rint(volume_DHW + noise_DHW), round(LEAST * top), top)
    return np.where(volume_DHW > 0, noisy_DHW, 0).astype(np.uint16)


def write_pathology(path: Path, patients: Sequence[Patient], study_uids: Sequence[str]) -> int:
    """Write the pathology of every breast with a lesion, and one row that fits no study; returns the number of rows.

    Breasts without a lesion have no row, as in a hospital: they are negative because their window has passed. Rows name
    their study by its UID, by accession number, or by patient and day.
    """
    rows = [
        row
        for patient, uid in zip(patients, study_uids, strict=True)
        for row in _pathology(patient, uid)
    ]
    last = patients[-1]
    rows.append(_row(replace(last, lesions=("malignant", None)), "L", "malignant"))
    rows[-1] |= {"accession_number": STRANGER, "patient_id": STRANGER}
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, _COLUMNS)
        table.writeheader()
        table.writerows(rows)
    return len(rows)


def _pathology(patient: Patient, study_uid: str) -> Iterator[dict[str, str]]:
    names = (
        {"study_uid": study_uid},
        {"accession_number": patient.patient_id},
        {"patient_id": patient.patient_id, "study_date": patient.study_date.isoformat()},
    )
    for side, kind in zip(_SIDES, patient.lesions, strict=True):
        if kind is not None:
            yield _row(patient, side, kind) | names[patient.number % len(names)]


def _row(patient: Patient, side: str, kind: str) -> dict[str, str]:
    found_on = patient.study_date + timedelta(days=14 + patient.number % 21)
    return {
        "laterality": side,
        "benign": str(int(kind in ("benign", "both"))),
        "malignant": str(int(kind in ("malignant", "both"))),
        "found_on": found_on.isoformat(),
        "source": "pathology of the phantoms",
    }
