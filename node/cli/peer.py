"""`tomonode peer`: where results go and studies come from."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import typer

from node import peers
from node.cli import output
from node.cli.context import database
from node.config import load_settings
from node.db import now
from node.deliveries import destination_of
from node.destinations import kinds_of
from node.errors import ConfigError
from node.models import Peer
from node.peer_parts import Part
from node.results import KINDS, USUAL, chosen, not_sent_along

app = typer.Typer(help="Other systems: where results go, and where studies are fetched from.")

Name = Annotated[str, typer.Argument(help="What you call the peer.")]
Results = Annotated[
    str | None,
    typer.Option(
        help=f"Kinds of results that it gets, with commas: {', '.join(KINDS)}. Left out: {','.join(USUAL)}."
    ),
]
NoResults = Annotated[bool, typer.Option("--no-results", help="It gets no results.")]
Query = Annotated[
    bool | None,
    typer.Option("--query/--no-query", help="Studies may be fetched from it (C-FIND, C-MOVE)."),
]
Pin = Annotated[
    str | None,
    typer.Option(
        help="SHA-256 of its certificate; without it an authority must vouch for the peer."
    ),
]
Commit = Annotated[
    bool | None,
    typer.Option("--commit/--no-commit", help="It is asked to commit what it was sent."),
]


@app.command("list")
def list_(as_json: output.AsJson = False) -> None:
    """List the peers, with what each gets and is for."""
    with database() as db, db.reading() as session:
        rows = [_row(peer) for peer in peers.listed(session)]
    if as_json:
        output.as_json(rows)
        return
    output.table(
        ("name", "kind", "address", "gets", "queried", "commits", "since"),
        [
            (
                row["name"],
                row["kind"],
                row["address"],
                row["results"] or "nothing",
                "yes" if row["queried"] else None,
                "yes" if row["commits"] else None,
                row["created_at"],
            )
            for row in rows
        ],
        "no peers: results stay in the node; `tomonode peer add` adds one",
    )


def _row(peer: Peer) -> dict[str, object]:
    columns = (
        *("name", "kind", "ae_title", "host", "port", "url", "tls", "pin_sha256"),
        *("receives", "queried", "commits", "created_at"),
    )
    return {
        "address": peers.address(peer),
        "results": list(kinds_of(peer, None)),
        **{name: getattr(peer, name) for name in columns},
    }


@app.command()
def add(
    name: Name,
    ae_title: Annotated[str | None, typer.Argument(help="AE title of a Storage SCP.")] = None,
    host: Annotated[str | None, typer.Argument(help="Its host name or address.")] = None,
    port: Annotated[int | None, typer.Argument(help="Its port.")] = None,
    url: Annotated[
        str | None, typer.Option(help="Base URL of a STOW-RS service, in place of AE title.")
    ] = None,
    tls: Annotated[bool, typer.Option("--tls", help="Its port speaks TLS.")] = False,
    pin: Pin = None,
    results: Results = None,
    no_results: NoResults = False,
    query: Query = None,
    commit: Commit = None,
) -> None:
    """Add a peer: NAME AE_TITLE HOST PORT, or NAME --url URL. Results of later runs go to it."""
    part = _part(results, no_results, query, commit)
    with database() as db, db.transaction() as session:
        where = (ae_title, host, port, url)
        peer = _peer(name, where, tls, pin, now(session))
        fresh = peers.add(session, peer, part)
        shown = f"{peer.name}: {peers.address(peer)}"
    output.say(f"added {shown}" if fresh else f"here already {shown}")
    _say_what_is_missing(part)


def _peer(
    name: str,
    where: tuple[str | None, str | None, int | None, str | None],
    tls: bool,
    pin: str | None,
    at: datetime,
) -> Peer:
    """A peer of its AE title, host and port, or of its URL."""
    ae_title, host, port, url = where
    if url is not None and tls:
        raise ConfigError(f"--tls is for an AE title; give peer {name!r} an https URL instead")
    if url is not None and ae_title is None:
        return peers.stow_peer(name, url, at, pin=pin)
    if url is None and ae_title is not None and host is not None and port is not None:
        return peers.dicom_peer(name, ae_title, host, port, at, tls=tls, pin=pin)
    raise ConfigError(
        f"address of peer {name!r} is not clear; give AE_TITLE HOST PORT, or --url URL alone"
    )


@app.command("set")
def set_(
    name: Name,
    results: Results = None,
    no_results: NoResults = False,
    query: Query = None,
    commit: Commit = None,
) -> None:
    """Change what a peer gets and is for; what is left out stays as it is.

    Kinds that it gets from now on are made by later runs; `tomonode delivery retry` sends it those that an earlier run
    made for others.
    """
    part = _part(results, no_results, query, commit)
    with database() as db, db.transaction() as session:
        cancelled = peers.change(session, name, part)
        gets = kinds_of(peers.find(session, name), None)
    ended = f"; {cancelled} waiting deliveries cancelled" if cancelled else ""
    output.say(f"{name} gets {', '.join(gets) or 'no results'}{ended}")
    _say_what_is_missing(part)


def _part(results: str | None, no_results: bool, query: bool | None, commit: bool | None) -> Part:
    if no_results and results is not None:
        raise ConfigError(f"--results {results} and --no-results exclude each other; give one")
    kinds = None if results is None else chosen(results.split(","))
    return Part(() if no_results else kinds, query, commit)


def _say_what_is_missing(part: Part) -> None:
    missing = not_sent_along(part.results or ())
    if missing:
        output.say(f"note: its documents refer to {', '.join(missing)}, which it does not get")


@app.command()
def remove(name: Name) -> None:
    """Send nothing to a peer any more; what waits to be sent to it is cancelled."""
    with database() as db, db.transaction() as session:
        cancelled = peers.remove(session, name)
    output.say(f"removed {name}; {cancelled} waiting deliveries cancelled")


@app.command()
def echo(name: Name) -> None:
    """Ask a peer whether it is there (C-ECHO; an HTTP request for STOW-RS)."""
    settings = load_settings()
    with database(settings) as db, db.reading() as session:
        destination = destination_of(peers.find(session, name))
    seconds = peers.reach(destination, settings)
    output.say(f"{name} answers; {seconds:.3f} s")
