"""Edits of breast objects: each gives a function that changes a data set."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydicom.dataset import Dataset

from tests.support.breast_objects import shared_item

STORAGE = "1.2.840.10008.5.1.4.1.1."
Edit = Callable[[Dataset], None]


def setting(**attributes: Any) -> Edit:
    """Attributes set to values."""

    def edit(dataset: Dataset) -> None:
        for keyword, value in attributes.items():
            setattr(dataset, keyword, value)

    return edit


def without(*keywords: str) -> Edit:
    """Attributes removed."""

    def edit(dataset: Dataset) -> None:
        for keyword in keywords:
            delattr(dataset, keyword)

    return edit


def of_class(tail: str) -> Edit:
    """Another storage class, by the end of its UID."""

    def edit(dataset: Dataset) -> None:
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = STORAGE + tail

    return edit


def modified(code: str) -> Edit:
    """One view modifier, by its code."""

    def edit(dataset: Dataset) -> None:
        modifier = Dataset()
        modifier.CodeValue = code
        dataset.ViewCodeSequence[0].ViewModifierCodeSequence = [modifier]

    return edit


def with_laterality(value: str) -> Edit:
    """Another laterality of the frames' anatomy."""
    return lambda dataset: setattr(
        shared_item(dataset, "FrameAnatomySequence"), "FrameLaterality", value
    )


def with_view_code(value: str) -> Edit:
    """Another view code."""
    return lambda dataset: setattr(dataset.ViewCodeSequence[0], "CodeValue", value)
