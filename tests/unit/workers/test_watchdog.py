"""When a worker counts as silent."""

from __future__ import annotations

from redis.exceptions import ConnectionError as BrokerGone

from workers.watchdog import InHand, Watchdog

SILENT_S = 10.0


def test_idle_beside_messages_for_long_enough_is_silent() -> None:
    watchdog = Watchdog(InHand(), lambda: 1, SILENT_S)
    assert [watchdog.silent(at) for at in (100.0, 109.9, 110.0)] == [False, False, True]


def test_a_message_in_hand_or_taken_meanwhile_is_a_sign_of_life() -> None:
    in_hand = InHand()
    watchdog = Watchdog(in_hand, lambda: 5, SILENT_S)
    with in_hand.message():
        assert not any(watchdog.silent(at) for at in (0.0, 11.0, 22.0))
    assert not watchdog.silent(30.0)
    with in_hand.message():
        pass  # begun and done between two looks
    assert not watchdog.silent(41.0)
    assert not watchdog.silent(50.0)
    assert watchdog.silent(51.0)


def test_an_empty_queue_and_a_broker_away_start_the_time_anew() -> None:
    lengths: list[int | Exception] = [1, 0, 1, BrokerGone(), 1, 1]

    def waiting() -> int:
        length = lengths.pop(0)
        if isinstance(length, Exception):
            raise length
        return length

    watchdog = Watchdog(InHand(), waiting, SILENT_S)
    looks = [watchdog.silent(at) for at in (0.0, 11.0, 22.0, 33.0, 44.0, 54.0)]
    assert looks == [False, False, False, False, False, True]
