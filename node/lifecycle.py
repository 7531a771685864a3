"""The state machines, as tables. Nothing else in the project decides what state follows what.

Study     what was received:        RECEIVING -> COMPLETE | EXCLUDED, and back when an image arrives late
Run       study generation x model: QUEUED -> RUNNING -> SUCCEEDED | FAILED, SUPERSEDED by a new generation
Delivery  run x peer:               PENDING -> SENDING -> SENT | FAILED, CANCELLED when its run is superseded
Training  data set x recipe:        QUEUED -> RUNNING -> SUCCEEDED | FAILED | CANCELLED, PAUSED in between
Commitment  asked of us or by us:   PENDING -> SENDING -> DONE | FAILED
Pull      a study at a peer:        PENDING -> RUNNING -> DONE | FAILED | CANCELLED
Model     one set of weights:       CANDIDATE -> SHADOW -> ACTIVE -> RETIRED; only a person moves it

A table maps (state, event) to the next state; a pair that is not in it cannot happen. Changes reach the database only
through `node.db.transition`, which turns a row of the table into one conditional UPDATE.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum

from node.errors import IllegalTransition


class StudyState(StrEnum):
    """What has been received of a study."""

    RECEIVING = "RECEIVING"
    COMPLETE = "COMPLETE"
    EXCLUDED = "EXCLUDED"


class StudyEvent(StrEnum):
    """What can happen to a study."""

    CLOSE = "CLOSE"  # quiet, all views there, deadline or operator
    EXCLUDE = "EXCLUDE"  # closed, and nothing in it can be read
    IMAGE_ARRIVED = "IMAGE_ARRIVED"  # a new image object was stored


class RunState(StrEnum):
    """Where a run of one model over one study generation stands."""

    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    SUPERSEDED = "SUPERSEDED"


class RunEvent(StrEnum):
    """What can happen to a run."""

    CLAIM = "CLAIM"
    SUCCEED = "SUCCEED"
    FAIL = "FAIL"
    REQUEUE = "REQUEUE"  # transient error or expired lease
    RETRY = "RETRY"  # operator
    SUPERSEDE = "SUPERSEDE"  # a later generation of the study exists


class DeliveryState(StrEnum):
    """Where the sending of one run's results to one peer stands."""

    PENDING = "PENDING"
    SENDING = "SENDING"
    SENT = "SENT"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


class DeliveryEvent(StrEnum):
    """What can happen to a delivery."""

    CLAIM = "CLAIM"
    SENT = "SENT"
    FAIL = "FAIL"
    REQUEUE = "REQUEUE"
    RETRY = "RETRY"
    CANCEL = "CANCEL"


class TrainingState(StrEnum):
    """Where a training stands."""

    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    PAUSED = "PAUSED"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


class TrainingEvent(StrEnum):
    """What can happen to a training."""

    CLAIM = "CLAIM"
    SUCCEED = "SUCCEED"
    FAIL = "FAIL"
    REQUEUE = "REQUEUE"  # transient error or expired lease: goes on from its checkpoint
    PAUSE = "PAUSE"  # an administrator, or a more urgent training
    RESUME = "RESUME"
    CANCEL = "CANCEL"
    RETRY = "RETRY"


class CommitmentState(StrEnum):
    """Where a storage commitment stands."""

    PENDING = "PENDING"  # of us: the answer is not out; by us: not asked yet, or not answered
    SENDING = "SENDING"
    DONE = "DONE"  # answered; its items say what is committed
    FAILED = "FAILED"  # not answered, or not asked, until the deadline


class CommitmentEvent(StrEnum):
    """What can happen to a storage commitment."""

    CLAIM = "CLAIM"
    REQUEUE = "REQUEUE"  # no way through now, lease ran out, or asked and waiting for the answer
    ANSWER = "ANSWER"
    FAIL = "FAIL"
    RETRY = "RETRY"  # asked of us once more, or an operator asks once more


