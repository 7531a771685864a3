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
│   ├── BlobStoreUnavailable   the shared blob store does not answer, or does not let us in
│   │   └── BlobAbsent         it answers and does not have a blob, or not yet (also FileNotFoundError)
│   ├── BlobDamaged        it gave other bytes than the digest says
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


class BlobStoreUnavailable(Transient):
    """The shared blob store does not answer, or does not let us read and write."""


class BlobAbsent(BlobStoreUnavailable, FileNotFoundError):
    """Neither this host nor the shared store has a blob; its own host may still be copying it."""


class BlobDamaged(Transient):
    """The shared store gave other bytes than the digest says."""


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
