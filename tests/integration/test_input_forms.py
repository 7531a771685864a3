"""What a study holds besides plain tomosynthesis: the private form, 2D of every kind, several images of one view."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from pydicom import dcmread
from pydicom.uid import SecondaryCaptureImageStorage

from dicom_io.errors import RefusalCode
from dicom_io.phantom import PhantomView, write_study
from node.blobs import BlobStore
from tests.conftest import make_settings
from tests.support.breast_edits import modified, of_class, setting
from tests.support.breast_objects import edited
from tests.support.command import environment, tomonode
from tests.support.reading_node import ReadingNode, reading_node
from tests.support.validators import dciodvfy_errors, pixelmed_sr_errors
from tests.support.versions import weights_file
from tests.support.web import served
from tests.unit.workers.breasts import breast

SHAPE = (4, 300, 200)
PRIVATE = RefusalCode.PRIVATE_TOMOSYNTHESIS.sentence


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReadingNode]:
    """With a small model."""
    home = tmp_path_factory.mktemp("node")
    with reading_node(make_settings(home, weights=weights_file(home, 5), threads=1)) as started:
        yield started


@pytest.fixture(scope="module")
def browser(node: ReadingNode) -> Iterator[httpx.Client]:
    """For its pages."""
    with served(node.settings) as client:
        yield client


def private_form(path: Path) -> Path:
    """The object as a secondary capture with a private payload."""
    of_class("7")(dataset := dcmread(path))
    assert dataset.SOPClassUID == SecondaryCaptureImageStorage
    block = dataset.private_block(0x7E01, "HOLOGIC, Inc.", create=True)
    block.add_new(0x12, "OB", b"\1\2" * 5000)
    dataset.save_as(path)
    return path


def study_uid(path: Path) -> str:
    return str(dcmread(path, stop_before_pixels=True).StudyInstanceUID)


def test_the_private_form_is_kept_aside_and_said_wherever_a_study_is_shown(
    node: ReadingNode, browser: httpx.Client, tmp_path: Path
) -> None:
    views = [PhantomView("L", view, breast("L", SHAPE, 2), (0.1, 0.1)) for view in ("CC", "MLO")]
    aside, good = write_study(tmp_path, views, seed=1).files
    uid = study_uid(private_form(aside))
    node.send(aside)
    node.send(aside)  # again: a duplicate, as of any object
    node.close(uid)
    page = node.page(uid)
    assert (page.state, page.row.why) == ("EXCLUDED", PRIVATE)
    [kept] = page.quarantined
    assert (kept.reason, kept.conflict) == (PRIVATE, False)
    [line] = [event for event in page.timeline if event.kind == "quarantined"]
    assert PRIVATE in line.message
    html = browser.get(f"/studies/{uid}").text
    assert '<a href="#aside">1 object</a>' in html
    assert html.count(kept.reason.replace("'", "&#39;")) >= 2
    shown = tomonode("study", "show", uid, "--json", env=environment(node.settings.home))
    [told] = json.loads(shown.stdout)["quarantined"]
    assert told["reason"] == PRIVATE

    node.send(good)
    run = node.read(uid)
    assert [image.excluded_reason for image in run.images] == [None]
    report = dcmread(node.file(run, "SR")).to_json()
    assert f"not read: {PRIVATE}" in report


@pytest.fixture(scope="module")
def mixed(node: ReadingNode, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A study, read: two tomosynthesis images of L-CC, 2D raw, taken and made from tomosynthesis, and a spot view."""
    plane = breast("L", (1, *SHAPE[1:]), 4)
    tomosynthesis = [PhantomView("L", "CC", breast("L", SHAPE, n), (0.1, 0.1)) for n in (2, 3)]
    flat = [PhantomView("L", "MLO", plane, (0.1, 0.1), kind="mammogram") for _ in range(4)]
    study = write_study(tmp_path_factory.mktemp("mixed"), [*tomosynthesis, *flat], seed=2)
    raw, taken, made, spot = study.files[2:]
    edited(raw, of_class("1.2.1"))
    edited(raw, setting(PresentationIntentType="FOR PROCESSING", ImageType=["ORIGINAL", "PRIMARY"]))
    edited(taken, setting(ImageType=["ORIGINAL", "PRIMARY", ""]))
    edited(made, setting(ImageType=["DERIVED", "PRIMARY", "TOMOSYNTHESIS", "GENERATED_2D"]))
    edited(spot, modified("399161006"))
    node.send(*study.files)
    node.read(study.study_instance_uid)
    return study.study_instance_uid


def test_several_images_of_a_view_are_read_and_each_says_so(
    node: ReadingNode, browser: httpx.Client, mixed: str
) -> None:
    images = {image.sop_uid: image for image in node.page(mixed).runs[0].images}
    assert len(images) == 5  # the raw one is not for the model
    notes = {
        (one.view, one.frames): note
        for one in images.values()
        for note in one.notes
        if "of 2" in note
    }
    assert notes == {
        (
            "CC",
            SHAPE[0],
        ): "one of 2 tomosynthesis images of L-CC: each is read, none stands for the others",
        ("MLO", 1): "one of 2 mammogram images of L-MLO: each is read, none stands for the others",
    }
    assert sum("of 2" in note for one in images.values() for note in one.notes) == 4
    html = browser.get(f"/studies/{mixed}").text
    assert html.count("one of 2 tomosynthesis images of L-CC") == 2
    env = environment(node.settings.home)
    assert "one of 2 mammogram images of L-MLO" in tomonode("study", "show", mixed, env=env).stdout


@pytest.mark.system
def test_the_library_of_the_report_lists_what_was_read_and_what_was_not(
    node: ReadingNode, mixed: str
) -> None:
    run = node.page(mixed).runs[0]
    [artifact] = [one for one in run.artifacts if one.kind == "SR"]
    path = BlobStore.of(node.settings).path(artifact.sha256)
    report = dcmread(path)
    [library] = [
        item
        for item in report.ContentSequence
        if item.ConceptNameCodeSequence[0].CodeMeaning == "Image Library"
    ]
    [group] = library.ContentSequence
    comments = sorted(
        " / ".join(i.TextValue for i in image.ContentSequence if i.ValueType == "TEXT")
        for image in group.ContentSequence
    )
    partial = next(image.excluded_reason for image in run.images if image.excluded_reason)
    raw, taken = RefusalCode.FOR_PROCESSING.sentence, "full-field digital mammogram"
    assert comments == [
        "",
        "",
        taken,
        f"{taken} / not read: {raw} (Digital Mammography X-Ray Image Storage - For Processing)",
        f"{taken} / not read: {partial}",
        "synthesized 2D image, made from tomosynthesis",
    ]
    assert dciodvfy_errors(path) == []
    errors = [e for e in pixelmed_sr_errors(path) if "not found in context group 100" not in e]
    assert errors == []
