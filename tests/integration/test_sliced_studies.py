"""Tomosynthesis sent one CT object a slice, over a real association, read by the real worker as one object is."""

from __future__ import annotations

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
from node import studies
from node.db import now
from node.models import Instance, Peer, Run
from node.results import KINDS, OVERLAY, SEG_LABELMAP, TWIN
from tests.conftest import make_settings
from tests.support.ct_series import as_ct_series
from tests.support.reading_node import ReadingNode, reading_node
from tests.support.validators import dcentvfy_errors, dciodvfy_errors
from tests.support.versions import CONFIG, weights_file
from tests.unit.workers.breasts import breast
from workers.demo_report import Story, rows, write_overlays
from workers.predict import predict_files
from workers.predictor import Predictor
from workers.readback import read_folder

DEPTH = 8
SHAPE = (DEPTH, 300, 200)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The volume as one tomosynthesis object."""
    made = breast("L", SHAPE, 3)
    for depth in range(DEPTH):  # no two slices alike
        made[depth, 60 + 20 * depth : 90 + 20 * depth, 20:60] = 3000
    view = PhantomView("L", "MLO", made, (0.1, 0.1))
    return write_study(tmp_path_factory.mktemp("whole"), [view], seed=1).files[0]


@pytest.fixture(scope="module")
def node(whole: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReadingNode]:
    """With a small model, and an operating point that marks some cells of some slices."""
    home = tmp_path_factory.mktemp("node")
    settings = make_settings(home, weights=weights_file(home, 5), threads=1)
    image = open_image(whole)
    window_DHW, _ = preprocess(image.read_volume(), "L", "MLO", window_shape=CONFIG.window_shape)
    saliency_CDhw = Predictor.load(settings).predict(window_DHW, lambda: None).saliency_CDhw
    point = float(np.quantile(saliency_CDhw, 0.95))
    settings = settings.model_copy(update={"segment_threshold": point})
    with reading_node(settings) as started:
        with started.db.transaction() as session:
            session.add(_archive(now(session)))
        yield started


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
def test_slices_are_read_as_the_one_object_is(
    node: ReadingNode, whole: Path, tmp_path: Path
) -> None:
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
    assert {artifact.kind for artifact in many.artifacts} == {*KINDS, OVERLAY}
    made = []
    for kind, path in node.objects(many):
        assert "00081160" not in dcmread(path, stop_before_pixels=True).to_json()  # frame number
        if kind != SEG_LABELMAP:  # which the validator of the distribution does not know
            assert dciodvfy_errors(path) == [], kind
        if kind != TWIN:  # which is the SEG in another form
            made.append(path)
    assert dcentvfy_errors([*files, *made]) == []
    check_page(node, study_uid)
    check_readback(node, many, files, tmp_path / "pacs")


def check_readback(node: ReadingNode, run: Run, files: list[Path], folder: Path) -> None:
    """What a receiver makes of them: the same regions and masks, slice by slice, and a picture."""
    folder.mkdir()
    for kind in ("SEG", "SR"):
        (folder / kind).write_bytes(node.file(run, kind).read_bytes())
    received = read_folder(folder)
    sent = {uid_of(path): path for path in files}
    received.check_references(sent)
    first = uid_of(files[0])
    [report] = received.reports
    [image] = run.images
    wanted = sorted((r["label"], r["key_frame"] + 1) for r in image.regions)
    assert sorted((r.label, r.key_frame) for r in report.regions[first]) == wanted
    seg = received.segmentations[first]
    masked = masks(dcmread(node.file(run, "SEG")))
    number = max(seg.frames["malignant"])
    mask = seg.masks(number)["malignant"]
    assert any(
        np.array_equal(mask, found)
        for (_, uid, _), found in masked.items()
        if uid == uid_of(files[number - 1])
    )
    story = Story(received, [], sent, [], {}, None)
    assert len(write_overlays(story, folder.parent / "pictures", lambda _line: None)) == 1
    [row] = rows(story, {})
    assert (row["view"], row["frames"]) == ("L-MLO", seg.frame_count)


def check_places(seg: Dataset, files: list[Path]) -> None:
    """Each frame claims the place of the slice it names."""
    headers = {uid_of(path): dcmread(path, stop_before_pixels=True) for path in files}
    for item in seg.PerFrameFunctionalGroupsSequence:
        source = item.DerivationImageSequence[0].SourceImageSequence[0]
        header = headers[source.ReferencedSOPInstanceUID]
        assert item.PlanePositionSequence[0].ImagePositionPatient == header.ImagePositionPatient
    assert seg.FrameOfReferenceUID == next(iter(headers.values())).FrameOfReferenceUID


def check_page(node: ReadingNode, study_uid: str) -> None:
    """One image, one line of received objects."""
    page = node.page(study_uid)
    assert page.row.images == 1
    assert page.row.instances == DEPTH
    [line] = page.instances
    assert (line.slices, line.frames, line.is_image) == (DEPTH, DEPTH, True)
    assert [image.frames for image in page.runs[0].images] == [DEPTH]


def test_a_missing_slice_leaves_the_series_out_once_and_coming_late_has_it_read(
    node: ReadingNode, whole: Path, tmp_path: Path
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
    node: ReadingNode, whole: Path, tmp_path: Path
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


def test_views_that_came_in_slices_wait_for_quiet(
    node: ReadingNode, whole: Path, tmp_path: Path
) -> None:
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


def test_files_of_a_series_are_read_as_one_image(
    node: ReadingNode, whole: Path, tmp_path: Path
) -> None:
    """By `tomonode predict`, without a node."""
    slices(whole, tmp_path / "in")
    summary = predict_files([tmp_path / "in"], tmp_path / "out", node.settings)
    [study] = summary["studies"]
    [image] = study["images"]
    assert (image["view"], image["frames"], image["excluded_reason"]) == ("MLO", DEPTH, None)
