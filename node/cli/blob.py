"""`tomonode blob`: the shared blob store."""

from __future__ import annotations

import typer

from node.blobs import BlobStore
from node.cli import output
from node.config import load_settings
from node.errors import ConfigError

app = typer.Typer(help="The blob store that several hosts share (TOMONODE_BLOB_URL).")


@app.callback()
def main() -> None:
    """So that `copy` is a command, and not the whole of it."""


@app.command()
def copy(as_json: output.AsJson = False) -> None:
    """Copy to the shared store what this host has and the store has not: once, when a node is given one. What comes
    later is copied by the listener and the workers. Interrupted and called again, it goes on."""
    store = BlobStore.of(load_settings())
    if store.remote is None:
        raise ConfigError(
            "there is no shared blob store; set TOMONODE_BLOB_URL, such as s3://bucket/prefix"
        )
    copied = known = 0
    for digest in store.digests():
        if store.remote.put(store.path(digest), digest):
            copied += 1
        else:
            known += 1
    if as_json:
        output.as_json({"store": store.remote.shown, "copied": copied, "there": known})
    else:
        output.say(f"{copied} blobs copied to {store.remote.shown}, {known} were there")
