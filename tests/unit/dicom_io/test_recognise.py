"""What an object is, from its header."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from pydicom.dataset import Dataset

from dicom_io.dbt import open_image
from dicom_io.errors import ImageRefused, RefusalCode
from dicom_io.header import InstanceHeader, read_header
from dicom_io.recognise import Kind, kind_of, repeated_views
from tests.support.breast_edits import Edit, of_class, setting
from tests.support.breast_objects import edited, view_file, volume
from tests.support.shared import shared_path

Edits = tuple[Edit, ...]


def kind(path: Path, *edits: Edit) -> Kind:
    for edit in edits:
        edited(path, edit)
    return kind_of(read_header(path))


def as_slice(**attributes: object) -> Edits:
    """A CT slice that says side and view, and nothing else of a breast but what is given."""
    bare = setting(
        Modality="CT", ImageLaterality="R", ViewPosition="MLO", ImageType=["DERIVED", "SECONDARY"]
    )
    return (of_class("2"), without_groups, bare, setting(**attributes))


def without_groups(dataset: Dataset) -> None:
    for keyword in (
        "SharedFunctionalGroupsSequence",
        "PerFrameFunctionalGroupsSequence",
        "ViewCodeSequence",
        "BodyPartExamined",
    ):
        if keyword in dataset:
            delattr(dataset, keyword)


def breast_region(dataset: Dataset) -> None:
    region = Dataset()
    region.CodeValue, region.CodingSchemeDesignator, region.CodeMeaning = "T-04000", "SRT", "Breast"
    dataset.AnatomicRegionSequence = [region]


def with_payload(creator: str, group: int = 0x7E01) -> Edit:
    """A private block with a payload, as the private form of tomosynthesis has it."""

    def edit(dataset: Dataset) -> None:
        block = dataset.private_block(group, creator, create=True)
        block.add_new(0x12, "OB", b"\1\2" * 5000)

    return edit


def test_tomosynthesis_and_mammograms_are_known_by_class(tmp_path: Path) -> None:
    assert kind(view_file(tmp_path)) is Kind.TOMOSYNTHESIS
    made = view_file(tmp_path / "2d", volume_DHW=volume(shape=(1, 60, 40)), kind="mammogram")
    assert kind(made) is Kind.MAMMOGRAM
    assert kind(made, of_class("1.2.1")) is Kind.OTHER  # For Processing is for no reader


@pytest.mark.parametrize(
    "edits",
    [
        as_slice(Modality="MG"),
        as_slice(BodyPartExamined="BREAST"),
        as_slice(ImageType=["DERIVED", "PRIMARY", "TOMO", "NONE"]),
        (*as_slice(), breast_region),
    ],
    ids=["modality", "body part", "image type", "region"],
)
def test_a_ct_slice_with_side_view_and_a_sign_of_the_breast_is_tomosynthesis(
    tmp_path: Path, edits: Edits
) -> None:
    assert kind(view_file(tmp_path), *edits) is Kind.TOMO_SLICE


@pytest.mark.parametrize(
    "edits",
    [
        as_slice(),
        as_slice(Modality="MG", ImageLaterality=""),
        as_slice(Modality="MG", ViewPosition=""),
        as_slice(BodyPartExamined="CHEST"),
        as_slice(BodyPartExamined="BREAST", ImageLaterality="B"),
        (*as_slice(Modality="MG"), of_class("2.1")),
    ],
    ids=["no sign", "no side", "no view", "chest", "both breasts", "another class"],
)
def test_other_ct_is_no_tomosynthesis(tmp_path: Path, edits: Edits) -> None:
    assert kind(view_file(tmp_path), *edits) is Kind.OTHER


@pytest.mark.parametrize("group", [0x7E01, 0x7F01])
@pytest.mark.parametrize("tail", ["7", "7.3"])
def test_the_private_form_is_known_by_its_payload_and_refused(
    tmp_path: Path, tail: str, group: int
) -> None:
    path = view_file(tmp_path)
    assert kind(path, of_class(tail), with_payload("HOLOGIC, Inc.", group)) is Kind.PRIVATE_TOMO
    with pytest.raises(ImageRefused, match="private form") as caught:
        open_image(path)
    assert caught.value.code is RefusalCode.PRIVATE_TOMOSYNTHESIS


def test_other_secondary_captures_and_other_payloads_are_not_it(tmp_path: Path) -> None:
    path = view_file(tmp_path)
    assert kind(path, with_payload("HOLOGIC, Inc.")) is Kind.TOMOSYNTHESIS
    assert kind(path, of_class("7"), with_payload("ELSCINT1")) is Kind.PRIVATE_TOMO  # still there
    other = view_file(tmp_path / "other")
    assert kind(other, of_class("7")) is Kind.OTHER
    assert kind(other, with_payload("ELSCINT1")) is Kind.OTHER
    assert kind(other, with_payload("HOLOGIC, Inc.", 0x0019)) is Kind.OTHER


def test_no_object_of_another_kind_is_taken_for_a_breast() -> None:
    for folder in ("odd", "seg_sr"):
        for path in sorted(shared_path("data", folder).iterdir()):
            assert kind_of(read_header(path)) is Kind.OTHER, path.name
    assert kind_of(read_header(shared_path("data", "real", "hologic_bto_header.dcm"))) is (
        Kind.TOMOSYNTHESIS
    )


def header(path: Path, uid: str, **changes: object) -> InstanceHeader:
    return dataclasses.replace(read_header(path), sop_instance_uid=uid, **changes)  # type: ignore[arg-type]


def test_several_images_of_one_view_are_told_apart_from_other_views(tmp_path: Path) -> None:
    path = view_file(tmp_path, "L", "CC")
    flat = "1.2.840.10008.5.1.4.1.1.1.2"
    notes = repeated_views(
        [
            header(path, "1.1"),
            header(path, "1.2"),
            header(path, "1.3", view_modifiers=("ID",)),
            header(path, "1.4", laterality="R"),
            header(path, "1.5", view="MLO"),
            header(path, "1.6", sop_class_uid=flat),
            header(path, "1.7", view=None),
            header(path, "1.8", view=None),
        ]
    )
    assert set(notes) == {"1.1", "1.2"}
    assert notes["1.1"].startswith("one of 2 tomosynthesis images of L-CC")


def test_slices_of_one_series_are_one_image(tmp_path: Path) -> None:
    path = edited(view_file(tmp_path), of_class("2"))
    slices = [header(path, f"1.{n}") for n in range(3)]
    assert repeated_views(slices) == {}
    more = [header(path, f"2.{n}", series_instance_uid="1.9") for n in range(3)]
    notes = repeated_views(slices + more)
    assert len(notes) == 6
    assert notes["2.1"].startswith("one of 2 tomosynthesis images")
