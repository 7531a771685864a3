"""`tomonode pull`: studies fetched from a peer."""

from __future__ import annotations

import uuid
from dataclasses import asdict
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from node import peers, priors, pulls, studies
from node.cli import output
from node.cli.context import database
from node.config import Settings, load_settings
from node.db import Database, now
from node.deliveries import destination_of
from node.errors import ConfigError, Conflict, NotFound
from node.exchange_models import Pull
from node.lifecycle import PullState
from node.views.exchange import in_state, pull_views

_ORDER = "from"


class _PeerFirst(TyperGroup):
    """`tomonode pull PEER ...` is `tomonode pull from PEER ...`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the command's name before a first word that is none."""
        if args and not args[0].startswith("-") and args[0] not in self.commands:
            args = [_ORDER, *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_PeerFirst,
    help="Studies fetched from a peer by C-MOVE: one by its UID, priors, what is missing.",
)


@app.command(_ORDER)
def from_(
    peer: Annotated[str, typer.Argument(help="Name of a peer that may be queried.")],
    study: Annotated[str | None, typer.Option(help="Study Instance UID of a study.")] = None,
    of: Annotated[
        str | None,
        typer.Option("--priors", metavar="STUDY", help="Earlier studies of this one's patient."),
    ] = None,
    missing: Annotated[
        str | None,
        typer.Option(metavar="STUDY", help="What has not come of this study, which is here."),
    ] = None,
    years: Annotated[int, typer.Option(min=1, max=100, help="Of priors: how far back.")] = 10,
    most: Annotated[int, typer.Option(min=1, help="Of priors: at most, the newest first.")] = 3,
    as_json: output.AsJson = False,
) -> None:
    """Fetch from a peer: --study UID, --priors STUDY or --missing STUDY. The word `from` may be left out.

    By default no model is run on a study that came this way alone; `tomonode study retry` runs one.
    """
    if sum(one is not None for one in (study, of, missing)) != 1:
        raise ConfigError("say what to fetch: give one of --study, --priors and --missing")
    settings = load_settings()
    with database(settings) as db:
        if of is not None:
            ordered = _priors(db, peer, of, settings, years, most)
        elif missing is not None:
            ordered = [_missing(db, peer, missing, settings)]
        else:
            ordered = [_one(db, peer, str(study), settings)]
    if as_json:
        output.as_json([{"pull": one[0], "study_uid": one[1], "new": one[2]} for one in ordered])
        return
    for pull_id, study_uid, new in ordered:
        output.say(f"pull {pull_id} {'fetches' if new else 'is under way already:'} {study_uid}")
    if not ordered:
        output.say(f"{peer} has no prior of the last {years} years that is not here")


_Ordered = tuple[uuid.UUID, str, bool]


def _one(db: Database, peer: str, study_uid: str, settings: Settings) -> _Ordered:
    with db.transaction() as session:
        found = pulls.order(session, peers.find(session, peer), study_uid, pulls.OPERATOR, settings)
    return found[0], study_uid, found[1]


def _missing(db: Database, peer: str, study: str, settings: Settings) -> _Ordered:
    with db.transaction() as session:
        source, row = peers.find(session, peer), studies.find(session, study)
        if not studies.missing_views(session, row, settings):
            raise Conflict(
                f"study {row.study_uid} has all expected views; --study fetches it all the same"
            )
        found = pulls.order(session, source, row.study_uid, pulls.MISSING, settings, row)
        return found[0], row.study_uid, found[1]


def _priors(
    db: Database, peer: str, study: str, settings: Settings, years: int, most: int
) -> list[_Ordered]:
    with db.reading() as session:
        source = peers.find(session, peer)
        pulls.require_source(source)
        wanted = priors.wanted_of(studies.find(session, study), years)
        destination = destination_of(source)
    found = priors.ask(destination, wanted, settings)
    with db.transaction() as session:
        here = priors.here(session, [one.study_uid for one in found])
        chosen = priors.choose(found, wanted, here, most)
        source, row = peers.find(session, peer), studies.find(session, study)
        ordered = []
        for one in chosen:
            pull_id, new = pulls.order(session, source, one.study_uid, pulls.PRIOR, settings, row)
            ordered.append((pull_id, one.study_uid, new))
        return ordered


@app.command("list")
def list_(
    state: Annotated[str | None, typer.Option(help=f"One of {', '.join(PullState)}.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most this many, newest first.")] = 100,
    as_json: output.AsJson = False,
) -> None:
    """List pulls, newest first, each with what it waits for."""
    with database() as db, db.reading() as session:
        found = pull_views(session, now(session), in_state(Pull, state), limit)
    if as_json:
        output.as_json([asdict(one) for one in found])
        return
    output.table(
        ("pull", "peer", "study", "why", "state", "here", "of", "asked for", ""),
        [
            (
                one.id,
                one.peer,
                one.study_uid,
                one.why,
                one.state,
                one.arrived,
                one.expected,
                one.created_at,
                one.waits,
            )
            for one in found
        ],
        "no pulls yet" if state is None else f"no pulls are {state}",
    )


@app.command()
def cancel(pull: Annotated[str, typer.Argument(help="Id of a pull that has not ended.")]) -> None:
    """Fetch no more of a study; what has come stays."""
    try:
        pull_id = uuid.UUID(pull)
    except ValueError:
        raise NotFound(f"no pull {pull!r}; `tomonode pull list` shows what is here") from None
    with database() as db, db.transaction() as session:
        pulls.cancel(session, pull_id, now(session))
    output.say(f"pull {pull_id} is cancelled")
