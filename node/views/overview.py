"""The node at a glance: how much of what, and what is wrong."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from node.config import Settings
from node.lifecycle import DeliveryState
from node.models import Delivery, Outbox
from node.views.words import between, size
from node.views.worklist import count_by_status


@dataclass(frozen=True)
class Overview:
    """Counts for the head of every page. `problems` are sentences about the node itself, not about one study."""

    by_status: Mapping[str, int]
    dead_letters: int
    disk_free_bytes: int | None
    problems: tuple[str, ...]

    @property
    def studies(self) -> int:
        """How many studies there are."""
        return sum(self.by_status.values())

    @property
    def queue(self) -> int:
        """How many studies wait for the model or are being read by it."""
        return self.by_status["queued"] + self.by_status["running"]


def overview(session: Session, settings: Settings, at: datetime) -> Overview:
    """The present counts and problems."""
    dead = session.execute(
        select(func.count()).where(Delivery.state == DeliveryState.FAILED)
    ).scalar_one()
    oldest = session.execute(
        select(Outbox.created_at).order_by(Outbox.created_at).limit(1)
    ).scalar_one_or_none()
    free = _disk_free(settings)
    return Overview(
        by_status=count_by_status(session),
        dead_letters=dead,
        disk_free_bytes=free,
        problems=tuple(_problems(settings, at, oldest, free)),
    )


def _problems(
    settings: Settings, at: datetime, oldest_message: datetime | None, free: int | None
) -> list[str]:
    found = []
    if free is not None and free < settings.disk_reserve_mb * 2**20:
        found.append(
            f"disk: {size(free)} free, the reserve is {size(settings.disk_reserve_mb * 2**20)};"
            " new objects are refused until some space is freed"
        )
    # The relay sends at every tick; what lies here for a minute is not being sent.
    stuck_s = max(30.0, 10 * settings.tick_s)
    if oldest_message is not None and (at - oldest_message).total_seconds() > stuck_s:
        found.append(
            f"work waits for the broker for {between(oldest_message, at)}:"
            " Redis or the relay is down; see `tomonode doctor`"
        )
    return found


def _disk_free(settings: Settings) -> int | None:
    try:
        return shutil.disk_usage(settings.blob_root).free
    except FileNotFoundError:
        return None  # nothing was ever received
