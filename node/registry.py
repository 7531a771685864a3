"""The registry: facts of weights in, rows out; what a version is used for changes only here, and each change is signed.

A version's weights lie in the blob store under their digest and never change. Its state moves by
`node.lifecycle.MODEL`, through `node.db.transition`, and every move leaves a `ModelDecision`.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from node import promotion
from node.db import transition
from node.errors import ConfigError, Conflict, NotFound
from node.labels.values import name_of
from node.learning_models import Dataset, Evaluation, ModelDecision, ModelVersion
from node.lifecycle import ModelEvent, ModelState, RunEvent, RunState, sources_and_target
from node.model_history import REGISTER, RESTORE, ROLLBACK, previous
from node.models import Run
from node.promotion import Evidence, Signed, Terms


@dataclass(frozen=True)
class Facts:
    """What is known of a set of weights that lies in the blob store. `version` is what reports call it."""

    version: str
    sha256: str
    size_bytes: int
    architecture: Mapping[str, Any]
    preprocessing: Mapping[str, Any]
    operating_points: Mapping[str, Any]
    trained: bool
    description: str
    licence: str
    code_version: str
    dataset_id: uuid.UUID | None = None
    dataset_hash: str | None = None
    training_run_id: uuid.UUID | None = None
    metrics: Mapping[str, Any] = field(default_factory=dict)


def register(session: Session, facts: Facts, by: str, at: datetime) -> ModelVersion:
    """The version of these weights: a new candidate, or the one that has the same digest already.

    Raises:
        Conflict: the name is taken by other weights.
        ConfigError, InvalidLabel: a name, a licence or a person that cannot be written down.
    """
    known = session.execute(
        select(ModelVersion).where(ModelVersion.sha256 == facts.sha256)
    ).scalar()
    if known is not None:
        return known
    if name_of("--name", facts.version) != facts.version:
        raise ConfigError(f"model name {facts.version!r} begins or ends with a space; leave it out")
    name_of("--licence", facts.licence)
    require_free(session, facts.version, facts.sha256)
    dictionaries = ("architecture", "preprocessing", "operating_points", "metrics")
    values = {**vars(facts), **{name: dict(getattr(facts, name)) for name in dictionaries}}
    row = ModelVersion(id=uuid.uuid4(), created_by=by, created_at=at, **values)
    session.add(row)
    try:
        session.flush()
    except IntegrityError:
        raise Conflict(
            f"model {facts.version!r} is being registered by somebody else; look again"
        ) from None
    _record(session, row, REGISTER, Signed(by), at, to_state=ModelState.CANDIDATE)
    return row


def require_free(session: Session, version: str, sha256: str) -> None:
    """Raises Conflict where other weights have the name."""
    if other := holder(session, version, sha256):
        raise Conflict(
            f"model {version!r} is there already, with other weights (sha256 {other[:12]}); give another name"
        )


def holder(session: Session, version: str, sha256: str) -> str | None:
    """Digest of the other weights that have the name; None where it is free, or theirs."""
    found = session.execute(
        select(ModelVersion.sha256).where(ModelVersion.version == version)
    ).scalar_one_or_none()
    return None if found == sha256 else found


def find(session: Session, version: str) -> ModelVersion:
    """A version by its name.

    Raises:
        NotFound: no such version.
    """
    row = session.execute(
        select(ModelVersion).where(ModelVersion.version == version)
    ).scalar_one_or_none()
    if row is None:
        raise NotFound(f"no model {version!r}; `tomonode model list` shows what is here")
    return row


def active(session: Session) -> ModelVersion | None:
    """The version that answers for the node, if there is one."""
    return session.execute(
        select(ModelVersion).where(ModelVersion.state == ModelState.ACTIVE)
    ).scalar_one_or_none()


def answering(session: Session, configured: str) -> str:
    """The version that new runs are queued for: the active one, or the configured one until there is one."""
    present = active(session)
    return configured if present is None else present.version


def shadows(session: Session) -> list[ModelVersion]:
    """The versions that read every study and whose results are never delivered."""
    query = select(ModelVersion).where(ModelVersion.state == ModelState.SHADOW)
    return list(session.execute(query.order_by(ModelVersion.created_at)).scalars())


def versions(session: Session) -> list[ModelVersion]:
    """All versions, newest first."""
    return list(
        session.execute(select(ModelVersion).order_by(ModelVersion.created_at.desc())).scalars()
    )


def evaluations(session: Session, version_id: uuid.UUID) -> list[Evaluation]:
    """A version's evaluations, newest first."""
    query = select(Evaluation).where(Evaluation.version_id == version_id)
    return list(session.execute(query.order_by(Evaluation.created_at.desc())).scalars())


def shadow(session: Session, version: str, signed: Signed, at: datetime) -> ModelVersion:
    """From now on the version reads every study beside the active one.

    Raises:
        NotFound, Conflict: no such version, or it is shadow or active already.
    """
    row = find(session, version)
    _move(session, row, ModelEvent.SHADOW, signed, at)
    return row


