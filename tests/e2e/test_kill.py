"""kill -9 of every process at every step of a study, and at random moments: nothing acknowledged is lost, nothing is
delivered twice as different instances, everything finishes. On both databases, 26 kills in all."""

from __future__ import annotations

import itertools
import random
import threading
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest
from sqlalchemy import func, select

from node import schema, scu
from node.blobs import BlobStore, sha256_of
from node.config import Settings
from node.db import Database, now
from node.errors import DatabaseUnavailable
from node.lifecycle import DeliveryState, RunState, StudyState
from node.models import Artifact, Delivery, Instance, Peer, Run, Study
from tests.conftest import make_settings
from tests.support.node_process import free_port, node_process
from tests.support.pacs import Pacs, Script, pacs
from tests.support.services import wait_until
from workers.phantom import PhantomPlan, write_phantom

VIEWS = ("L-CC", "R-CC")
TARGETS = ("listener", "relay", "inference", "delivery", "redis", "up")
STEPS = ("receiving", "queued", "running", "delivering")
PAIRS = [*itertools.product(STEPS, TARGETS), ("running", "web"), ("any", "inference")]


class Sender(threading.Thread):
    """Sends small studies, one after the other, each object until it is acknowledged, a few ahead of the node."""

    def __init__(self, settings: Settings, db: Database, folder: Path) -> None:
        super().__init__(daemon=True)
        self.acknowledged: dict[str, str] = {}  # SOP Instance UID -> digest of its data set
        self.studies: list[str] = []
        self.trouble: BaseException | None = None
        self._settings, self._db, self._folder = settings, db, folder
        self.enough = threading.Event()

    def run(self) -> None:
        try:
            for number in itertools.count(1):
                if self.enough.is_set():
                    return
                self._send(number)
                while self._unfinished() >= 2 and not self.enough.wait(0.1):
                    pass
        except BaseException as error:  # noqa: BLE001 — told to the test, which fails with it
            self.trouble = error

    def _send(self, number: int) -> None:
        folder = self._folder / str(number)
        plan = PhantomPlan(seed=1000 + number, views=VIEWS, shape=(2, 900, 700), lesion=None)
        write_phantom(folder, plan)
        files = sorted(folder.glob("*.dcm"))
        self.studies.append(
            str(pydicom.dcmread(files[0], stop_before_pixels=True).StudyInstanceUID)
        )
        waiting = list(files)
        while waiting:
            results = scu.send_files(
                "127.0.0.1", self._settings.listen_port, "TOMONODE", waiting, self._settings
            )
            for result in results:
                if result.status == "0x0000":
                    waiting.remove(result.path)
                    uid, digest = data_set(result.path)
                    self.acknowledged[uid] = digest
            if waiting:
                threading.Event().wait(0.2)

    def _unfinished(self) -> int:
        try:
            with self._db.reading() as session:
                sent = (
                    select(Run.study_id).join(Delivery).where(Delivery.state == DeliveryState.SENT)
                )
                query = select(func.count()).select_from(Study).where(Study.id.not_in(sent))
                return session.execute(query).scalar_one()
        except DatabaseUnavailable:
            return 99


def data_set(path: Path) -> tuple[str, str]:
    """SOP Instance UID, and what of the file must never change: here, all of the pixel data."""
    read = pydicom.dcmread(path)
    return str(read.SOPInstanceUID), str(hash(read.PixelData))


def at_step(db: Database, step: str) -> bool:
    """Whether some study is at this step now."""
    query = {
        "any": select(func.count()).select_from(Study),
        "receiving": select(func.count()).where(Study.state == StudyState.RECEIVING),
        "queued": select(func.count()).where(Run.state == RunState.QUEUED),
        "running": select(func.count()).where(Run.state == RunState.RUNNING),
        "delivering": select(func.count()).where(
            Delivery.state.in_((DeliveryState.PENDING, DeliveryState.SENDING))
        ),
    }[step]
    try:
        with db.reading() as session:
            return session.execute(query).scalar_one() > 0
    except DatabaseUnavailable:
        return False


@pytest.fixture
def peer() -> Iterator[Pacs]:
    """A slow receiving PACS, so that there is something to interrupt."""
    with pacs(Script(delay_s=0.3)) as running:
        yield running


