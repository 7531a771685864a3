"""The tables of accepted classes and syntaxes against pydicom's dictionary of the standard."""

from __future__ import annotations

import pytest
from pydicom.sr._concepts_dict import concepts
from pydicom.sr._snomed_dict import mapping
from pydicom.uid import UID

from dicom_io import codes
from dicom_io.syntaxes import STORAGE_CLASSES, TRANSFER_SYNTAXES

NEWER_THAN_THE_DICTIONARY = {
    "1.2.840.10008.5.1.4.1.1.66.7",  # Label Map Segmentation
    "1.2.840.10008.1.2.4.201",
    "1.2.840.10008.1.2.4.202",
    "1.2.840.10008.1.2.4.203",
}


@pytest.mark.parametrize("uid", sorted(set(STORAGE_CLASSES) - NEWER_THAN_THE_DICTIONARY))
def test_a_storage_class_is_one(uid: str) -> None:
    assert UID(uid).type == "SOP Class"
    assert "Storage" in UID(uid).name


@pytest.mark.parametrize("uid", sorted(set(TRANSFER_SYNTAXES) - NEWER_THAN_THE_DICTIONARY))
def test_a_transfer_syntax_is_one(uid: str) -> None:
    assert UID(uid).is_transfer_syntax


def test_no_transfer_syntax_is_listed_twice() -> None:
    assert len(TRANSFER_SYNTAXES) == len(set(TRANSFER_SYNTAXES))


@pytest.mark.parametrize(
    "entry", [*codes.VIEWS, *codes.VIEW_MODIFIERS], ids=lambda entry: entry.name
)
def test_old_and_new_code_are_one_concept(entry: codes.View | codes.ViewModifier) -> None:
    meanings = {
        meaning
        for named in concepts["SCT"].values()
        for code, (meaning, _) in named.items()
        if code == entry.sct
    }
    assert meanings, "not a code of the standard's context groups"
    assert mapping["SCT"][entry.sct] == entry.srt


@pytest.mark.parametrize("view", codes.VIEWS, ids=lambda view: view.name)
def test_a_view_is_found_by_either_code_and_by_name(view: codes.View) -> None:
    assert codes.view_from_code(view.sct) is codes.view_from_code(f" {view.srt}") is view
    assert codes.view_from_name(view.name.lower()) is view


def test_an_unknown_code_is_no_view() -> None:
    assert codes.view_from_code("G-8310") is None
    assert codes.modifier_from_code("") is None
