"""From the last byte of a study to its report at a peer: seconds a stage, on the embedded node."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

from sqlalchemy import func, select

from node import peers, scu
from node.config import Settings
from node.db import Database, now
from node.lifecycle import DeliveryState, RunState
from node.models import Delivery, Instance, Run, Study
from tests.support.node_process import free_port, node_process
from tests.support.pacs import Pacs, pacs
from workers.phantom import PhantomPlan, write_phantom

_LIMIT_S = 240.0
Say = Callable[[str], None]


def measure(folder: Path, quick: bool, say: Say) -> dict[str, Any]:
    """Send a four-view phantom study to `tomonode up` with its default times and wait for SEG and SR.

    Returns:
        Seconds between the rows of the database, and the seconds a stage that the run noted.
    """
    slices = 4 if quick else 24
    say(f"journey: making a phantom study of four views, {slices} slices each")
    study = write_phantom(folder / "phantom", PhantomPlan(seed=3, shape=(slices, 2457, 1890)))
    settings = Settings(
        _env_file=None,  # type: ignore[call-arg]
        home=folder / "home",
        listen_port=free_port(),
        web_port=free_port(),
        disk_reserve_mb=0,
        device="cpu",
    )
    say("journey: starting the node")
    with pacs() as peer, node_process(settings):
        db = Database(settings.db_url)
        with db.transaction() as session:
            _add(db, peer, session)
        say("journey: sending")
        started = time.monotonic()
        results = scu.send_files(
            "127.0.0.1", settings.listen_port, settings.ae_title, study.files, settings
        )
        sending = time.monotonic() - started
        assert all(result.accepted for result in results), results
        _wait(db, say)
        row = _seconds(db)
        db.dispose()
    sent_bytes = sum(result.size_bytes for result in results)
    return {"slices": slices, "views": len(results), "bytes": sent_bytes, "sending": sending, **row}


def _add(db: Database, peer: Pacs, session: Any) -> None:
    one = peer.destination()
    assert one.ae_title is not None
    assert one.host is not None
    assert one.port is not None
    peers.add(session, peers.dicom_peer("pacs", one.ae_title, one.host, one.port, now(session)))


def _wait(db: Database, say: Say) -> None:
    started = spoke = time.monotonic()
    while True:
        with db.reading() as session:
            run = session.execute(select(Run)).scalar_one_or_none()
            delivery = session.execute(select(Delivery)).scalar_one_or_none()
        if run is not None and run.state == RunState.FAILED:
            raise SystemExit(f"the run failed: {run.error}")
        if delivery is not None and delivery.state == DeliveryState.SENT:
            return
        elapsed = time.monotonic() - started
        if elapsed > _LIMIT_S:
            raise SystemExit(f"nothing was delivered within {_LIMIT_S:.0f} s")
        if time.monotonic() - spoke > 10:
            spoke = time.monotonic()
            say(f"journey: {elapsed:.0f} s, run {run.state if run else 'not there yet'}")
        time.sleep(0.1)


def _seconds(db: Database) -> dict[str, Any]:
    with db.reading() as session:
        last = session.execute(select(func.max(Instance.received_at))).scalar_one()
        study = session.execute(select(Study)).scalar_one()
        run = session.execute(select(Run)).scalar_one()
        delivery = session.execute(select(Delivery)).scalar_one()
    names = ("last byte to complete", "complete to claimed", "claimed to succeeded", "succeeded to sent")  # fmt: skip
    marks = [last, study.completed_at, run.started_at, run.finished_at, delivery.sent_at]
    times = [mark for mark in marks if mark is not None]
    spans = [(later - earlier).total_seconds() for earlier, later in pairwise(times)]
    return {
        "waits": dict(zip(names, spans, strict=True)),
        "stages": dict(run.stage_seconds or {}),
        "total": (times[-1] - times[0]).total_seconds(),
    }