@pytest.mark.timeout(900)
def test_kills_lose_nothing_and_deliver_nothing_twice(
    tmp_path: Path, database_url: str, peer: Pacs
) -> None:
    sqlite = database_url.startswith("sqlite")
    pairs = PAIRS[::2] if sqlite else PAIRS[1::2]
    settings = make_settings(
        tmp_path / "home", database_url=database_url, listen_port=free_port(), web_port=free_port(),
        expected_views=VIEWS, quiet_s=60.0, views_quiet_s=0.5, lease_s=4.0, redispatch_s=3.0, max_attempts=20,
    )  # fmt: skip
    schema.upgrade(settings.db_url)
    db = Database(settings.db_url)
    with db.transaction() as session:
        session.add(
            Peer(
                name="pacs",
                kind="DICOM",
                ae_title="PACS",
                host="127.0.0.1",
                port=peer.port,
                created_at=now(session),
            )
        )
    chance = random.Random(20261121 + sqlite)
    order = chance.sample(pairs, len(pairs))
    kills = 0
    with node_process(settings) as node:
        sender = Sender(settings, db, tmp_path / "sent")
        sender.start()
        for step, target in order:
            wait_until(
                lambda step=step: at_step(db, step) or sender.trouble, 120, f"a study at {step}"
            )
            threading.Event().wait(chance.uniform(0, 0.8))
            wait_until(lambda target=target: node.kill(target), 60, f"{target} to be there")
            kills += 1
        sender.enough.set()
        sender.join(timeout=120)
        assert sender.trouble is None, sender.trouble
        assert not sender.is_alive()
        wait_until(lambda: finished(db, sender.studies), 240, "every study to be delivered")
        check_store(db, settings, sender)
        check_peer(db, peer, sender.studies)
        assert node.stop() == 0
    check_logs(settings)
    db.dispose()
    assert kills == 13


def finished(db: Database, study_uids: list[str]) -> bool:
    """Whether every study has one live run, succeeded and sent."""
    with db.reading() as session:
        done = (
            select(Study.study_uid)
            .join(Run)
            .join(Delivery)
            .where(Run.state == RunState.SUCCEEDED, Delivery.state == DeliveryState.SENT)
        )
        return set(session.execute(done).scalars()) == set(study_uids)


def check_store(db: Database, settings: Settings, sender: Sender) -> None:
    """Every acknowledged object has its row, its blob is whole, and its content is what was sent."""
    store = BlobStore(settings.blob_root, settings.spool)
    with db.reading() as session:
        rows = {
            row.sop_uid: row.sha256
            for row in session.execute(select(Instance.sop_uid, Instance.sha256))
        }
    assert sender.acknowledged
    assert set(sender.acknowledged) <= set(rows)
    for uid, content in sender.acknowledged.items():
        path = store.path(rows[uid])
        assert sha256_of(path) == rows[uid]
        assert data_set(path) == (uid, content)


def check_peer(db: Database, peer: Pacs, study_uids: list[str]) -> None:
    """The peer has exactly the artifacts, each always with the same bytes, one report a study."""
    digests: dict[str, set[str]] = {}
    for one in peer.stored:
        digests.setdefault(one.sop_uid, set()).add(one.sha256)
    assert all(len(found) == 1 for found in digests.values()), (
        "an instance arrived with different bytes"
    )
    with db.reading() as session:
        query = (
            select(Artifact.sop_uid, Artifact.kind, Run.study_id)
            .join(Run)
            .where(Artifact.sop_uid.is_not(None))
        )
        artifacts = session.execute(query).all()
    assert {row.sop_uid for row in artifacts} == set(digests)
    reports = [row.study_id for row in artifacts if row.kind == "SR"]
    assert len(reports) == len(set(reports)) == len(study_uids), "one report a study"


def check_logs(settings: Settings) -> None:
    """No process wrote a patient attribute, in all its starts, ends and troubles."""
    logs = sorted((settings.home / "log").glob("*.log*"))
    said = "".join(path.read_text(errors="replace") for path in logs)
    assert '"study_uid"' in said or '"study_id"' in said, "the logs are there and bound to studies"
    assert '"run_id"' in said
    for attribute in ("Phantom^", "PHANTOM-"):  # patient's name; patient ID and accession number
        assert attribute not in said, [
            path.name for path in logs if attribute in path.read_text(errors="replace")
        ]
