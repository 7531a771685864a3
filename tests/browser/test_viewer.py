"""A person opens a study in OHIF and sees each segmentation where the lesion is: measured on screenshots.

Served by the node, and with the same viewer by Orthanc's DICOMweb. The lesion is a white disc that is elsewhere in
every frame, so that an overlay on another frame's disc, or mirrored, or turned, is not on it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from node import runs, schema
from node.blobs import BlobStore
from node.config import Settings, child_environment
from node.db import Database
from node.runs import ArtifactFile, Outcome
from tests.conftest import make_settings
from tests.support import disc_study, orthanc_server, viewer
from tests.support.disc_study import VIEWS, DiscStudy, DiscView
from tests.support.factory import Factory
from tests.support.loopback import Loopback, loopback
from tests.support.modules import module_server, run_module
from tests.support.node_process import free_port
from tests.support.orthanc_server import orthanc
from tests.support.viewer import Ohif, Picture, bright, changed, largest

pytestmark = pytest.mark.system

TOLERANCE_PX = 3.0
IMAGES = len(VIEWS)
# Orthanc 1.10.1 gives no frames of one bit, and OHIF reads whole objects as they are only where frames end on a byte.
ALIGNED = [replace(view, columns=disc_study.EVEN) for view in VIEWS[1:3]]


@dataclass(frozen=True)
class Room:
    """Where the servers and the browser are, and the study that they are given."""

    network: Loopback
    browser: Any
    study: DiscStudy
    viewer_files: Path
    folder: Path


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Room]:
    folder = tmp_path_factory.mktemp("viewer")
    files = viewer.files()
    with loopback() as network, viewer.chromium(network, folder) as browser:
        yield Room(network, browser, disc_study.make(folder / "study"), files, folder)


@pytest.fixture(scope="module")
def node(room: Room) -> Iterator[Ohif]:
    """The study in the node's own viewer: images stored by STOW-RS, results those of a run."""
    settings = make_settings(room.folder / "home", web_port=free_port())
    settings.home.mkdir()
    (settings.home / "viewer").symlink_to(room.viewer_files)
    schema.upgrade(settings.db_url)
    base = f"http://127.0.0.1:{settings.web_port}"
    env, log = child_environment(settings), room.folder / "web.log"
    with module_server(room.network, ["workers.cli", "web"], f"{base}/viewer", log, env):
        store(room, f"{base}/dicom-web", room.study.images)
        found_in(settings, room.study)
        page = Ohif(room.browser, base)
        page.open(room.study.study_uid, IMAGES + len(room.study.results))
        yield page
        page.close()


@pytest.fixture(scope="module")
def through_orthanc(room: Room) -> Iterator[Ohif]:
    """A study like it in the same viewer, all of it stored in Orthanc by STOW-RS."""
    orthanc_server.program()
    base = f"http://127.0.0.1:{(port := free_port())}"
    study = disc_study.make(room.folder / "aligned", ALIGNED)
    everything = [*study.images, *(result.path for result in study.segmentations)]
    with orthanc(room.network, room.folder / "orthanc") as archive:
        store(room, archive.dicom_web_url, everything)
        host = archive.dicom_web_url.removesuffix("/dicom-web")
        words = ["tests.support.viewer_front", str(room.viewer_files), host, str(port)]
        log = room.folder / "front.log"
        with module_server(room.network, words, f"{base}/viewer", log, None):
            page = Ohif(room.browser, base)
            page.open(study.study_uid, len(everything))
            yield page
            page.close()


def store(room: Room, url: str, files: Sequence[Path]) -> None:
    """Store files by STOW-RS with a foreign client."""
    run_module(room.network, "tests.support.dicomweb_peer", url, *map(str, files))


