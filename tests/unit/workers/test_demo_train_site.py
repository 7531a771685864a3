"""The site of the training demonstration: whatever its size, there is something to learn and something to test on."""

from __future__ import annotations

import csv
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from gmic.phantom import LEAST, locate_lesions
from node.datasets.split import Exam, split_patients
from node.labels.rule import Truth, Unknown, truth_of
from workers import demo_train_site as site

TODAY = date(2026, 7, 1)


@pytest.mark.parametrize("count", [*range(6, 61), 100])
def test_every_split_of_every_size_has_both_classes(count: int) -> None:
    patients = {patient.patient_id: patient for patient in site.past_patients(count, TODAY)}
    splits = split_patients(
        Exam(p.study_date, p.patient_id, p.patient_id) for p in patients.values()
    )

    for split in ("train", "valid", "test"):
        held = [p.lesions for name, p in patients.items() if splits[name] == split]
        breasts = [kind for kinds in held for kind in kinds]
        for finding in ("benign", "malignant"):
            has = {kind in (finding, "both") for kind in breasts}
            assert has == {True, False}, (split, finding)


def test_windows_have_passed_but_for_the_recent_patient() -> None:
    past = site.past_patients(20, TODAY)

    assert all(isinstance(truth_of((), p.study_date, TODAY), Truth) for p in past)
    recent = site.recent_patient(21, TODAY)
    assert isinstance(truth_of((), recent.study_date, TODAY), Unknown)
    assert len({p.patient_id for p in (*past, recent, site.new_patient(22, TODAY))}) == 22


def test_every_lesion_fits_and_no_two_breasts_share_a_seed() -> None:
    patients = site.past_patients(60, TODAY)
    seeds = set()
    for patient in patients:
        specs = site.specs_of(patient)
        assert [f"{spec.laterality}-{spec.view}" for spec in specs] == [
            "L-CC",
            "L-MLO",
            "R-CC",
            "R-MLO",
        ]
        seeds |= {spec.seed for spec in specs}
        for spec in specs:
            kind = patient.lesions["LR".index(spec.laterality)]
            wanted = {None: set(), "both": {"benign", "malignant"}}.get(kind, {kind})
            assert {lesion.label for lesion in locate_lesions(spec)} == wanted
    assert len(seeds) == 2 * len(patients)


def test_pathology_names_lesions_alone(tmp_path: Path) -> None:
    patients = site.past_patients(10, TODAY)
    file = tmp_path / "labels.csv"

    written = site.write_pathology(file, patients, [f"1.2.{p.number}" for p in patients])

    rows = list(csv.DictReader(file.open(encoding="utf-8")))
    lesions = [kind for patient in patients for kind in patient.lesions if kind]
    assert written == len(rows) == len(lesions) + 1
    assert [(row["benign"], row["malignant"]) for row in rows[:-1]] == [
        (str(int(kind != "malignant")), str(int(kind != "benign"))) for kind in lesions
    ]
    assert rows[-1]["patient_id"] == site.STRANGER
    assert all(
        sum(bool(row[n]) for n in ("study_uid", "accession_number", "patient_id")) == 1
        for row in rows[:-1]
    )
    assert all(row["found_on"] <= TODAY.isoformat() for row in rows)


def test_noise_stays_in_the_tissue() -> None:
    volume = np.zeros((2, 40, 50), dtype=np.uint16)
    volume[:, :, :20] = 900

    noisy = site._noisy(volume, np.random.default_rng(1))

    assert (noisy[:, :, 20:] == 0).all()
    tissue = noisy[:, :, :20]
    assert tissue.min() >= round(LEAST * 4095)
    assert tissue.std() == pytest.approx(site.NOISE * 4095, rel=0.1)