def withdraw(session: Session, version: str, signed: Signed, at: datetime) -> ModelVersion:
    """From shadow back to candidate.

    Raises:
        NotFound, Conflict: no such version, or it is not shadow.
    """
    row = find(session, version)
    _move(session, row, ModelEvent.WITHDRAW, signed, at)
    return row


def retire(session: Session, version: str, signed: Signed, at: datetime) -> ModelVersion:
    """Put a version away; it may come back.

    Raises:
        NotFound, Conflict: no such version, or it is retired already, or it answers for the node.
    """
    row = find(session, version)
    if row.state == ModelState.ACTIVE:
        raise Conflict(f"model {version!r} answers for the node; promote another, or roll back")
    _move(session, row, ModelEvent.RETIRE, signed, at)
    return row


def promote(
    session: Session, version: str, signed: Signed, terms: Terms, at: datetime
) -> ModelVersion:
    """From now on new runs are of this version, and the one that was active is retired.

    Old studies are not read again. The newest evaluation must carry it (`node.promotion`), or a reason overrides.

    Raises:
        NotFound: no such version.
        Conflict: it is active already, names are missing, or nothing carries the promotion.
    """
    row, present = find(session, version), active(session)
    if row.state == ModelState.ACTIVE:
        raise Conflict(f"model {version!r} is active already; nothing to promote")
    wrong = promotion.unsigned(signed, terms)
    if wrong is not None:
        raise Conflict(f"model {version!r} is not promoted: {wrong}")
    newest = next(iter(evaluations(session, row.id)), None)
    if not signed.override:
        why = promotion.refusal(_evidence(session, newest), present.id if present else None, terms)
        if why is not None:
            raise Conflict(
                f"model {version!r} is not promoted: {why}; or override it with a reason (--override --reason)"
            )
    if present is not None:
        replaced = Signed(signed.by, signed.approved_by, f"replaced by {row.version}")
        _move(session, present, ModelEvent.RETIRE, replaced, at)
    carried_by = newest.id if newest else None
    _move(session, row, ModelEvent.PROMOTE, signed, at, evaluation_id=carried_by)
    return row


def rollback(session: Session, signed: Signed, at: datetime) -> ModelVersion | None:
    """Back to the version that was active before the present one; again, and it goes one further back.

    Needs no evaluation. None: before it no version was active, and the node's configured weights answer again.

    Raises:
        Conflict: no version is active.
    """
    present = active(session)
    if present is None:
        raise Conflict("no model version is active; there is nothing to roll back")
    before = previous(session)
    target = before.version if before else "the configured weights"
    why = f"rolled back to {target}"
    said = Signed(signed.by, reason=f"{why}: {signed.reason}" if signed.reason else why)
    _move(session, present, ModelEvent.RETIRE, said, at, called=ROLLBACK)
    if before is not None:
        _move(session, before, ModelEvent.PROMOTE, signed, at, called=RESTORE)
    return before


def _evidence(session: Session, newest: Evaluation | None) -> Evidence | None:
    if newest is None:
        return None
    rule = session.get_one(Dataset, newest.dataset_id).rule
    rules = session.execute(select(Dataset.rule).order_by(Dataset.created_at.desc())).scalars()
    # tomosynthesis and 2D images have data sets of their own
    last = next(each for each in rules if each.get("kind") == rule.get("kind"))
    in_force = promotion.same_rule(rule, last)
    return Evidence.of(newest.against_id, newest.summary, in_force)


def _move(
    session: Session,
    row: ModelVersion,
    event: ModelEvent,
    signed: Signed,
    at: datetime,
    *,
    called: str | None = None,
    evaluation_id: uuid.UUID | None = None,
) -> None:
    """One event of the state machine and its decision; 0 rows say that somebody else was first."""
    was = ModelState(row.state)
    try:
        changed = transition(
            session,
            ModelVersion,
            event,
            [ModelVersion.id == row.id, ModelVersion.state == was],
        )
    except IntegrityError:
        changed = 0  # the index that lets one version be active: another was promoted meanwhile
    if not changed:
        raise Conflict(f"model {row.version!r} is {was}: it cannot {event.lower()} now; look again")
    if was == ModelState.SHADOW:
        _drop_waiting(session, row.version, at)
    to = ModelState(sources_and_target(event)[1])
    change = {"from_state": was, "to_state": to, "evaluation_id": evaluation_id}
    _record(session, row, called or event, signed, at, **change)


def _drop_waiting(session: Session, version: str, at: datetime) -> None:
    """Runs that a version in shadow has not begun are not wanted any more."""
    waiting = [Run.shadow.is_(True), Run.model_version == version, Run.state == RunState.QUEUED]
    transition(session, Run, RunEvent.SUPERSEDE, waiting, finished_at=at)


def _record(
    session: Session, row: ModelVersion, event: str, signed: Signed, at: datetime, **change: Any
) -> None:
    for name, person in (("--by", signed.by), ("--approved-by", signed.approved_by)):
        if person is not None:
            name_of(name, person)
    decision = ModelDecision(
        version_id=row.id,
        event=event,
        by=signed.by,
        approved_by=signed.approved_by,
        reason=signed.reason,
        overridden=signed.override,
        at=at,
        **change,
    )
    session.add(decision)
    session.flush()
