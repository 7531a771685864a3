"""What the node vouches for (DICOM PS3.4 J.3.1): an object of that class and UID has its row, and its bytes are stored.

Bytes are compared by their number alone: reading gigabytes again for each request would let anybody keep the node busy.
`tomonode doctor` and every worker compare digests.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session

from node import commitment_claims
from node.blobs import BlobStore
from node.commitment_claims import Claim
from node.commitments import Decided, Reference
from node.db import Database
from node.errors import BlobAbsent
from node.models import Artifact, Instance

NO_SUCH_OBJECT = 0x0112
OTHER_CLASS = 0x0119
_AT_ONCE = 500  # UIDs in one query


class _Kept(NamedTuple):
    sop_class_uid: str
    sha256: str
    size_bytes: int


def of_claim(db: Database, store: BlobStore, held: Claim) -> tuple[Decided, ...] | None:
    """What is said of the objects of a claim: decided once, and kept before anybody is told. None: the lease was lost.

    Raises:
        DatabaseUnavailable, BlobStoreUnavailable: nobody knows now.
    """
    if held.decided is not None:
        return held.decided
    decided = decide(db, store, held.references)
    return decided if commitment_claims.note(db, held, decided) else None


def decide(db: Database, store: BlobStore, references: Sequence[Reference]) -> tuple[Decided, ...]:
    """Judge each object: received, kept aside too, or made by a run.

    Raises:
        DatabaseUnavailable: nobody knows now.
        BlobStoreUnavailable: an object is not on this host, and the shared store does not answer.
    """
    kept: dict[str, _Kept] = {}
    with db.reading() as session:
        wanted = list(dict.fromkeys(one.sop_uid for one in references))
        for start in range(0, len(wanted), _AT_ONCE):
            kept |= _kept(session, wanted[start : start + _AT_ONCE])
    return tuple(Decided(one, _failure(one, kept.get(one.sop_uid), store)) for one in references)


def _kept(session: Session, sop_uids: Sequence[str]) -> dict[str, _Kept]:
    made = select(Artifact.sop_uid, Artifact.sop_class_uid, Artifact.sha256, Artifact.size_bytes)
    came = select(Instance.sop_uid, Instance.sop_class_uid, Instance.sha256, Instance.size_bytes)
    rows = [
        *session.execute(made.where(Artifact.sop_uid.in_(sop_uids))),
        # an object of ours that came back is vouched for as it came
        *session.execute(came.where(Instance.sop_uid.in_(sop_uids))),
    ]
    return {row[0]: _Kept(row[1], row[2], row[3]) for row in rows}


def _failure(reference: Reference, kept: _Kept | None, store: BlobStore) -> int | None:
    if kept is None:
        return NO_SUCH_OBJECT
    if kept.sop_class_uid != reference.sop_class_uid:
        return OTHER_CLASS
    return None if _stored(kept, store) else NO_SUCH_OBJECT


def _stored(kept: _Kept, store: BlobStore) -> bool:
    try:
        return store.path(kept.sha256).stat().st_size == kept.size_bytes
    except FileNotFoundError:
        if store.remote is None:
            return False
    try:
        return store.remote.size(kept.sha256) == kept.size_bytes
    except BlobAbsent:
        return False
