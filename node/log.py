"""Structured logs: one JSON line an event on standard error, bound to study and run ids, without a patient attribute.

The processor `only_known_keys` is an allow-list: a key that is not on it never reaches a log, so that a patient name
cannot slip in with a careless keyword.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

ALLOWED_KEYS = frozenset(
    {
        "event", "level", "timestamp", "process", "exception",
        "study_id", "run_id", "delivery_id", "association_id", "peer", "worker", "queue", "task",
        "study_uid", "sop_uid", "sop_class", "syntax", "sha256", "calling_ae", "called_ae", "address",
        "state", "generation", "attempt", "reason", "error", "code", "status", "not_before",
        "bytes", "count", "frames", "laterality", "view", "seconds", "stage", "url", "host", "port",
        "pid", "exit_code", "path", "model", "device", "threads", "version", "sent", "failed", "free_mb",
        "reserve_mb", "mb_s", "signal", "transaction_uid", "rule",
    }
)  # fmt: skip


def only_known_keys(
    _logger: object, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Drop every key that is not on the allow-list, and say how many were dropped."""
    dropped = [key for key in event if key not in ALLOWED_KEYS]
    for key in dropped:
        del event[key]
    return event


def setup(level: str = "info", process: str = "") -> None:
    """Send structlog's events, and other libraries' warnings, to standard error as JSON lines."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            only_known_keys,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    structlog.contextvars.clear_contextvars()
    if process:
        structlog.contextvars.bind_contextvars(process=process)
    # Libraries may put data set values into their messages: only their level and logger name are kept.
    logging.basicConfig(handlers=[_LibraryHandler()], level=logging.WARNING, force=True)


class _LibraryHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        kind = record.exc_info[0].__name__ if record.exc_info and record.exc_info[0] else None
        get().warning(
            "library", reason=f"{record.name}:{record.lineno} {record.levelname}", code=kind
        )


def get() -> Any:
    """The logger; bind ids with `structlog.contextvars.bound_contextvars(study_id=..., run_id=...)`."""
    return structlog.get_logger()
