"""Query and retrieval by other people's software: dcmtk and Orthanc ask a node in a network of their own."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import dcmread

from dicom_io.phantom import PhantomView, write_study
from dicom_io.syntaxes import EXPLICIT_LITTLE, IMPLICIT_LITTLE, JPEG2000_LOSSLESS
from node import peers, schema
from node.config import Settings
from node.db import Database, now
from tests.conftest import make_settings
from tests.support import dcmtk, orthanc_server
from tests.support.breast_objects import encode, volume, with_frames
from tests.support.dcmtk import storescp
from tests.support.listening import ListenerProcess
from tests.support.loopback import Loopback, loopback
from tests.support.node_process import free_port
from tests.support.objects import data_set_bytes
from tests.support.orthanc_server import Orthanc, orthanc

pytestmark = pytest.mark.system

VIEWS = [("L", "CC"), ("L", "MLO"), ("R", "CC"), ("R", "MLO")]
SHAPE = (12, 60, 40)
FIRST_RESPONSE = b"I: Received Move Response 1\n"


@dataclass(frozen=True)
class Scene:
    """A node with four views, two of them JPEG 2000, and Orthanc; by UID the data sets sent and their pixels."""

    network: Loopback
    settings: Settings
    node: ListenerProcess
    archive: Orthanc
    study_uid: str
    sent: dict[str, bytes]
    pixels: dict[str, bytes]

    def dcmtk(self, name: str, *words: str | Path) -> subprocess.CompletedProcess[str]:
        """Run a program of dcmtk inside the network."""
        return subprocess.run(
            [*self.network.command, dcmtk.program(name), *map(str, words)],
            env=dcmtk.ENVIRONMENT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=120,
            check=False,
        )

    def retrieve(self, name: str, *words: str | Path) -> subprocess.CompletedProcess[str]:
        """getscu or movescu, of the study."""
        keys = ("-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={self.study_uid}")
        where = ("127.0.0.1", str(self.node.port))
        return self.dcmtk(name, "-v", "-S", "-aec", "TOMONODE", *words, *keys, *where)

    def peer(self, port: int) -> None:
        """Have moves to STORESCP go to a port."""
        db = Database(self.settings.db_url)
        with db.transaction() as session:
            at = now(session)
            peers.add(session, peers.dicom_peer("dcmtk", dcmtk.AE_TITLE, "127.0.0.1", port, at))
        db.dispose()

    def no_peer(self) -> None:
        """Forget it."""
        db = Database(self.settings.db_url)
        with db.transaction() as session:
            peers.remove(session, "dcmtk")
        db.dispose()


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    for name in ("storescu", "findscu", "getscu", "movescu", "storescp"):
        dcmtk.program(name)
    orthanc_server.program()
    folder = tmp_path_factory.mktemp("foreign")
    volumes = [volume(side, SHAPE, seed) for seed, (side, _) in enumerate(VIEWS)]
    views = [
        PhantomView(side, view, volume_DHW, (0.1, 0.1))  # type: ignore[arg-type]
        for (side, view), volume_DHW in zip(VIEWS, volumes, strict=True)
    ]
    files = write_study(folder / "views", views, seed=5, patient_id="FOREIGN").files
    for path, volume_DHW in list(zip(files, volumes, strict=True))[1::2]:
        frames = [encode(frame, JPEG2000_LOSSLESS) for frame in volume_DHW]
        with_frames(path, frames, JPEG2000_LOSSLESS)
    headers = [dcmread(path, stop_before_pixels=True) for path in files]
    uids = [str(header.SOPInstanceUID) for header in headers]
    settings = make_settings(folder / "node", listen_port=free_port())
    schema.upgrade(settings.db_url)
    modalities = {"tomonode": (settings.ae_title, settings.listen_port)}
    with loopback() as network, orthanc(network, folder / "orthanc", modalities) as archive:
        db = Database(settings.db_url)
        with db.transaction() as session:
            title = orthanc_server.AE_TITLE
            peer = peers.dicom_peer("archive", title, "127.0.0.1", archive.dicom_port, now(session))
            peers.add(session, peer)
        db.dispose()
        node = ListenerProcess(settings, network.command)
        try:
            made = Scene(
                network,
                settings,
                node,
                archive,
                str(headers[0].StudyInstanceUID),
                {u: data_set_bytes(f.read_bytes()) for u, f in zip(uids, files, strict=True)},
                {u: v.tobytes() for u, v in zip(uids, volumes, strict=True)},
            )
            for option, few in (("-xe", files[::2]), ("-xv", files[1::2])):
                where = ("-aec", "TOMONODE", "127.0.0.1", str(node.port))
                done = made.dcmtk("storescu", "-R", option, *where, *few)
                assert done.returncode == 0, done.stdout
            yield made
        finally:
            node.kill()


def by_uid(folder: Path) -> dict[str, Path]:
    return {str(dcmread(path, stop_before_pixels=True).SOPInstanceUID): path for path in folder.iterdir()}  # fmt: skip


def test_getscu_gets_every_view_also_where_it_would_rather_have_another_syntax(
    scene: Scene, tmp_path: Path
) -> None:
    done = scene.retrieve("getscu", "+xv", "+B", "-od", tmp_path)  # JPEG 2000, or else native
    assert done.returncode == 0, done.stdout
    came = by_uid(tmp_path)
    assert set(came) == set(scene.sent)
    for uid, path in came.items():
        assert dcmread(path).file_meta.TransferSyntaxUID == EXPLICIT_LITTLE
        assert dcmread(path).PixelData == scene.pixels[uid]


def test_movescu_has_storescp_get_what_was_stored(scene: Scene, tmp_path: Path) -> None:
    with storescp(scene.network, tmp_path / "took", ["+xa", "+B"]) as peer:
        scene.peer(peer.port)
        try:
            done = scene.retrieve("movescu", "-aem", dcmtk.AE_TITLE)
        finally:
            scene.no_peer()
        assert done.returncode == 0, done.stdout
        came = by_uid(peer.folder)
    assert {uid: data_set_bytes(path.read_bytes()) for uid, path in came.items()} == scene.sent


def test_a_storescp_that_takes_implicit_alone_gets_the_same_pixels(
    scene: Scene, tmp_path: Path
) -> None:
    with storescp(scene.network, tmp_path / "took", ["+xi", "+B"]) as peer:
        scene.peer(peer.port)
        try:
            done = scene.retrieve("movescu", "-aem", dcmtk.AE_TITLE)
        finally:
            scene.no_peer()
        assert done.returncode == 0, done.stdout
        came = by_uid(peer.folder)
    assert set(came) == set(scene.sent)
    for uid, path in came.items():
        dataset = dcmread(path)
        assert dataset.file_meta.TransferSyntaxUID == IMPLICIT_LITTLE
        assert dataset.PixelData == scene.pixels[uid]


def test_a_storescp_that_is_killed_is_counted_as_failures(scene: Scene, tmp_path: Path) -> None:
    with storescp(scene.network, tmp_path / "took", ["+xa", "+B", "--sleep-after", "60"]) as peer:
        scene.peer(peer.port)
        where = ("127.0.0.1", str(scene.node.port))
        keys = ("-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={scene.study_uid}")
        words = ("movescu", "-d", "-S", "-aec", "TOMONODE", "-aem", dcmtk.AE_TITLE, *keys, *where)
        moving = subprocess.Popen(
            [*scene.network.command, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        assert moving.stdout is not None
        try:
            said = list(iter(moving.stdout.readline, FIRST_RESPONSE))
            assert said[-1] != b"", b"".join(said)  # it is in the second object, or begins it
            os.kill(peer.pid, signal.SIGKILL)
            rest, _ = moving.communicate(timeout=60)
        finally:
            moving.kill()
            scene.no_peer()
    told = rest.decode(errors="replace").splitlines()
    found = dict(
        line[3:].split(":", 1) for line in told if line.startswith("D: ") and ":" in line[3:]
    )
    last = {name.strip(): value.strip() for name, value in found.items()}
    assert (last["Completed Suboperations"], last["Failed Suboperations"]) == ("1", "3")
    assert last["DIMSE Status"].startswith("0xb000")


def test_orthanc_finds_and_fetches_the_study(scene: Scene) -> None:
    archive = scene.archive
    archive.delete_all()
    query = {"Level": "Study", "Query": {"PatientID": "FOR*", "StudyInstanceUID": ""}}
    asked = archive.post("/modalities/tomonode/query", query)
    answers = archive.get(f"{asked['Path']}/answers?expand&simplify")
    assert [answer["StudyInstanceUID"] for answer in answers] == [scene.study_uid]
    archive.post(f"{asked['Path']}/retrieve", {"TargetAet": "ORTHANC", "Synchronous": True})
    held = archive.instances()
    assert set(held) == set(scene.sent)
    for uid, one in held.items():
        dataset = dcmread(BytesIO(archive.file(one)))
        assert dataset.file_meta.TransferSyntaxUID in (EXPLICIT_LITTLE, JPEG2000_LOSSLESS)
        assert data_set_bytes(archive.file(one)) == scene.sent[uid]
