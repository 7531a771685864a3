"""Real worker processes on a real Redis: a study from QUEUED to SENT, and what may go wrong on the way."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Literal

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from dicom_io.header import read_header
from dicom_io.phantom import PhantomView, write_study
from node import reruns, studies
from node.db import now
from tests.conftest import make_settings
from tests.support.pacs import Script, pacs
from tests.support.services import wait_until
from tests.support.web import served
from tests.support.worker_node import WorkerNode, WorkerProcess, worker_node
from tests.unit.workers.breasts import breast
from workers.task import EXIT_STUCK

_seeds = itertools.count(1)
_SLICES = (3, 640, 400)
_OUT_OF_RESOURCES, _CLASS_NOT_SUPPORTED = 0xA700, 0x0122


def _study(folder: Path, *sides: Literal["L", "R"]) -> tuple[str, list[Path]]:
    """A small study with a CC view of each side: its UID and files."""
    seed = next(_seeds)
    views = [PhantomView(side, "CC", breast(side, _SLICES, seed), (0.1, 0.1)) for side in sides]
    study = write_study(folder / str(seed), views, seed=seed)
    return study.study_instance_uid, list(study.files)


def _send(node: WorkerNode, folder: Path, *sides: Literal["L", "R"]) -> str:
    uid, files = _study(folder, *sides)
    node.receive(files)
    node.complete(uid)
    return uid


def _serve(node: WorkerNode, worker: WorkerProcess, done: Callable[[], bool]) -> None:
    """Wait for the end, starting a worker again that found itself stuck, as the supervisor does."""
    wait_until(lambda: done() or worker.exit_code() is not None, 180, "an end")
    if not done():
        assert worker.exit_code() == EXIT_STUCK, worker.log.read_text()
        node.start("inference").wait_ready()


def _drawn_short(path: Path) -> None:
    """Cut an object off in the middle of its pixels."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def _all_black(path: Path) -> None:
    """Take the breast out of an image: nothing lies above the threshold of the crop."""
    content = bytearray(path.read_bytes())
    pixels = int(np.prod(_SLICES)) * 2
    content[-pixels:] = bytes(pixels)
    path.write_bytes(content)


@pytest.fixture(scope="module")
def shared_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerNode]:
    """A node with both workers running, for tests that leave them alive."""
    home = tmp_path_factory.mktemp("node")
    # Each saliency cell of the seeded weights counts, so that there is something to deliver.
    settings = make_settings(home, segment_threshold=0.001, max_attempts=2)
    with worker_node(settings) as node:
        started = [node.start("inference"), node.start("delivery")]
        for worker in started:
            worker.wait_ready()
        yield node


def test_a_study_goes_from_queued_to_a_peer_that_holds_its_results(
    shared_node: WorkerNode, tmp_path: Path
) -> None:
    node = shared_node
    uid, files = _study(tmp_path, "L", "R")
    with pacs() as peer:
        node.add_peer("archive", peer.port)
        node.receive(files)
        node.complete(uid)
        node.wait_delivery(uid, "archive", "SENT")
        run = node.run(uid)
        assert run.state == "SUCCEEDED"
        assert run.model is not None
        assert run.model["version"] == node.version
        assert run.model["trained"] is False
        assert run.stage_seconds is not None
        assert {"decode", "preprocess", "inference", "translate", "write"} <= set(run.stage_seconds)
        assert sorted(i.laterality or "" for i in run.images) == ["L", "R"]
        kinds = sorted(artifact.kind for artifact in run.artifacts)
        assert kinds.count("SR") == 1
        assert kinds.count("SEG") == sum(1 for image in run.images if image.segments) == 2
        assert kinds.count("OVERLAY") >= 2
        sent = {a.sop_uid for a in run.artifacts if a.sop_uid}
        assert set(peer.counts) == sent
        report = next(a for a in run.artifacts if a.kind == "SR")
        assert peer.stored[-1].sop_uid == report.sop_uid  # it arrives after what it refers to
        for artifact in run.artifacts:
            assert node.blobs.path(artifact.sha256).stat().st_size == artifact.size_bytes
        _check_retry_names_its_predecessor(node, uid)


