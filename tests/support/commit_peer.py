"""Another system that does storage commitment: it asks the node, takes its reports, and answers it, as scripted."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from pynetdicom import AE, build_role, evt
from pynetdicom.association import Association
from pynetdicom.events import Event
from pynetdicom.sop_class import StorageCommitmentPushModel as PushModel
from pynetdicom.sop_class import StorageCommitmentPushModelInstance as WellKnown

from node.commitments import Decided, Reference
from node.dimse.commitment_data import action_information, event_information
from tests.support.services import wait_until

AE_TITLE = "ARCHIVE"


@dataclass(frozen=True)
class Report:
    """A report as it came: event type, transaction, and each object's Failure Reason (None: committed)."""

    event_type: int
    transaction_uid: str
    objects: Mapping[str, int | None]
    role_asked: bool  # the association was opened by who reports, who proposed to be the SCP


@dataclass(frozen=True)
class Script:
    """What the peer does: the status it gives to a request or a report (by turn, the last goes on), what it says of
    objects (Failure Reason by SOP Instance UID), and where it reports ("same", "new" association, or "never")."""

    action_statuses: Sequence[int] = (0x0000,)
    report_statuses: Sequence[int] = (0x0000,)
    failures: Mapping[str, int] = field(default_factory=dict)
    reports: str = "same"
    node_port: int = 0
    hangs: bool = False  # a report is not answered before the peer is closed, or the script another


class CommitPeer:
    """The running peer; it listens on a free loopback port."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.reports: list[Report] = []
        self.asked: list[tuple[str, tuple[str, ...]]] = []  # transactions, with their objects
        self._closing = threading.Event()
        self._threads: list[threading.Thread] = []
        self._entity = AE(AE_TITLE)
        self._entity.acse_timeout = self._entity.dimse_timeout = 30
        self._entity.add_supported_context(PushModel, scu_role=True, scp_role=True)
        handlers = [(evt.EVT_N_EVENT_REPORT, self._on_report), (evt.EVT_N_ACTION, self._on_action)]
        self._server = self._entity.start_server(
            ("127.0.0.1", 0), block=False, evt_handlers=handlers
        )

    @property
    def port(self) -> int:
        """The TCP port it listens on."""
        port: int = self._server.server_address[1]
        return port

    def close(self) -> None:
        """End every association and the peer."""
        self._closing.set()
        for thread in self._threads:
            thread.join(30)
        self._entity.shutdown()

    @contextmanager
    def association(self, port: int, title: str = AE_TITLE) -> Iterator[Association]:
        """An association with the node, on which it may report; released at the end."""
        entity = AE(title)
        entity.acse_timeout = entity.dimse_timeout = 30
        entity.add_requested_context(PushModel)
        made = entity.associate(
            "127.0.0.1",
            port,
            ae_title="TOMONODE",
            evt_handlers=[(evt.EVT_N_EVENT_REPORT, self._on_report)],
        )
        assert made.is_established
        yield made
        if made.is_established:
            made.release()

    def ask(
        self, association: Association, references: Sequence[Reference], transaction: str = ""
    ) -> tuple[str, int]:
        """Ask the node to commit; the transaction, and the status of the answer."""
        transaction = transaction or generate_uid()
        information = action_information(transaction, references)
        status, _ = association.send_n_action(information, 1, PushModel, WellKnown)
        return transaction, int(status.Status)

    def wait_reports(self, count: int) -> list[Report]:
        """Until so many reports have come."""
        wait_until(lambda: len(self.reports) >= count, 20, f"{count} reports")
        return self.reports

    def _on_report(self, event: Event) -> tuple[int, None]:
        told = event.event_information
        objects: dict[str, int | None] = {
            str(item.ReferencedSOPInstanceUID): None
            for item in told.get("ReferencedSOPSequence", [])
        }
        for item in told.get("FailedSOPSequence", []):
            objects[str(item.ReferencedSOPInstanceUID)] = int(item.FailureReason)
        roles = event.assoc.requestor.role_selection
        scp = event.assoc.is_acceptor and PushModel in roles and bool(roles[PushModel].scp_role)
        self.reports.append(Report(event.event_type, str(told.TransactionUID), objects, scp))
        while self.script.hangs and event.assoc.is_established and not self._closing.wait(0.05):
            pass
        statuses = self.script.report_statuses
        return statuses[min(len(self.reports), len(statuses)) - 1], None

    def _on_action(self, event: Event) -> tuple[int, None]:
        asked = event.action_information
        references = [
            Reference(str(item.ReferencedSOPClassUID), str(item.ReferencedSOPInstanceUID))
            for item in asked.ReferencedSOPSequence
        ]
        self.asked.append((str(asked.TransactionUID), tuple(one.sop_uid for one in references)))
        statuses = self.script.action_statuses
        status = statuses[min(len(self.asked), len(statuses)) - 1]
        if status == 0 and self.script.reports != "never":
            arguments = (event.assoc, str(asked.TransactionUID), references)
            thread = threading.Thread(target=self._report, args=arguments)
            self._threads.append(thread)
            thread.start()
        return status, None

    def _report(
        self, association: Association, transaction: str, references: Sequence[Reference]
    ) -> None:
        decided = [Decided(one, self.script.failures.get(one.sop_uid)) for one in references]
        kind, information = event_information(transaction, decided)
        if self.script.reports == "same":
            association.send_n_event_report(information, kind, PushModel, WellKnown)
            return
        status = self.report_anew(information, kind)
        assert status == 0x0000

    def report_anew(self, information: Dataset, kind: int) -> int:
        """Report on an association of our own, in the role of the SCP; the node's status."""
        entity = AE(AE_TITLE)
        entity.acse_timeout = entity.dimse_timeout = 30
        entity.add_requested_context(PushModel)
        made = entity.associate(
            "127.0.0.1",
            self.script.node_port,
            ae_title="TOMONODE",
            ext_neg=[build_role(PushModel, scp_role=True)],
        )
        assert made.is_established
        status, _ = made.send_n_event_report(information, kind, PushModel, WellKnown)
        made.release()
        return int(status.Status)


@contextmanager
def commit_peer(script: Script | None = None) -> Iterator[CommitPeer]:
    """A peer for the duration of the block."""
    peer = CommitPeer(script or Script())
    try:
        yield peer
    finally:
        peer.close()
