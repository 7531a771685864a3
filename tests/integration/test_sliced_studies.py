"""Tomosynthesis sent one CT object a slice, over a real association, read by the real worker as one object is."""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, generate_uid
from sqlalchemy import select

from dicom_io.dbt import open_image
from dicom_io.phantom import PhantomView, write_study
from gmic.preprocess import preprocess
from node import registry, studies, views
from node.blobs import BlobStore
from node.config import Settings
from node.db import Database, now
from node.model_version import model_version
from node.models import Instance, Peer, Run, Study
from node.results import KINDS, OVERLAY
from tests.conftest import make_settings
from tests.support.ct_series import as_ct_series
from tests.support.listening import running, send
from tests.support.validators import dcentvfy_errors, dciodvfy_errors
from tests.support.versions import CONFIG, weights_file
from tests.unit.workers.breasts import breast
from workers.infer import InferenceWorker
from workers.predictor import Predictor

DEPTH = 8
SHAPE = (DEPTH, 300, 200)


@dataclasses.dataclass
class Node:
    """A node without its relay: what closes studies and starts runs is the test."""

    settings: Settings
    port: int
    db: Database
    worker: InferenceWorker

    def send(self, *files: Path) -> None:
        """Over one association; every object is taken."""
        assert set(send(self.settings, self.port, *files)) == {"0x0000"}

    def read(self, study_uid: str) -> Run:
        """Close a study and run it, as the relay and the broker do; the run with its results."""
        version = model_version(self.settings)
        with self.db.transaction() as session:
            studies.force_complete(session, study_uid, self.settings, version, now(session))
        with self.db.reading() as session:
            query = select(Run).join(Study).where(Study.study_uid == study_uid)
            run_id = session.execute(query.order_by(Run.created_at.desc())).scalars().first().id
        assert self.worker.handle(run_id) == "done"
        with self.db.reading() as session:
            run = session.get_one(Run, run_id)
            assert run.state == "SUCCEEDED", run.error
            assert run.images
            assert run.artifacts
            return run

    def file(self, run: Run, kind: str) -> Path:
        """The one file of a kind that a run made."""
        [found] = [artifact for artifact in run.artifacts if artifact.kind == kind]
        return BlobStore.of(self.settings).path(found.sha256)

    def page(self, study_uid: str) -> views.StudyPage:
        """What the study's page and `study show` are made of."""
        with self.db.reading() as session:
            return views.study_page(session, study_uid, self.settings, now(session))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The volume as one tomosynthesis object."""
    made = breast("L", SHAPE, 3)
    for depth in range(DEPTH):  # no two slices alike
        made[depth, 60 + 20 * depth : 90 + 20 * depth, 20:60] = 3000
    view = PhantomView("L", "MLO", made, (0.1, 0.1))
    return write_study(tmp_path_factory.mktemp("whole"), [view], seed=1).files[0]


@pytest.fixture(scope="module")
def node(whole: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """With a small model, and an operating point that marks some cells of some slices."""
    home = tmp_path_factory.mktemp("node")
    settings = make_settings(home, weights=weights_file(home, 5), threads=1)
    image = open_image(whole)
    window_DHW, _ = preprocess(image.read_volume(), "L", "MLO", window_shape=CONFIG.window_shape)
    saliency_CDhw = Predictor.load(settings).predict(window_DHW, lambda: None).saliency_CDhw
    point = float(np.quantile(saliency_CDhw, 0.95))
    settings = settings.model_copy(update={"segment_threshold": point})
    with running(settings) as listener:
        db = Database(settings.db_url)
        with db.transaction() as session:
            session.add(_archive(now(session)))
        yield Node(settings, listener.port, db, InferenceWorker(settings, "test"))
        db.dispose()


def _archive(at: datetime) -> Peer:
    """A peer that gets every kind of result, so that every kind is made."""
    return Peer(
        name="archive", kind="DICOM", ae_title="PACS", host="127.0.0.1", port=9, results=list(KINDS),
        created_at=at,
    )  # fmt: skip


def slices(whole: Path, folder: Path) -> tuple[str, list[Path]]:
    """A study of the same volume, one object a slice: its UID and its files by slice."""
    uid = str(generate_uid())
    return uid, as_ct_series(whole, folder, uid, "L", "MLO")


def shuffled(files: list[Path]) -> list[Path]:
    """In an order that tells nothing."""
    return random.Random(4).sample(files, len(files))


def masks(seg: Dataset) -> dict[tuple[int, str, int], NDArray[np.bool_]]:
    """The mask of each frame by segment, source object and frame of it (1 where no number is given)."""
    stored = seg.pixel_array.reshape(-1, seg.Rows, seg.Columns)
    found = {}
    for item, mask in zip(seg.PerFrameFunctionalGroupsSequence, stored, strict=True):
        source = item.DerivationImageSequence[0].SourceImageSequence[0]
        number = int(item.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
        frame = int(source.get("ReferencedFrameNumber", 1))
        found[number, str(source.ReferencedSOPInstanceUID), frame] = mask.astype(bool)
    return found


def uid_of(path: Path) -> str:
    return str(dcmread(path, stop_before_pixels=True).SOPInstanceUID)


@pytest.mark.system
def test_slices_are_read_as_the_one_object_is(node: Node, whole: Path, tmp_path: Path) -> None:
    node.send(whole)
    one = node.read(str(dcmread(whole, stop_before_pixels=True).StudyInstanceUID))
    study_uid, files = slices(whole, tmp_path)
    node.send(*shuffled(files))
    many = node.read(study_uid)
    [expected], [found] = one.images, many.images
    assert (found.laterality, found.view, found.frames) == ("L", "MLO", DEPTH)
    assert found.score_malignant == expected.score_malignant
    assert found.score_benign == expected.score_benign
    assert found.regions == expected.regions != []
    assert found.sop_uid == uid_of(files[0])

    segs = [dcmread(node.file(run, "SEG")) for run in (one, many)]
    wanted = {
        (segment, uid_of(files[frame - 1])): mask
        for (segment, _, frame), mask in masks(segs[0]).items()
    }
    seen = masks(segs[1])
    assert len({mask.tobytes() for mask in wanted.values()}) == len(wanted) > DEPTH // 2
    assert {frame for *_, frame in seen} == {1}
    assert {key[:2] for key in seen} == wanted.keys()
    for (segment, uid, _), mask in seen.items():
        np.testing.assert_array_equal(mask, wanted[segment, uid])
    check_places(segs[1], files)
    made = {a.name: BlobStore.of(node.settings).path(a.sha256) for a in many.artifacts if a.sop_uid}
    assert {a.kind for a in many.artifacts} == {*KINDS, OVERLAY}
    for name, path in made.items():
        assert "00081160" not in dcmread(path, stop_before_pixels=True).to_json()  # frame number
        if not name.startswith(
            "seg-labelmap"
        ):  # the validator of the distribution does not know it
            assert dciodvfy_errors(path) == [], name
    assert dcentvfy_errors([*files, *made.values()]) == []
    check_page(node, study_uid)


def check_places(seg: Dataset, files: list[Path]) -> None:
    """Each frame claims the place of the slice it names."""
    headers = {uid_of(path): dcmread(path, stop_before_pixels=True) for path in files}
    for item in seg.PerFrameFunctionalGroupsSequence:
        source = item.DerivationImageSequence[0].SourceImageSequence[0]
        header = headers[source.ReferencedSOPInstanceUID]
        assert item.PlanePositionSequence[0].ImagePositionPatient == header.ImagePositionPatient
    assert seg.FrameOfReferenceUID == next(iter(headers.values())).FrameOfReferenceUID


def check_page(node: Node, study_uid: str) -> None:
    """One image, one line of received objects."""
    page = node.page(study_uid)
    assert page.row.images == 1
    assert page.row.instances == DEPTH
    [line] = page.instances
    assert (line.slices, line.frames, line.is_image) == (DEPTH, DEPTH, True)
    assert [image.frames for image in page.runs[0].images] == [DEPTH]


def test_a_missing_slice_leaves_the_series_out_once_and_coming_late_has_it_read(
    node: Node, whole: Path, tmp_path: Path
) -> None:
    study_uid, files = slices(whole, tmp_path)
    late = files.pop(3)
    node.send(*shuffled(files))
    [left_out] = node.read(study_uid).images
    assert left_out.excluded_reason is not None
    assert left_out.excluded_reason.startswith(f"a series of {DEPTH - 1} slices: Slices of the")
    assert left_out.frames == DEPTH - 1
    node.send(late)
    page = node.page(study_uid)
    assert (page.state, page.row.generation) == ("RECEIVING", 2)
    [read] = node.read(study_uid).images
    assert (read.excluded_reason, read.frames) == (None, DEPTH)


def test_the_report_of_a_series_that_does_not_fit_lists_its_slices(
    node: Node, whole: Path, tmp_path: Path
) -> None:
    study_uid, files = slices(whole, tmp_path)
    node.send(*files[:4])
    run = node.read(study_uid)
    report = dcmread(node.file(run, "SR"))
    text = json.dumps(report.to_json_dict())
    assert "not read: a series of 4 slices: The series has too few slices" in text
    listed = {uid_of(path) for path in files[:4]}
    assert all(text.count(uid) >= 2 for uid in listed)  # in the library and in the evidence
    assert dciodvfy_errors(node.file(run, "SR")) == []


def test_views_that_came_in_slices_wait_for_quiet(node: Node, whole: Path, tmp_path: Path) -> None:
    study_uid, files = slices(whole, tmp_path)
    node.send(*files[:2])
    settings = node.settings.model_copy(update={"expected_views": ("L-MLO",), "quiet_s": 3600.0})
    with node.db.reading() as session:
        study = studies.find(session, study_uid)
        verdict = studies.verdict(session, study, settings, now(session))
        [instance, _] = session.execute(
            select(Instance).where(Instance.study_id == study.id)
        ).scalars()
    assert instance.sop_class_uid == CTImageStorage
    assert instance.volume_uid == instance.series_uid
    assert verdict.because is None
    assert "as slices" in verdict.waiting
    with node.db.reading() as session:
        assert registry.answering(session, "") == ""  # no other model was asked
