"""Who may promote what: the rules as a table."""

from __future__ import annotations

import dataclasses
import uuid
from typing import Any

import pytest

from node.promotion import Evidence, Signed, Terms, refusal, same_rule, unsigned

ACTIVE, OTHER = uuid.uuid4(), uuid.uuid4()
TERMS = Terms()
TWO = Terms(two_person=True)
GOOD = Evidence(
    against_id=ACTIVE, rule_in_force=True, malignant_breasts=40, auc_low=0.7, difference_low=-0.01
)
ALONE = dataclasses.replace(GOOD, against_id=None, difference_low=None)


def changed(**values: Any) -> Evidence:
    return dataclasses.replace(GOOD, **values)


@pytest.mark.parametrize(
    ("evidence", "active", "wanted"),
    [
        (GOOD, ACTIVE, None),
        (changed(difference_low=-0.02), ACTIVE, None),  # exactly the margin
        (changed(difference_low=-0.0201), ACTIVE, "lower end of the malignant AUC's paired"),
        (changed(difference_low=None), ACTIVE, "one class has no case"),
        (changed(against_id=OTHER), ACTIVE, "does not compare it with the version now active"),
        (changed(against_id=None), ACTIVE, "does not compare it with the version now active"),
        (changed(rule_in_force=False), ACTIVE, "another rule"),
        (changed(malignant_breasts=9), ACTIVE, "9 malignant breasts, at least 10"),
        (changed(malignant_breasts=10), ACTIVE, None),
        (changed(failed_alone=1), ACTIVE, "failed on 1 test images"),
        (None, ACTIVE, "no evaluation"),
        (None, None, "no evaluation"),
        (ALONE, None, None),
        (dataclasses.replace(ALONE, auc_low=0.5), None, "not above chance"),
        (dataclasses.replace(ALONE, auc_low=None), None, "not above chance"),
        (GOOD, None, "does not compare it with the version now active"),
    ],
)
def test_what_carries_a_promotion(
    evidence: Evidence | None, active: uuid.UUID | None, wanted: str | None
) -> None:
    found = refusal(evidence, active, TERMS)
    assert found is None if wanted is None else found is not None and wanted in found


def test_the_margin_is_a_setting() -> None:
    assert refusal(GOOD, ACTIVE, Terms(margin=0.005)) is not None
    assert refusal(changed(difference_low=-0.08), ACTIVE, Terms(margin=0.1)) is None
    assert refusal(changed(malignant_breasts=1), ACTIVE, Terms(min_malignant=1)) is None


def test_configured_weights_that_answer_must_be_compared_with() -> None:
    answering = Terms(configured=True)
    found = refusal(ALONE, None, answering)
    assert found is not None
    assert "TOMONODE_WEIGHTS answer now" in found
    assert refusal(GOOD, ACTIVE, answering) is None


@pytest.mark.parametrize(
    ("signed", "terms", "wanted"),
    [
        (Signed("ann"), TERMS, None),
        (Signed("  "), TERMS, "nobody is named"),
        (Signed("ann", override=True), TERMS, "needs its reason"),
        (Signed("ann", reason=" ", override=True), TERMS, "needs its reason"),
        (Signed("ann", reason="pilot", override=True), TERMS, None),
        (Signed("ann"), TWO, "second person"),
        (Signed("ann", " "), TWO, "second person"),
        (Signed("ann", "ann"), TWO, "cannot approve their own"),
        (Signed("ann", " ANN "), TWO, "cannot approve their own"),
        (Signed("ann", "bob"), TWO, None),
        (Signed("ann", reason="pilot", override=True), TWO, "second person"),
    ],
)
def test_who_must_sign(signed: Signed, terms: Terms, wanted: str | None) -> None:
    found = unsigned(signed, terms)
    assert found is None if wanted is None else found is not None and wanted in found


def test_data_sets_of_one_rule_may_span_other_days() -> None:
    rule = {"since": "2024-01-01", "until": "2024-12-31", "kind": "dbt", "window_days": 365}
    assert same_rule(rule, {**rule, "since": "2025-01-01", "until": "2025-12-31"})
    assert not same_rule(rule, {**rule, "window_days": 730})
    assert not same_rule(rule, {**rule, "shares": {"train": 80}})


def test_evidence_is_read_from_a_summary() -> None:
    malignant = {
        "positives": 12,
        "auc": {"value": 0.9, "low": 0.8, "high": 1.0},
        "difference": {"value": 0.1, "low": 0.03, "high": 0.2},
    }
    summary = {"breast": {"malignant": malignant}, "failed_alone": 2}
    assert Evidence.of(ACTIVE, summary, True) == Evidence(ACTIVE, True, 12, 0.8, 0.03, 2)
    bare = {**malignant, "auc": None, "difference": None}
    found = Evidence.of(None, {"breast": {"malignant": bare}, "failed_alone": 0}, False)
    assert found == Evidence(None, False, 12, None, None, 0)