def found_in(settings: Settings, study: DiscStudy) -> None:
    """Give the study a run that ended with these results, as a worker does."""
    db, store = Database(settings.db_url), BlobStore.of(settings)
    factory = Factory(db, settings)
    files = []
    for result in study.results:
        content, dataset = result.path.read_bytes(), result.dataset
        uids = (str(dataset.SOPInstanceUID), str(dataset.SOPClassUID))
        digest = store.write(content)
        files.append(
            ArtifactFile(
                result.kind, result.path.name, digest, len(content), result.source_sop_uid, *uids
            )
        )
    claim = factory.claim(factory.close(study.study_uid))
    assert runs.succeed(db, claim, Outcome({"name": "discs"}, [], files), settings)
    db.dispose()


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.name)
def test_the_overlay_lies_on_the_lesion(node: Ohif, view: DiscView) -> None:
    look(node, view)


@pytest.mark.parametrize("view", ALIGNED, ids=lambda view: view.name)
def test_the_overlay_lies_on_the_lesion_through_orthanc(
    through_orthanc: Ohif, view: DiscView
) -> None:
    look(through_orthanc, view)


def test_a_report_breaks_nothing(node: Ohif) -> None:
    """OHIF draws no report whose regions are segments; it must go on all the same."""
    node.report("AI report")
    view = VIEWS[0]
    node.show(title(view))
    node.step_to(view.first + 1)
    assert largest(bright(node.picture(lambda seen: largest(bright(seen))[1] > 0)))[1] > 0
    assert node.complaints == []


def test_nothing_is_asked_of_another_host(node: Ohif) -> None:
    assert len(node.hosts) == 1
    assert node.complaints == []


def title(view: DiscView) -> str:
    """How the description of the view's images begins."""
    return f"{view.laterality} {view.view} tomosynthesis"


def look(page: Ohif, view: DiscView) -> None:
    """Go through the frames around the lesion without and with the segmentation, and compare what is seen."""
    frames = range(view.first - 1, view.last + 1)
    page.show(title(view))
    without = seen_in(page, view, frames, {})
    page.segment(f"{view.laterality} {view.view} regions")
    within = seen_in(page, view, frames, without)

    discs = {frame: largest(bright(without[frame])) for frame in view.frames}
    moved = discs[view.last][0] - discs[view.first][0]
    expected = np.subtract(view.centre(view.last), view.centre(view.first))
    zoom = np.linalg.norm(moved) / np.linalg.norm(expected)
    assert np.abs(moved - zoom * expected).max() <= TOLERANCE_PX  # neither mirrored nor turned
    for frame in frames:
        overlay = changed(without[frame], within[frame])
        if frame not in view.marked:
            assert overlay.sum() == 0, f"an overlay on frame {frame + 1}, which has no segment"
            continue
        (centre, area), (disc, disc_area) = largest(overlay), discs[frame]
        assert np.linalg.norm(centre - disc) <= TOLERANCE_PX, f"frame {frame + 1}: {centre}, {disc}"
        assert (overlay & bright(without[frame])).sum() > 0.97 * disc_area
        assert area < 1.2 * disc_area
        assert abs(disc_area / (np.pi * (zoom * disc_study.RADIUS) ** 2) - 1) < 0.2


def seen_in(
    page: Ohif, view: DiscView, frames: range, without: dict[int, Picture]
) -> dict[int, Picture]:
    """A picture of each frame, once the disc, and the overlay where `without` has what is below, are as they should
    be; or, if they never are, what is seen instead."""
    pictures: dict[int, Picture] = {}
    for frame in frames:
        page.step_to(frame + 1)
        before = pictures.get(frame - 1)

        def expected(seen: Picture, frame: int = frame, before: Picture | None = before) -> bool:
            if before is not None and np.array_equal(seen, before):
                return False  # still the last frame's
            if without:
                return bool(changed(seen, without[frame]).any()) == (frame in view.marked)
            return (largest(bright(seen))[1] > 0) == (frame in view.frames)

        pictures[frame] = page.picture(expected)
    return pictures
