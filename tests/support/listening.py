"""The listener, here or as a process of its own; what it kept; and a sender that can stop within an object."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from pydicom.uid import UID
from pynetdicom import AE, _config
from pynetdicom.association import Association
from pynetdicom.dimse_messages import C_STORE_RQ
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.dsutils import split_dataset
from pynetdicom.presentation import build_context
from sqlalchemy import select

from node import listener, schema, scu
from node.blobs import BlobStore, sha256_of
from node.config import Settings, child_environment
from node.db import Database
from node.deliveries import Destination
from node.listener import Listener
from node.models import Base, Instance
from tests.support.services import wait_until

Row = TypeVar("Row", bound=Base)

_PROGRAM = (
    "from node import listener, log; from node.config import load_settings; settings = load_settings();"
    " log.setup(settings.log_level, 'listener'); listener.run(settings)"
)


class ListenerProcess:
    """A listener in another process; its log lines lie in `log`. `command` is put in front of its words."""

    def __init__(self, settings: Settings, command: Sequence[str] = ()) -> None:
        self.settings = settings
        settings.home.mkdir(parents=True, exist_ok=True)
        self.log = settings.home / f"listener-{time.monotonic_ns()}.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*command, sys.executable, "-c", _PROGRAM],
                stderr=log,
                env=child_environment(settings),
            )
        wait_until(lambda: self._events("listening") or self.process.poll() is not None, 30, "port")
        [listening] = self._events("listening")
        self.port = int(str(listening["port"]))

    @property
    def destination(self) -> Destination:
        """The listener as a destination."""
        return Destination("node", "DICOM", self.settings.ae_title, "127.0.0.1", self.port, None)

    @property
    def peak_rss_bytes(self) -> int:
        """The most memory it ever had resident."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        [line] = [line for line in status.splitlines() if line.startswith("VmHWM")]
        return int(line.split()[1]) * 1024

    def terminate(self, timeout_s: float = 60) -> int:
        """SIGTERM; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout_s)

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        self.process.wait()

    def _events(self, event: str) -> list[dict[str, object]]:
        lines = self.log.read_text().splitlines()
        entries = [json.loads(line) for line in lines if line.startswith("{")]
        return [entry for entry in entries if entry["event"] == event]


@contextmanager
def listening(settings: Settings) -> Iterator[ListenerProcess]:
    """A listener for the duration of the block."""
    running = ListenerProcess(settings)
    try:
        yield running
    finally:
        running.kill()


@contextmanager
def running(settings: Settings) -> Iterator[Listener]:
    """A listener in this process, with a migrated database."""
    schema.upgrade(settings.db_url)
    started = listener.start(settings)
    try:
        yield started
    finally:
        started.stop(limit_s=5)


def send(settings: Settings, port: int, *files: Path, calling: str = "SENDER") -> list[str]:
    """Send files; the status of each, or why it was not sent."""
    sender = settings.model_copy(update={"ae_title": calling})
    results = scu.send_files("127.0.0.1", port, settings.ae_title, files, sender)
    return [result.status or result.reason for result in results]


def stored(settings: Settings) -> dict[str, str]:
    """SOP Instance UID -> digest of every row; each blob is there and whole."""
    db, store = Database(settings.db_url), BlobStore(settings.blob_root, settings.spool)
    with db.reading() as session:
        rows = session.execute(select(Instance.sop_uid, Instance.sha256)).all()
    db.dispose()
    for row in rows:
        assert sha256_of(store.path(row.sha256)) == row.sha256
    return {row.sop_uid: row.sha256 for row in rows}


def blobs(settings: Settings) -> list[Path]:
    """Every blob."""
    return sorted(p for p in settings.blob_root.glob("??/??/*") if p.is_file())


def left_behind(settings: Settings) -> list[Path]:
    """Files in the spool, and blobs without a row."""
    known = set(stored(settings).values())
    return [*spooled(settings), *(p for p in blobs(settings) if p.name not in known)]


def spooled(settings: Settings) -> list[Path]:
    """Files of objects on their way."""
    return list(settings.spool.iterdir())


def rows(settings: Settings, model: type[Row]) -> list[Row]:
    """Every row of a table."""
    db = Database(settings.db_url)
    with db.reading() as session:
        found = list(session.execute(select(model)).scalars())
    db.dispose()
    return found


def connects(port: int) -> bool:
    """Whether somebody listens on the port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def associated(
    port: int,
    *files: Path,
    called: str = "TOMONODE",
    calling: str = "SENDER",
    address: str = "127.0.0.1",
) -> Iterator[Association]:
    """An association that can carry these files; aborted at the end if it is still open."""
    _config.STORE_SEND_CHUNKED_DATASET = True
    entity = AE(calling)
    entity.acse_timeout = entity.dimse_timeout = 30
    metas = [split_dataset(file)[0] for file in files]
    pairs = {(m.MediaStorageSOPClassUID, m.TransferSyntaxUID) for m in metas}
    contexts = [build_context(*pair) for pair in pairs] or [build_context("1.2.840.10008.1.1")]
    association = entity.associate(address, port, contexts=contexts, ae_title=called)
    try:
        yield association
    finally:
        if association.is_established:
            association.abort()


class SplitSend:
    """A C-STORE request in two parts: what is sent first, then the rest, whenever the test wants."""

    def __init__(self, association: Association, path: Path) -> None:
        meta, offset = split_dataset(path)
        request = C_STORE()
        request.MessageID = 1
        request.Priority = 2
        request.AffectedSOPClassUID = UID(meta.MediaStorageSOPClassUID)
        request.AffectedSOPInstanceUID = UID(meta.MediaStorageSOPInstanceUID)
        request._dataset_path = (path, offset)
        message = C_STORE_RQ()
        message.primitive_to_message(request)
        [context] = association.accepted_contexts
        self._association = association
        self._fragments = message.encode_msg(context.context_id, 16384)

    def some(self, count: int) -> None:
        """Send the next fragments (the first is the command)."""
        for _ in range(count):
            self._association.dul.send_pdu(next(self._fragments))

    def rest(self) -> None:
        """Send all that is left."""
        for fragment in self._fragments:
            self._association.dul.send_pdu(fragment)

    def status(self) -> int | None:
        """The status of the answer; None where the association ended."""
        self._association._reactor_checkpoint.clear()
        wait_until(lambda: self._association._is_paused, 5, "the association to pause")
        _, answer = self._association.dimse.get_msg(block=True)
        self._association._reactor_checkpoint.set()
        return answer.Status if answer is not None else None
