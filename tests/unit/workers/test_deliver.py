"""Which refusals may pass, when a part is a failure, and lanes that keep a peer to one thread."""

from __future__ import annotations

import uuid

import pytest

from node.deliveries import Answer, DeliveryClaim, Destination, Parcel
from workers.deliver import Lanes, may_pass, require_all
from workers.errors import DeliveryPaused, DeliveryRefused


@pytest.mark.parametrize(
    ("status", "later"),
    [
        ("0x0110", True),
        ("0x0213", True),
        ("0xA700", True),
        ("0xA7FF", True),
        ("0xFE00", True),
        ("0x0111", False),
        ("0x0122", False),
        ("0x0124", False),
        ("0xA800", False),
        ("0xA900", False),
        ("0xC000", False),
        ("0xCFFF", False),
        ("HTTP 429", True),
        ("HTTP 500", True),
        ("HTTP 503", True),
        ("HTTP 400", False),
        ("HTTP 401", False),
        ("HTTP 409", False),
        ("HTTP 415", False),
        ("HTTP 501", False),
        ("no answer", True),
        ("", True),
    ],
)
def test_status_table(status: str, later: bool) -> None:
    assert may_pass(status) is later


def _held(count: int) -> DeliveryClaim:
    parcels = tuple(Parcel(uuid.uuid4(), f"1.2.{i}", "1.2", "ab" * 32) for i in range(count))
    peer = Destination("archive", "DICOM", "PACS", "127.0.0.1", 104, None)
    return DeliveryClaim(uuid.uuid4(), 1, uuid.uuid4(), uuid.uuid4(), peer, parcels)


def _answers(held: DeliveryClaim, *statuses: str) -> list[Answer]:
    return [
        Answer(parcel.artifact_id, status == "0x0000", status)
        for parcel, status in zip(held.parcels, statuses, strict=False)
    ]


def test_nothing_but_all_taken_is_success() -> None:
    held = _held(2)
    require_all(held, _answers(held, "0x0000", "0x0000"))
    with pytest.raises(DeliveryPaused, match="2 of 2 objects"):
        require_all(held, [])


@pytest.mark.parametrize("statuses", [("0x0000", "0xA700"), ("0x0122", "0xA700"), ("0x0000",)])
def test_a_part_is_a_failure_that_may_pass(statuses: tuple[str, ...]) -> None:
    held = _held(2)
    with pytest.raises(DeliveryPaused, match=r"did not take \d of 2 objects"):
        require_all(held, _answers(held, *statuses))


@pytest.mark.parametrize("statuses", [("0x0000", "0x0122"), ("0xC000", "0xA900")])
def test_refused_for_good_when_nothing_may_pass(statuses: tuple[str, str]) -> None:
    held = _held(2)
    with pytest.raises(DeliveryRefused, match="archive did not take"):
        require_all(held, _answers(held, *statuses))


def test_a_lane_is_one_thread_wide_and_loses_nothing() -> None:
    lanes = Lanes()
    peer, other = uuid.uuid4(), uuid.uuid4()
    first, second, third = uuid.uuid4(), uuid.uuid4(), uuid.uuid4()
    assert lanes.enter(peer, first)
    assert not lanes.enter(peer, second)
    assert not lanes.enter(peer, third)
    assert not lanes.enter(peer, second)  # the same message again
    assert lanes.enter(other, uuid.uuid4())
    assert lanes.following(peer) == second
    assert lanes.following(peer) == third
    assert lanes.following(peer) is None
    assert lanes.enter(peer, first)


def test_closed_lanes_start_nothing_more() -> None:
    lanes = Lanes()
    peer = uuid.uuid4()
    assert lanes.enter(peer, uuid.uuid4())
    assert not lanes.enter(peer, uuid.uuid4())
    lanes.close()
    assert lanes.following(peer) is None
