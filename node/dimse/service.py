"""What a service of the listener is made of."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from pynetdicom.association import Association
from structlog.contextvars import bound_contextvars

from node.activity import OpenAssociations
from node.admission import Offer
from node.blobs import BlobStore
from node.config import Settings
from node.db import Database
from node.dimse.serving import Operation


@dataclass(frozen=True)
class Resources:
    """What services work with; `log_context` is what the process has bound to its log lines."""

    settings: Settings
    db: Database
    store: BlobStore
    associations: OpenAssociations
    stopping: threading.Event
    log_context: Mapping[str, Any]

    @contextmanager
    def logging(self, association: Association) -> Iterator[None]:
        """Log lines of the block name the association: pynetdicom's threads do not inherit what is bound."""
        opened = self.associations.of(association)
        with bound_contextvars(**{**self.log_context, "association_id": str(opened.id)}):
            yield


@dataclass(frozen=True)
class Service:
    """One service: what it accepts, by SOP class, and what it does.

    `handlers` are pynetdicom's: (event, function, [further arguments]). `operations` are done here from the request to
    the last response, by class of pynetdicom's request primitive.
    """

    offers: Mapping[str, Offer]
    handlers: Sequence[tuple[Any, Callable[..., Any], list[Any]]] = ()
    operations: Mapping[type, Operation] = field(default_factory=dict)
