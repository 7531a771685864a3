"""UIDs that follow from the run, so that writing a result again gives the same instance."""

from __future__ import annotations

from pydicom.uid import UID, generate_uid

# Written into the file meta information of every object made here (PS3.7 D.3.3.2). Derived once from
# uuid5(NAMESPACE_URL, "tomonode"); a constant, since the same software must always give the same value.
IMPLEMENTATION_CLASS_UID = UID("2.25.95417631228307589266787856001174348794")
IMPLEMENTATION_VERSION_NAME = "TOMONODE_0_1"

_SEPARATOR = "\x1f"


def derive_uid(run_id: str, kind: str, *parts: str) -> UID:
    """UID of one object of a run: the same arguments always give the same UID.

    Args:
        run_id: UUID of the run.
        kind: what the UID names ("seg", "seg-series", "sr", ...).
        parts: what tells objects of one kind apart (a source SOP Instance UID, a label, a number).

    The parts are joined with a character no UID or UUID holds, so ("ab", "c") and ("a", "bc") differ.
    """
    return generate_uid(entropy_srcs=[_SEPARATOR.join((run_id, kind, *parts))])
