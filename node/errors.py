"""Errors of the node. A message is one line: what failed, the value seen, what to do; never a patient attribute.

NodeError
├── ConfigError            a setting cannot be used
├── IllegalTransition      a state machine was asked for a change it does not have
├── NotFound               no such study, run, delivery or peer
├── Conflict               the operator's wish does not fit the present state
├── StartFailed            a part of the node ended, or did not answer, while `up` waited for it
├── Transient              the world outside failed and may recover: try again later
│   ├── DatabaseUnavailable
│   ├── BrokerUnavailable
│   ├── DiskFull
│   └── PeerUnavailable    no connection, rejected for now, aborted, or out of resources
└── Permanent              trying again would fail again
    ├── UnreadableObject   bytes that are no DICOM data set
    ├── InvalidLabel       a label, or a file of labels, that cannot be
    └── PeerRefused        the peer answered and does not want this
"""

from __future__ import annotations


class NodeError(Exception):
    """Base of every error the node raises on purpose."""

    @property
    def code(self) -> str:
        """A stable word for logs and tables, such as `PeerRefused`."""
        return type(self).__name__


class ConfigError(NodeError):
    """A setting cannot be used."""


class IllegalTransition(NodeError):
    """A state machine was asked for a change that its table does not have."""


class NotFound(NodeError):
    """No such study, run, delivery or peer."""


class Conflict(NodeError):
    """The wish does not fit the present state."""


class StartFailed(NodeError):
    """A part of the node did not get ready."""


class Transient(NodeError):
    """The world outside failed and may recover."""


class DatabaseUnavailable(Transient):
    """The database does not answer or has no room."""


class BrokerUnavailable(Transient):
    """Redis does not answer."""


class DiskFull(Transient):
    """The blob file system is at its reserve."""


class PeerUnavailable(Transient):
    """A peer cannot be reached, or asks to be tried later."""


class Permanent(NodeError):
    """Trying again would fail again."""


class UnreadableObject(Permanent):
    """Bytes that are no DICOM data set the node can file."""


class InvalidLabel(Permanent):
    """A label, or a file of labels, that cannot be."""


class PeerRefused(Permanent):
    """A peer answered and does not want this."""
