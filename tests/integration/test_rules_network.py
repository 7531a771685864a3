"""Studies from the network go where their rules say: a real listener, real workers, two real destinations."""

from __future__ import annotations

from pathlib import Path

from pydicom import dcmread, dcmwrite

from dicom_io.phantom import PhantomView, write_study
from node import studies
from node.db import Database
from node.lifecycle import StudyState
from tests.conftest import make_settings
from tests.support import listening
from tests.support.pacs import Pacs, pacs
from tests.support.services import wait_until
from tests.support.worker_node import worker_node
from tests.unit.workers.breasts import breast

_SLICES = (3, 640, 400)
_CAD_SR, _SR = "1.2.840.10008.5.1.4.1.1.88.50", "1.2.840.10008.5.1.4.1.1.88.34"
_ROUTES = """
[[rule]]
name = "test patients"
when = { PatientID = "TEST*" }
then = { model = "none" }

[[rule]]
name = "mammography workstation"
when = { calling_ae = "ROOM1", BodyPartExamined = "breast" }
then = { destinations = ["workstation"], results = { workstation = ["SR", "CAD_SR"] } }
"""


def test_studies_from_the_network_go_where_their_rules_say(tmp_path: Path) -> None:
    file = tmp_path / "rules.toml"
    file.write_text("")
    settings = make_settings(tmp_path / "home", segment_threshold=0.001, rules=file)
    with (
        worker_node(settings) as node,
        listening.running(settings) as listener,
        pacs() as archive,
        pacs() as workstation,
    ):
        workers = [node.start("inference"), node.start("delivery")]
        node.add_peer("archive", archive.port)
        node.add_peer("workstation", workstation.port)
        file.write_text(_ROUTES)  # read while the node runs
        ruled, test = (_phantom(tmp_path / name, name) for name in ("P1", "TEST1"))
        for worker in workers:
            worker.wait_ready()
        for (_, files), calling in ((ruled, "ROOM1"), (test, "ROOM1")):
            assert listening.send(settings, listener.port, *files, calling=calling) == ["0x0000"]
        sent = (ruled[0], test[0])
        wait_until(
            lambda: {_state(node.db, uid) for uid in sent} == {StudyState.COMPLETE}, 30, "the end"
        )
        node.wait_delivery(ruled[0], "workstation", "SENT")

        assert set(node.deliveries(node.run(ruled[0]))) == {"workstation"}
        assert _classes(workstation, ruled[0]) == {_SR, _CAD_SR}
        assert archive.stored == []
        assert {artifact.kind for artifact in node.run(ruled[0]).artifacts} >= {
            "SEG",
            "SR",
            "CAD_SR",
        }
        with node.db.reading() as session:
            assert studies.newest_run_id(session, studies.find(session, test[0]).id) is None


def _phantom(folder: Path, patient_id: str) -> tuple[str, list[Path]]:
    """A study of one view of a patient: its UID and file."""
    seed = sum(patient_id.encode())
    view = PhantomView("L", "CC", breast("L", _SLICES, seed), (0.1, 0.1))
    study = write_study(folder, [view], seed=seed)
    for path in study.files:
        dataset = dcmread(path)
        dataset.PatientID, dataset.BodyPartExamined = patient_id, "BREAST"
        dcmwrite(path, dataset)
    return study.study_instance_uid, list(study.files)


def _classes(peer: Pacs, study_uid: str) -> set[str]:
    """The SOP classes of what a peer has of a study."""
    return {one.sop_class_uid for one in peer.stored if study_uid.encode() in one.content}


def _state(db: Database, study_uid: str) -> str:
    with db.reading() as session:
        return studies.find(session, study_uid).state
