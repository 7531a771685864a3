"""`tomonode peer`: where results go."""

from __future__ import annotations

from typing import Annotated

import typer

from node import peers
from node.cli import output
from node.cli.context import database
from node.config import load_settings
from node.db import now
from node.deliveries import destination_of
from node.errors import ConfigError
from node.models import Peer

app = typer.Typer(help="Destinations of the results: DICOM Storage SCPs and STOW-RS services.")

Name = Annotated[str, typer.Argument(help="What you call the peer.")]


@app.command("list")
def list_(as_json: output.AsJson = False) -> None:
    """List the peers that results go to."""
    with database() as db, db.reading() as session:
        rows = [_row(peer) for peer in peers.listed(session)]
    if as_json:
        output.as_json(rows)
        return
    output.table(
        ("name", "kind", "address", "since"),
        [(row["name"], row["kind"], row["address"], row["created_at"]) for row in rows],
        "no peers: results stay in the node; `tomonode peer add` adds one",
    )


def _row(peer: Peer) -> dict[str, object]:
    columns = ("name", "kind", "ae_title", "host", "port", "url", "tls", "pin_sha256", "created_at")
    return {"address": peers.address(peer), **{name: getattr(peer, name) for name in columns}}


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
    pin: Annotated[
        str | None,
        typer.Option(
            help="SHA-256 of its certificate; without it an authority must vouch for the peer."
        ),
    ] = None,
) -> None:
    """Add a peer: NAME AE_TITLE HOST PORT, or NAME --url URL. Results of later runs go to it."""
    with database() as db, db.transaction() as session:
        at = now(session)
        if url is not None and tls:
            raise ConfigError(f"--tls is for an AE title; give peer {name!r} an https URL instead")
        if url is not None and ae_title is None:
            peer = peers.stow_peer(name, url, at, pin=pin)
        elif url is None and ae_title is not None and host is not None and port is not None:
            peer = peers.dicom_peer(name, ae_title, host, port, at, tls=tls, pin=pin)
        else:
            raise ConfigError(
                f"address of peer {name!r} is not clear; give AE_TITLE HOST PORT, or --url URL alone"
            )
        fresh = peers.add(session, peer)
        shown = f"{peer.name}: {peers.address(peer)}"
    output.say(f"added {shown}" if fresh else f"here already {shown}")


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
