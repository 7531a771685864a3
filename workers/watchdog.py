"""Ends a worker that has stopped taking messages.

Celery's Redis transport can fall silent after the broker was away at a bad moment: a message that could not be
acknowledged holds the only place of the prefetch window for ever, and the process waits, healthy to all appearances,
beside a queue that grows. No setting prevents it, so what it looks like is watched for: an idle worker beside a queue
that is not empty. Ending is safe at any time, since every claim has a lease; the supervisor starts another.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from redis.exceptions import RedisError

from node import log, redis_server
from node.config import Settings
from workers.task import EXIT_STUCK

SILENT_S = 10.0
"""How long an idle worker may leave messages where they are."""


class InHand:
    """How many messages a worker has begun, and how many of them it still works on."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._begun = 0
        self._now = 0

    @contextmanager
    def message(self) -> Iterator[None]:
        """A message, for as long as the block runs."""
        with self._lock:
            self._begun += 1
            self._now += 1
        try:
            yield
        finally:
            with self._lock:
                self._now -= 1

    def idle_since(self) -> int | None:
        """The number of messages begun so far; None while one is in hand."""
        with self._lock:
            return None if self._now else self._begun


class Watchdog:
    """Tells, from looks taken now and then, whether the worker has fallen silent."""

    def __init__(self, in_hand: InHand, waiting: Callable[[], int], silent_s: float) -> None:
        """`waiting` is the length of the queue; it may raise RedisError."""
        self._in_hand = in_hand
        self._waiting = waiting
        self._silent_s = silent_s
        self._since: tuple[int, float] | None = None

    def silent(self, now_s: float) -> bool:
        """One look, at this monotonic time in seconds: whether nothing was begun for `silent_s`, though it waited."""
        begun = self._in_hand.idle_since()
        if begun is None or not self._some_wait():
            self._since = None
        elif self._since is None or self._since[0] != begun:
            self._since = (begun, now_s)
        return self._since is not None and now_s - self._since[1] >= self._silent_s

    def _some_wait(self) -> bool:
        try:
            return self._waiting() > 0
        except RedisError:
            return False  # nobody can be asked to work without a broker


def watch(settings: Settings, queue: str, in_hand: InHand) -> None:
    """End this process with `EXIT_STUCK` once it is silent; call it in a daemon thread."""
    broker = redis_server.client(settings)
    watchdog = Watchdog(in_hand, lambda: int(broker.llen(queue)), SILENT_S)
    while not watchdog.silent(time.monotonic()):
        time.sleep(SILENT_S / 5)
    log.get().error("no message taken though some wait: process ends", exit_code=EXIT_STUCK)
    os._exit(EXIT_STUCK)
