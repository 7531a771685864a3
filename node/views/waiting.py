"""Why a study is not delivered yet, in a sentence: pure functions over rows that were read already."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from node.completion import Verdict
from node.config import Settings
from node.lifecycle import DeliveryState
from node.models import Delivery, Peer, Run, Study
from node.views.words import between

_ADVICE = "see `tomonode doctor`"


@dataclass(frozen=True)
class Facts:
    """What is known of one study: its status word, the completion verdict while it receives, its newest run with that
    run's deliveries, and how many due runs are queued before it."""

    status: str
    study: Study
    verdict: Verdict | None
    run: Run | None
    deliveries: Sequence[tuple[Delivery, Peer]]
    ahead: int


def why(facts: Facts, settings: Settings, at: datetime) -> str:
    """The sentence; empty where everything is delivered and nothing is left to say."""
    run = facts.run
    if facts.status == "receiving":
        return _receiving(facts.verdict)
    if facts.status == "excluded":
        return facts.study.excluded_reason or ""
    if facts.status == "done":
        by_rule = (run.route or {}).get("rule") if run is not None else None
        because = (
            f"routing rule {by_rule!r}" if by_rule else "no peer was enabled when the run ended"
        )
        return f"results stay here: {because}"
    if facts.status in ("delivering", "delivery failed"):
        return _deliveries(facts.deliveries, settings, at)
    if run is None or facts.status == "not read":
        return _not_read(facts.study)
    if facts.status == "delivered":
        return ""
    if facts.status == "failed":
        return f"{run.error} (attempt {run.attempt})"
    return run_waits(run, facts.ahead, settings, at)


def _not_read(study: Study) -> str:
    if study.pulled:
        return (
            "no model was run: fetched by us, not sent to be read; `tomonode study retry` runs one"
        )
    return (
        "no model was run: a routing rule wants none (the history says which); change the rules, then"
        " `tomonode study retry`"
    )


def _receiving(verdict: Verdict | None) -> str:
    if verdict is None or verdict.because is not None:
        because = f" ({verdict.because})" if verdict else ""
        return f"ready to close{because}; the relay does so at its next tick"
    return verdict.waiting


def run_waits(run: Run, ahead: int, settings: Settings, at: datetime) -> str:
    """What a queued or running run waits for."""
    if run.lease_until is not None:
        started = between(run.started_at, at) if run.started_at else "?"
        if run.lease_until < at:
            return f"worker {run.worker} stopped answering; the relay queues the run again"
        return f"attempt {run.attempt} of {run.max_attempts} on {run.worker} for {started}"
    last = f"; last error: {run.error}" if run.error else ""
    if run.not_before > at:
        next_try = f"attempt {run.attempt + 1} of {run.max_attempts}"
        return f"{next_try} in {between(at, run.not_before)}{last}"
    if ahead:
        return f"{_count(ahead, 'run')} before it in the queue{last}"
    if _overdue(run.not_before, settings, at):
        return (
            f"next in the queue, but no worker took it for {between(run.not_before, at)};"
            f" is one running? {_ADVICE}{last}"
        )
    return f"next in the queue{last}"


def _deliveries(rows: Sequence[tuple[Delivery, Peer]], settings: Settings, at: datetime) -> str:
    unsettled = [
        (delivery, peer)
        for delivery, peer in rows
        if delivery.state in (DeliveryState.FAILED, DeliveryState.PENDING, DeliveryState.SENDING)
    ]
    # what was given up needs a person, so it comes first
    unsettled.sort(key=lambda row: (row[0].state != DeliveryState.FAILED, row[1].name))
    return "; ".join(
        f"{peer.name}: {delivery_waits(delivery, settings, at)}" for delivery, peer in unsettled
    )


def delivery_waits(delivery: Delivery, settings: Settings, at: datetime) -> str:
    """What a delivery waits for, or why it was given up; empty when it is sent or cancelled."""
    if delivery.state == DeliveryState.FAILED:
        return f"given up after {_count(delivery.attempt, 'attempt')}: {delivery.error}"
    if delivery.state == DeliveryState.SENDING:
        if delivery.lease_until is not None and delivery.lease_until < at:
            return f"worker {delivery.worker} stopped answering; the relay tries again"
        return f"sending now, attempt {delivery.attempt}"
    if delivery.state != DeliveryState.PENDING:
        return ""
    last = f"; last error: {delivery.error}" if delivery.error else ""
    if delivery.not_before > at:
        next_try = f"attempt {delivery.attempt + 1} in {between(at, delivery.not_before)}"
        return f"{next_try}, tried for {between(at, delivery.deadline_at)} more{last}"
    if _overdue(delivery.not_before, settings, at):
        return (
            f"due for {between(delivery.not_before, at)} and no worker took it;"
            f" is one running? {_ADVICE}{last}"
        )
    return f"waits for the delivery worker{last}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _overdue(due_at: datetime, settings: Settings, at: datetime) -> bool:
    # The relay writes a lost message again after `redispatch_s`; twice that says that something is down.
    return (at - due_at).total_seconds() > 2 * settings.redispatch_s
