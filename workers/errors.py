"""Errors of the workers. A message is one line: what failed, the value seen, what to do; never a patient attribute.

WorkerError
├── LeaseLost        the run or delivery went to somebody else, or is no longer wanted: stop, write nothing
├── UnknownModel     a run was queued for a model version that nothing here knows (also node's Permanent)
├── WeightsGone      a version's weights are not in the blob store, or are damaged (also node's Permanent)
├── NothingReadable  no object of the study can be read far enough to report on it (also node's Permanent)
├── DeviceMissing    the configured device is not here (also node's ConfigError)
├── DeliveryPaused   the peer, or a part of the answers, asks to be tried again (also node's Transient)
├── DeliveryRefused  the peer refused an object for good (also node's Permanent)
├── NoWayBack        who asked us to commit is no peer, and its association is gone (also node's Permanent)
├── Incomplete       a peer has answered, and not all of the study is here (also node's Transient)
├── Preempted        a training ends early, at its checkpoint: paused, cancelled, or its worker stops
├── UnusableImage    an image of a data set cannot be read (also node's Permanent)
├── OverLimit        a training used up its time or its room (also node's Permanent)
├── ProcessFailed    one of the processes of a training failed for good (also node's Permanent)
├── ProcessLost      one of the processes of a training died (also node's Transient)
└── DemoFailed       the demonstration did not come to its end
"""

from __future__ import annotations

from gmic.errors import Interrupted
from node.errors import ConfigError, Permanent, Transient


class WorkerError(Exception):
    """Base of every error the workers raise on purpose."""


class LeaseLost(WorkerError):
    """The run or delivery went to somebody else, or is no longer wanted."""


class UnknownModel(WorkerError, Permanent):
    """A run was queued for a model version that is neither registered nor configured."""


class WeightsGone(WorkerError, Permanent):
    """A version's weights are not in the blob store, or are other bytes than were registered."""


class NothingReadable(WorkerError, Permanent):
    """No object of the study can be read far enough to report on it."""


class DeviceMissing(WorkerError, ConfigError):
    """The configured device is not here."""


class DeliveryPaused(WorkerError, Transient):
    """A peer did not take everything, but may later."""


class DeliveryRefused(WorkerError, Permanent):
    """A peer refused at least one object, and would again."""


class NoWayBack(WorkerError, Permanent):
    """Who asked us to commit to objects is no peer, and its association is gone."""


class Incomplete(WorkerError, Transient):
    """A peer that was to send a study has answered, and not all of it is here."""


class Preempted(WorkerError, Interrupted):
    """A training ends early, at its checkpoint."""


class UnusableImage(WorkerError, Permanent):
    """An image of a data set cannot be read, though it could when the data set was frozen."""


class OverLimit(WorkerError, Permanent, Interrupted):
    """A training used up its time or its room."""


class ProcessFailed(WorkerError, Permanent):
    """One of the processes that train together failed, and would again."""


class ProcessLost(WorkerError, Transient):
    """One of the processes that train together died."""


class DemoFailed(WorkerError):
    """The demonstration did not come to its end."""
