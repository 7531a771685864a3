"""The statistics of drift against other programs' answers, against their definitions, and at their edges."""

from __future__ import annotations

import random
import uuid
from datetime import UTC, date, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from node import drift
from node.drift import Scored
from node.input_quality import Image, Measured, quality_months
from node.labels.outcomes import Predicted

SCORE = st.floats(0, 1)
SOME = st.lists(SCORE, min_size=1, max_size=30)
READ = datetime(2026, 3, 2, tzinfo=UTC)


@settings(deadline=None)
@given(SOME, SOME)
def test_the_area_is_that_of_scikit_learn_and_lies_in_its_interval(
    positive: list[float], negative: list[float]
) -> None:
    found = drift.auc(positive, negative)
    assert found is not None
    labels = [1] * len(positive) + [0] * len(negative)
    assert found.value == pytest.approx(roc_auc_score(labels, positive + negative))
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert found.low < found.high
    mirrored = drift.auc(negative, positive)
    assert mirrored is not None
    assert (1 - mirrored.high, 1 - mirrored.low) == pytest.approx((found.low, found.high))


def test_an_area_needs_both_kinds() -> None:
    assert drift.auc([], [0.1]) is None
    assert drift.auc([0.1], []) is None


def test_the_interval_of_the_area_holds_the_true_one_as_often_as_it_says() -> None:
    generator = np.random.default_rng(7)
    true = 0.8397  # of normal scores 1.4065 / sqrt(2) apart: Phi(0.9946)
    hits = 0
    for _ in range(400):
        found = drift.auc(
            list(generator.normal(1.4065, 1, 12)), list(generator.normal(0, 1, 30))
        )  # fmt: skip
        assert found is not None
        hits += found.low <= true <= found.high
    assert 0.92 <= hits / 400 <= 0.99


@settings(deadline=None)
@given(st.integers(0, 50), st.integers(1, 50))
def test_a_share_lies_in_its_interval(count: int, more: int) -> None:
    total = count + more
    found = drift.share(count, total)
    assert found is not None
    assert 0 <= found.low <= found.value <= found.high <= 1
    for end in (found.low, found.high):  # Wilson: the score test at its ends is just significant
        if 0 < end < 1:
            z = abs(found.value - end) / (end * (1 - end) / total) ** 0.5
            assert z == pytest.approx(1.96, abs=0.001)


def test_a_share_of_nothing_is_none() -> None:
    assert drift.share(0, 0) is None
    assert drift.quantiles([]) is None


@settings(deadline=None)
@given(SOME, SOME)
def test_the_index_is_never_negative_and_none_of_the_same(
    first: list[float], second: list[float]
) -> None:
    assert drift.shift(first, second).psi >= 0
    same = drift.shift(first, first)
    assert same.psi == 0
    assert same.word == "steady"


def test_what_moved_is_called_a_shift_and_chance_is_not() -> None:
    generator = np.random.default_rng(5)
    reference = list(generator.beta(2, 5, 2000))
    assert drift.shift(reference, list(generator.beta(2, 5, 500))).word == "steady"
    assert drift.shift(reference, list(generator.beta(3, 4, 500))).word == "shift"
    assert drift.shift(reference, list(generator.beta(2.6, 5.0, 500))).word == "some"
    few = drift.shift(reference, list(generator.beta(2, 5, 20)))
    assert few.noise > 0.25


def test_chance_exceeds_the_noise_about_one_time_in_twenty() -> None:
    generator = np.random.default_rng(11)
    above = 0
    for _ in range(400):
        one = drift.shift(list(generator.random(400)), list(generator.random(400)))
        above += one.psi > one.noise
    assert 0.02 <= above / 400 <= 0.09


def breasts(month: str | None, count: int, malignant: float, version: str = "a") -> list[Scored]:
    chance = random.Random(f"{month}{version}{malignant}")
    return [
        Scored(month, version, True, chance.random() * 0.1, malignant * chance.random())
        for _ in range(count)
    ]


def test_months_are_compared_with_the_first_ones_of_their_version() -> None:
    rows = [
        *breasts("2026-02", 150, 0.3),
        *breasts("2026-01", 120, 0.3),
        *breasts("2026-03", 90, 0.9),
        *breasts("2026-04", drift.FEWEST_BREASTS - 1, 0.9),
        *breasts(None, 5, 0.9),
        *breasts("2026-03", 60, 0.9, "b"),
    ]
    found = {(row.version, row.month): row for row in drift.score_months(rows)}
    assert [key[1] for key in found] == ["2026-04", "2026-03", "2026-03", "2026-02", "2026-01"]
    assert [key for key, row in found.items() if row.reference] == [
        ("b", "2026-03"), ("a", "2026-02"), ("a", "2026-01"),
    ]  # fmt: skip
    moved = found["a", "2026-03"].malignant_shift
    assert moved is not None
    assert moved.word == "shift"
    still = found["a", "2026-03"].benign_shift
    assert still is not None
    assert still.word == "steady"
    assert found["a", "2026-04"].malignant_shift is None
    assert found["a", "2026-04"].breasts == drift.FEWEST_BREASTS - 1
    assert found["b", "2026-03"].malignant_shift is None


