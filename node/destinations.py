"""Who gets the results of a run, and which kinds: what the routing rules said of the run, else what each peer says.

The rules' answer is `runs.route`: `rule`, `destinations` (names of peers; None: every peer that takes results) and
`results` (kinds by name of peer, before the peer's own).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from node.models import Peer, Run
from node.results import USUAL, ordered

Route = Mapping[str, Any] | None


def of_run(session: Session, route: Route) -> tuple[list[Peer], list[str]]:
    """The peers that get what a run makes, by name, and names in its route of which no peer takes results now."""
    takers = select(Peer).where(Peer.enabled, Peer.receives).order_by(Peer.name)
    found = list(session.execute(takers).scalars())
    named = (route or {}).get("destinations")
    if named is None:
        return found, []
    there = {peer.name for peer in found}
    return [peer for peer in found if peer.name in named], sorted(set(named) - there)


def kinds_of(peer: Peer, route: Route) -> tuple[str, ...]:
    """The kinds that a peer gets of a run with this route, in the order of sending; none where it takes no results."""
    if not peer.receives:
        return ()
    of_rule = ((route or {}).get("results") or {}).get(peer.name)
    return ordered(of_rule or peer.results or USUAL)


def wanted(session: Session, run: Run) -> tuple[str, ...]:
    """The kinds that a run makes: the usual ones always, and what any of its destinations gets."""
    if run.shadow:
        return USUAL
    peers, _ = of_run(session, run.route)
    return ordered({*USUAL, *(kind for peer in peers for kind in kinds_of(peer, run.route))})
