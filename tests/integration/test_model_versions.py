"""A node that changes its model while it runs: import, shadow, promote, roll back, and weights that are gone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset
from sqlalchemy import select

from dicom_io.phantom import PhantomView, write_study
from node import model_history, registry, reruns, studies
from node.db import now
from node.learning_models import ModelVersion
from node.models import Delivery, Run, Study
from node.promotion import Signed, Terms
from tests.conftest import make_settings
from tests.support.pacs import pacs
from tests.support.services import wait_until
from tests.support.versions import weights_file
from tests.support.worker_node import WorkerNode, worker_node
from tests.unit.workers.breasts import breast
from workers.importing import Wanted, import_files

SHAPE = (2, 448, 320)
ANN = Signed("ann", reason="a test", override=True)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerNode]:
    """A node whose configured weights are small, with both workers running."""
    home = tmp_path_factory.mktemp("node")
    settings = make_settings(home, weights=weights_file(home, 1, "configured"), threads=1)
    with worker_node(settings) as found:
        for worker in [found.start("inference"), found.start("delivery")]:
            worker.wait_ready()
        yield found


def _version(node: WorkerNode, folder: Path, seed: int, name: str) -> ModelVersion:
    return import_files(
        node.db, node.settings, Wanted([weights_file(folder, seed)], name, "CC0"), "ann"
    )


def _send(node: WorkerNode, folder: Path, seed: int) -> str:
    """A study arrives and the relay closes it."""
    views = [PhantomView("L", "CC", breast("L", SHAPE, seed), (0.1, 0.1))]
    study = write_study(folder / str(seed), views, seed=seed)
    node.receive(list(study.files))
    return study.study_instance_uid


def _runs(node: WorkerNode, uid: str) -> dict[tuple[str, bool], Run]:
    with node.db.reading() as session:
        found = session.execute(select(Run).join(Study).where(Study.study_uid == uid)).scalars()
        return {(run.model_version, run.shadow): run for run in found}


def _ended(node: WorkerNode, uid: str, version: str, shadow: bool = False) -> Run:
    def there() -> bool:
        run = _runs(node, uid).get((version, shadow))
        return run is not None and run.state in ("SUCCEEDED", "FAILED")

    wait_until(there, 90, f"{version} to read {uid}")
    return _runs(node, uid)[version, shadow]


def _report(node: WorkerNode, run: Run) -> Dataset:
    with node.db.reading() as session:
        (report,) = (a for a in session.get_one(Run, run.id).artifacts if a.kind == "SR")
    return pydicom.dcmread(node.blobs.path(report.sha256))


def _delivered(node: WorkerNode, run: Run) -> list[str]:
    with node.db.reading() as session:
        found = session.execute(select(Delivery).where(Delivery.run_id == run.id)).scalars()
        return [delivery.state for delivery in found]


def test_import_shadow_promote_and_back(node: WorkerNode, tmp_path: Path) -> None:
    _version(node, tmp_path, 2, "trial-2")
    with node.db.transaction() as session:
        registry.shadow(session, "trial-2", ANN, now(session))
    with pacs() as peer:
        node.add_peer("archive", peer.port)
        first = _send(node, tmp_path, 11)
        shadow = _ended(node, first, "trial-2", shadow=True)
        normal = _ended(node, first, node.version)
        assert (normal.state, shadow.state) == ("SUCCEEDED", "SUCCEEDED")
        assert node.version in str(_report(node, normal))
        assert "trial-2" in str(_report(node, shadow))
        assert "trial-2" not in str(_report(node, normal))
        assert _delivered(node, shadow) == []
        wait_until(lambda: _delivered(node, normal) == ["SENT"], 60, "the archive to have it")
        kept = {a.sop_uid for a in _artifacts(node, shadow) if a.sop_uid}
        assert kept
        assert not kept & set(peer.counts), "nothing read in shadow leaves the node"

        with node.db.transaction() as session:
            registry.promote(session, "trial-2", ANN, Terms(), now(session))
        second = _send(node, tmp_path, 12)
        run = _ended(node, second, "trial-2")
        assert "trial-2" in str(_report(node, run))
        assert set(_runs(node, second)) == {("trial-2", False)}
        assert set(_runs(node, first)) == {(node.version, False), ("trial-2", True)}, "no old study"
        assert run.model is not None
        with node.db.reading() as session:
            assert run.model["sha256"] == registry.find(session, "trial-2").sha256

        with node.db.transaction() as session:
            assert registry.rollback(session, ANN, now(session)) is None
        third = _send(node, tmp_path, 13)
        assert _ended(node, third, node.version).state == "SUCCEEDED"
        assert set(_runs(node, third)) == {(node.version, False)}
    with node.db.reading() as session:
        trial = registry.find(session, "trial-2")
        events = [decision.event for decision in model_history.decisions(session, trial.id)]
    assert events == ["REGISTER", "SHADOW", "PROMOTE", "ROLLBACK"]


def _artifacts(node: WorkerNode, run: Run):  # type: ignore[no-untyped-def]
    with node.db.reading() as session:
        return list(session.get_one(Run, run.id).artifacts)


def test_weights_that_are_gone_fail_their_runs_alone(node: WorkerNode, tmp_path: Path) -> None:
    row = _version(node, tmp_path, 3, "lost-3")
    with node.db.transaction() as session:
        registry.shadow(session, "lost-3", ANN, now(session))
    node.blobs.path(row.sha256).unlink()
    uid = _send(node, tmp_path, 21)
    assert _ended(node, uid, node.version).state == "SUCCEEDED"
    lost = _ended(node, uid, "lost-3", shadow=True)
    assert (lost.state, lost.error_code, lost.attempt) == ("FAILED", "WeightsGone", 1)
    assert lost.error is not None
    assert "'lost-3'" in lost.error
    assert "import the file again" in lost.error
    assert "\n" not in lost.error
    _version(node, tmp_path, 3, "lost-3")  # it mends what is registered
    with node.db.transaction() as session:
        registry.promote(session, "lost-3", ANN, Terms(), now(session))
        study = studies.find(session, uid)
        reruns.retry(session, study, node.settings, "lost-3", now(session))
    again = _ended(node, uid, "lost-3")
    assert again.state == "SUCCEEDED"
    assert again.predecessor_id is not None
    with node.db.transaction() as session:
        registry.rollback(session, ANN, now(session))