def test_what_comes_in_is_measured_and_the_page_of_drift_shows_it(
    shared_node: WorkerNode, tmp_path: Path
) -> None:
    node = shared_node
    uid, files = _study(tmp_path, "L", "R")
    for path in files:
        dataset = pydicom.dcmread(path)
        dataset.StudyDate = "20240229"  # a month of its own
        if dataset.SOPInstanceUID == read_header(files[1]).sop_instance_uid:
            del dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing
        dataset.save_as(path)
    node.receive(files)
    node.complete(uid)
    images = {image.sop_uid: image for image in node.wait_run(uid, "SUCCEEDED").images}
    spaced, bare = (images[read_header(path).sop_instance_uid] for path in files)
    assert (spaced.pixel_spacing_mm, spaced.slice_spacing_mm) == (0.1, 1.0)
    assert bare.score_malignant is not None
    assert (bare.pixel_spacing_mm, bare.slice_spacing_mm) == (None, 1.0)
    shown = "2024-02 2 of 2 50 % (9 to 91) 0.100 (0.100 to 0.100) 1.000 (1.000 to 1.000)"
    for level in (5, 50, 95):
        found = [getattr(image, f"intensity_p{level:02}") for image in (spaced, bare)]
        for path, value in zip(files, found, strict=True):
            tissue = pydicom.dcmread(path).pixel_array
            assert value == pytest.approx(np.percentile(tissue[tissue > 0], level), rel=0.02)
        low, middle, high = np.quantile(found, (0.05, 0.5, 0.95))
        shown += f" {middle:.0f} ({low:.0f} to {high:.0f})"
    with served(node.settings) as client:
        page = client.get("/drift").text
    assert shown in " ".join(re.sub(r"<[^>]*>", " ", page).split())


def _check_retry_names_its_predecessor(node: WorkerNode, uid: str) -> None:
    first = _report(node, uid)
    with node.db.transaction() as session:
        study = studies.find(session, uid)
        reruns.retry(session, study, node.settings, node.version, now(session))
    node.wait_delivery(uid, "archive", "SENT")
    second = _report(node, uid)
    (document,) = second.PredecessorDocumentsSequence
    (series,) = document.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == first.SeriesInstanceUID
    assert series.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == first.SOPInstanceUID
    assert second.SOPInstanceUID != first.SOPInstanceUID


def _report(node: WorkerNode, uid: str) -> Dataset:
    (artifact,) = (a for a in node.run(uid).artifacts if a.kind == "SR")
    return pydicom.dcmread(node.blobs.path(artifact.sha256))


