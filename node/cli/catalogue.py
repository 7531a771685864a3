"""`tomonode catalogue`: what other systems find here by C-FIND and QIDO-RS."""

from __future__ import annotations

from typing import Annotated

import typer

from node.blobs import BlobStore
from node.catalogue import rebuild as making
from node.cli import output
from node.cli.context import database
from node.config import load_settings

app = typer.Typer(help="The catalogue: what other systems find here when they ask.")

_SHOWN = 20  # objects that are named where they cannot be read


@app.callback()
def main() -> None:
    """So that `rebuild` is a command, and not the whole of it."""


@app.command()
def rebuild(
    missing: Annotated[
        bool, typer.Option("--missing", help="Only objects that are not listed yet.")
    ] = False,
    as_json: output.AsJson = False,
) -> None:
    """List the stored objects anew from their headers: once after an upgrade, or when `doctor` says so. The node may
    run meanwhile. Interrupted and called again, it goes on. Exit code 1 if an object cannot be read."""
    settings = load_settings()
    listed = 0
    unreadable: list[str] = []
    with database(settings) as db:
        for done in making.rebuild(db, BlobStore.of(settings), only_missing=missing):
            listed += done.listed
            unreadable += done.unreadable
    if as_json:
        output.as_json({"listed": listed, "unreadable": unreadable})
    else:
        output.say(f"{listed} objects listed, {len(unreadable)} cannot be read")
        for sop_uid in unreadable[:_SHOWN]:
            output.say(f"gone or damaged: {sop_uid}")
    if unreadable:
        raise typer.Exit(1)