class PullState(StrEnum):
    """Where the fetching of a study stands."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    DONE = "DONE"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


class PullEvent(StrEnum):
    """What can happen to a pull."""

    CLAIM = "CLAIM"
    REQUEUE = "REQUEUE"
    FINISH = "FINISH"
    FAIL = "FAIL"
    CANCEL = "CANCEL"


class ModelState(StrEnum):
    """What a model version is used for."""

    CANDIDATE = "CANDIDATE"
    SHADOW = "SHADOW"  # reads every study; what it says is stored and never delivered
    ACTIVE = "ACTIVE"  # answers for the node; there is at most one
    RETIRED = "RETIRED"


class ModelEvent(StrEnum):
    """What a person can do with a model version."""

    SHADOW = "SHADOW"
    WITHDRAW = "WITHDRAW"  # from shadow
    PROMOTE = "PROMOTE"
    RETIRE = "RETIRE"


STUDY: Mapping[tuple[StudyState, StudyEvent], StudyState] = {
    (StudyState.RECEIVING, StudyEvent.CLOSE): StudyState.COMPLETE,
    (StudyState.RECEIVING, StudyEvent.EXCLUDE): StudyState.EXCLUDED,
    (StudyState.COMPLETE, StudyEvent.IMAGE_ARRIVED): StudyState.RECEIVING,
    (StudyState.EXCLUDED, StudyEvent.IMAGE_ARRIVED): StudyState.RECEIVING,
}

RUN: Mapping[tuple[RunState, RunEvent], RunState] = {
    (RunState.QUEUED, RunEvent.CLAIM): RunState.RUNNING,
    (RunState.RUNNING, RunEvent.SUCCEED): RunState.SUCCEEDED,
    (RunState.RUNNING, RunEvent.FAIL): RunState.FAILED,
    (RunState.RUNNING, RunEvent.REQUEUE): RunState.QUEUED,
    (RunState.FAILED, RunEvent.RETRY): RunState.QUEUED,
    (RunState.QUEUED, RunEvent.SUPERSEDE): RunState.SUPERSEDED,
    (RunState.RUNNING, RunEvent.SUPERSEDE): RunState.SUPERSEDED,
    (RunState.SUCCEEDED, RunEvent.SUPERSEDE): RunState.SUPERSEDED,
    (RunState.FAILED, RunEvent.SUPERSEDE): RunState.SUPERSEDED,
}

DELIVERY: Mapping[tuple[DeliveryState, DeliveryEvent], DeliveryState] = {
    (DeliveryState.PENDING, DeliveryEvent.CLAIM): DeliveryState.SENDING,
    (DeliveryState.SENDING, DeliveryEvent.SENT): DeliveryState.SENT,
    (DeliveryState.SENDING, DeliveryEvent.FAIL): DeliveryState.FAILED,
    (DeliveryState.SENDING, DeliveryEvent.REQUEUE): DeliveryState.PENDING,
    (DeliveryState.FAILED, DeliveryEvent.RETRY): DeliveryState.PENDING,
    # an operator, where the peer gets more kinds now than then
    (DeliveryState.SENT, DeliveryEvent.RETRY): DeliveryState.PENDING,
    (DeliveryState.PENDING, DeliveryEvent.CANCEL): DeliveryState.CANCELLED,
    (DeliveryState.SENDING, DeliveryEvent.CANCEL): DeliveryState.CANCELLED,
    (DeliveryState.FAILED, DeliveryEvent.CANCEL): DeliveryState.CANCELLED,
}

TRAINING: Mapping[tuple[TrainingState, TrainingEvent], TrainingState] = {
    (TrainingState.QUEUED, TrainingEvent.CLAIM): TrainingState.RUNNING,
    (TrainingState.RUNNING, TrainingEvent.SUCCEED): TrainingState.SUCCEEDED,
    (TrainingState.RUNNING, TrainingEvent.FAIL): TrainingState.FAILED,
    (TrainingState.RUNNING, TrainingEvent.REQUEUE): TrainingState.QUEUED,
    (TrainingState.QUEUED, TrainingEvent.PAUSE): TrainingState.PAUSED,
    (TrainingState.RUNNING, TrainingEvent.PAUSE): TrainingState.PAUSED,
    (TrainingState.PAUSED, TrainingEvent.RESUME): TrainingState.QUEUED,
    (TrainingState.QUEUED, TrainingEvent.CANCEL): TrainingState.CANCELLED,
    (TrainingState.RUNNING, TrainingEvent.CANCEL): TrainingState.CANCELLED,
    (TrainingState.PAUSED, TrainingEvent.CANCEL): TrainingState.CANCELLED,
    (TrainingState.FAILED, TrainingEvent.RETRY): TrainingState.QUEUED,
}

COMMITMENT: Mapping[tuple[CommitmentState, CommitmentEvent], CommitmentState] = {
    (CommitmentState.PENDING, CommitmentEvent.CLAIM): CommitmentState.SENDING,
    (CommitmentState.SENDING, CommitmentEvent.REQUEUE): CommitmentState.PENDING,
    (CommitmentState.PENDING, CommitmentEvent.ANSWER): CommitmentState.DONE,
    (CommitmentState.SENDING, CommitmentEvent.ANSWER): CommitmentState.DONE,
    (CommitmentState.PENDING, CommitmentEvent.FAIL): CommitmentState.FAILED,
    (CommitmentState.SENDING, CommitmentEvent.FAIL): CommitmentState.FAILED,
    (CommitmentState.DONE, CommitmentEvent.RETRY): CommitmentState.PENDING,
    (CommitmentState.FAILED, CommitmentEvent.RETRY): CommitmentState.PENDING,
}

PULL: Mapping[tuple[PullState, PullEvent], PullState] = {
    (PullState.PENDING, PullEvent.CLAIM): PullState.RUNNING,
    (PullState.RUNNING, PullEvent.REQUEUE): PullState.PENDING,
    (PullState.RUNNING, PullEvent.FINISH): PullState.DONE,
    (PullState.RUNNING, PullEvent.FAIL): PullState.FAILED,
    (PullState.PENDING, PullEvent.CANCEL): PullState.CANCELLED,
    (PullState.RUNNING, PullEvent.CANCEL): PullState.CANCELLED,
    (PullState.FAILED, PullEvent.CANCEL): PullState.CANCELLED,  # nobody wants it any more
}

MODEL: Mapping[tuple[ModelState, ModelEvent], ModelState] = {
    (ModelState.CANDIDATE, ModelEvent.SHADOW): ModelState.SHADOW,
    (ModelState.RETIRED, ModelEvent.SHADOW): ModelState.SHADOW,
    (ModelState.SHADOW, ModelEvent.WITHDRAW): ModelState.CANDIDATE,
    (ModelState.CANDIDATE, ModelEvent.PROMOTE): ModelState.ACTIVE,
    (ModelState.SHADOW, ModelEvent.PROMOTE): ModelState.ACTIVE,
    (ModelState.RETIRED, ModelEvent.PROMOTE): ModelState.ACTIVE,
    (ModelState.ACTIVE, ModelEvent.RETIRE): ModelState.RETIRED,
    (ModelState.SHADOW, ModelEvent.RETIRE): ModelState.RETIRED,
    (ModelState.CANDIDATE, ModelEvent.RETIRE): ModelState.RETIRED,
}

_TABLE_OF = {
    StudyEvent: STUDY,
    RunEvent: RUN,
    DeliveryEvent: DELIVERY,
    TrainingEvent: TRAINING,
    CommitmentEvent: COMMITMENT,
    PullEvent: PULL,
    ModelEvent: MODEL,
}

Event = (
    StudyEvent | RunEvent | DeliveryEvent | TrainingEvent | CommitmentEvent | PullEvent | ModelEvent
)


def sources_and_target(event: Event) -> tuple[frozenset[str], str]:
    """States an event may come from, and the one it leads to. Every event of our tables has one target."""
    table: Mapping[tuple[StrEnum, StrEnum], StrEnum] = _TABLE_OF[type(event)]  # type: ignore[assignment]
    rows = {state.value: to.value for (state, ev), to in table.items() if ev is event}
    targets = set(rows.values())
    if len(targets) != 1:
        raise IllegalTransition(
            f"event {event} leads to {sorted(targets)}; an event leads to one state"
        )
    return frozenset(rows), targets.pop()


def status(study: str, run: str | None, deliveries: Iterable[str]) -> str:
    """The one word a person sees, from the three states: receiving, excluded, not read (closed without a run), queued,
    running, failed, delivering, delivery failed, delivered, done (nothing to deliver)."""
    if study == StudyState.RECEIVING:
        return "receiving"
    if study == StudyState.EXCLUDED:
        return "excluded"
    if run in (None, RunState.SUPERSEDED):
        return "not read"
    if run == RunState.QUEUED:
        return "queued"
    if run == RunState.RUNNING:
        return "running"
    if run == RunState.FAILED:
        return "failed"
    live = [d for d in deliveries if d != DeliveryState.CANCELLED]
    if any(d in (DeliveryState.PENDING, DeliveryState.SENDING) for d in live):
        return "delivering"
    if any(d == DeliveryState.FAILED for d in live):
        return "delivery failed"
    return "delivered" if live else "done"
