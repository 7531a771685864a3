"""C-STORE (PS3.4 annex B): one object is here; what became of it is turned into a status and a log line."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from pydicom.dataset import Dataset
from pynetdicom import evt
from pynetdicom.events import Event

from dicom_io.errors import DicomIoError
from node import log
from node.admission import STORED
from node.arrivals import Recorded
from node.dimse.service import Resources, Service
from node.errors import NodeError
from node.ingest import Answer, ShuttingDown, answer, ingest
from node.spool import Command, SpoolFile


def service(resources: Resources) -> Service:
    """Storage, of every class of patients' objects."""
    return Service(STORED, [(evt.EVT_C_STORE, on_store, [resources])])


def open_file(resources: Resources, command: Command) -> SpoolFile:
    """Where an object that begins to arrive is written to."""
    if resources.stopping.is_set():
        why = ShuttingDown("the listener is stopping")
        return SpoolFile.refused(resources.store, command, why)
    reserve = resources.settings.disk_reserve_mb * 2**20
    return SpoolFile.create(resources.store, reserve, command)


def on_store(event: Event, resources: Resources) -> Dataset:
    """Keep an object that has come completely; what its sender is told."""
    started = time.monotonic()
    opened = resources.associations.of(event.assoc)
    calling_ae = str(event.assoc.requestor.ae_title)
    # pynetdicom hands the file on under this name; `dataset_path` would give the path without the rest.
    file: SpoolFile | None = event.request._dataset_file
    if file is None:
        return _as_dataset(Answer(0xC000, "the request came without a data set"))
    with _finished(event, file), resources.logging(event.assoc):
        outcome: Recorded | Exception
        try:
            outcome, arrival = ingest(file, resources.store, resources.db, calling_ae)
            opened.studies.add(arrival.study_uid)
        except Exception as error:  # noqa: BLE001 - the boundary to the sender: every outcome becomes a status
            outcome = error
        told = answer(outcome)
        with suppress(OSError):  # a log without room must not change the answer
            _log_outcome(outcome, told, file, calling_ae, time.monotonic() - started)
    return _as_dataset(told)


@contextmanager
def _finished(event: Event, file: SpoolFile) -> Iterator[None]:
    """Remove the spool file at the end, whatever happened."""
    try:
        yield
    finally:
        file.discard()
        # The time it took to store is not the sender's silence; pynetdicom would count it as such.
        event.assoc.dul._idle_timer.restart()


def _as_dataset(told: Answer) -> Dataset:
    status = Dataset()
    status.Status = told.status
    if told.comment:
        status.ErrorComment = told.comment
    return status


def _log_outcome(
    outcome: Recorded | Exception, told: Answer, file: SpoolFile, calling_ae: str, seconds: float
) -> None:
    facts = {
        "sop_uid": file.command.sop_uid,
        "sop_class": file.command.sop_class_uid,
        "syntax": file.command.transfer_syntax_uid,
        "calling_ae": calling_ae,
        "bytes": file.size,
        "seconds": round(seconds, 3),
        "status": f"0x{told.status:04X}",
    }
    if isinstance(outcome, Recorded):
        log.get().info("object stored", state=outcome.value, sha256=file.sha256, **facts)
    else:
        # Only our own messages are free of the object's content.
        own = isinstance(outcome, NodeError | DicomIoError)
        reason = str(outcome) if own else told.comment
        log.get().warning("object refused", code=type(outcome).__name__, reason=reason, **facts)
