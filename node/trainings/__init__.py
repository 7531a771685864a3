"""Trainings: request, claim, heartbeat, end. Fenced by `attempt`, as runs are: who lost the lease changes nothing.

A training is named by what decides its weights, `request_hash`, so that two launches of the same training are one. What
an operator wants of a running one (`wanted`) is asked in the row; its worker looks between batches.
"""

from __future__ import annotations

from node.trainings.ending import cancel, dispatch_due, find, pause, reap, resume, retry
from node.trainings.launch import Request, newly_labelled, request, request_hash, unlearnable
from node.trainings.work import (
    Base,
    Claim,
    Holder,
    Image,
    Standing,
    claim,
    epochs_done,
    fail,
    heartbeat,
    inference_waits,
    record_epoch,
    release,
    standing,
    still_held,
    succeed,
)

__all__ = [
    "Base", "Claim", "Holder", "Image", "Request", "Standing", "cancel", "claim", "dispatch_due",
    "epochs_done", "fail", "find",
    "heartbeat", "inference_waits", "newly_labelled", "pause", "reap", "record_epoch", "release", "request",
    "request_hash", "resume", "retry", "standing", "still_held", "succeed", "unlearnable",
]  # fmt: skip