def predicted(month: str | None, score: float, malignant: bool, days_late: int = 30) -> Predicted:
    return Predicted(
        month=month, study_id=uuid.uuid4(), study_uid="1.2", laterality="L", model_version="a",
        trained=True, score_benign=0.1, score_malignant=score, predicted_at=READ,
        benign=not malignant, malignant=malignant, found_on=date(2026, 3, 20), days=19,
        labelled_at=READ + timedelta(days=days_late),
    )  # fmt: skip


def test_outcomes_count_what_came_late_alone() -> None:
    rows = [
        predicted("2026-02", 0.9, True), predicted("2026-02", 0.2, False), predicted("2026-03", 0.8, True),
        predicted("2026-03", 0.1, True, days_late=-1), predicted(None, 0.3, False),
    ]  # fmt: skip
    total, march, february = drift.outcome_months(rows)
    assert (total.month, total.breasts, total.known_before) == (None, 4, 1)
    assert (total.malignant, total.benign, total.neither) == (2, 2, 0)
    assert total.malignant_auc is not None
    assert total.malignant_auc.value == 1.0
    assert (march.month, march.breasts, march.known_before) == ("2026-03", 1, 1)
    assert march.malignant_auc is None
    assert february.malignant_auc is not None


def image(study: str, view: str | None, frames: int | None, **more: object) -> Image:
    values: dict[str, object] = {
        "month": "2026-03", "study_uid": study, "laterality": "L", "view": view, "frames": frames,
        "size_bytes": 1024 * 60, "sender": "MAMMO1", "left_out": None, "strata": None,
        "measured": None, **more,
    }  # fmt: skip
    return Image(**values)  # type: ignore[arg-type]


def test_input_quality_of_a_month() -> None:
    strata = {"manufacturer": "A", "site": None, "thickness_mm": 55, "age": "50-59"}
    rows = [
        image("1", "CC", 60, left_out=False, strata=strata),
        image("1", "MLO", 30, left_out=True, sender="MAMMO2"),
        image("2", None, None),
        image("3", "CC", 60, month=None),
    ]
    (found,) = quality_months(rows, {"L-CC", "L-MLO"})
    assert (found.month, found.studies, found.images) == ("2026-03", 2, 3)
    assert [one and one.value for one in (found.complete, found.left_out, found.unnamed)] == [
        0.5, 0.5, pytest.approx(1 / 3),
    ]  # fmt: skip
    assert found.slices is not None
    assert found.slices.p50 == 45
    assert found.kb_a_slice is not None
    assert found.kb_a_slice.p50 == 1.5
    assert found.senders == {"MAMMO1": 2, "MAMMO2": 1}
    assert found.described == 1
    assert found.thickness_mm is not None
    assert found.thickness_mm.p50 == 55
    assert (found.manufacturers, found.sites) == ({"A": 1}, {"not said": 1})


NOTHING = Measured(None, None, None, None, None)


def test_measures_of_a_month_are_of_the_images_that_have_them() -> None:
    rows = [
        image("1", "CC", 60, measured=Measured(0.1, 1.0, 290.0, 400.0, 500.0)),
        image("1", "MLO", 60, measured=Measured(0.2, None, 310.0, 500.0, 700.0)),
        image("2", "CC", 1, measured=Measured(None, None, 300.0, 900.0, 950.0)),
        image("2", "MLO", 1, left_out=True, measured=NOTHING),
        image("3", "CC", 60),
        image("4", "CC", 60, month="2026-02", measured=NOTHING),
    ]
    march, february = (row.measured for row in quality_months(rows, {"L-CC"}))
    assert march.images == 3
    assert march.unspaced is not None
    assert march.unspaced.value == pytest.approx(1 / 3)
    spreads = (march.pixel_spacing_mm, march.slice_spacing_mm)
    assert [one and one.p50 for one in spreads] == [pytest.approx(0.15), 1.0]
    inside = (march.intensity_p05, march.intensity_p50, march.intensity_p95)
    assert [one and one.p50 for one in inside] == [300, 500, 700]
    assert march.intensity_p50 is not None
    assert march.intensity_p50.p95 == pytest.approx(860)
    assert (february.images, february.unspaced, february.intensity_p50) == (0, None, None)