@pytest.mark.parametrize("spoil", [_drawn_short, _all_black], ids=["cut-off", "no-breast"])
def test_an_unreadable_image_is_left_out_and_the_others_are_read(
    shared_node: WorkerNode, tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    node = shared_node
    uid, files = _study(tmp_path, "L", "R")
    spoiled = read_header(files[0]).sop_instance_uid
    node.receive(files)
    with node.db.reading() as session:
        row = next(i for i in studies.find(session, uid).instances if i.sop_uid == spoiled)
    blob = node.blobs.path(row.sha256)
    spoil(files[0])
    blob.unlink()  # a hard link of the spool; what lies under its name from now on is spoiled
    blob.write_bytes(files[0].read_bytes())
    node.complete(uid)
    run = node.wait_run(uid, "SUCCEEDED")
    by_uid = {image.sop_uid: image for image in run.images}
    assert by_uid.pop(spoiled).excluded_reason
    (other,) = by_uid.values()
    assert other.score_malignant is not None
    assert [a.kind for a in run.artifacts].count("SR") == 1


def test_a_study_without_a_readable_image_still_gets_a_report(
    shared_node: WorkerNode, tmp_path: Path
) -> None:
    node = shared_node
    uid, files = _study(tmp_path, "L")
    _all_black(files[0])
    node.receive(files)
    node.complete(uid)
    run = node.wait_run(uid, "SUCCEEDED")
    assert [artifact.kind for artifact in run.artifacts] == ["SR"]
    (image,) = run.images
    assert image.excluded_reason is not None
    assert "threshold" in image.excluded_reason


def test_a_poisoned_study_fails_alone_with_its_reason(
    shared_node: WorkerNode, tmp_path: Path
) -> None:
    node = shared_node
    uid, files = _study(tmp_path, "L")
    node.receive(files)
    with node.db.reading() as session:
        (instance,) = studies.find(session, uid).instances
    node.blobs.path(instance.sha256).unlink()
    node.complete(uid)
    healthy = _send(node, tmp_path, "R")
    assert node.wait_run(healthy, "SUCCEEDED").error is None
    run = node.wait_run(uid, "FAILED")
    assert run.attempt == run.max_attempts == 2
    assert run.error_code == "ENOENT"
    assert run.error is not None
    assert "No such file" in run.error


def test_a_run_for_a_model_that_nobody_knows_fails_alone(
    shared_node: WorkerNode, tmp_path: Path
) -> None:
    node = shared_node
    uid, files = _study(tmp_path, "L")
    node.receive(files)
    with node.db.transaction() as session:
        at = now(session)
        studies.force_complete(session, uid, node.settings, "another-model-1", at)
    healthy = _send(node, tmp_path, "R")
    run = node.wait_run(uid, "FAILED")
    assert (run.error_code, run.attempt) == ("UnknownModel", 1)
    assert run.error is not None
    assert "'another-model-1' is neither in the registry nor configured here" in run.error
    assert node.wait_run(healthy, "SUCCEEDED").error is None
    with node.db.transaction() as session:  # the operator's retry queues it for the present model
        study = studies.find(session, uid)
        reruns.retry(session, study, node.settings, node.version, now(session))
    assert node.wait_run(uid, "SUCCEEDED").model_version == node.version


def test_one_bad_peer_delays_no_other(shared_node: WorkerNode, tmp_path: Path) -> None:
    node = shared_node
    scripts = {
        "hanging": Script(hang_on=1),
        "healthy": Script(),
        "refusing": Script(statuses=dict.fromkeys(range(1, 100), _CLASS_NOT_SUPPORTED)),
        "full": Script(statuses={1: _OUT_OF_RESOURCES, 2: _OUT_OF_RESOURCES}),
        "aborting": Script(abort_on=1),
    }
    with ExitStack() as stack:
        peers = {name: stack.enter_context(pacs(script)) for name, script in scripts.items()}
        for name, peer in peers.items():
            node.add_peer(name, peer.port)
        uids = [_send(node, tmp_path, "L") for _ in range(3)]
        for uid in uids:
            for name in ("healthy", "full", "aborting"):
                node.wait_delivery(uid, name, "SENT")
            refused = node.wait_delivery(uid, "refusing", "FAILED")
            assert refused.error_code == "DeliveryRefused"
            assert {i.status for i in refused.instances} == {"0x0122"}
            assert node.deliveries(node.run(uid))["hanging"].state != "SENT"
        assert not peers["hanging"].stored
        sent = {a.sop_uid for uid in uids for a in node.run(uid).artifacts if a.sop_uid}
        assert peers["healthy"].counts == peers["full"].counts == dict.fromkeys(sent, 1)


def test_a_killed_worker_loses_nothing_and_a_study_that_kills_fails_alone(
    tmp_path: Path,
) -> None:
    settings = make_settings(tmp_path / "home", max_attempts=2, lease_s=1.5)
    with worker_node(settings) as node:
        deadly = _send(node, tmp_path, "L")
        for attempt in (1, 2):
            worker = node.start("inference")
            worker.wait_ready()
            node.wait_run(deadly, "RUNNING")
            assert node.run(deadly).attempt == attempt
            worker.kill()
            node.wait_run(deadly, "QUEUED" if attempt == 1 else "FAILED")
        assert node.run(deadly).error_code == "WorkerLost"
        worker = node.start("inference")
        worker.wait_ready()
        healthy = _send(node, tmp_path, "R")
        node.wait_run(healthy, "SUCCEEDED")


def test_a_worker_told_to_stop_finishes_what_it_has_in_hand(
    tmp_path: Path,
) -> None:
    settings = make_settings(tmp_path / "home")
    with worker_node(settings) as node:
        worker = node.start("inference")
        worker.wait_ready()
        uid = _send(node, tmp_path, "L", "R")
        node.wait_run(uid, "RUNNING")
        assert worker.terminate() == 0
        assert node.run(uid).state == "SUCCEEDED"


def test_workers_outlive_the_broker(tmp_path: Path) -> None:
    settings = make_settings(tmp_path / "home", redispatch_s=2.0)
    with worker_node(settings) as node:
        worker = node.start("inference")
        worker.wait_ready()
        node.wait_run(_send(node, tmp_path, "L"), "SUCCEEDED")
        node.stop_redis()
        uid = _send(node, tmp_path, "R")
        node.start_redis()
        _serve(node, worker, lambda: node.run(uid).state == "SUCCEEDED")
        assert node.wait_run(uid, "SUCCEEDED").attempt == 1


def test_a_broker_killed_while_a_message_waits_in_the_worker(tmp_path: Path) -> None:
    """The message cannot be acknowledged: Celery then takes no other one, and the worker ends to be started again."""
    settings = make_settings(tmp_path / "home", redispatch_s=2.0)
    with worker_node(settings) as node:
        waiting = [_send(node, tmp_path, "L", "R") for _ in range(3)]
        worker = node.start("inference")
        worker.wait_ready()
        node.wait_run(waiting[0], "RUNNING")
        node.stop_redis()
        node.wait_run(waiting[0], "SUCCEEDED")
        node.start_redis()

        def succeeded() -> bool:
            return all(node.run(uid).state == "SUCCEEDED" for uid in waiting)

        _serve(node, worker, succeeded)
        for uid in waiting:
            assert node.wait_run(uid, "SUCCEEDED").attempt == 1


def test_nothing_of_a_patient_is_logged(shared_node: WorkerNode, tmp_path: Path) -> None:
    node = shared_node
    uid, files = _study(tmp_path, "L")
    node.receive(files)
    node.complete(uid)
    node.wait_run(uid, "SUCCEEDED")
    logs = [(node.settings.home / f"{queue}.log") for queue in ("inference", "delivery")]
    wait_until(lambda: "run claimed" in logs[0].read_text(), 10, "the log")
    for log in logs:
        assert "PHANTOM" not in log.read_text().upper()
