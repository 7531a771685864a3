"""The three tables are what the design says, and the status word follows from them."""

from __future__ import annotations

import pytest

from node.lifecycle import (
    DELIVERY,
    RUN,
    STUDY,
    DeliveryEvent,
    DeliveryState,
    RunEvent,
    RunState,
    StudyEvent,
    StudyState,
    sources_and_target,
    status,
)

EVENTS = [*StudyEvent, *RunEvent, *DeliveryEvent]


@pytest.mark.parametrize("event", EVENTS)
def test_every_event_leads_to_exactly_one_state(
    event: StudyEvent | RunEvent | DeliveryEvent,
) -> None:
    sources, target = sources_and_target(event)
    assert sources
    assert target not in sources, "an event that changes nothing is no event"


@pytest.mark.parametrize(
    ("table", "states"), [(STUDY, StudyState), (RUN, RunState), (DELIVERY, DeliveryState)]
)
def test_every_state_can_be_reached_or_is_where_things_start(table: dict, states: type) -> None:  # type: ignore[type-arg]
    start = {StudyState.RECEIVING, RunState.QUEUED, DeliveryState.PENDING}
    assert set(states) - start <= set(table.values())


def test_a_finished_delivery_changes_only_when_an_operator_sends_what_the_peer_gets_since() -> None:
    ended = (DeliveryState.SENT, DeliveryState.CANCELLED)
    assert [key for key in DELIVERY if key[0] in ended] == [
        (DeliveryState.SENT, DeliveryEvent.RETRY)
    ]


def test_a_superseded_run_never_changes() -> None:
    assert not [key for key in RUN if key[0] is RunState.SUPERSEDED]


@pytest.mark.parametrize(
    ("study", "run", "deliveries", "word"),
    [
        ("RECEIVING", None, [], "receiving"),
        ("RECEIVING", "SUCCEEDED", ["SENT"], "receiving"),
        ("EXCLUDED", None, [], "excluded"),
        ("COMPLETE", "QUEUED", [], "queued"),
        ("COMPLETE", "RUNNING", [], "running"),
        ("COMPLETE", "FAILED", [], "failed"),
        ("COMPLETE", "SUCCEEDED", [], "done"),
        ("COMPLETE", "SUCCEEDED", ["SENT", "PENDING"], "delivering"),
        ("COMPLETE", "SUCCEEDED", ["SENT", "FAILED"], "delivery failed"),
        ("COMPLETE", "SUCCEEDED", ["SENT", "CANCELLED"], "delivered"),
    ],
)
def test_status_word(study: str, run: str | None, deliveries: list[str], word: str) -> None:
    assert status(study, run, deliveries) == word
