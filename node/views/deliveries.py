"""Deliveries: to whom, how far, what the peer said of each object, and what is waited for."""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from node import destinations, peers
from node.config import Settings
from node.errors import ConfigError
from node.lifecycle import DeliveryState
from node.models import Artifact, Delivery, DeliveryInstance, Peer, Run, Study
from node.results import KINDS
from node.views.waiting import delivery_waits


@dataclass(frozen=True)
class SentObject:
    """One object of a delivery; `accepted` and `status` are None before the peer has answered."""

    kind: str
    name: str
    sop_uid: str
    accepted: bool | None
    status: str | None
    at: datetime | None


@dataclass(frozen=True)
class DeliveryView:
    """The sending of one run's results to one peer; `why` is empty when it is sent or cancelled."""

    id: uuid.UUID
    run_id: uuid.UUID
    study_uid: str
    peer: str
    address: str
    state: str
    why: str
    attempt: int
    error: str | None
    error_code: str | None
    created_at: datetime
    not_before: datetime
    deadline_at: datetime
    sent_at: datetime | None
    objects: tuple[SentObject, ...]

    @property
    def accepted(self) -> int:
        """How many objects the peer has taken."""
        return sum(item.accepted is True for item in self.objects)


@dataclass(frozen=True)
class DeliveryList:
    """A part of the deliveries, newest first; how many match in all, and how many there are in each state."""

    rows: tuple[DeliveryView, ...]
    total: int
    by_state: Mapping[str, int]


def delivery_list(
    session: Session,
    settings: Settings,
    at: datetime,
    state: str | None = None,
    limit: int = 100,
    offset: int = 0,
) -> DeliveryList:
    """Deliveries, newest first.

    Raises:
        ConfigError: no such state.
    """
    by_state = {one.value: 0 for one in DeliveryState}
    if state is not None and state not in by_state:
        raise ConfigError(f"state {state!r} is none of {', '.join(by_state)}")
    counted = select(Delivery.state, func.count()).group_by(Delivery.state)
    for one, count in session.execute(counted):
        by_state[one] = count
    query = select(Delivery.id).order_by(Delivery.created_at.desc(), Delivery.id)
    if state is not None:
        query = query.where(Delivery.state == state)
    ids = session.execute(query.limit(limit).offset(offset)).scalars().all()
    views = delivery_views(session, Delivery.id.in_(ids), settings, at)
    total = by_state[state] if state is not None else sum(by_state.values())
    return DeliveryList(views, total, by_state)


def delivery_views(
    session: Session, which: ColumnElement[bool], settings: Settings, at: datetime
) -> tuple[DeliveryView, ...]:
    """The deliveries that the condition matches, newest first, in three queries."""
    query = (
        select(Delivery, Peer, Study.study_uid, Run.route)
        .join(Peer, Peer.id == Delivery.peer_id)
        .join(Run, Run.id == Delivery.run_id)
        .join(Study, Study.id == Run.study_id)
        .where(which)
        .order_by(Delivery.created_at.desc(), Delivery.id)
    )
    found = session.execute(query).all()
    artifacts = _artifacts(session, [row.Delivery.run_id for row in found])
    answers = _answers(session, [row.Delivery.id for row in found])
    views = []
    for delivery, peer, study_uid, route in found:
        kinds = destinations.kinds_of(peer, route)
        answered = [(a, answers.get((delivery.id, a.id))) for a in artifacts[delivery.run_id]]
        objects = tuple(
            _sent_object(artifact, answer)
            for artifact, answer in answered
            if answer is not None or artifact.kind in kinds
        )
        views.append(
            DeliveryView(
                id=delivery.id,
                run_id=delivery.run_id,
                study_uid=study_uid,
                peer=peer.name,
                address=peers.address(peer),
                state=delivery.state,
                why=delivery_waits(delivery, settings, at),
                attempt=delivery.attempt,
                error=delivery.error,
                error_code=delivery.error_code,
                created_at=delivery.created_at,
                not_before=delivery.not_before,
                deadline_at=delivery.deadline_at,
                sent_at=delivery.sent_at,
                objects=objects,
            )
        )
    return tuple(views)


def _artifacts(
    session: Session, run_ids: Sequence[uuid.UUID]
) -> Mapping[uuid.UUID, list[Artifact]]:
    """What can be sent of each run, in the order of sending."""
    out: dict[uuid.UUID, list[Artifact]] = defaultdict(list)
    query = select(Artifact).where(Artifact.run_id.in_(run_ids), Artifact.sop_uid.is_not(None))
    found = session.execute(query).scalars()
    for artifact in sorted(found, key=lambda a: (KINDS.index(a.kind), a.name)):
        out[artifact.run_id].append(artifact)
    return out


def _answers(
    session: Session, ids: Sequence[uuid.UUID]
) -> Mapping[tuple[uuid.UUID, uuid.UUID], DeliveryInstance]:
    query = select(DeliveryInstance).where(DeliveryInstance.delivery_id.in_(ids))
    return {
        (answer.delivery_id, answer.artifact_id): answer
        for answer in session.execute(query).scalars()
    }


def _sent_object(artifact: Artifact, answer: DeliveryInstance | None) -> SentObject:
    return SentObject(
        kind=artifact.kind,
        name=artifact.name,
        sop_uid=artifact.sop_uid or "",
        accepted=answer.accepted if answer else None,
        status=answer.status if answer else None,
        at=answer.at if answer else None,
    )
