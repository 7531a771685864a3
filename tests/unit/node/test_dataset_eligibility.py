"""Which image is in a data set, and the reason of every one that is not; strata; the node's secret."""

from __future__ import annotations

import stat
import uuid
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset

from dicom_io.errors import RefusalCode
from dicom_io.syntaxes import BREAST_TOMOSYNTHESIS, COMPREHENSIVE_3D_SR, MAMMOGRAPHY_PRESENTATION
from node.datasets.eligibility import Candidate, Excluded, Included, Object, Refused, Seen, judge
from node.datasets.rule import Kind, Rule, check_name
from node.datasets.secret import keyed, load_key
from node.datasets.strata import strata
from node.errors import ConfigError, Conflict
from node.learning_models import Assessment, Pathology

EXAM, TODAY = date(2020, 3, 1), date(2026, 1, 1)
RULE = Rule(date(2020, 1, 1), date(2020, 12, 31))
KEY = bytes(32)
IMAGE = Object("1.2.1", BREAST_TOMOSYNTHESIS, "a" * 64)


def study(**changed: Any) -> Candidate:
    """A complete study of a left breast, without pathology."""
    plain = Candidate(
        id=uuid.uuid4(), study_uid="1.2", state="COMPLETE", excluded_reason=None, patient_id="P",
        study_date=EXAM, objects=(IMAGE,), pathology={}, assessments={},
    )  # fmt: skip
    return replace(plain, **changed)


def pathology(malignant: bool = True, found_on: date = date(2020, 4, 1)) -> Pathology:
    return Pathology(benign=False, malignant=malignant, found_on=found_on, revision=3)


def left(_object: Object, _day: date) -> Seen | Refused:
    return Seen("L", "CC", {"manufacturer": "M"})


def unreadable(_object: Object, _day: date) -> Seen | Refused:
    return Refused(RefusalCode.MISSING_LATERALITY.value, RefusalCode.MISSING_LATERALITY.sentence)


@pytest.mark.parametrize(
    ("changed", "sop_uid", "code"),
    [
        ({"study_date": None}, None, "no-study-date"),
        ({"state": "RECEIVING"}, None, "receiving"),
        ({"state": "EXCLUDED", "excluded_reason": "not complete"}, None, "excluded"),
        ({"objects": ()}, None, "nothing-to-read"),
        ({"objects": (Object("1", COMPREHENSIVE_3D_SR, "b"),)}, None, "nothing-to-read"),
        ({"objects": (Object("1", MAMMOGRAPHY_PRESENTATION, "b"),)}, None, "other-kind"),
    ],
)
def test_a_study_that_is_not_in_has_one_reason(
    changed: dict[str, Any], sop_uid: str | None, code: str
) -> None:
    (verdict,) = judge(study(**changed), RULE, TODAY, left)

    assert isinstance(verdict, Excluded)
    assert (verdict.sop_uid, verdict.code) == (sop_uid, code)
    assert verdict.reason


def test_every_object_of_a_study_has_its_verdict() -> None:
    objects = (
        Object("1.9", COMPREHENSIVE_3D_SR, "b"), IMAGE, Object("1.3", MAMMOGRAPHY_PRESENTATION, "c"),
        Object("1.2.2", BREAST_TOMOSYNTHESIS, "d"),
    )  # fmt: skip

    verdicts = judge(study(objects=objects), RULE, TODAY, left)

    named = [v.object.sop_uid if isinstance(v, Included) else (v.sop_uid, v.code) for v in verdicts]
    assert named == ["1.2.1", "1.2.2", ("1.3", "other-kind"), ("1.9", "not-read")]


def test_the_2d_kind_takes_mammograms() -> None:
    objects = (IMAGE, Object("1.3", MAMMOGRAPHY_PRESENTATION, "c"))

    verdicts = judge(study(objects=objects), replace(RULE, kind=Kind.TWO_D), TODAY, left)

    assert [isinstance(verdict, Included) for verdict in verdicts] == [False, True]


