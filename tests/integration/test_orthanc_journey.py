"""Orthanc as the sender of a study, as its archive, and as a STOW-RS service, around one running node."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.uid import Comprehensive3DSRStorage, SegmentationStorage
from sqlalchemy import select

from dicom_io.phantom import PhantomStudy
from node import peers, schema
from node.blobs import BlobStore
from node.config import Settings, child_environment
from node.db import Database, now
from node.lifecycle import DeliveryState, RunState
from node.models import Artifact, Delivery, DeliveryInstance, Instance, Peer, Run
from tests.conftest import make_settings
from tests.support import orthanc_server
from tests.support.loopback import Loopback, loopback
from tests.support.node_process import free_port, node_process
from tests.support.orthanc_server import Orthanc, orthanc
from tests.support.services import wait_until
from workers.phantom import PhantomPlan, write_phantom
from workers.readback import read_folder

pytestmark = pytest.mark.system

SLICES = 3
PLAN = PhantomPlan(seed=5, views=("L-CC", "R-MLO"), shape=(SLICES, 900, 700))


@dataclass(frozen=True)
class Scene:
    """A node, the Orthanc that sends to it and gets its results, and one that takes them by STOW-RS alone."""

    network: Loopback
    settings: Settings
    db: Database
    archive: Orthanc
    web: Orthanc
    study: PhantomStudy

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """A command of the node's, where it can reach the peers."""
        return subprocess.run(
            [*self.network.command, sys.executable, "-m", "workers.cli", *words],
            env=child_environment(self.settings),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def send(self) -> dict[str, int]:
        """Have the archive send its study to the node, and wait; what Orthanc says of it."""
        study = next(iter(self.archive.get("/studies")))
        body = {"Resources": [study], "Synchronous": True}
        answer: dict[str, int] = self.archive.post("/modalities/tomonode/store", body)
        return answer

    def sources(self) -> set[str]:
        """SOP Instance UIDs of the phantom."""
        headers = (dcmread(file, stop_before_pixels=True) for file in self.study.files)
        return {str(header.SOPInstanceUID) for header in headers}

    def results(self) -> dict[str, Artifact]:
        """SEG and SR of the node by SOP Instance UID."""
        with self.db.reading() as session:
            rows = session.execute(select(Artifact).where(Artifact.sop_uid.is_not(None)))
            return {str(row.sop_uid): row for row in rows.scalars()}

    def blob(self, sha256: str) -> Path:
        """A file of the node's."""
        return BlobStore(self.settings.blob_root, self.settings.spool).path(sha256)

    def delivered(self) -> bool:
        """Whether the results are with both peers."""
        with self.db.reading() as session:
            failed = session.execute(
                select(Run.error).where(Run.state == RunState.FAILED)
            ).scalars()
            assert not failed.all()
            states = session.execute(select(Delivery.state)).scalars().all()
        return states == [DeliveryState.SENT] * 2


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    orthanc_server.program()
    folder = tmp_path_factory.mktemp("orthanc")
    settings = make_settings(
        folder / "home",
        listen_port=free_port(),
        web_port=free_port(),
        quiet_s=2.0,
        segment_threshold=0.3,  # untrained weights still mark some frames here
        threads=2,
        device="cpu",
    )
    known = {"tomonode": (settings.ae_title, settings.listen_port)}
    with (
        loopback() as network,
        orthanc(network, folder / "archive", known) as archive,
        orthanc(network, folder / "web") as web,
    ):
        study = write_phantom(folder / "phantom", PLAN)
        for file in study.files:
            archive.upload(file)
        db = _with_peers(settings, archive, web)
        with node_process(settings, network.command):
            made = Scene(network, settings, db, archive, web, study)
            said = made.send()
            assert (said["InstancesCount"], said["FailedInstancesCount"]) == (2, 0)
            wait_until(made.delivered, 180, "SEG and SR at both peers", step_s=0.3)
            yield made
        db.dispose()


def _with_peers(settings: Settings, archive: Orthanc, web: Orthanc) -> Database:
    settings.home.mkdir()
    schema.upgrade(settings.db_url)
    db = Database(settings.db_url)
    title, port = orthanc_server.AE_TITLE, archive.dicom_port
    with db.transaction() as session:
        at = now(session)
        peers.add(session, peers.dicom_peer("archive", title, "127.0.0.1", port, at))
        peers.add(session, peers.stow_peer("web", web.dicom_web_url, at))
    return db


def test_what_orthanc_sends_is_kept(scene: Scene) -> None:
    sent = {str(dataset.SOPInstanceUID): dataset for dataset in map(dcmread, scene.study.files)}
    with scene.db.reading() as session:
        rows = session.execute(select(Instance)).scalars().all()

    assert {row.sop_uid for row in rows} == set(sent)
    assert {row.calling_ae for row in rows} == {orthanc_server.AE_TITLE}
    for row in rows:
        assert dcmread(scene.blob(row.sha256)) == sent[row.sop_uid]


def test_results_lie_with_their_study(scene: Scene) -> None:
    results = scene.results()
    kinds = [artifact.kind for artifact in results.values()]

    assert kinds.count("SR") == 1
    assert "SEG" in kinds
    [study] = scene.archive.get("/studies?expand")
    assert study["MainDicomTags"]["StudyInstanceUID"] == scene.study.study_instance_uid
    assert set(scene.archive.instances()) == scene.sources() | set(results)
    series = [scene.archive.get(f"/series/{one}") for one in study["Series"]]
    assert {one["MainDicomTags"]["Modality"] for one in series} == {"MG", "SEG", "SR"}


@pytest.mark.parametrize("which", ["archive", "web"])
def test_what_arrived_is_what_was_made(scene: Scene, which: str) -> None:
    peer: Orthanc = getattr(scene, which)
    there = peer.instances()

    for uid, artifact in scene.results().items():
        received = dcmread(BytesIO(peer.file(there[uid])))
        assert received == dcmread(scene.blob(artifact.sha256))
        assert received.file_meta.MediaStorageSOPInstanceUID == uid


def test_segmentations_name_frames_of_their_sources(scene: Scene, tmp_path: Path) -> None:
    there = scene.archive.instances()
    for uid, artifact in scene.results().items():
        (tmp_path / artifact.name).write_bytes(scene.archive.file(there[uid]))

    received = read_folder(tmp_path)
    received.check_references(scene.sources())

    assert received.segmentations
    assert set(received.segmentations) <= scene.sources()
    for source, seg in received.segmentations.items():
        # as Orthanc's own reader, dcmtk, sees the object
        tags = scene.archive.get(f"/instances/{there[seg.sop_uid]}/simplified-tags")
        groups = tags["PerFrameFunctionalGroupsSequence"]
        references = [g["DerivationImageSequence"][0]["SourceImageSequence"][0] for g in groups]
        assert {r["ReferencedSOPInstanceUID"] for r in references} == {source}
        numbers = sorted(int(r["ReferencedFrameNumber"]) for r in references)
        assert numbers == sorted(n for frames in seg.frames.values() for n in frames)
        assert set(numbers) <= set(range(1, SLICES + 1))
        assert int(tags["NumberOfFrames"]) == len(numbers) == seg.frame_count


def test_stow_brings_the_results_and_nothing_else(scene: Scene) -> None:
    there = scene.web.instances()

    assert set(there) == set(scene.results())
    classes = {dcmread(BytesIO(scene.web.file(i))).SOPClassUID for i in there.values()}
    assert classes == {SegmentationStorage, Comprehensive3DSRStorage}


def test_the_node_knows_what_each_peer_said(scene: Scene) -> None:
    columns = (Peer.name, Artifact.sop_uid, DeliveryInstance.status, DeliveryInstance.accepted)
    query = select(*columns).select_from(DeliveryInstance).join(Delivery).join(Peer).join(Artifact)
    with scene.db.reading() as session:
        rows = session.execute(query).all()

    for name in ("archive", "web"):
        mine = [row for row in rows if row.name == name]
        assert {row.sop_uid for row in mine} == set(scene.results())
        assert all(row.accepted for row in mine)
        assert {row.status for row in mine} == {"0x0000"}


def test_echo_in_both_directions(scene: Scene) -> None:
    for name in ("archive", "web"):
        done = scene.command("peer", "echo", name)
        assert done.returncode == 0, done.stderr
        assert f"{name} answers" in done.stdout
    assert scene.archive.post("/modalities/tomonode/echo", {}) == {}


def test_sending_again_changes_nothing(scene: Scene) -> None:
    before = scene.results().keys()

    # By now Orthanc's study holds the results too: the node's own SEG and SR come back to it.
    said = scene.send()

    assert said["FailedInstancesCount"] == 0
    with scene.db.reading() as session:
        [run] = session.execute(select(Run)).scalars().all()
    assert (run.state, run.generation) == (RunState.SUCCEEDED, 1)
    assert scene.results().keys() == before
