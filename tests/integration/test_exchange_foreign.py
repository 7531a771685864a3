"""Storage commitment and pulls with Orthanc and dcmtk, through the node's own processes in one private network."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import SegmentationStorage
from sqlalchemy import select

from node import peers, pulls, runs, studies, views
from node.config import Settings, child_environment
from node.db import now
from node.exchange_models import Commitment, Pull
from node.models import Instance, Study
from node.runs import ArtifactFile, ImageOutcome, Outcome
from tests.conftest import make_settings
from tests.support import dcmqrscp as archive
from tests.support import orthanc_server
from tests.support.dcmqrscp import dcmqrscp
from tests.support.factory import Factory
from tests.support.loopback import Loopback, RequestFailed, loopback
from tests.support.node_process import free_port
from tests.support.objects import write_object
from tests.support.orthanc_server import Orthanc, orthanc
from tests.support.services import wait_until
from tests.support.worker_node import WorkerNode, worker_node

pytestmark = pytest.mark.system


@dataclass(frozen=True)
class Scene:
    """A node without a model, Orthanc, and dcmqrscp with a prior of the study that is here."""

    node: WorkerNode
    orthanc: Orthanc
    folder: Path
    current: Dataset
    prior: Dataset
    network: Loopback

    def command(self, *words: str) -> Any:
        """What a command of the node's says, as JSON."""
        done = subprocess.run(
            [*self.network.command, sys.executable, "-m", "workers.cli", *words, "--json"],
            env=child_environment(self.node.settings),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def pull(self, peer: str, study_uid: str) -> Pull:
        """Fetch a study, and wait until it has ended."""
        with self.node.db.transaction() as session:
            source = peers.find(session, peer)
            pulls.order(session, source, study_uid, pulls.OPERATOR, self.node.settings)
        return self.wait_pull(study_uid)

    def page(self, study_uid: str) -> views.StudyPage:
        """What the study's page shows."""
        with self.node.db.reading() as session:
            return views.study_page(session, study_uid, self.node.settings, now(session))

    def wait_pull(self, study_uid: str) -> Pull:
        """Until the study is fetched."""

        def row() -> Pull:
            with self.node.db.reading() as session:
                query = select(Pull).where(Pull.study_uid == study_uid)
                return session.execute(query.order_by(Pull.created_at.desc())).scalars().first()  # type: ignore[return-value]

        wait_until(lambda: row().state not in ("PENDING", "RUNNING"), 60, "the pull", step_s=0.2)
        return row()

    def objects(self, study_uid: str) -> int:
        """How many objects of a study are here."""
        with self.node.db.reading() as session:
            query = select(Instance.id).join(Study).where(Study.study_uid == study_uid)
            return len(session.execute(query).all())


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    orthanc_server.program()
    folder = tmp_path_factory.mktemp("exchange")
    settings = make_settings(folder / "home", listen_port=free_port(), lease_s=30.0)
    known = {"tomonode": (settings.ae_title, settings.listen_port)}
    prior = write_object(folder / "prior.dcm", StudyDate="20240305")
    current = write_object(folder / "current.dcm", StudyDate="20260304")
    settings.home.mkdir()
    with ExitStack() as stack:
        network = stack.enter_context(loopback())
        pacs = stack.enter_context(orthanc(network, folder / "orthanc", known))
        destinations = {settings.ae_title: settings.listen_port}
        port = stack.enter_context(
            dcmqrscp(network, folder / "qrscp", destinations, [folder / "prior.dcm"])
        )
        node = stack.enter_context(worker_node(settings))
        _add_peers(node, pacs.dicom_port, port)
        for words in (["listen"], ["worker", "--queue", "delivery"]):
            stack.callback(_end, _start(network, settings, folder, words))
        assert pacs.upload(folder / "current.dcm")
        wait_until(lambda: _echoed(pacs), 60, "the listener", step_s=0.5)
        yield Scene(node, pacs, folder, current, prior, network)


def _start(
    network: Loopback, settings: Settings, folder: Path, words: list[str]
) -> subprocess.Popen[bytes]:
    with (folder / f"{words[0]}.log").open("wb") as log:
        return subprocess.Popen(
            [*network.command, sys.executable, "-m", "workers.cli", *words],
            env=child_environment(settings),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )


def _echoed(pacs: Orthanc) -> bool:
    try:
        return bool(pacs.post("/modalities/tomonode/echo", {}) == {})
    except RequestFailed:
        return False


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    process.wait(60)


def _add_peers(node: WorkerNode, orthanc_port: int, qrscp_port: int) -> None:
    with node.db.transaction() as session:
        at = now(session)
        first = peers.dicom_peer("orthanc", orthanc_server.AE_TITLE, "127.0.0.1", orthanc_port, at)
        first.commits = first.queried = True
        second = peers.dicom_peer("qrscp", archive.AE_TITLE, "127.0.0.1", qrscp_port, at)
        second.queried, second.receives = True, False
        session.add_all([first, second])


def _orthanc_asks(scene: Scene, *objects: tuple[str, str]) -> dict[str, Any]:
    asked = scene.orthanc.post(
        "/modalities/tomonode/storage-commitment", {"DicomInstances": [list(o) for o in objects]}
    )
    path = f"/storage-commitment/{asked['ID']}"
    wait_until(lambda: scene.orthanc.get(path)["Status"] != "Pending", 30, "the report", step_s=0.5)
    found: dict[str, Any] = scene.orthanc.get(path)
    return found


def test_a_study_is_pulled_from_orthanc_and_committed_to_it(scene: Scene) -> None:
    study = str(scene.current.StudyInstanceUID)
    pull = scene.pull("orthanc", study)
    assert (pull.state, pull.expected, pull.error) == ("DONE", 1, None)
    assert scene.objects(study) == 1

    kept = (str(scene.current.SOPClassUID), str(scene.current.SOPInstanceUID))
    said = _orthanc_asks(scene, kept)
    assert said["Status"] == "Success"
    assert [one["SOPInstanceUID"] for one in said["Success"]] == [kept[1]]

    absent = (kept[0], "1.2.3.4")
    said = _orthanc_asks(scene, kept, absent)
    assert said["Status"] == "Failure"
    assert [one["SOPInstanceUID"] for one in said["Success"]] == [kept[1]]
    [failed] = said["Failures"]
    assert (failed["SOPInstanceUID"], failed["FailureReason"]) == ("1.2.3.4", 0x0112)


def test_orthanc_commits_to_what_it_was_sent(scene: Scene) -> None:
    factory = Factory(scene.node.db, scene.node.settings)
    study, run_id = factory.queued()
    path = scene.folder / "result.dcm"
    made = write_object(path, SOPClassUID=SegmentationStorage, Modality="SEG")
    content = path.read_bytes()
    file = ArtifactFile(
        "SEG",
        "seg.dcm",
        factory.store.write(content),
        len(content),
        None,
        str(made.SOPInstanceUID),
        SegmentationStorage,
    )
    held = factory.claim(run_id)
    outcome = Outcome(
        {"name": "m", "version": "1"}, [ImageOutcome("1.2", excluded_reason="x")], [file]
    )
    assert runs.succeed(scene.node.db, held, outcome, scene.node.settings)

    def rows() -> list[Commitment]:
        with scene.node.db.reading() as session:
            return list(
                session.execute(select(Commitment).where(Commitment.direction == "OUT")).scalars()
            )

    wait_until(lambda: [one.state for one in rows()] == ["DONE"], 60, "Orthanc's report")
    [shown] = scene.page(study).commitments
    assert (shown.well, shown.objects, shown.missing) == (True, 1, ())


def test_a_prior_is_pulled_from_dcmqrscp(scene: Scene) -> None:
    study, prior = str(scene.current.StudyInstanceUID), str(scene.prior.StudyInstanceUID)
    if not scene.objects(study):
        scene.pull("orthanc", study)
    [ordered] = scene.command("pull", "qrscp", "--priors", study, "--years", "5")
    assert ordered["study_uid"] == prior
    pull = scene.wait_pull(prior)
    assert (pull.state, pull.error) == ("DONE", None)
    assert scene.objects(prior) == 1
    with scene.node.db.reading() as session:
        assert studies.find(session, prior).pulled
    with scene.node.db.transaction() as session:
        row = studies.find(session, prior)
        studies.close(session, row.id, "quiet", scene.node.settings, "m", now(session))
    page = scene.page(prior)
    assert page.row.status == "not read"
    [fetched] = page.pulls
    assert (fetched.why, fetched.state, fetched.arrived) == ("prior", "DONE", 1)
    assert [one.study_uid for one in scene.page(study).pulls if one.why == "prior"] == [prior]