def test_an_image_that_cannot_be_read_says_why() -> None:
    (verdict,) = judge(study(), RULE, TODAY, unreadable)

    assert isinstance(verdict, Excluded)
    assert (verdict.sop_uid, verdict.code) == ("1.2.1", "missing-laterality")


def test_without_pathology_a_breast_is_negative_once_the_window_has_passed() -> None:
    (open_,) = judge(study(), RULE, date(2021, 3, 1), left)
    (closed,) = judge(study(), RULE, date(2021, 3, 2), left)

    assert isinstance(open_, Excluded)
    assert open_.code == "window-open"
    assert isinstance(closed, Included)
    assert (closed.benign, closed.malignant, closed.pathology_revision) == (False, False, None)


def test_labels_are_those_of_the_breast_with_their_revisions() -> None:
    labels = {"L": [pathology()], "R": [pathology(malignant=False)]}
    categories = {"L": Assessment(category=5, revision=2), "R": Assessment(category=1, revision=1)}

    (verdict,) = judge(study(pathology=labels, assessments=categories), RULE, TODAY, left)

    assert isinstance(verdict, Included)
    assert (verdict.malignant, verdict.pathology_revision) == (True, 3)
    assert (verdict.birads, verdict.assessment_revision) == (5, 2)
    assert verdict.study_date == EXAM


@pytest.mark.parametrize("name", ["", "a/b", "-x", ".x", "a b", "x" * 65, "ä"])
def test_a_name_that_files_and_commands_cannot_use_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="1 to 64 letters"):
        check_name(name)


def test_a_range_that_ends_before_it_begins_is_refused() -> None:
    with pytest.raises(ConfigError, match="in order"):
        Rule(date(2021, 1, 1), date(2020, 1, 1))


def header(**attributes: Any) -> Dataset:
    dataset = Dataset()
    for name, value in attributes.items():
        setattr(dataset, name, value)
    return dataset


@pytest.mark.parametrize(
    ("attributes", "age"),
    [
        ({"PatientAge": "045Y"}, "40-49"),
        ({"PatientAge": "093Y"}, "90+"),
        ({"PatientAge": "000Y"}, None),
        ({"PatientAge": "014M", "PatientBirthDate": "19600302"}, "50-59"),
        ({"PatientBirthDate": "19600301"}, "60-69"),
        ({"PatientBirthDate": "00000000"}, None),
        ({}, None),
    ],
)
def test_age_is_a_decade(attributes: dict[str, str], age: str | None) -> None:
    assert strata(header(**attributes), EXAM, KEY)["age"] == age


def test_strata_of_a_header() -> None:
    acquired = header(BodyPartThickness=56.4)
    dataset = header(
        Manufacturer="HOLOGIC, Inc.",
        InstitutionName="St. Elsewhere",
        XRay3DAcquisitionSequence=[acquired],
    )

    found = strata(dataset, EXAM, KEY)
    elsewhere = strata(dataset, EXAM, bytes(31) + b"\1")

    assert found["manufacturer"] == "HOLOGIC, Inc."
    assert found["thickness_mm"] == 56
    assert found["site"].startswith("site-")
    assert "Elsewhere" not in str(found)
    assert found["site"] != elsewhere["site"]
    assert found["site"] == strata(header(InstitutionName="ST. ELSEWHERE"), EXAM, KEY)["site"]


def test_the_secret_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    with pytest.raises(Conflict, match=r"datasets\.key is missing.*put back the copy"):
        load_key(tmp_path)
    key = load_key(tmp_path, make=True)

    path = tmp_path / "secret" / "datasets.key"
    assert load_key(tmp_path) == key
    assert len(key) == 32
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load_key(tmp_path / "other", make=True) != key
    path.chmod(0o640)
    with pytest.raises(ConfigError, match="chmod 600"):
        load_key(tmp_path)
    path.chmod(0o600)
    path.write_bytes(b"short")
    with pytest.raises(ConfigError, match="5 bytes"):
        load_key(tmp_path)


def test_parts_of_a_digest_do_not_run_together() -> None:
    assert keyed(KEY, "ab", "c") != keyed(KEY, "a", "bc")
