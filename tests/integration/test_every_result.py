"""A real run for peers that want every kind of result: what arrives, in which order, and what other people's validators
say of each object."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from dicom_io.phantom import PhantomView, write_study
from node import deliveries, peers, reruns, results, studies
from node.db import now
from node.errors import Conflict
from node.models import Artifact, Run
from node.peer_parts import Part
from tests.conftest import make_settings
from tests.support.pacs import AE_TITLE, Pacs, pacs
from tests.support.validators import (
    beyond_procedure,
    dcentvfy_errors,
    dciodvfy_errors,
    label_map_errors,
    pixelmed_sr_errors,
)
from tests.support.worker_node import WorkerNode, worker_node
from tests.unit.workers.breasts import breast

JPEG_2000_LOSSLESS = "1.2.840.10008.1.2.4.90"
ALL = tuple(kind for kind in results.KINDS if kind != results.TWIN)
OF_PEER = {
    "all": Part(ALL),
    "compressed": Part((results.SEG_JPEG2000, results.KEY_OBJECTS)),
    "usual": Part(),
    "archive": Part((), queried=True),
}
VIEWS: tuple[tuple[Literal["L", "R"], str], ...] = (("L", "CC"), ("R", "MLO"))


@dataclass
class Journey:
    """A study that was read and delivered, and everything that took part."""

    node: WorkerNode
    study_uid: str
    files: list[Path]
    run: Run
    pacs: dict[str, Pacs] = field(default_factory=dict)

    def path(self, artifact: Artifact) -> Path:
        return self.node.blobs.path(artifact.sha256)

    def of_kind(self, kind: str) -> list[Artifact]:
        return [one for one in self.run.artifacts if one.kind == kind]

    def document(self, kind: str) -> Dataset:
        """The object of a kind that there is one of."""
        (artifact,) = self.of_kind(kind)
        return dcmread(self.path(artifact))


@pytest.fixture(scope="module")
def journey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Journey]:
    """Two views, weights of which every cell counts, and peers that want different things."""
    home = tmp_path_factory.mktemp("node")
    views = [PhantomView(s, v, breast(s, (2, 320, 200)), (0.1, 0.1)) for s, v in VIEWS]
    study = write_study(home / "study", views, seed=77)
    uid = study.study_instance_uid
    settings = make_settings(home, segment_threshold=0.001)
    with ExitStack() as stack:
        servers = {name: stack.enter_context(pacs()) for name in OF_PEER}
        node = stack.enter_context(worker_node(settings))
        with node.db.transaction() as session:
            for name, part in OF_PEER.items():
                port, at = servers[name].port, now(session)
                peer = peers.dicom_peer(name, AE_TITLE, "127.0.0.1", port, at)
                peers.add(session, peer, part)
        for worker in [node.start("inference"), node.start("delivery")]:
            worker.wait_ready()
        node.receive(study.files)
        node.complete(uid)
        _wait_sent(node, uid)
        yield Journey(node, uid, list(study.files), node.run(uid), servers)


def _wait_sent(node: WorkerNode, uid: str) -> None:
    for name in ("all", "compressed", "usual"):
        node.wait_delivery(uid, name, "SENT")


def arrived(journey: Journey, name: str) -> list[tuple[str, str]]:
    """Kinds and UIDs of what a peer got of the run, in the order of arrival."""
    wanted = OF_PEER[name].results or results.USUAL
    kinds = {one.sop_uid: one.kind for one in journey.run.artifacts if one.kind in wanted}
    return [(kinds[o.sop_uid], o.sop_uid) for o in journey.pacs[name].stored if o.sop_uid in kinds]


@pytest.mark.parametrize("name", ["all", "compressed", "usual"])
def test_each_peer_gets_its_kinds_and_what_is_referred_to_comes_first(
    journey: Journey, name: str
) -> None:
    kinds = [kind for kind, _ in arrived(journey, name)]
    assert set(kinds) == set(OF_PEER[name].results or results.USUAL)
    assert kinds == sorted(kinds, key=results.KINDS.index)
    assert len(kinds) == len(journey.pacs[name].counts) == len(journey.pacs[name].stored)


def test_a_peer_that_takes_no_results_gets_none(journey: Journey) -> None:
    assert journey.pacs["archive"].associations == 0
    assert "archive" not in journey.node.deliveries(journey.run)


def test_a_segmentation_in_another_form_is_the_same_instance(journey: Journey) -> None:
    compressed = [one for one in journey.pacs["compressed"].stored if "66.4" in one.sop_class_uid]
    assert {one.transfer_syntax_uid for one in compressed} == {JPEG_2000_LOSSLESS}
    native = {one.sop_uid for one in journey.of_kind(results.SEG)}
    assert {one.sop_uid for one in compressed} == native


def test_the_selection_refers_to_what_was_made(journey: Journey) -> None:
    selection = journey.document(results.KEY_OBJECTS)
    referred = {
        item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID
        for item in selection.ContentSequence
        if "ReferencedSOPSequence" in item
    }
    sources = {dcmread(path, stop_before_pixels=True).SOPInstanceUID for path in journey.files}
    made = [*journey.of_kind(results.SEG), *journey.of_kind(results.KEY_IMAGE)]
    assert referred == sources | {one.sop_uid for one in made}


@pytest.mark.system
def test_everything_that_the_run_made_is_valid(journey: Journey) -> None:
    for artifact in journey.run.artifacts:
        if artifact.kind == results.SEG_LABELMAP:
            assert label_map_errors(journey.path(artifact)) == [], artifact.name
        elif artifact.kind in results.KINDS:
            assert dciodvfy_errors(journey.path(artifact)) == [], artifact.name
    for kind in (results.SR, results.CAD_SR):
        (artifact,) = journey.of_kind(kind)
        assert beyond_procedure(pixelmed_sr_errors(journey.path(artifact))) == []


@pytest.mark.system
def test_everything_that_the_run_made_is_consistent_with_the_study(journey: Journey) -> None:
    made = [journey.path(one) for one in journey.run.artifacts if one.kind in ALL]
    assert dcentvfy_errors([*journey.files, *made]) == []


def test_scores_are_those_that_the_masks_were_cut_from(journey: Journey) -> None:
    """The threshold lies below one level, so every marked pixel has a score, and none that is not marked has."""
    fractional, binary = (
        {one.source_sop_uid: dcmread(journey.path(one)) for one in journey.of_kind(kind)}
        for kind in (results.SEG_FRACTIONAL, results.SEG)
    )
    assert fractional.keys() == binary.keys()
    for uid, scores in fractional.items():
        assert ((scores.pixel_array > 0) == (binary[uid].pixel_array > 0)).all()
        assert len(scores.pixel_array) == 4  # two frames of each label


def test_kinds_that_a_peer_gains_are_sent_where_made_and_made_by_the_next_run(
    journey: Journey,
) -> None:
    """Last of this file: it has the study read again."""
    node, uid = journey.node, journey.study_uid
    first = {kind: journey.document(kind) for kind in results.DOCUMENTS}
    delivery = node.deliveries(journey.run)["usual"]
    with node.db.transaction() as session:
        with pytest.raises(Conflict, match="has all that the run made"):
            deliveries.retry(session, delivery.id, node.settings, now(session))
        gained = Part((*results.USUAL, results.CAD_SR))
        assert peers.change(session, "usual", gained) == 0
    before = len(journey.pacs["usual"].stored)
    with node.db.transaction() as session:
        deliveries.retry(session, delivery.id, node.settings, now(session))
    node.wait_delivery(uid, "usual", "SENT")
    (new,) = journey.pacs["usual"].stored[before:]
    assert new.sop_uid == first[results.CAD_SR].SOPInstanceUID
    with node.db.transaction() as session:
        study = studies.find(session, uid)
        reruns.retry(session, study, node.settings, node.version, now(session))
    _wait_sent(node, uid)
    later = Journey(node, uid, journey.files, node.run(uid))
    for kind, earlier in first.items():
        (document,) = later.document(kind).PredecessorDocumentsSequence
        (series,) = document.ReferencedSeriesSequence
        assert series.SeriesInstanceUID == earlier.SeriesInstanceUID
        (named,) = series.ReferencedSOPSequence
        assert named.ReferencedSOPInstanceUID == earlier.SOPInstanceUID
        assert named.ReferencedSOPClassUID == earlier.SOPClassUID
