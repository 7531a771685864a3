"""Errors of the workers. A message is one line: what failed, the value seen, what to do; never a patient attribute.

WorkerError
├── LeaseLost        the run or delivery went to somebody else, or is no longer wanted: stop, write nothing
├── ModelMismatch    a run was queued for another model version than this worker holds (also node's Transient)
├── NothingReadable  no object of the study can be read far enough to report on it (also node's Permanent)
├── DeviceMissing    the configured device is not here (also node's ConfigError)
├── DeliveryPaused   the peer, or a part of the answers, asks to be tried again (also node's Transient)
├── DeliveryRefused  the peer refused an object for good (also node's Permanent)
└── DemoFailed       the demonstration did not come to its end
"""

from __future__ import annotations

from node.errors import ConfigError, Permanent, Transient


class WorkerError(Exception):
    """Base of every error the workers raise on purpose."""


class LeaseLost(WorkerError):
    """The run or delivery went to somebody else, or is no longer wanted."""


class ModelMismatch(WorkerError, Transient):
    """A run was queued for another model version than this worker holds; another worker may hold it."""


class NothingReadable(WorkerError, Permanent):
    """No object of the study can be read far enough to report on it."""


class DeviceMissing(WorkerError, ConfigError):
    """The configured device is not here."""


class DeliveryPaused(WorkerError, Transient):
    """A peer did not take everything, but may later."""


class DeliveryRefused(WorkerError, Permanent):
    """A peer refused at least one object, and would again."""


class DemoFailed(WorkerError):
    """The demonstration did not come to its end."""
