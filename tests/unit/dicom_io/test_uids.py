"""UIDs of results follow from the run."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dicom_io.uids import IMPLEMENTATION_CLASS_UID, derive_uid

text = st.text(alphabet="0123456789abcdef.-", max_size=20)


@given(text, text, st.lists(text, max_size=3))
def test_same_arguments_give_the_same_valid_uid(run_id: str, kind: str, parts: list[str]) -> None:
    uid = derive_uid(run_id, kind, *parts)
    assert uid == derive_uid(run_id, kind, *parts)
    assert uid.is_valid
    assert len(uid) <= 64


def test_run_kind_and_parts_tell_uids_apart() -> None:
    uids = {
        derive_uid("run", "seg", "1.2", "3"),
        derive_uid("run", "seg", "1.23"),
        derive_uid("run", "seg", "1.2", "3", ""),
        derive_uid("run", "seg1.2", "3"),
        derive_uid("runseg", "1.2", "3"),
        derive_uid("run", "sr", "1.2", "3"),
    }
    assert len(uids) == 6


def test_implementation_class_uid_is_valid() -> None:
    assert IMPLEMENTATION_CLASS_UID.is_valid
