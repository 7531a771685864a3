"""When a study closes: every clause of the rule, at its edges."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from node.completion import Received, Rule, judge

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
FOUR = frozenset({"L-CC", "L-MLO", "R-CC", "R-MLO"})
RULE = Rule(quiet_s=60, views_quiet_s=2, expected_views=FOUR, deadline_s=3600)


def study(
    quiet: float, views: set[str], age: float = 100, associations: int = 0, in_flight: int = 0
) -> Received:
    return Received(
        NOW - timedelta(seconds=age), NOW - timedelta(seconds=quiet), views, associations, in_flight
    )


def test_all_views_close_it_after_a_moment() -> None:
    assert judge(study(2.0, set(FOUR)), RULE, NOW).because == "views"
    assert judge(study(1.9, set(FOUR)), RULE, NOW).because is None


def test_all_views_close_it_even_while_an_idle_association_is_open() -> None:
    assert judge(study(3, set(FOUR), associations=1), RULE, NOW).because == "views"


def test_views_in_slices_wait_for_quiet_since_nobody_knows_how_many_slices_there_are() -> None:
    def sliced(quiet: float, associations: int = 0) -> Received:
        return replace(study(quiet, set(FOUR), associations=associations), sliced=True)

    verdict = judge(sliced(3), RULE, NOW)
    assert verdict.because is None
    assert "all views here, as slices" in verdict.waiting
    assert "missing" not in verdict.waiting
    assert judge(sliced(60), RULE, NOW).because == "quiet"
    assert judge(sliced(60, associations=1), RULE, NOW).because is None


def test_missing_views_wait_for_quiet() -> None:
    verdict = judge(study(59, {"L-CC"}), RULE, NOW)
    assert verdict.because is None
    assert "L-MLO, R-CC, R-MLO" in verdict.waiting
    assert judge(study(60, {"L-CC"}), RULE, NOW).because == "quiet"


def test_an_open_association_keeps_an_incomplete_study_open_however_quiet() -> None:
    verdict = judge(study(600, {"L-CC"}, age=601, associations=1), RULE, NOW)
    assert verdict.because is None
    assert "1 association(s) still open" in verdict.waiting


def test_bytes_in_flight_keep_even_a_full_study_open() -> None:
    verdict = judge(study(600, set(FOUR), age=601, associations=1, in_flight=1), RULE, NOW)
    assert verdict.because is None
    assert "arriving now" in verdict.waiting


def test_the_deadline_beats_everything() -> None:
    assert (
        judge(study(0, set(), age=3600, associations=2, in_flight=1), RULE, NOW).because
        == "deadline"
    )


def test_without_expected_views_only_quiet_counts() -> None:
    rule = Rule(quiet_s=60, views_quiet_s=2, expected_views=frozenset(), deadline_s=3600)
    assert judge(study(5, set(FOUR)), rule, NOW).because is None
    assert judge(study(60, set()), rule, NOW).because == "quiet"
